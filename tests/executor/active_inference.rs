//! Active inference, its stages and the vector operations beside it.

use kasmina::Device;
use kasmina::types::DType;
use kasmina_tests::information::active_inference::stages::{
    check_gemv, check_stages, check_vectors,
};
use kasmina_tests::information::active_inference::{
    Case, check_curvature, check_inferences, check_published, check_refusals, check_steps,
};
use proptest::prelude::*;

use super::shuffled;

const CASE: Case = Case { models: 1, observations: 1, states: 1, jacobian: DType::F64, seed: 7 };

/// A tolerance that the executor comes to in few steps.
const LOOSE: f64 = 0.05;

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F64), Just(DType::F32)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn ragged_shapes(
        models in 1usize..3, observations in 1usize..100, states in 1usize..50, jacobian in dtype(), seed: u64,
    ) {
        let case = Case { models, observations, states, jacobian, seed };
        check_steps(&shuffled(seed), case);
        check_inferences(&shuffled(seed), case, LOOSE);
        check_stages(&shuffled(seed), case);
        check_curvature(&shuffled(seed), case);
        check_steps(&Device::Cpu, case);
        check_inferences(&Device::Cpu, case, 1e-10);
        check_stages(&Device::Cpu, case);
    }

    #[test]
    fn matrices_and_vectors(rows in 1usize..100, columns in 1usize..100, seed: u64) {
        for device in [shuffled(seed), Device::Cpu] {
            check_gemv::<f64>(&device, rows, columns, seed);
            check_gemv::<f32>(&device, rows, columns, seed);
            check_vectors::<f64>(&device, rows * 7, seed);
            check_vectors::<f32>(&device, columns * 7, seed);
        }
    }
}

#[test]
fn published_cases() {
    check_published(&shuffled(5), 50);
    check_published(&Device::Cpu, usize::MAX);
}

/// One row, one state; a block for a model and several; more models than blocks.
#[test]
fn small_models_and_many() {
    for (models, observations, states) in
        [(1, 1, 1), (1, 1, 9), (1, 70, 1), (20, 5, 3), (3, 130, 4)]
    {
        let case = Case { models, observations, states, ..CASE };
        check_steps(&shuffled(3), case);
        check_inferences(&shuffled(4), case, LOOSE);
    }
}

/// On both sides of what a team of 1, 4 and 16 warps has room for, and beyond.
#[test]
fn states_at_the_edges() {
    for states in [63, 64, 65, 255, 256, 257, 1024, 1025, 4096, 4097] {
        for jacobian in [DType::F64, DType::F32] {
            let case = Case { observations: 5, states, jacobian, ..CASE };
            check_steps(&shuffled(states as u64), case);
        }
    }
}

/// Rows that stay in registers, and rows that are fetched again, in each kind of team.
#[test]
fn whole_inferences_of_wide_models() {
    for (observations, states) in [(9, 300), (200, 260), (3, 1030), (60, 1030), (3, 4100)] {
        let case = Case { observations, states, ..CASE };
        check_inferences(&shuffled(states as u64), case, LOOSE);
        check_curvature(&shuffled(states as u64), case);
    }
}

#[test]
fn what_means_nothing_is_refused() {
    check_refusals(&shuffled(1));
    check_refusals(&Device::Cpu);
}
