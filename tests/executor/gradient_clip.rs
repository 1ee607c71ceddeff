//! `gradient_clip`.

use kasmina::Device;
use kasmina_tests::kasmina::blend_forward::Case;
use kasmina_tests::kasmina::gradient_clip::{check_every_mode, check_large_values, check_refusals};
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn ragged_shapes(num_seeds in 1usize..400, chunk_size in 1usize..80, seed: u64, broken_inputs: bool) {
        let case = Case { batch: 1, num_seeds, chunk_size, seed, broken_inputs };
        check_every_mode(&shuffled(seed), case);
        check_every_mode(&Device::Cpu, case);
    }
}

/// Rows of several turns of a block.
#[test]
fn long_rows() {
    for chunk_size in [1023, 1024, 1025, 2500] {
        let case = Case { batch: 1, num_seeds: 9, chunk_size, seed: 2, broken_inputs: false };
        check_every_mode(&shuffled(1), case);
    }
}

#[test]
fn values_whose_squares_overflow() {
    check_large_values(&shuffled(1));
    check_large_values(&Device::Cpu);
}

#[test]
fn what_means_nothing_is_refused() {
    check_refusals(&shuffled(1));
    check_refusals(&Device::Cpu);
}
