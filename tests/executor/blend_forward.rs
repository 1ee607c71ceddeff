//! `blend_forward`.

use half::{bf16, f16};
use kasmina_tests::kasmina::blend_forward::{Case, check, check_by_seed};
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

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

/// The smallest chunks, and those around a strip's width, for every access width.
#[test]
fn chunk_sizes_at_the_edges() {
    for (i, chunk_size) in [1, 2, 3, 4, 5, 7, 8, 16, 255, 256, 257, 516, 1023, 1024, 1025, 2052]
        .into_iter()
        .enumerate()
    {
        let case =
            Case { batch: 5, num_seeds: 11, chunk_size, seed: i as u64, broken_inputs: true };
        check::<f32>(&shuffled(1), case);
        check::<f16>(&shuffled(2), case);
        check::<bf16>(&shuffled(3), case);
    }
}

/// A block for a seed: batches around one and several groups of rows, and chunks of one vector to a warp's.
#[test]
fn seeds_of_a_block_each() {
    for (num_seeds, chunk_size) in [(48, 64), (1, 64), (11, 8), (7, 16), (5, 4), (24, 128)] {
        for batch in [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 45, 64] {
            let seed = batch as u64;
            let case = Case { batch, num_seeds, chunk_size, seed, broken_inputs: true };
            check_by_seed::<f32>(&shuffled(seed), case);
            check_by_seed::<f16>(&shuffled(seed), case);
            check_by_seed::<bf16>(&shuffled(seed), case);
        }
    }
}

/// Chunks longer than many strips, and one row or many.
#[test]
fn long_chunks_and_tall_batches() {
    let case = Case { batch: 3, num_seeds: 6, chunk_size: 5000, seed: 7, broken_inputs: false };
    check::<f32>(&shuffled(4), case);
    check::<f32>(&shuffled(5), Case { batch: 1, chunk_size: 4999, ..case });
    check::<f32>(&shuffled(6), Case { batch: 700, chunk_size: 12, num_seeds: 11, ..case });
    check::<f16>(&shuffled(7), Case { batch: 301, chunk_size: 24, num_seeds: 11, ..case });
}

#[test]
fn values_whose_squares_overflow() {
    kasmina_tests::kasmina::blend_forward::check_large_values(&shuffled(1));
}

#[test]
fn a_telemetry_array_of_the_wrong_length_is_refused() {
    kasmina_tests::kasmina::blend_forward::check_short_telemetry(&shuffled(1));
}
