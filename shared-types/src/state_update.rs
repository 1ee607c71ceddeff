//! Parameters of the kernel that applies updates of the seeds' state.

use crate::seed_state::{SeedArrays, StateUpdate};
use crate::view::{In, Out};

/// The state that an update is said to have found where it names no seed.
pub const NO_SEED: u8 = 0xff;

/// What `state_update_f32` takes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct StateUpdates {
    /// The state.
    pub seeds: SeedArrays,
    /// The updates, in the order in which they apply; the first `num_updates` count.
    pub updates: In<StateUpdate>,
    /// [`UpdateStatus`](crate::UpdateStatus) of each.
    pub status: Out<u32>,
    /// The lifecycle that each found its seed in, [`NO_SEED`] where there is no such seed.
    pub found: Out<u8>,
    /// Updates applied and updates refused, `[2]`.
    pub counts: Out<u32>,
    /// Updates.
    pub num_updates: u32,
    /// Seeds.
    pub num_seeds: u32,
    /// Blueprints, 'none' among them.
    pub num_blueprints: u32,
    /// Keeps the struct at a multiple of 16 bytes.
    pub _padding: u32,
}

crate::assert_layout!(StateUpdates, size = 256, align = 16, {
    seeds: 0, updates: 176, status: 192, found: 208, counts: 224, num_updates: 240,
    num_seeds: 244, num_blueprints: 248,
});
