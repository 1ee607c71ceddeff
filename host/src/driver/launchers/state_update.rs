//! Launcher of `state_update_f32`.

use kasmina_kernels::instances;
use kasmina_types::{StateUpdate, StateUpdates};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::kasmina::LayerState;

const OP: &str = "state_update";

/// One launch.
pub(crate) struct Arguments<'a> {
    pub(crate) state: &'a mut LayerState,
    pub(crate) updates: &'a Buffer<StateUpdate>,
    pub(crate) num_updates: usize,
    pub(crate) status: &'a mut Buffer<u32>,
    pub(crate) found: &'a mut Buffer<u8>,
    pub(crate) counts: &'a mut Buffer<u32>,
}

/// Checks the contract of `state_update_f32` and launches it. That every array of the state is long enough
/// is [`LayerState`]'s to hold.
pub(crate) fn launch(device: KernelDevice<'_>, a: Arguments<'_>) -> Result<(), Error> {
    let Arguments { state, updates, num_updates, status, found, counts } = a;
    let capacity = updates.len();
    // The kernel's indices are 32 bits and pass the last by a window.
    let (what, limit) = ("updates", capacity.min(i32::MAX as usize) as u64);
    if num_updates as u64 > limit {
        return Err(Error::TooLarge { op: OP, what, got: num_updates as u64, limit });
    }
    check_length(OP, "status", capacity, status.len())?;
    check_length(OP, "found", capacity, found.len())?;
    check_length(OP, "counts", 2, counts.len())?;
    let params = StateUpdates {
        seeds: state.seed_arrays(),
        updates: updates.view(),
        status: status.view_mut(),
        found: found.view_mut(),
        counts: counts.view_mut(),
        num_updates: num_updates as u32,
        num_seeds: state.num_seeds() as u32,
        num_blueprints: state.num_blueprints() as u32,
        _padding: 0,
    };
    let graft = &state.graft;
    // SAFETY: records and results are as long as checked above, the state's arrays were checked when it was
    // made and keep their length; the grid is one block. What is written is borrowed mutably, hence
    // disjoint.
    let launch = || unsafe { device.launch(instances::state_update(), 1, params) };
    with_buffers!(
        device,
        [
            state.lifecycle,
            state.blueprint_id,
            state.alpha,
            graft.schedule,
            graft.alpha_target,
            graft.ramp_epochs,
            graft.epochs_in_state,
            graft.baseline_loss,
            graft.drift_history,
            graft.drift_count,
            graft.embargo_epochs,
            updates,
            status,
            found,
            counts,
        ],
        launch()
    )
}
