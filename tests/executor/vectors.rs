//! `gemv`, `axpby` and the operations beside them.

use kasmina::Device;
use kasmina_tests::information::vectors::{check_gemv, check_vectors};
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

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
