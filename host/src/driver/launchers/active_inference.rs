//! Launchers of the one-launch kernels of active inference, and of its stages.

use kasmina_device::Kernel;
use kasmina_kernels::instances::{self, Infer, InferInstance, Stage};
use kasmina_types::active_inference::{BLOCK_SUMS, STATE_ALIGN, TRACE_FIGURES};
use kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS;
use kasmina_types::{ActiveInference, DType, InferenceFigures, InferenceStage};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;

const OP: &str = "active_inference";

/// Models of one shape, and their beliefs, on a device.
pub(crate) struct Models {
    pub(crate) dtype: DType,
    pub(crate) models: usize,
    pub(crate) observations: usize,
    pub(crate) states: usize,
    /// J in bytes of `dtype`.
    pub(crate) jacobian: Buffer<u8>,
    pub(crate) target: Buffer<f64>,
    pub(crate) obs_precision: Buffer<f64>,
    pub(crate) prior_mean: Buffer<f64>,
    pub(crate) prior_var: Buffer<f64>,
    pub(crate) variance: Buffer<f64>,
    pub(crate) kappa: Buffer<f64>,
    pub(crate) mean: Buffer<f64>,
    pub(crate) figures: Buffer<InferenceFigures>,
}

impl Models {
    /// States of a model with padding.
    pub(crate) fn stride(&self) -> usize {
        self.states.next_multiple_of(STATE_ALIGN)
    }

    /// Checks what every kernel of the family asks for.
    fn check(&self) -> Result<(), Error> {
        let (rows, states) = (self.models * self.observations, self.models * self.stride());
        let bytes = rows * self.stride() * self.dtype.size_bytes();
        check_length(OP, "jacobian", bytes, self.jacobian.len())?;
        check_length(OP, "target", rows, self.target.len())?;
        check_length(OP, "obs_precision", rows, self.obs_precision.len())?;
        check_length(OP, "prior_mean", states, self.prior_mean.len())?;
        check_length(OP, "prior_var", states, self.prior_var.len())?;
        check_length(OP, "variance", states, self.variance.len())?;
        check_length(OP, "kappa", self.models, self.kappa.len())?;
        check_length(OP, "mean", states, self.mean.len())?;
        check_length(OP, "figures", self.models, self.figures.len())
    }
}

/// How a launch is cut, and the scratch for it.
pub(crate) struct Plan {
    op: Infer,
    instance: InferInstance,
    parts: usize,
    groups: usize,
    partials: Buffer<f64>,
    sums: Buffer<f64>,
    barriers: Buffer<u32>,
    other_mean: Buffer<f64>,
    /// For a launch without a trace.
    no_trace: Buffer<f64>,
}

impl Plan {
    /// Cuts the models' work for a device: as many blocks for a model as its rows are worth, as long as all are
    /// resident at once.
    pub(crate) fn new(
        device: &crate::device::Device,
        kernels: KernelDevice<'_>,
        op: Infer,
        models: &Models,
        bulk_copies: bool,
    ) -> Result<Self, Error> {
        let bulk = instances::active_inference_bulk(op, models.dtype, models.states)
            .filter(|i| bulk_copies && kernels.has_room(i.kernel, i.dynamic_shared_bytes));
        let instance = bulk.unwrap_or_else(|| {
            instances::active_inference(op, models.dtype, models.states)
                .expect("a wide instance takes any number of states")
        });
        let shared = instance.dynamic_shared_bytes;
        let resident =
            kernels.resident_blocks_with_shared(instance.kernel, shared)?.max(1) as usize;
        let wanted = models.observations.div_ceil(instance.block_rows).min(models.observations);
        let most = wanted.min((resident / models.models).max(1));
        // The fewest that have no more rows each than with the most: as quick, and less to add up.
        let parts = models.observations.div_ceil(models.observations.div_ceil(most));
        let groups = models.models.min((resident / parts).max(1));
        let slots = groups * parts;
        let other = if op == Infer::Step { 0 } else { models.mean.len() };
        Ok(Self {
            op,
            instance,
            parts,
            groups,
            partials: Buffer::zeroed(device, slots * models.stride())?,
            sums: Buffer::zeroed(device, slots * BLOCK_SUMS)?,
            barriers: Buffer::zeroed(device, groups)?,
            other_mean: Buffer::zeroed(device, other)?,
            no_trace: Buffer::zeroed(device, 0)?,
        })
    }

    /// Blocks that share a model.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// Makes the barriers ready again, after a launch that broke off.
    pub(crate) fn reset(&mut self) -> Result<(), Error> {
        let groups = self.groups;
        self.barriers.copy_from_slice(&vec![0; groups])
    }
}

/// When a launch ends, and what it keeps of the way.
pub(crate) struct Until<'a> {
    pub(crate) tolerance: f64,
    pub(crate) max_steps: u32,
    pub(crate) trace: Option<&'a mut Buffer<f64>>,
    pub(crate) trace_points: usize,
}

/// Checks the contract of the one-launch kernels and launches one.
pub(crate) fn launch(
    device: KernelDevice<'_>,
    models: &mut Models,
    plan: &mut Plan,
    until: Until<'_>,
) -> Result<(), Error> {
    models.check()?;
    let slots = plan.groups * plan.parts;
    let stride = models.stride();
    check_length(OP, "partials", slots * stride, plan.partials.len())?;
    check_length(OP, "sums", slots * BLOCK_SUMS, plan.sums.len())?;
    check_length(OP, "barriers", plan.groups, plan.barriers.len())?;
    let other = if plan.op == Infer::Step { 0 } else { models.mean.len() };
    check_length(OP, "other_mean", other, plan.other_mean.len())?;
    let trace = match until.trace {
        Some(trace) => trace,
        None => &mut plan.no_trace,
    };
    check_length(OP, "trace", models.models * until.trace_points * TRACE_FIGURES, trace.len())?;
    let params = ActiveInference {
        jacobian: models.jacobian.view(),
        target: models.target.view(),
        obs_precision: models.obs_precision.view(),
        prior_mean: models.prior_mean.view(),
        prior_var: models.prior_var.view(),
        variance: models.variance.view(),
        kappa: models.kappa.view(),
        mean: models.mean.view_mut(),
        other_mean: plan.other_mean.view_mut(),
        partials: plan.partials.view_mut(),
        sums: plan.sums.view_mut(),
        barriers: plan.barriers.view_mut(),
        figures: models.figures.view_mut(),
        trace: trace.view_mut(),
        tolerance: until.tolerance,
        max_steps: until.max_steps,
        models: models.models as u32,
        observations: models.observations as u32,
        states: models.states as u32,
        stride: stride as u32,
        parts: plan.parts as u32,
        trace_points: until.trace_points as u32,
        part_rows: (models.observations / plan.parts) as u32,
        longer_parts: (models.observations % plan.parts) as u32,
        part_states: stride.div_ceil(plan.parts).next_multiple_of(2) as u32,
    };
    let (kernel, shared) = (plan.instance.kernel, plan.instance.dynamic_shared_bytes);
    let cooperative = plan.parts > 1;
    // SAFETY: arrays and scratch have the lengths checked above and are aligned to 16 bytes, as rows of J are by the
    // stride; the instance takes that many states; every part has a row, for there are no more parts than rows; a grid
    // whose blocks wait for each other is launched cooperatively, and the barriers are whole between launches. What is
    // written is borrowed mutably, hence disjoint.
    let launch =
        || unsafe { device.launch_grid(kernel, slots as u32, shared, cooperative, params) };
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
            models.figures,
            plan.other_mean,
            plan.partials,
            plan.sums,
            plan.barriers,
            trace,
        ],
        launch()
    )
}

/// Operands of the stages beside the models.
pub(crate) struct StageBuffers {
    pub(crate) residual: Buffer<f64>,
    pub(crate) partials: Buffer<f64>,
    pub(crate) arrivals: Buffer<u32>,
    pub(crate) complexity: Buffer<f64>,
    pub(crate) accuracy: Buffer<f64>,
}

/// Tiles of rows that `fused_accuracy_pipeline_*` cuts a model into.
pub(crate) fn accuracy_tiles(observations: usize) -> usize {
    observations.div_ceil(INFERENCE_STAGE_BLOCK_THREADS as usize / 32)
}

/// Checks the contract of a stage's kernel and launches it.
pub(crate) fn launch_stage(
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
        instances::inference_stage(stage, models.dtype).expect("J is f64 or f32");
    let work = match stage {
        Stage::Complexity => models.models,
        Stage::Accuracy => models.models * tiles,
        Stage::Update => models.models * models.states.div_ceil(32),
    };
    let grid = (work as u64).min(device.resident_blocks(kernel)?.into()) as u32;
    // SAFETY: arrays and scratch have the lengths checked above, aligned to 16 bytes; any grid covers the work, and the
    // arrivals are zero between launches. What is written is borrowed mutably, hence disjoint.
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
