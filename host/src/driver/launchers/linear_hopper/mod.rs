//! Launcher of `linear_wgmma_*`.

pub(crate) mod grouped;
mod map_sets;
mod plan;

use bytemuck::Pod;
use kasmina_kernels::instances::WgmmaKind;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::LINEAR_WGMMA_K_BYTES;
use kasmina_types::{DType, LinearWgmmaParams, Scaling, TensorMapHandle};

use super::activation_norm::Optional;
use super::linear::{Arguments, parameters};
use super::linear_repack::repack;
use super::{KernelDevice, with_buffers};
use crate::buffer::Buffer;
use crate::driver::{
    Interleave, L2Promotion, OutOfBoundsFill, Swizzle, TensorDataType, TensorMapCache,
    TensorMapSpec,
};
use crate::error::Error;

pub(super) use plan::Repack;
use plan::Rows;
pub(crate) use plan::{Alignment, Plan, plan};

/// Elements along m or n of a box that does not lie along k, its rows along k, and rows of a box of D.
const BOX: u32 = 64;

/// Checks the contract of `linear_wgmma_*`, moves operands that are to be moved, and launches it.
pub(crate) fn launch<T: Element, O: Element>(
    device: KernelDevice<'_>,
    plan: &Plan,
    mut a: Arguments<'_, '_, T, O>,
    [room_a, room_b]: [&mut Buffer<u8>; 2],
    maps: &mut TensorMapCache,
) -> Result<(), Error> {
    let Plan { instance, tiles, parts, cluster, grid, .. } = *plan;
    assert_eq!(instance.dtype, T::DTYPE, "the variant was chosen by the element type");
    let by_blocks = a.operands.scales.scaling() == Scaling::Block;
    assert!(!by_blocks || instance.kind == WgmmaKind::Scaled, "and by the scales");
    let linear = parameters(&mut a, (tiles, parts), (plan.partial_bytes(), plan.arrivals()))?;
    let (shape, operands) = (a.shape, a.operands);
    let batch = shape.batch;
    let [repack_a, repack_b] = &plan.repack;
    let place = |by: &Option<Repack>, room: &mut Buffer<u8>, operand: &Buffer<T>, extent| {
        let Some(by) = by else {
            return Ok(Rows::of(operand, &extent, batch).expect("the plan saw that it is aligned"));
        };
        repack(device, by, operand, room)?;
        Ok::<_, Error>(moved::<T>(by, room))
    };
    let place_a = place(repack_a, room_a, operands.a, shape.a())?;
    let place_b = place(repack_b, room_b, operands.b, shape.b())?;

    let layout = instance.layout;
    let swapped = instance.kind == WgmmaKind::Swapped;
    let (edge_a, edge_b) =
        if swapped { (instance.columns, instance.rows) } else { (instance.rows, instance.columns) };
    let map_a =
        map(maps, T::DTYPE, &place_a, operand_box(T::DTYPE, !layout.transposed_a(), edge_a))?;
    let edge_b = edge_b / plan.loading_together();
    let map_b =
        map(maps, T::DTYPE, &place_b, operand_box(T::DTYPE, layout.transposed_b(), edge_b))?;
    let map_d = if plan.bulk {
        let rows = Rows::of(&*a.d, &shape.d(), batch).expect("the plan saw that it is aligned");
        map(maps, O::DTYPE, &rows, result_box(O::DTYPE))?
    } else {
        TensorMapHandle::none()
    };
    let (first, second) = if swapped { (map_b, map_a) } else { (map_a, map_b) };
    let (along_rows, along_columns) = if swapped { (shape.n, shape.m) } else { (shape.m, shape.n) };
    let rows = (instance.rows * plan.loading_together()) as usize;
    let tile_rows = along_rows.div_ceil(rows) as u32;
    let tile_columns = along_columns.div_ceil(instance.columns as usize) as u32;
    let params = LinearWgmmaParams {
        linear,
        first,
        second,
        d: map_d,
        bulk: plan.bulk.into(),
        tile_rows,
        tile_columns,
        tiles_of_one: tile_rows * tile_columns,
        k_tiles: (shape.k * size_of::<T>()).div_ceil(LINEAR_WGMMA_K_BYTES as usize) as u32,
        _padding: 0,
    };

    let scales = operands.scales.buffers();
    let results = Optional([operands.bias, operands.c, operands.residual, a.z.as_deref()]);
    let scales = Optional([scales.map(|(a, _)| a), scales.map(|(_, b)| b)]);
    let clusters = (cluster > 1).then_some([cluster, 1, 1]);
    let maps = &*maps;
    // SAFETY: every operand is inside its buffer, and the maps describe it, or what it was moved to, with the instance's
    // boxes; results do not overlap (`LinearShape`) and are borrowed mutably; there is a cluster for each tile, or
    // persistent blocks, or clusters of them that are resident; scratch has the room that was checked, with arrivals zero
    // between launches; each share of a tile has k (`plan`). Maps stay as long as the cache, which is acquired.
    let launch = || unsafe {
        let bytes = instance.dynamic_shared_bytes;
        device.launch_clusters(instance.kernel, grid, clusters, bytes, false, params)
    };
    let (room_a, room_b) = (&*room_a, &*room_b);
    with_buffers!(
        device,
        [
            operands.a, operands.b, a.d, a.partials, a.arrivals, results, scales, room_a, room_b,
            maps
        ],
        launch()
    )
}

/// What an operand was moved to.
fn moved<T: Pod>(by: &Repack, room: &Buffer<u8>) -> Rows {
    let row_bytes = (by.to_ld * size_of::<T>()) as u64;
    Rows {
        address: room.device_address(),
        columns: by.columns as u64,
        rows: by.rows as u64,
        batch: by.batch as u64,
        row_bytes,
        batch_bytes: row_bytes * by.rows as u64,
    }
}

/// Columns and rows of a box of an operand whose tile's edge is `edge`.
fn operand_box(dtype: DType, along_k: bool, edge: u32) -> [u32; 2] {
    if along_k { [LINEAR_WGMMA_K_BYTES / dtype.size_bytes() as u32, edge] } else { [BOX, BOX] }
}

/// Of a box of D.
fn result_box(dtype: DType) -> [u32; 2] {
    [LINEAR_WGMMA_K_BYTES / dtype.size_bytes() as u32, BOX]
}

/// The tensor map of a batch of matrices of `dtype`.
fn map(
    maps: &mut TensorMapCache,
    dtype: DType,
    rows: &Rows,
    of_box: [u32; 2],
) -> Result<TensorMapHandle, Error> {
    with_specification(dtype, rows, of_box, |spec| maps.get(spec))
}

/// Hands on what says all of such a map.
fn with_specification<R>(
    dtype: DType,
    rows: &Rows,
    [columns, height]: [u32; 2],
    take: impl FnOnce(&TensorMapSpec<'_>) -> R,
) -> R {
    let data_type = match dtype {
        DType::F16 => TensorDataType::F16,
        DType::Bf16 => TensorDataType::Bf16,
        DType::E4m3 => TensorDataType::U8,
        DType::F32 => TensorDataType::F32,
        DType::F64 | DType::I32 => unreachable!("no instance has these elements"),
    };
    take(&TensorMapSpec {
        data_type,
        address: rows.address,
        dimensions: &[rows.columns, rows.rows, rows.batch],
        strides_bytes: &[rows.row_bytes, rows.batch_bytes],
        box_dimensions: &[columns, height, 1],
        element_strides: &[1, 1, 1],
        swizzle: Swizzle::Bytes128,
        interleave: Interleave::None,
        l2_promotion: L2Promotion::Bytes256,
        out_of_bounds_fill: OutOfBoundsFill::Zero,
    })
}
