//! `activation_norm`, forward and backward.

use half::{bf16, f16};
use kasmina::Device;
use kasmina_tests::normalization::activation_norm::{
    Case, check, check_large_offset, check_no_parameter_gradients, check_refusals,
};
use proptest::prelude::*;

use super::shuffled;

fn check_every_dtype(device: &Device, case: Case) {
    check::<f32>(device, case);
    check::<f16>(device, case);
    check::<bf16>(device, case);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn ragged_shapes(rows in 1usize..60, cols in 1usize..400, seed: u64, broken: bool) {
        check_every_dtype(&shuffled(seed), Case { broken, ..Case::of(rows, cols, seed) });
    }

    #[test]
    fn whole_vectors(rows in 1usize..40, vectors in 1usize..80, seed: u64) {
        check_every_dtype(&shuffled(seed), Case::of(rows, 8 * vectors, seed));
    }
}

/// Every activation, norm and order, with and without parameters.
#[test]
fn every_option() {
    for seed in 0..56 {
        check_every_dtype(&shuffled(seed), Case::of(5, 72, seed));
    }
}

/// Columns around the sizes of teams and chunks, for both access widths.
#[test]
fn columns_at_the_edges() {
    let cols = [1, 2, 31, 32, 33, 255, 256, 257, 1000, 1023, 1024, 1025, 2048, 2049, 4096];
    for (i, cols) in cols.into_iter().enumerate() {
        // The seeds go through the options.
        check_every_dtype(&shuffled(i as u64), Case::of(3, cols, 5 * i as u64));
    }
}

/// Rows that no block holds, of one chunk and a part to several.
#[test]
fn rows_longer_than_a_block_holds() {
    for (seed, cols) in [(4, 5000), (16, 8192), (30, 16_384), (11, 8200), (25, 4099)] {
        check::<f32>(&shuffled(seed), Case::of(2, cols, seed));
        check::<bf16>(&shuffled(seed), Case::of(2, cols, seed + 1));
    }
    for seed in [2, 9, 16, 23] {
        let case = Case { broken: true, ..Case::of(4, 16_384, seed) };
        check::<f16>(&shuffled(seed), case);
    }
}

/// More rows than blocks have teams, so that each takes several.
#[test]
fn many_rows() {
    for (seed, rows, cols) in [(3, 4000, 3), (18, 700, 64), (45, 50, 2048), (6, 30, 4104)] {
        check::<f32>(&shuffled(seed), Case::of(rows, cols, seed));
        check::<f16>(&shuffled(seed), Case::of(rows / 2, cols, seed + 1));
    }
}

#[test]
fn a_large_offset_costs_no_accuracy() {
    check_large_offset(&shuffled(1));
    check_large_offset(&Device::Cpu);
}

#[test]
fn what_does_not_fit_is_refused() {
    check_refusals(&shuffled(1));
    check_refusals(&Device::Cpu);
}

#[test]
fn the_parameters_gradients_can_be_left_out() {
    check_no_parameter_gradients(&shuffled(1));
    check_no_parameter_gradients(&Device::Cpu);
}

/// The CPU's way through the reference.
#[test]
fn the_cpu() {
    for seed in 0..56 {
        check_every_dtype(&Device::Cpu, Case::of(4, 37, seed));
    }
}
