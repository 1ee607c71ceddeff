//! `telemetry_reduce`.

use half::{bf16, f16};
use kasmina::Device;
use kasmina_tests::kasmina::blend_forward::Case;
use kasmina_tests::kasmina::telemetry_reduce::{check, check_large_values, check_refusals};
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn ragged_shapes_f32(batch in 1usize..60, num_seeds in 1usize..24, chunk_size in 1usize..90, seed: u64, broken_inputs: bool) {
        check::<f32>(&shuffled(seed), Case { batch, num_seeds, chunk_size, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_f16(batch in 1usize..40, num_seeds in 1usize..24, chunk_size in 1usize..60, seed: u64, broken_inputs: bool) {
        check::<f16>(&shuffled(seed), Case { batch, num_seeds, chunk_size, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_bf16(batch in 1usize..40, num_seeds in 1usize..24, chunk_size in 1usize..60, seed: u64, broken_inputs: bool) {
        check::<bf16>(&shuffled(seed), Case { batch, num_seeds, chunk_size, seed, broken_inputs });
    }
}

/// Chunks of one vector, of a team's, of a warp's, and of a little more, for every access width.
#[test]
fn chunk_sizes_at_the_edges() {
    for (i, chunk_size) in
        [1, 2, 3, 4, 8, 16, 31, 32, 33, 64, 124, 128, 132, 256, 264, 1000].into_iter().enumerate()
    {
        let case =
            Case { batch: 13, num_seeds: 7, chunk_size, seed: i as u64, broken_inputs: true };
        check::<f32>(&shuffled(1), case);
        check::<f16>(&shuffled(2), case);
        check::<bf16>(&shuffled(3), case);
    }
}

/// Several slabs for a group, and long chunks.
#[test]
fn tall_batches_and_long_chunks() {
    let case = Case { batch: 700, num_seeds: 3, chunk_size: 12, seed: 7, broken_inputs: true };
    check::<f32>(&shuffled(4), case);
    check::<f16>(&shuffled(5), Case { chunk_size: 24, ..case });
    check::<f32>(&shuffled(6), Case { batch: 40, chunk_size: 1500, ..case });
    check::<f32>(&Device::Cpu, Case { batch: 300, ..case });
}

#[test]
fn values_whose_squares_overflow() {
    check_large_values(&shuffled(1));
}

#[test]
fn what_does_not_fit_is_refused() {
    check_refusals(&shuffled(1));
    check_refusals(&Device::Cpu);
}
