//! A seed's state as arrays over the seeds, and what an epoch brings to it.

use crate::view::{In, Out};

/// The state of every seed that changes while the layer lives, one array a field, `[num_seeds]` each.
/// The forward and backward passes read the first three.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct SeedArrays {
    /// [`SeedLifecycle`](crate::SeedLifecycle).
    pub lifecycle: Out<u8>,
    /// Blueprint, 0 for none.
    pub blueprint_id: Out<u16>,
    /// Blend factor α.
    pub alpha: Out<f32>,
    /// [`BlendSchedule`](crate::BlendSchedule).
    pub schedule: Out<u8>,
    /// The α that the schedule stops at, in \[0, 1\].
    pub alpha_target: Out<f32>,
    /// Ramp length n in epochs, at least 1.
    pub ramp_epochs: Out<u32>,
    /// Epochs since the last transition.
    pub epochs_in_state: Out<u32>,
    /// PERFORMANCE_LINKED's first loss, NaN before there is one.
    pub baseline_loss: Out<f32>,
    /// The last drifts, `[num_seeds, DRIFT_WINDOW]`; drift number i of a seed is at i mod
    /// [`DRIFT_WINDOW`](crate::schedule::DRIFT_WINDOW).
    pub drift_history: Out<f32>,
    /// Drifts seen since grafting began.
    pub drift_count: Out<u32>,
    /// Epochs that a culled seed still has to wait before it may be reset.
    pub embargo_epochs: Out<u32>,
}

crate::assert_layout!(SeedArrays, size = 176, align = 16, {
    lifecycle: 0, blueprint_id: 16, alpha: 32, schedule: 48, alpha_target: 64, ramp_epochs: 80,
    epochs_in_state: 96, baseline_loss: 112, drift_history: 128, drift_count: 144,
    embargo_epochs: 160,
});

/// What one epoch brings to the schedules, `[num_seeds]` each.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct EpochArrays {
    /// The loss L, for PERFORMANCE_LINKED.
    pub loss: In<f32>,
    /// The drift of the seed's activations, for DRIFT_CONTROLLED.
    pub drift: In<f32>,
    /// The norm of the seed's gradient, for GRAD_NORM_GATED.
    pub gradient_norm: In<f32>,
}

crate::assert_layout!(EpochArrays, size = 48, align = 16, { loss: 0, drift: 16, gradient_norm: 32 });

/// New values for some fields of one seed: those whose bit is set in `mask`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateUpdate {
    /// The seed.
    pub seed: u32,
    /// [`field`] bits.
    pub mask: u32,
    /// New state; the transition must be legal.
    pub lifecycle: u32,
    /// New blueprint.
    pub blueprint_id: u32,
    /// New schedule.
    pub schedule: u32,
    /// New ramp length.
    pub ramp_epochs: u32,
    /// New embargo.
    pub embargo_epochs: u32,
    /// New α.
    pub alpha: f32,
    /// New target of α.
    pub alpha_target: f32,
    /// Keeps the record at a multiple of 16 bytes.
    pub _padding: [u32; 3],
}

crate::assert_layout!(StateUpdate, size = 48, align = 16, {
    seed: 0, mask: 4, lifecycle: 8, blueprint_id: 12, schedule: 16, ramp_epochs: 20,
    embargo_epochs: 24, alpha: 28, alpha_target: 32,
});

// SAFETY: `repr(C)`, twelve 4-byte fields, no implicit padding, and every bit pattern is a value.
unsafe impl bytemuck::Pod for StateUpdate {}
// SAFETY: as above.
unsafe impl bytemuck::Zeroable for StateUpdate {}

impl StateUpdate {
    /// An update of `seed` that changes nothing.
    pub const fn of(seed: u32) -> Self {
        Self {
            seed,
            mask: 0,
            lifecycle: 0,
            blueprint_id: 0,
            schedule: 0,
            ramp_epochs: 0,
            embargo_epochs: 0,
            alpha: 0.0,
            alpha_target: 0.0,
            _padding: [0; 3],
        }
    }
}

/// The bits of [`StateUpdate::mask`].
pub mod field {
    /// `lifecycle`. A transition sets `epochs_in_state` to 0; one to GRAFTING also forgets the baseline
    /// loss and the drifts.
    pub const LIFECYCLE: u32 = 1;
    /// `blueprint_id`.
    pub const BLUEPRINT_ID: u32 = 1 << 1;
    /// `schedule`.
    pub const SCHEDULE: u32 = 1 << 2;
    /// `ramp_epochs`.
    pub const RAMP_EPOCHS: u32 = 1 << 3;
    /// `embargo_epochs`.
    pub const EMBARGO_EPOCHS: u32 = 1 << 4;
    /// `alpha`.
    pub const ALPHA: u32 = 1 << 5;
    /// `alpha_target`.
    pub const ALPHA_TARGET: u32 = 1 << 6;
    /// Every bit that means something.
    pub const ALL: u32 = (1 << 7) - 1;
}

/// What became of a [`StateUpdate`]. All but the first leave the seed as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum UpdateStatus {
    /// Every field of the mask is set.
    Applied = 0,
    /// No such seed.
    SeedOutOfRange = 1,
    /// A bit of the mask means nothing.
    UnknownField = 2,
    /// A byte that is no state, or a transition that the table does not have.
    IllegalTransition = 3,
    /// A culled seed whose embargo has not ended.
    Embargoed = 4,
    /// An id past the blueprints.
    BlueprintOutOfRange = 5,
    /// A byte that is no schedule.
    UnknownSchedule = 6,
    /// A ramp of no epochs.
    EmptyRamp = 7,
    /// An α that is NaN or infinite, or a target outside \[0, 1\].
    AlphaOutOfRange = 8,
}

impl UpdateStatus {
    /// Every status, in the order of its word.
    pub const ALL: [Self; 9] = [
        Self::Applied,
        Self::SeedOutOfRange,
        Self::UnknownField,
        Self::IllegalTransition,
        Self::Embargoed,
        Self::BlueprintOutOfRange,
        Self::UnknownSchedule,
        Self::EmptyRamp,
        Self::AlphaOutOfRange,
    ];

    /// The status of a word, if it is one.
    pub fn from_u32(word: u32) -> Option<Self> {
        Self::ALL.get(word as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_statuses_are_each_others() {
        for (word, status) in UpdateStatus::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, word);
            assert_eq!(UpdateStatus::from_u32(word as u32), Some(status));
        }
        assert_eq!(UpdateStatus::from_u32(9), None);
    }
}
