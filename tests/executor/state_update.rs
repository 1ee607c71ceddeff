//! `state_update`.

use kasmina::Device;
use kasmina_tests::kasmina::state_update::{
    check, check_capacity, check_every_transition, check_fields,
};
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn batches(num_seeds in 1usize..200, batch in 1usize..600, seed: u64) {
        check(&shuffled(seed), num_seeds, batch, seed);
    }

    /// Most updates of a window wait for others of their seed.
    #[test]
    fn few_seeds_of_many_updates(num_seeds in 1usize..6, batch in 1usize..300, seed: u64) {
        check(&shuffled(seed), num_seeds, batch, seed);
    }

    #[test]
    fn batches_on_the_cpu(num_seeds in 1usize..200, batch in 1usize..600, seed: u64) {
        check(&Device::Cpu, num_seeds, batch, seed);
    }
}

#[test]
fn every_state_to_every_byte() {
    check_every_transition(&shuffled(1));
    check_every_transition(&Device::Cpu);
}

#[test]
fn masks_and_wrong_values() {
    check_fields(&shuffled(1));
    check_fields(&Device::Cpu);
}

#[test]
fn a_batch_longer_than_the_capacity_is_refused() {
    check_capacity(&shuffled(1));
    check_capacity(&Device::Cpu);
}
