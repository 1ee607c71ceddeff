//! Launchers of `activation_norm_backward_*` and of the merge.

use kasmina_device::Kernel;
use kasmina_kernels::instances::NormInstance;
use kasmina_types::dtype::Element;
use kasmina_types::normalization::NormStage;
use kasmina_types::tiles::NORM_MERGE_COLUMNS;
use kasmina_types::{ActivationNormBackward, NormGradientMerge, NormPlan, Out};

use super::activation_norm::{Optional, check_optional, check_plan, optional_view};
use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::normalization::{NormGradients, NormStatistics};

const OP: &str = "activation_norm_backward";

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) instance: NormInstance<ActivationNormBackward>,
    pub(crate) plan: NormPlan,
    pub(crate) stage: NormStage,
    pub(crate) slabs: u32,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) grad_output: &'a Buffer<T>,
    pub(crate) gamma: Option<&'a Buffer<f32>>,
    pub(crate) beta: Option<&'a Buffer<f32>>,
    pub(crate) statistics: &'a NormStatistics,
    pub(crate) grad_input: &'a mut Buffer<T>,
    /// Whether γ or β gets a gradient.
    pub(crate) accumulates: bool,
    /// At least `[slabs, 2, cols]`.
    pub(crate) partials: &'a mut Buffer<f32>,
    /// At least `[rows, 2]`; not used by [`NormStage::Whole`].
    pub(crate) sums: &'a mut Buffer<f32>,
}

/// Checks the contract of `activation_norm_backward_*` and launches it.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let Arguments { instance, plan, stage, slabs, statistics, .. } = a;
    check_plan(&plan, instance.vectors);
    assert_eq!(instance.dtype, T::DTYPE, "the plan chose the instance by the element type");
    assert!(stage != NormStage::Whole || plan.chunks == 1, "a whole row is one chunk");
    let (rows, cols) = (plan.rows as usize, (plan.vectors * instance.lanes) as usize);
    check_length(OP, "input", rows * cols, a.input.len())?;
    check_length(OP, "grad_output", rows * cols, a.grad_output.len())?;
    check_length(OP, "grad_input", rows * cols, a.grad_input.len())?;
    check_length(OP, "statistics.mean", rows, statistics.mean.len())?;
    check_length(OP, "statistics.rstd", rows, statistics.rstd.len())?;
    check_optional(OP, "gamma", cols, a.gamma)?;
    check_optional(OP, "beta", cols, a.beta)?;
    let places = if stage == NormStage::Sums { 0 } else { slabs as usize * 2 * cols };
    check_at_least("partials", places, a.partials.len())?;
    check_at_least("sums", if stage == NormStage::Whole { 0 } else { 2 * rows }, a.sums.len())?;
    let grid = if stage == NormStage::Apply { slabs * plan.chunks } else { slabs };

    let params = ActivationNormBackward {
        input: a.input.view().cast(),
        grad_output: a.grad_output.view().cast(),
        gamma: optional_view(a.gamma),
        beta: optional_view(a.beta),
        mean: statistics.mean.view(),
        rstd: statistics.rstd.view(),
        grad_input: a.grad_input.view_mut().cast(),
        partials: if a.accumulates { a.partials.view_mut() } else { nothing() },
        sums: a.sums.view_mut(),
        plan,
        stage: stage as u32,
        slabs,
        _padding: 0,
    };
    let optional = Optional([a.gamma, a.beta]);
    // SAFETY: every buffer has the length that the kernel's contract names, in memory aligned to 16
    // bytes; the plan's chunks cover a row, its teams a block (`check_plan`), and the grid is the
    // stage's. The operation launches `Sums` before `Apply`, on one stream. Buffers that are written are
    // borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(instance.kernel, grid, params) };
    with_buffers!(
        device,
        [
            a.input,
            a.grad_output,
            statistics.mean,
            statistics.rstd,
            a.grad_input,
            a.partials,
            a.sums,
            optional,
        ],
        launch()
    )
}

/// Checks the contract of `activation_norm_backward_merge_f32` and launches it.
pub(crate) fn merge(
    device: KernelDevice<'_>,
    kernel: &'static Kernel<NormGradientMerge>,
    slabs: u32,
    cols: u32,
    partials: &Buffer<f32>,
    gradients: &mut NormGradients,
) -> Result<(), Error> {
    check_at_least("partials", slabs as usize * 2 * cols as usize, partials.len())?;
    check_optional(OP, "gradients.gamma", cols as usize, gradients.gamma.as_ref())?;
    check_optional(OP, "gradients.beta", cols as usize, gradients.beta.as_ref())?;
    let params = NormGradientMerge {
        partials: partials.view(),
        grad_gamma: gradients.gamma.as_mut().map_or(nothing(), Buffer::view_mut),
        grad_beta: gradients.beta.as_mut().map_or(nothing(), Buffer::view_mut),
        slabs,
        cols,
        _padding: [0; 2],
    };
    let optional = Optional([gradients.gamma.as_ref(), gradients.beta.as_ref()]);
    let grid = (2 * cols).div_ceil(NORM_MERGE_COLUMNS);
    // SAFETY: the partials have the slabs' columns, each gradient a place for each column or none, and
    // the grid a block for each 32 columns of both; the launch before, on the same stream, wrote the
    // partials. The gradients are borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(device, [partials, optional], launch())
}

fn nothing() -> Out<f32> {
    Out::new(std::ptr::null_mut(), 0)
}

fn check_at_least(buffer: &'static str, least: usize, got: usize) -> Result<(), Error> {
    if got >= least {
        return Ok(());
    }
    Err(Error::Length { op: OP, buffer, expected: format!("{least} or more"), got })
}
