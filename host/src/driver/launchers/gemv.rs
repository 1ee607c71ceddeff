//! Launcher of `gemv_*` and `gemv_transposed_*`.

use kasmina_device::Kernel;
use kasmina_kernels::instances;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS;
use kasmina_types::{DType, Gemv};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;

const OP: &str = "gemv";

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) transposed: bool,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) alpha: f64,
    pub(crate) matrix: &'a Buffer<T>,
    pub(crate) x: &'a Buffer<T>,
    pub(crate) beta: f64,
    pub(crate) y: &'a mut Buffer<T>,
}

/// Checks the contract of `gemv_*` and launches it.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let (rows, columns) = (a.rows, a.columns);
    let (given, wanted) = if a.transposed { (rows, columns) } else { (columns, rows) };
    check_length(OP, "matrix", rows * columns, a.matrix.len())?;
    check_length(OP, "x", given, a.x.len())?;
    check_length(OP, "y", wanted, a.y.len())?;
    let kernel = instance(a.transposed, T::DTYPE)?;
    let params = Gemv {
        matrix: a.matrix.view().cast(),
        x: a.x.view().cast(),
        y: a.y.view_mut().cast(),
        alpha: a.alpha,
        beta: a.beta,
        rows: rows as u32,
        columns: columns as u32,
        _padding: [0; 2],
    };
    let warps = INFERENCE_STAGE_BLOCK_THREADS as usize / 32;
    let work = if a.transposed { columns.div_ceil(32) } else { rows.div_ceil(warps) };
    if work == 0 {
        return Ok(());
    }
    let grid = (work as u64).min(device.resident_blocks(kernel)?.into()) as u32;
    // SAFETY: the operands have the lengths checked above; any grid covers the work; y is borrowed mutably.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(device, [a.matrix, a.x, a.y], launch())
}

/// The kernel for an element type.
pub(crate) fn instance(transposed: bool, dtype: DType) -> Result<&'static Kernel<Gemv>, Error> {
    instances::gemv(transposed, dtype).ok_or_else(|| unsupported(OP, dtype))
}

/// The error for an element type that has no instance.
pub(crate) fn unsupported(op: &'static str, got: DType) -> Error {
    Error::Dtype { op, got, expected: "f32 or f64" }
}
