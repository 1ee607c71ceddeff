//! Active inference and its stages.

use kasmina::Device;
use kasmina::types::DType;
use kasmina_tests::information::active_inference::published::{check_cases, check_scalar_kalman};
use kasmina_tests::information::active_inference::stages::check_stages;
use kasmina_tests::information::active_inference::{
    Case, Spectrum, check_curvature, check_inferences, check_no_steps, check_not_finite,
    check_outliers, check_refusals, check_steady_steps, check_steps,
};
use proptest::prelude::*;

use super::shuffled;

/// A tolerance that the executor comes to in few steps.
const LOOSE: f64 = 0.05;

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F64), Just(DType::F32)]
}

/// Models whose power iteration is short, with J in f64 and in f32.
fn wide(models: usize, observations: usize, states: usize) -> [Case; 2] {
    [DType::F64, DType::F32].map(|jacobian| {
        let (spectrum, seed) = (Spectrum::Apart, states as u64);
        Case { jacobian, spectrum, seed, ..Case::new(models, observations, states) }
    })
}

/// The same without bulk copies.
fn without_bulk(case: Case) -> Case {
    Case { bulk_copies: false, ..case }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn ragged_shapes(
        models in 1usize..3, observations in 1usize..100, states in 1usize..50, jacobian in dtype(), seed: u64,
    ) {
        let case = Case { jacobian, seed, ..Case::new(models, observations, states) };
        check_steps(&shuffled(seed), case);
        check_inferences(&shuffled(seed), case, LOOSE);
        check_stages(&shuffled(seed), case);
        check_curvature(&shuffled(seed), case);
        check_steps(&Device::Cpu, case);
        check_inferences(&Device::Cpu, case, 1e-10);
        check_stages(&Device::Cpu, case);
    }
}

#[test]
fn published_cases() {
    check_cases(&shuffled(5), 201);
    check_cases(&Device::Cpu, usize::MAX);
}

#[test]
fn published_filter() {
    check_scalar_kalman(&shuffled(5));
    check_scalar_kalman(&Device::Cpu);
}

/// Where power iteration could settle at a smaller curvature.
#[test]
fn one_large_curvature() {
    check_outliers(&shuffled(6));
    check_outliers(&Device::Cpu);
}

/// One row, one state; a block for a model and several; more models than blocks.
#[test]
fn small_models_and_many() {
    for (models, observations, states) in
        [(1, 1, 1), (1, 1, 9), (1, 70, 1), (20, 5, 3), (3, 130, 4)]
    {
        let case = Case::new(models, observations, states);
        check_steps(&shuffled(3), case);
        check_inferences(&shuffled(4), case, LOOSE);
    }
}

/// On both sides of what a team of 1, 4 and 16 warps has room for, and beyond.
#[test]
fn states_at_the_edges() {
    for states in [63, 64, 65, 255, 256, 257, 1024, 1025, 4096, 4097] {
        for case in wide(1, 5, states) {
            check_steps(&shuffled(states as u64), case);
        }
    }
}

/// Teams of 16 warps, which bulk copies replace where there are any.
#[test]
fn states_at_the_edges_without_bulk_copies() {
    for states in [1025, 4096] {
        for case in wide(1, 5, states) {
            check_steps(&shuffled(states as u64), without_bulk(case));
        }
    }
}

/// Rows that stay in registers, and rows that are fetched again, in each kind of team.
#[test]
fn whole_inferences_of_wide_models() {
    let shapes = [(9, 70), (9, 300), (200, 260), (3, 1030), (60, 1030), (3, 4100)];
    for case in shapes.into_iter().flat_map(|(rows, states)| wide(1, rows, states)) {
        check_inferences(&shuffled(case.seed), case, LOOSE);
        check_curvature(&shuffled(case.seed), case);
    }
}

#[test]
fn whole_inferences_without_bulk_copies() {
    for case in [3, 60].into_iter().flat_map(|rows| wide(1, rows, 1030)) {
        check_inferences(&shuffled(case.seed), without_bulk(case), LOOSE);
        check_curvature(&shuffled(case.seed), without_bulk(case));
    }
}

/// A block a model, whose teams have more turns than a warp holds the numbers of.
#[test]
fn more_turns_than_a_window() {
    for (rows, states) in [(450, 3), (450, 70), (110, 300), (60, 1030)] {
        let [case, _] = wide(7, rows, states);
        check_steps(&shuffled(8), case);
    }
    let [case, _] = wide(7, 30, 1030);
    check_steps(&shuffled(8), without_bulk(case));
}

/// Blocks that take a model after the other, in each kind of sweep.
#[test]
fn more_models_than_blocks() {
    for (rows, states) in [(5, 70), (5, 300), (5, 1030), (3, 4100)] {
        for case in wide(13, rows, states) {
            check_steps(&shuffled(9), case);
        }
    }
    let [bulk, _] = wide(13, 5, 1030);
    check_inferences(&shuffled(9), bulk, LOOSE);
    check_steps(&shuffled(9), without_bulk(bulk));
}

#[test]
fn no_steps() {
    for case in [Case::new(2, 30, 20), Case::new(3, 5, 1)] {
        check_no_steps(&shuffled(2), case);
        check_no_steps(&Device::Cpu, case);
    }
}

/// With several blocks a model, and with one.
#[test]
fn beliefs_that_are_not_finite() {
    for case in [Case::new(2, 130, 20), Case::new(13, 3, 5)] {
        check_not_finite(&shuffled(2), case);
        check_not_finite(&Device::Cpu, case);
    }
}

#[test]
fn steady_steps() {
    check_steady_steps(&shuffled(2), Case::new(2, 130, 20));
}

#[test]
fn what_means_nothing_is_refused() {
    check_refusals(&shuffled(1));
    check_refusals(&Device::Cpu);
}
