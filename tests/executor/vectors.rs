//! `axpby` and the operations beside it.

use kasmina::Device;
use kasmina_tests::information::vectors::check_vectors;
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn vectors(rows in 1usize..100, columns in 1usize..100, seed: u64) {
        for device in [shuffled(seed), Device::Cpu] {
            check_vectors::<f64>(&device, rows * 7, seed);
            check_vectors::<f32>(&device, columns * 7, seed);
        }
    }
}
