//! Launchers of the stages of a belief step.

use kasmina_device::Kernel;
use kasmina_kernels::instances::{self, Stage};
use kasmina_types::InferenceStage;
use kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS;

use super::{Models, OP, unsupported};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::{KernelDevice, with_buffers};
use crate::error::Error;

/// Operands of the stages beside the models.
pub(crate) struct StageBuffers {
    pub(crate) residual: Buffer<f64>,
    pub(crate) partials: Buffer<f64>,
    pub(crate) arrivals: Buffer<u32>,
    pub(crate) complexity: Buffer<f64>,
    pub(crate) accuracy: Buffer<f64>,
    /// Whether a launch broke off, and left arrivals that are not zero.
    broken: bool,
}

impl StageBuffers {
    /// Those for some models.
    pub(crate) fn new(device: &Device, models: usize, observations: usize) -> Result<Self, Error> {
        Ok(Self {
            residual: Buffer::zeroed(device, models * observations)?,
            partials: Buffer::zeroed(device, 2 * models * accuracy_tiles(observations))?,
            arrivals: Buffer::zeroed(device, models)?,
            complexity: Buffer::zeroed(device, models)?,
            accuracy: Buffer::zeroed(device, 2 * models)?,
            broken: false,
        })
    }

    /// Makes the arrivals ready again, after a launch that broke off.
    fn reset(&mut self) -> Result<(), Error> {
        self.arrivals.copy_from_slice(&vec![0; self.arrivals.len()])?;
        self.broken = false;
        Ok(())
    }
}

/// Tiles of rows that `fused_accuracy_pipeline_*` cuts a model into.
fn accuracy_tiles(observations: usize) -> usize {
    observations.div_ceil(INFERENCE_STAGE_BLOCK_THREADS as usize / 32)
}

/// Checks the contract of a stage's kernel and launches it.
pub(crate) fn launch_stage(
    device: KernelDevice<'_>,
    stage: Stage,
    models: &mut Models,
    buffers: &mut StageBuffers,
) -> Result<(), Error> {
    if buffers.broken {
        buffers.reset()?;
    }
    let launched = launch_whole_stage(device, stage, models, buffers);
    if launched.is_err() {
        buffers.broken = true;
        buffers.reset().ok();
    }
    launched
}

/// [`launch_stage`] with arrivals that are zero.
fn launch_whole_stage(
    device: KernelDevice<'_>,
    stage: Stage,
    models: &mut Models,
    buffers: &mut StageBuffers,
) -> Result<(), Error> {
    models.check()?;
    let (rows, tiles) = (models.models * models.observations, accuracy_tiles(models.observations));
    check_length(OP, "residual", rows, buffers.residual.len())?;
    check_length(OP, "partials", 2 * models.models * tiles, buffers.partials.len())?;
    check_length(OP, "arrivals", models.models, buffers.arrivals.len())?;
    check_length(OP, "complexity", models.models, buffers.complexity.len())?;
    check_length(OP, "accuracy", 2 * models.models, buffers.accuracy.len())?;
    let output =
        if stage == Stage::Complexity { &mut buffers.complexity } else { &mut buffers.accuracy };
    let params = InferenceStage {
        jacobian: models.jacobian.view(),
        target: models.target.view(),
        obs_precision: models.obs_precision.view(),
        prior_mean: models.prior_mean.view(),
        prior_var: models.prior_var.view(),
        variance: models.variance.view(),
        kappa: models.kappa.view(),
        mean: models.mean.view_mut(),
        residual: buffers.residual.view_mut(),
        partials: buffers.partials.view_mut(),
        arrivals: buffers.arrivals.view_mut(),
        output: output.view_mut(),
        models: models.models as u32,
        observations: models.observations as u32,
        states: models.states as u32,
        stride: models.stride() as u32,
    };
    let kernel: &'static Kernel<InferenceStage> =
        instances::inference_stage(stage, models.dtype).ok_or_else(|| unsupported(models.dtype))?;
    let work = match stage {
        Stage::Complexity => models.models,
        Stage::Accuracy => models.models * tiles,
        Stage::Update => models.models * models.states.div_ceil(32),
    };
    let grid = (work as u64).min(device.resident_blocks(kernel)?.into()) as u32;
    // SAFETY: arrays and scratch have the lengths checked above, aligned to 16 bytes; any grid covers the work, and the
    // arrivals are zero, for `launch_stage` resets broken ones. What is written is borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(kernel, grid.max(1), params) };
    with_buffers!(
        device,
        [
            models.jacobian,
            models.target,
            models.obs_precision,
            models.prior_mean,
            models.prior_var,
            models.variance,
            models.kappa,
            models.mean,
            buffers.residual,
            buffers.partials,
            buffers.arrivals,
            output,
        ],
        launch()
    )
}
