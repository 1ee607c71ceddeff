//! Launcher of `axpby_*` and `velocity_*`.

use kasmina_kernels::instances;
use kasmina_types::Axpby;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS;

use super::gemv::unsupported;
use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) op: &'static str,
    /// (x − y)/α, and not α·x + β·y.
    pub(crate) velocity: bool,
    pub(crate) alpha: f64,
    pub(crate) x: &'a Buffer<T>,
    pub(crate) beta: f64,
    pub(crate) y: Option<&'a Buffer<T>>,
    pub(crate) out: &'a mut Buffer<T>,
}

/// Checks the contract of `axpby_*` and launches it.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    if a.out.is_empty() {
        return Ok(());
    }
    if a.x.is_empty() {
        let expected = "1 or more".to_owned();
        return Err(Error::Length { op: a.op, buffer: "x", expected, got: 0 });
    }
    let none = Buffer::zeroed(&crate::device::Device::Cpu, 0)?;
    let y = a.y.unwrap_or(&none);
    if a.y.is_some() {
        check_length(a.op, "x", a.out.len(), a.x.len())?;
        check_length(a.op, "y", a.out.len(), y.len())?;
    }
    let Some(kernel) = instances::axpby(a.velocity, T::DTYPE) else {
        return Err(unsupported(a.op, T::DTYPE));
    };
    let params = Axpby {
        x: a.x.view().cast(),
        y: y.view().cast(),
        out: a.out.view_mut().cast(),
        alpha: a.alpha,
        beta: a.beta,
    };
    let work = a.out.len().div_ceil(INFERENCE_STAGE_BLOCK_THREADS as usize) as u64;
    let grid = work.min(device.resident_blocks(kernel)?.into()) as u32;
    // SAFETY: x has an element, y the output's length or none; any grid covers the output, which is borrowed mutably.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(device, [a.x, y, a.out], launch())
}
