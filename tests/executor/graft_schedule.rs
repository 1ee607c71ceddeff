//! `graft_schedule`.

use kasmina_tests::kasmina::graft_schedule::{check, check_refusals};
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn epochs(num_seeds in 1usize..700, seed: u64) {
        check(&shuffled(seed), num_seeds, 9, seed);
    }
}

/// Long enough for every ramp to end and every ring to turn.
#[test]
fn a_whole_graft() {
    check(&shuffled(3), 70, 60, 3);
    check(&kasmina::Device::Cpu, 300, 60, 4);
}

#[test]
fn what_does_not_fit_is_refused() {
    check_refusals(&shuffled(1));
    check_refusals(&kasmina::Device::Cpu);
}
