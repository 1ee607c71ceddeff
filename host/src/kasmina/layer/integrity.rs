//! CRC-32 of a layer's state.

use crc32fast::Hasher;

use crate::kasmina::{GraftStates, SeedStates};

/// The CRC-32 of a whole state: every array under its name, with its length, in little-endian bytes.
///
/// ```
/// use kasmina::kasmina::{GraftStates, SeedStates, state_checksum};
///
/// let states = SeedStates { lifecycle: vec![0], chunk_size: 4, ..SeedStates::default() };
/// let crc = state_checksum(&states, &GraftStates::new(1));
/// let other = SeedStates { lifecycle: vec![1], ..states.clone() };
/// assert_eq!(crc, state_checksum(&states, &GraftStates::new(1)));
/// assert_ne!(crc, state_checksum(&other, &GraftStates::new(1)));
/// ```
pub fn state_checksum(states: &SeedStates, graft: &GraftStates) -> u32 {
    let mut crc = Crc::default();
    crc.array("lifecycle", &states.lifecycle, |v| [*v]);
    crc.array("blueprint_id", &states.blueprint_id, |v| v.to_le_bytes());
    crc.array("alpha", &states.alpha, |v| v.to_le_bytes());
    crc.graft(graft);
    crc.array("blueprint_type", &states.blueprint_type, |v| [*v]);
    crc.array("blueprint_weights", &states.blueprint_weights, |v| v.to_le_bytes());
    crc.array("blueprint_scales", &states.blueprint_scales, |v| v.to_le_bytes());
    crc.array("chunk_size", &[states.chunk_size as u64], |v| v.to_le_bytes());
    crc.finish()
}

#[derive(Default)]
pub(super) struct Crc(Hasher);

impl Crc {
    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }

    pub(super) fn array<T, const N: usize>(
        &mut self,
        name: &str,
        values: &[T],
        bytes: impl Fn(&T) -> [u8; N],
    ) {
        self.0.update(name.as_bytes());
        self.0.update(&(values.len() as u64).to_le_bytes());
        for value in values {
            self.0.update(&bytes(value));
        }
    }

    pub(super) fn graft(&mut self, graft: &GraftStates) {
        self.array("schedule", &graft.schedule, |v| [*v]);
        self.array("alpha_target", &graft.alpha_target, |v| v.to_le_bytes());
        self.array("ramp_epochs", &graft.ramp_epochs, |v| v.to_le_bytes());
        self.array("epochs_in_state", &graft.epochs_in_state, |v| v.to_le_bytes());
        self.array("baseline_loss", &graft.baseline_loss, |v| v.to_le_bytes());
        self.array("drift_history", &graft.drift_history, |v| v.to_le_bytes());
        self.array("drift_count", &graft.drift_count, |v| v.to_le_bytes());
        self.array("embargo_epochs", &graft.embargo_epochs, |v| v.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> SeedStates {
        SeedStates {
            lifecycle: vec![0, 3],
            blueprint_id: vec![0, 1],
            alpha: vec![0.0, 0.5],
            blueprint_type: vec![0, 4],
            blueprint_weights: vec![0.0, 0.0, 1.0, 2.0],
            blueprint_scales: vec![0.0, 1.5],
            chunk_size: 2,
        }
    }

    /// Every bit of every array counts.
    #[test]
    fn each_flipped_bit_changes_it() {
        let (states, graft) = (states(), GraftStates::new(2));
        let good = state_checksum(&states, &graft);
        for bit in 0..32 {
            let flip = |value: f32| f32::from_bits(value.to_bits() ^ 1 << bit);
            let mut bad = states.clone();
            bad.blueprint_weights[3] = flip(bad.blueprint_weights[3]);
            assert_ne!(good, state_checksum(&bad, &graft), "weights, bit {bit}");
            let mut bad = graft.clone();
            bad.baseline_loss[1] = flip(bad.baseline_loss[1]);
            assert_ne!(good, state_checksum(&states, &bad), "baseline, bit {bit}");
            let mut bad = states.clone();
            bad.alpha[0] = flip(bad.alpha[0]);
            assert_ne!(good, state_checksum(&bad, &graft), "alpha, bit {bit}");
        }
        for bit in 0..8 {
            let mut bad = states.clone();
            bad.lifecycle[0] ^= 1 << bit;
            assert_ne!(good, state_checksum(&bad, &graft), "lifecycle, bit {bit}");
        }
    }

    /// An element that moves from one array to the next is another state.
    #[test]
    fn boundaries_count() {
        let (states, graft) = (states(), GraftStates::new(2));
        let mut moved = states.clone();
        let last = moved.blueprint_weights.pop().expect("weights");
        moved.blueprint_scales.insert(0, last);
        assert_ne!(state_checksum(&states, &graft), state_checksum(&moved, &graft));
    }
}
