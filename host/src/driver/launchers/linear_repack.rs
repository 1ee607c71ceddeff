//! Launchers of `linear_repack_*`, with conversion and without, and of `linear_absmax_f32`.

use bytemuck::Pod;
use kasmina_kernels::instances;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::LINEAR_REPACK_TILE;
use kasmina_types::{DType, In, Layout, LinearAbsmax, LinearConvert, LinearRepack, Out};

use super::linear_hopper::Repack;
use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::linear::{Extent, Precision};

const OP: &str = "linear";

/// Bytes of a converted operand at most: more than any device has.
const MOST_BYTES: u64 = 1 << 40;

/// Blocks, one for each tile.
fn grid(by: &Repack) -> Result<u32, Error> {
    let tile = LINEAR_REPACK_TILE as usize;
    let got = by.batch as u64 * (by.rows.div_ceil(tile) * by.columns.div_ceil(tile)) as u64;
    let limit = i32::MAX as u64;
    if got > limit {
        return Err(Error::TooLarge { op: OP, what: "tiles to move", got, limit });
    }
    Ok(got as u32)
}

fn places<T: Pod>(by: &Repack, from: In<T>, to: Out<u8>) -> LinearRepack {
    LinearRepack {
        from: from.cast(),
        to,
        from_stride: by.from_stride,
        to_stride: (by.rows * by.to_ld) as u64,
        from_ld: by.from_ld as u32,
        to_ld: by.to_ld as u32,
        rows: by.rows as u32,
        columns: by.columns as u32,
        transposed: by.transposed.into(),
        batch: by.batch as u32,
        _padding: [0; 2],
    }
}

/// Moves an operand, whose extent was checked, to `to`.
pub(super) fn repack<T: Element>(
    device: KernelDevice<'_>,
    by: &Repack,
    from: &Buffer<T>,
    to: &mut Buffer<u8>,
) -> Result<(), Error> {
    let (kernel, shared) =
        instances::linear_repack(size_of::<T>()).expect("the element types of products");
    assert!(to.len() >= by.bytes, "the plan's room");
    let grid = grid(by)?;
    let params = places(by, from.view(), to.view_mut());
    // SAFETY: the source's matrices are inside their buffer, as the operation checked; the room was checked above, and
    // is borrowed mutably; rows are a multiple of 16 bytes apart; the grid has a block for each tile.
    let launch = || unsafe { device.launch_with_shared(kernel, grid, shared, params) };
    with_buffers!(device, [from, to], launch())
}

/// What operands of f32 are converted to for a precision, if they are.
pub(crate) fn converted(precision: Precision) -> Option<DType> {
    match precision {
        Precision::Bf16 => Some(DType::Bf16),
        Precision::F16 => Some(DType::F16),
        Precision::Fp8 | Precision::Fp8Fast => Some(DType::E4m3),
        Precision::Auto | Precision::F64 | Precision::F32 | Precision::Tf32 => None,
    }
}

/// Whether the device converts f32 for a precision, and multiplies on tensor cores what comes of it.
pub(crate) fn converts(device: KernelDevice<'_>, precision: Precision) -> bool {
    let Some(dtype) = converted(precision) else { return false };
    let has = |(kernel, _)| device.supports(kernel);
    let scales = dtype != DType::E4m3 || device.supports(instances::linear_absmax());
    scales
        && instances::linear_convert(dtype).is_some_and(has)
        && (instances::linear_mma(dtype, Layout::NT).any(|one| device.supports(one.kernel))
            || instances::linear_wgmma(dtype, Layout::NT).any(|one| device.supports(one.kernel)))
}

/// How an operand of f32 is converted, to rows that lie along k and are whole lines of the cache apart.
pub(crate) struct Conversion {
    by: Repack,
    from: Extent,
    elements: usize,
}

impl Conversion {
    /// Of the matrices of a batch, or of their transposes, to elements of `dtype`. None of the counts is 0.
    pub(crate) fn new(
        from: Extent,
        transposed: bool,
        batch: usize,
        dtype: DType,
    ) -> Result<Self, Error> {
        let by = Repack::new(&from, transposed, batch, dtype.size_bytes());
        let (got, limit) = (by.bytes as u64, MOST_BYTES);
        if got > limit {
            return Err(Error::TooLarge {
                op: OP,
                what: "bytes of a converted operand",
                got,
                limit,
            });
        }
        Ok(Self { by, from, elements: by.bytes / dtype.size_bytes() })
    }

    /// Elements that it makes.
    pub(crate) fn elements(&self) -> usize {
        self.elements
    }

    /// From one row to the next.
    pub(crate) fn ld(&self) -> usize {
        self.by.to_ld
    }

    /// From one matrix to the next; 0 where all problems share one.
    pub(crate) fn stride(&self) -> u64 {
        if self.from.stride == 0 { 0 } else { (self.by.rows * self.by.to_ld) as u64 }
    }

    /// Finds the scale of fp8. `state` is two zeros, and is so again afterwards.
    pub(crate) fn find_scale(
        &self,
        device: KernelDevice<'_>,
        from: &Buffer<f32>,
        scale: &mut Buffer<f32>,
        state: &mut Buffer<u32>,
    ) -> Result<(), Error> {
        let Extent { rows, columns, ld, stride, .. } = self.from;
        self.from.check(self.by.batch, from.len())?;
        check_length(OP, "the scale", 1, scale.len())?;
        check_length(OP, "the scale's state", 2, state.len())?;
        let kernel = instances::linear_absmax();
        let grid = grid(&self.by)?.min(device.resident_blocks(kernel)?).max(1);
        let params = LinearAbsmax {
            from: from.view(),
            scale: scale.view_mut(),
            state: state.view_mut(),
            stride,
            ld: ld as u32,
            rows: rows as u32,
            columns: columns as u32,
            batch: self.by.batch as u32,
            _padding: [0; 2],
        };
        // SAFETY: the matrices are inside their buffer, as was checked above, and no count is 0; scale and state have the
        // room that was checked, and are borrowed mutably; the state is zero between launches.
        let launch = || unsafe { device.launch(kernel, grid, params) };
        with_buffers!(device, [from, scale, state], launch())
    }

    /// Converts the operand, divided by the scale if it is to fp8.
    pub(crate) fn run<T: Element>(
        &self,
        device: KernelDevice<'_>,
        from: &Buffer<f32>,
        to: &mut Buffer<T>,
        scale: Option<&Buffer<f32>>,
    ) -> Result<(), Error> {
        let (kernel, shared) = instances::linear_convert(T::DTYPE).expect("a type to convert to");
        self.from.check(self.by.batch, from.len())?;
        assert!(to.len() >= self.elements, "room for what it makes");
        assert_eq!(scale.is_some_and(|s| s.len() == 1), T::DTYPE == DType::E4m3, "fp8's scale");
        let grid = grid(&self.by)?;
        let params = LinearConvert {
            places: places(&self.by, from.view(), to.view_mut().cast()),
            scale: scale.map_or(In::new(std::ptr::null(), 0), Buffer::view),
        };
        let scale = super::activation_norm::Optional([scale]);
        // SAFETY: the source's matrices are inside their buffer, as was checked above; so was the room, which is borrowed
        // mutably; rows are a multiple of 128 bytes apart; the grid has a block for each tile; fp8 has its scale.
        let launch = || unsafe { device.launch_with_shared(kernel, grid, shared, params) };
        with_buffers!(device, [from, to, scale], launch())
    }
}
