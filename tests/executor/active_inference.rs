//! Active inference and its stages.

use kasmina::types::DType;
use kasmina::{Device, Executor};
use kasmina_tests::information::active_inference::published::{check_cases, check_scalar_kalman};
use kasmina_tests::information::active_inference::stages::check_stages;
use kasmina_tests::information::active_inference::{
    Case, Spectrum, check_all, check_inferences, check_no_steps, check_not_finite, check_outliers,
    check_refusals, check_steady_steps, check_steps, check_steps_and_curvature,
};
use proptest::prelude::*;

use super::shuffled;

/// A tolerance that the executor comes to in few steps.
const LOOSE: f64 = 0.5;

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

/// A model whose power iteration is short.
fn apart(models: usize, observations: usize, states: usize) -> Case {
    wide(models, observations, states)[0]
}

/// The executor without its checks, for what only the values can show.
fn unchecked(seed: u64) -> Device {
    Device::Simt(Executor::new().shuffled(seed))
}

/// The same without bulk copies.
fn without_bulk(case: Case) -> Case {
    Case { bulk_copies: false, ..case }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn ragged_shapes(
        models in 1usize..3, observations in 1usize..100, states in 1usize..50, jacobian in dtype(), seed: u64,
    ) {
        let case = Case { jacobian, seed, ..Case::new(models, observations, states) };
        check_all(&shuffled(seed), case, LOOSE);
        check_stages(&shuffled(seed), case);
        check_all(&Device::Cpu, case, 1e-10);
        check_stages(&Device::Cpu, case);
    }
}

#[test]
fn published_cases() {
    check_cases(&shuffled(5), 10);
    check_cases(&Device::Cpu, usize::MAX);
}

#[test]
fn published_filter() {
    check_scalar_kalman(&shuffled(5), 2, 100);
    check_scalar_kalman(&Device::Cpu, usize::MAX, usize::MAX);
}

/// Where power iteration could settle at a smaller curvature.
#[test]
fn one_large_curvature() {
    check_outliers(&unchecked(6), &[7, 35], 0.01);
    check_outliers(&Device::Cpu, &[0, 7, 20, 35], 1e-10);
}

/// One row, one state; a block for a model and several; more models than blocks.
#[test]
fn small_models_and_many() {
    for (models, observations, states) in
        [(1, 1, 1), (1, 1, 9), (1, 70, 1), (13, 5, 3), (2, 130, 4)]
    {
        check_all(&shuffled(3), apart(models, observations, states), LOOSE);
    }
}

/// On both sides of what a team of 1, 4 and 16 warps has room for, and beyond.
#[test]
fn states_at_the_edges() {
    for states in [63, 64, 65, 256, 257, 1024, 1025, 4096, 4097] {
        for case in wide(1, 3, states) {
            check_steps(&shuffled(states as u64), case);
        }
    }
}

/// Teams of 16 warps, which bulk copies replace where there are any.
#[test]
fn states_at_the_edges_without_bulk_copies() {
    for states in [1025, 4096] {
        for case in wide(1, 3, states) {
            check_steps(&shuffled(states as u64), without_bulk(case));
        }
    }
}

/// Each kind of sweep, by one block a model and by several.
#[test]
fn whole_inferences_of_wide_models() {
    let shapes = [(3, 70), (9, 300), (5, 1030), (3, 4100)];
    for case in shapes.into_iter().flat_map(|(rows, states)| wide(1, rows, states)) {
        check_inferences(&shuffled(case.seed), case, LOOSE);
    }
}

#[test]
fn whole_inferences_without_bulk_copies() {
    for case in wide(1, 4, 1030) {
        check_inferences(&shuffled(case.seed), without_bulk(case), LOOSE);
    }
}

// A block a model, whose teams have more turns than a warp holds the numbers of, and more rows than they hold.

#[test]
fn more_turns_than_a_window_of_teams_of_one_warp() {
    check_steps_and_curvature(&unchecked(8), apart(7, 390, 3));
}

#[test]
fn more_turns_than_a_window_of_teams_of_four_warps() {
    check_steps_and_curvature(&unchecked(8), apart(7, 98, 260));
}

#[test]
fn more_turns_than_a_window_of_teams_of_sixteen_warps() {
    check_steps_and_curvature(&unchecked(8), without_bulk(apart(7, 26, 1030)));
}

#[test]
fn more_turns_than_a_window_of_bulk_copies() {
    check_steps_and_curvature(&unchecked(8), apart(7, 50, 1030));
}

/// Blocks that take a model after the other, and rows that are copied again in each pass.
#[test]
fn more_models_than_blocks_with_bulk_copies() {
    check_all(&unchecked(9), apart(13, 5, 1030), LOOSE);
}

#[test]
fn no_steps() {
    for case in [apart(2, 30, 20), apart(3, 5, 1)] {
        check_no_steps(&shuffled(2), case);
        check_no_steps(&Device::Cpu, case);
    }
}

/// With several blocks a model, and with one.
#[test]
fn beliefs_that_are_not_finite() {
    for case in [apart(2, 130, 20), apart(3, 3, 5)] {
        check_not_finite(&shuffled(2), case);
        check_not_finite(&Device::Cpu, case);
    }
}

#[test]
fn steady_steps() {
    check_steady_steps(&shuffled(2), apart(1, 130, 20));
}

#[test]
fn what_means_nothing_is_refused() {
    check_refusals(&shuffled(1));
    check_refusals(&Device::Cpu);
}
