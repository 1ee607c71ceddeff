//! Launcher of `linear_repack_*`.

use kasmina_kernels::instances;
use kasmina_types::LinearRepack;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::LINEAR_REPACK_TILE;

use super::linear_hopper::Repack;
use super::{KernelDevice, with_buffers};
use crate::buffer::Buffer;
use crate::error::Error;

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
    let tile = LINEAR_REPACK_TILE as usize;
    let grid = by.batch as u64 * (by.rows.div_ceil(tile) * by.columns.div_ceil(tile)) as u64;
    let limit = i32::MAX as u64;
    if grid > limit {
        return Err(Error::TooLarge { op: "linear", what: "tiles to move", got: grid, limit });
    }
    let params = LinearRepack {
        from: from.view().cast(),
        to: to.view_mut(),
        from_stride: by.from_stride,
        to_stride: (by.rows * by.to_ld) as u64,
        from_ld: by.from_ld as u32,
        to_ld: by.to_ld as u32,
        rows: by.rows as u32,
        columns: by.columns as u32,
        transposed: by.transposed.into(),
        batch: by.batch as u32,
        _padding: [0; 2],
    };
    // SAFETY: the source's matrices are inside their buffer, as the operation checked; the room was checked above, and
    // is borrowed mutably; rows are a multiple of 16 bytes apart; the grid has a block for each tile.
    let launch = || unsafe { device.launch_with_shared(kernel, grid as u32, shared, params) };
    with_buffers!(device, [from, to], launch())
}
