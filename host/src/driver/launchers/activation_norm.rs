//! Launcher of `activation_norm_*`.

use bytemuck::Pod;
use kasmina_kernels::instances::NormInstance;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::NORM_BLOCK_THREADS;
use kasmina_types::{ActivationNorm, In, NormPlan};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Access, Buffer, check_length};
use crate::error::Error;
use crate::normalization::NormStatistics;

const OP: &str = "activation_norm";

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) instance: NormInstance<ActivationNorm>,
    pub(crate) plan: NormPlan,
    pub(crate) grid: u32,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) gamma: Option<&'a Buffer<f32>>,
    pub(crate) beta: Option<&'a Buffer<f32>>,
    pub(crate) output: &'a mut Buffer<T>,
    pub(crate) statistics: &'a mut NormStatistics,
}

/// Checks the contract of `activation_norm_*` and launches it.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let Arguments { instance, plan, statistics, .. } = a;
    check_plan(&plan, instance.vectors);
    assert_eq!(instance.dtype, T::DTYPE, "the plan chose the instance by the element type");
    let (rows, cols) = (plan.rows as usize, (plan.vectors * instance.lanes) as usize);
    check_length(OP, "input", rows * cols, a.input.len())?;
    check_length(OP, "output", rows * cols, a.output.len())?;
    check_length(OP, "statistics.mean", rows, statistics.mean.len())?;
    check_length(OP, "statistics.rstd", rows, statistics.rstd.len())?;
    check_optional(OP, "gamma", cols, a.gamma)?;
    check_optional(OP, "beta", cols, a.beta)?;

    let params = ActivationNorm {
        input: a.input.view().cast(),
        gamma: optional_view(a.gamma),
        beta: optional_view(a.beta),
        output: a.output.view_mut().cast(),
        mean: statistics.mean.view_mut(),
        rstd: statistics.rstd.view_mut(),
        plan,
        _padding: [0; 3],
    };
    let optional = Optional([a.gamma, a.beta]);
    // SAFETY: every buffer has the length that the kernel's contract names, in memory aligned to 16
    // bytes; the plan's chunks cover a row, and its teams a block (`check_plan`). Buffers that are
    // written are borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(instance.kernel, a.grid.max(1), params) };
    with_buffers!(device, [a.input, a.output, statistics.mean, statistics.rstd, optional], launch())
}

/// What the kernels rely on in a plan; the operation's own plans have it.
pub(super) fn check_plan(plan: &NormPlan, most: u32) {
    assert!(plan.team.is_power_of_two() && plan.team <= NORM_BLOCK_THREADS, "a team of a block");
    assert!((1..=most).contains(&plan.depth), "as many vectors as a thread has registers for");
    assert_eq!(plan.chunks, plan.vectors.div_ceil(plan.team * plan.depth), "chunks cover a row");
}

/// Refuses γ or β of another length.
pub(super) fn check_optional(
    op: &'static str,
    name: &'static str,
    cols: usize,
    buffer: Option<&Buffer<f32>>,
) -> Result<(), Error> {
    buffer.map_or(Ok(()), |buffer| check_length(op, name, cols, buffer.len()))
}

/// γ or β as a kernel reads it.
pub(super) fn optional_view(buffer: Option<&Buffer<f32>>) -> In<f32> {
    buffer.map_or(In::new(std::ptr::null(), 0), Buffer::view)
}

/// Buffers that may be absent, acquired and released together.
pub(super) struct Optional<'a, T: Pod, const N: usize>(pub(super) [Option<&'a Buffer<T>>; N]);

impl<T: Pod, const N: usize> Optional<'_, T, N> {
    pub(super) fn access(&self) -> [Option<Access>; N] {
        self.0.map(|buffer| buffer.map(Buffer::access))
    }

    pub(super) fn acquire(&self, stream: &crate::driver::Stream) -> Result<(), Error> {
        self.0.iter().flatten().try_for_each(|buffer| buffer.acquire(stream))
    }

    pub(super) fn release(&self, stream: &crate::driver::Stream) -> Result<(), Error> {
        self.0.iter().flatten().try_for_each(|buffer| buffer.release(stream))
    }
}
