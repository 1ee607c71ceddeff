//! Launchers of the one-launch kernels of active inference, and of its stages.

mod plan;
mod stages;

use kasmina_kernels::instances::Infer;
use kasmina_types::active_inference::{BLOCK_SUMS, STATE_ALIGN, TRACE_FIGURES};
use kasmina_types::{ActiveInference, DType, InferenceFigures};

pub(crate) use plan::Plan;
use plan::Shape;
pub(crate) use stages::{StageBuffers, launch_stage};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;

pub(crate) const OP: &str = "active_inference";

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

    /// What a plan is made for.
    fn shape(&self) -> Shape {
        let Self { dtype, models, observations, states, .. } = *self;
        Shape { dtype, models, observations, states }
    }

    /// Checks what every kernel of the family asks for.
    fn check(&self) -> Result<(), Error> {
        check_counts(self.models, self.observations, self.states)?;
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

/// Refuses more models, observations and states than the kernels count.
pub(crate) fn check_counts(models: usize, observations: usize, states: usize) -> Result<(), Error> {
    let most = states.saturating_add(STATE_ALIGN).max(observations);
    let got = models.saturating_mul(most) as u64;
    // The kernels' row and model numbers pass the last by a grid.
    let limit = i32::MAX as u64;
    if got > limit {
        let what = "models · observations or states";
        return Err(Error::TooLarge { op: OP, what, got, limit });
    }
    Ok(())
}

/// How many f64 a trace of each model has.
pub(crate) fn trace_len(models: usize, trace_points: usize) -> Result<usize, Error> {
    let all = models.saturating_mul(trace_points).saturating_mul(TRACE_FIGURES);
    let (got, limit) = (all as u64, u64::from(u32::MAX));
    if got > limit {
        let what = "models · `trace_points` · 4 figures";
        return Err(Error::TooLarge { op: OP, what, got, limit });
    }
    Ok(all)
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
    if plan.broken {
        plan.reset()?;
    }
    let launched = launch_whole(device, models, plan, until);
    if launched.is_err() {
        // What the launch ran into is what counts; a reset that fails too is tried again before the next.
        plan.broken = true;
        plan.reset().ok();
    }
    launched
}

/// [`launch`] of a plan whose barriers are whole.
fn launch_whole(
    device: KernelDevice<'_>,
    models: &mut Models,
    plan: &mut Plan,
    until: Until<'_>,
) -> Result<(), Error> {
    models.check()?;
    plan.shape.check(&models.shape())?;
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
    check_length(OP, "trace", trace_len(models.models, until.trace_points)?, trace.len())?;
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
    // stride; the counts fit 32 bits by `check_counts` and `trace_len`; the instance takes that many states and J's type,
    // and every part has a row, for the plan was cut for this very shape; a grid whose blocks wait for each other is
    // launched cooperatively, and the barriers are whole, for `launch` resets broken ones. What is written is borrowed
    // mutably, hence disjoint.
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

/// The error for a type that J cannot have.
fn unsupported(got: DType) -> Error {
    Error::Dtype { op: OP, got, expected: "f32 or f64" }
}
