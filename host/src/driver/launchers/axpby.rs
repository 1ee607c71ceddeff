//! Launcher of `axpby_*` and `velocity_*`.

use kasmina_device::Kernel;
use kasmina_kernels::instances;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS;
use kasmina_types::{Axpby, DType};

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

impl<T: Element> Arguments<'_, T> {
    /// x and y are as long as the output; without a y, x is tiled and has an element to tile.
    pub(crate) fn check_lengths(&self) -> Result<(), Error> {
        if let Some(y) = self.y {
            check_length(self.op, "x", self.out.len(), self.x.len())?;
            check_length(self.op, "y", self.out.len(), y.len())?;
        }
        if self.x.is_empty() && !self.out.is_empty() {
            let expected = "1 or more".to_owned();
            return Err(Error::Length { op: self.op, buffer: "x", expected, got: 0 });
        }
        Ok(())
    }
}

/// The kernel for an element type.
pub(crate) fn instance(
    op: &'static str,
    velocity: bool,
    dtype: DType,
) -> Result<&'static Kernel<Axpby>, Error> {
    let expected = "f32 or f64";
    instances::axpby(velocity, dtype).ok_or(Error::Dtype { op, got: dtype, expected })
}

/// Checks the contract of `axpby_*` and launches it.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let kernel = instance(a.op, a.velocity, T::DTYPE)?;
    a.check_lengths()?;
    if a.out.is_empty() {
        return Ok(());
    }
    let none = Buffer::zeroed(&crate::device::Device::Cpu, 0)?;
    let y = a.y.unwrap_or(&none);
    let params = Axpby {
        x: a.x.view().cast(),
        y: y.view().cast(),
        out: a.out.view_mut().cast(),
        alpha: a.alpha,
        beta: a.beta,
    };
    // 16 bytes a thread.
    let bytes = INFERENCE_STAGE_BLOCK_THREADS as usize * 16;
    let work = (a.out.len() * size_of::<T>()).div_ceil(bytes) as u64;
    let grid = work.min(device.resident_blocks(kernel)?.into()) as u32;
    // SAFETY: x has an element, y the output's length or none; any grid covers the output, which is borrowed mutably.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(device, [a.x, y, a.out], launch())
}
