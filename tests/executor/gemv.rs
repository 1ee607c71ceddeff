//! Products of matrices and vectors.

use half::bf16;
use kasmina::Device;
use kasmina_tests::linear::gemv::{Value, check_gemv, check_refusals};
use proptest::prelude::*;

use super::shuffled;

fn every_type(device: &Device, shape: [usize; 3], seed: u64) {
    fn of<T: Value>(device: &Device, shape: [usize; 3], seed: u64) {
        check_gemv::<T>(device, shape, seed);
    }
    of::<f64>(device, shape, seed);
    of::<f32>(device, shape, seed);
    of::<bf16>(device, shape, seed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn ragged_shapes(batch in 1usize..4, rows in 1usize..100, columns in 1usize..100, seed: u64) {
        for device in [shuffled(seed), Device::Cpu] {
            every_type(&device, [batch, rows, columns], seed);
            every_type(&device, [batch, rows, columns.next_multiple_of(8)], seed);
        }
    }
}

/// Long rows, which blocks share, tall matrices, and nothing.
#[test]
fn shapes_at_the_edges() {
    for shape in
        [[1, 3, 20_000], [1, 2, 9001], [1, 3000, 24], [2, 1000, 5], [1, 0, 8], [1, 5, 0], [0, 2, 2]]
    {
        every_type(&shuffled(7), shape, 11);
    }
    check_refusals(&shuffled(1));
}
