//! Parameters of the kernel that takes the seeds from one epoch to the next.

use crate::seed_state::{EpochArrays, SeedArrays};
use crate::view::Out;

/// What `graft_schedule_f32` takes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct GraftSchedule {
    /// The state; α, the schedules' memory and the two counts of epochs are written.
    pub seeds: SeedArrays,
    /// What the epoch brings.
    pub epoch: EpochArrays,
    /// Grafting seeds that stood still, for the figure that their schedule reads was not finite, `[1]`.
    pub skipped: Out<u32>,
    /// Scratch: such seeds so far, and blocks that have arrived, `[2]`, zero before and after.
    pub tally: Out<u32>,
    /// Seeds.
    pub num_seeds: u32,
    /// Keeps the struct at a multiple of 16 bytes.
    pub _padding: [u32; 3],
}

crate::assert_layout!(GraftSchedule, size = 272, align = 16, {
    seeds: 0, epoch: 176, skipped: 224, tally: 240, num_seeds: 256,
});
