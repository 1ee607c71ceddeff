//! Launcher of `graft_schedule_f32`.

use kasmina_kernels::instances;
use kasmina_types::schedule::DRIFT_WINDOW;
use kasmina_types::{EpochArrays, GraftSchedule};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::kasmina::{EpochInputs, LayerState};

const OP: &str = "graft_schedule";

/// One launch.
pub(crate) struct Arguments<'a> {
    pub(crate) state: &'a mut LayerState,
    pub(crate) epoch: EpochInputs<'a>,
    pub(crate) skipped: &'a mut Buffer<u32>,
    pub(crate) tally: &'a mut Buffer<u32>,
}

/// Checks the contract of `graft_schedule_f32` and launches it. That each schedule is one, each ramp at
/// least 1, and every array of the state long enough is [`LayerState`]'s to hold.
pub(crate) fn launch(device: KernelDevice<'_>, a: Arguments<'_>) -> Result<(), Error> {
    let Arguments { state, epoch, skipped, tally } = a;
    let num_seeds = state.num_seeds();
    check_length(OP, "loss", num_seeds, epoch.loss.len())?;
    check_length(OP, "drift", num_seeds, epoch.drift.len())?;
    check_length(OP, "gradient_norm", num_seeds, epoch.gradient_norm.len())?;
    check_length(OP, "skipped", 1, skipped.len())?;
    check_length(OP, "tally", 2, tally.len())?;
    check_length(OP, "drift_history", num_seeds * DRIFT_WINDOW, state.graft.drift_history.len())?;
    let kernel = instances::graft_schedule();
    let grid = (num_seeds as u32).div_ceil(kernel.bounds().block_threads);
    let params = GraftSchedule {
        seeds: state.seed_arrays(),
        epoch: EpochArrays {
            loss: epoch.loss.view(),
            drift: epoch.drift.view(),
            gradient_norm: epoch.gradient_norm.view(),
        },
        skipped: skipped.view_mut(),
        tally: tally.view_mut(),
        num_seeds: num_seeds as u32,
        _padding: [0; 3],
    };
    let graft = &state.graft;
    // SAFETY: the epoch's arrays and the scratch have the lengths checked above, those of the state were
    // checked when it was made and keep their length; the grid has a thread for each seed, and the tally
    // is zero between launches. What is written is borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(kernel, grid, params) };
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
            epoch.loss,
            epoch.drift,
            epoch.gradient_norm,
            skipped,
            tally,
        ],
        launch()
    )
}
