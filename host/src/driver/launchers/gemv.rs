//! Launcher of `gemv_*` and `gemv_transposed_*`.

use kasmina_device::Kernel;
use kasmina_kernels::instances;
use kasmina_types::dtype::Element;
use kasmina_types::gemv::GEMV_ROWS;
use kasmina_types::tiles::GEMV_BLOCK_THREADS;
use kasmina_types::{DType, Gemv, GemvCut, Out};

use super::{KernelDevice, with_buffers};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::recording;
use crate::error::Error;
use crate::linear::GemvShape;

const OP: &str = "gemv";
const WARP: usize = 32;
const WARPS: usize = GEMV_BLOCK_THREADS as usize / WARP;

/// Turns that the parts of tiles give each resident block, so that the last ones to finish leave little idle.
const TURNS: usize = 4;

/// Vectors of a thread below which another part, or a team of a whole block, costs more than it brings.
const LEAST_VECTORS: usize = 8;

/// Parts of a tile of products at most: the last block to arrive adds them up one after the other.
const MOST_PARTS: usize = 128;

/// Values of a thread below which another part of a sum costs more than it brings.
const LEAST_VALUES: usize = 8;

/// What is cut among teams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Products, with accesses of so many lanes.
    Products(GemvShape, usize),
    /// So many sums of so many values.
    Sums(usize, usize),
    /// So many segments of so many values, one by one.
    Values(usize, usize),
}

/// How work is cut for a kernel, and the scratch memory for it.
pub(crate) struct Scratch {
    cut: Cut,
    partials: Buffer<u8>,
    arrivals: Buffer<u32>,
    /// Whether a launch broke off, and left arrivals that are not zero.
    broken: bool,
}

/// What [`GemvCut`] says, without the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    shape: GemvShape,
    /// Tiles of outputs of the whole batch.
    tasks: usize,
    /// Outputs of a tile.
    outputs: usize,
    parts: usize,
    team_warps: usize,
    grid: usize,
}

impl Cut {
    /// For a kernel of which `resident` blocks run at once.
    fn new(work: Work, resident: usize) -> Self {
        match work {
            Work::Products(shape, lanes) => Self::of_products(shape, lanes, resident),
            Work::Sums(batch, length) => {
                let worth = length / (WARP * WARPS * LEAST_VALUES);
                let parts = (resident / batch.max(1)).min(worth).max(1);
                let grid = (batch * parts).min(resident);
                let shape = GemvShape { batch, ..GemvShape::new(1, length) };
                Self { shape, tasks: batch, outputs: 1, parts, team_warps: WARPS, grid }
            }
            Work::Values(batch, length) => {
                let tasks = (batch * length).div_ceil(WARP * WARPS);
                let (shape, grid) =
                    (GemvShape { batch, ..GemvShape::new(1, length) }, tasks.min(resident));
                Self { shape, tasks, outputs: WARP * WARPS, parts: 1, team_warps: WARPS, grid }
            }
        }
    }

    fn of_products(shape: GemvShape, lanes: usize, resident: usize) -> Self {
        let GemvShape { batch, rows, columns, transposed } = shape;
        let outputs = if transposed { WARP * lanes } else { GEMV_ROWS };
        let tasks = batch * shape.outputs().div_ceil(outputs);
        let warps_alone = !transposed
            && (columns <= WARP * lanes * LEAST_VECTORS || tasks >= 2 * resident * WARPS);
        let (team_warps, parts) = if warps_alone {
            (1, 1)
        } else {
            let worth = if transposed {
                rows / (WARPS * LEAST_VECTORS)
            } else {
                columns / (WARP * WARPS * lanes * LEAST_VECTORS)
            };
            let wanted = (TURNS * resident / tasks.max(1)).min(MOST_PARTS);
            (WARPS, wanted.min(worth).max(1))
        };
        let grid = (tasks * parts).div_ceil(WARPS / team_warps).min(resident);
        Self { shape, tasks, outputs, parts, team_warps, grid }
    }

    /// Sums of all parts, where there are several.
    fn partials(&self) -> usize {
        if self.parts > 1 { self.tasks * self.parts * self.outputs } else { 0 }
    }

    fn arrivals(&self) -> usize {
        if self.parts > 1 { self.tasks } else { 0 }
    }
}

fn resident<P: Copy + Send + Sync>(
    device: &Device,
    kernel: &'static Kernel<P>,
) -> Result<usize, Error> {
    KernelDevice::of(device).map_or(Ok(1), |kernels| Ok(kernels.resident_blocks(kernel)? as usize))
}

impl Scratch {
    /// For `kernel`, whose sums have `sum_bytes` each.
    pub(crate) fn new<P: Copy + Send + Sync>(
        device: &Device,
        kernel: &'static Kernel<P>,
        work: Work,
        sum_bytes: usize,
    ) -> Result<Self, Error> {
        let cut = Cut::new(work, resident(device, kernel)?);
        Ok(Self {
            cut,
            partials: Buffer::zeroed(device, cut.partials() * sum_bytes)?,
            arrivals: Buffer::zeroed(device, cut.arrivals())?,
            broken: false,
        })
    }

    /// Cuts other work, in the same memory where it is enough.
    pub(crate) fn fit<P: Copy + Send + Sync>(
        &mut self,
        device: &Device,
        kernel: &'static Kernel<P>,
        work: Work,
        sum_bytes: usize,
    ) -> Result<(), Error> {
        let cut = Cut::new(work, resident(device, kernel)?);
        let (bytes, arrivals) = (cut.partials() * sum_bytes, cut.arrivals());
        if bytes > self.partials.len() {
            device.refuse_capture(OP)?;
            self.partials = Buffer::zeroed(device, bytes.next_power_of_two())?;
        }
        if arrivals > self.arrivals.len() {
            device.refuse_capture(OP)?;
            self.arrivals = Buffer::zeroed(device, arrivals.next_power_of_two())?;
        }
        self.cut = cut;
        Ok(())
    }

    /// Teams that share a tile.
    pub(crate) fn parts(&self) -> usize {
        self.cut.parts
    }

    /// Launches with `launch`, which is given the grid, where there is something to compute.
    pub(super) fn launch(
        &mut self,
        device: KernelDevice<'_>,
        launch: impl FnOnce(GemvCut, u32) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.cut.tasks == 0 {
            return Ok(());
        }
        if self.broken {
            self.arrivals.copy_from_slice(&vec![0; self.arrivals.len()])?;
            self.broken = false;
        }
        let GemvShape { batch, rows, columns, .. } = self.cut.shape;
        let none = self.cut.parts == 1;
        let cut = GemvCut {
            partials: if none {
                Out::new(std::ptr::null_mut(), 0)
            } else {
                self.partials.view_mut()
            },
            arrivals: if none {
                Out::new(std::ptr::null_mut(), 0)
            } else {
                self.arrivals.view_mut()
            },
            batch: batch as u32,
            rows: rows as u32,
            columns: columns as u32,
            parts: self.cut.parts as u32,
            team_warps: self.cut.team_warps as u32,
            _padding: [0; 3],
        };
        let grid = self.cut.grid as u32;
        let launched: Result<(), Error> =
            with_buffers!(device, [self.partials, self.arrivals], launch(cut, grid));
        self.broken = launched.is_err();
        launched
    }
}

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) kernel: &'static Kernel<Gemv>,
    pub(crate) alpha: f64,
    pub(crate) matrix: &'a Buffer<T>,
    pub(crate) x: &'a Buffer<T>,
    pub(crate) beta: f64,
    pub(crate) y: &'a mut Buffer<T>,
}

/// Checks the contract of `gemv_*` and launches it. The scratch was made for the kernel and the element type. Buffers may
/// be longer than the shape asks for.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    scratch: &mut Scratch,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let shape = scratch.cut.shape;
    for (buffer, least, got) in [
        ("matrix", shape.batch * shape.rows * shape.columns, a.matrix.len()),
        ("x", shape.batch * shape.terms(), a.x.len()),
        ("y", shape.batch * shape.outputs(), a.y.len()),
    ] {
        if got < least {
            let expected = format!("{least} or more");
            return Err(Error::Length { op: OP, buffer, expected, got });
        }
    }
    if scratch.cut.team_warps != 1 {
        recording::refuse("a product whose rows are shared by warps")?;
    }
    let (matrix, x, y) = (a.matrix.view().cast(), a.x.view().cast(), a.y.view_mut().cast());
    scratch.launch(device, |cut, grid| {
        let params = Gemv { matrix, x, y, alpha: a.alpha, beta: a.beta, cut };
        // SAFETY: the operands have at least the lengths checked above, in memory aligned to 16 bytes, and the instance takes the
        // columns; the scratch is the cut's, its arrivals are zero; any grid covers the tasks; y is borrowed mutably.
        let launch = || unsafe { device.launch(a.kernel, grid, params) };
        with_buffers!(device, [a.matrix, a.x, a.y], launch())
    })
}

/// The instance for an element type.
pub(crate) fn instance(
    transposed: bool,
    dtype: DType,
    columns: usize,
) -> Result<instances::GemvInstance, Error> {
    instances::gemv(transposed, dtype, columns).ok_or(Error::Dtype {
        op: OP,
        got: dtype,
        expected: "f32, f64 or bf16",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_cut_by_shape() {
        let of = |transposed, batch, rows, columns| {
            let shape = GemvShape { batch, rows, columns, transposed };
            Cut::new(Work::Products(shape, 4), 400)
        };
        let large = of(false, 1, 16_384, 16_384);
        assert_eq!((large.team_warps, large.parts, large.grid), (WARPS, 1, 400));
        let columns = of(true, 1, 16_384, 16_384);
        assert_eq!((columns.tasks, columns.parts, columns.outputs), (128, 12, 128));
        // Few long rows are shared; many or short ones are a warp's.
        assert_eq!(of(false, 1, 4, 1 << 20).parts, 128);
        assert_eq!(of(false, 1, 1 << 20, 1 << 12).team_warps, 1);
        assert_eq!(of(false, 9, 100, 100).team_warps, 1);
        assert_eq!(of(true, 3, 10, 10).parts, 1);
        assert_eq!(of(false, 0, 10, 10).tasks, 0);
        let sums = |batch, length| Cut::new(Work::Sums(batch, length), 400);
        assert_eq!(
            (sums(1, 1 << 20).parts, sums(3, 1 << 20).parts, sums(1, 10).parts),
            (400, 133, 1)
        );
        let values = Cut::new(Work::Values(3, 1000), 400);
        assert_eq!((values.parts, values.grid), (1, 12));
    }
}
