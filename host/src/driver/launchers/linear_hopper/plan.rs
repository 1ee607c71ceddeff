//! The choice among the instances of `linear_wgmma`, and how their work is cut.

use bytemuck::Pod;
use kasmina_kernels::instances::{self, LinearWgmmaInstance, WgmmaKind};
use kasmina_types::tiles::LINEAR_WGMMA_K_BYTES;
use kasmina_types::{DType, Layout};

use super::super::KernelDevice;
use crate::buffer::Buffer;
use crate::error::Error;
use crate::linear::{Extent, LinearShape, Operands, Precision};

/// What addresses and distances of rows are multiples of, for bulk copies of tensors.
pub(super) const ALIGNMENT: usize = 16;

/// m·n·k from which on it pays to move operands that cannot be loaded as they are: two launches more.
const REPACK_WORK: u128 = 1 << 24;

/// Blocks of a cluster at most: what every device with clusters has.
const MOST_CLUSTER: u32 = 8;

/// Blocks of a cluster that load the second operand for each other.
const PAIR: u32 = 2;

/// Tiles of k from which on they do, if there are more tiles than blocks: for less, meeting costs more than it brings.
const PAIR_K_TILES: u32 = 16;

/// Blocks at most that share the k of a tile through memory: the last adds them alone.
const MOST_PARTS: u32 = 16;

/// Blocks that the executor is taken to have: few, so that they take several tiles.
const SIMT_BLOCKS: u32 = 4;

/// What the operands' places allow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alignment {
    /// Whether A's rows, and B's, can be loaded.
    a: bool,
    b: bool,
    /// Whether D can be stored by bulk copies, which nothing but a bias and an activation goes with.
    d: bool,
}

impl Alignment {
    /// Of checked operands.
    pub(crate) fn of<T: Pod, O: Pod>(
        shape: &LinearShape,
        operands: &Operands<'_, T, O>,
        d: &Buffer<O>,
        has_z: bool,
    ) -> Self {
        let batch = shape.batch;
        let plain = operands.c.is_none() && operands.residual.is_none() && !has_z;
        // A bulk store writes 16 bytes at a time, also over a row's end.
        let whole = (shape.n * size_of::<O>()).is_multiple_of(ALIGNMENT);
        Self {
            a: Rows::of(operands.a, &shape.a(), batch).is_some(),
            b: Rows::of(operands.b, &shape.b(), batch).is_some(),
            d: plain && whole && Rows::of(d, &shape.d(), batch).is_some(),
        }
    }
}

/// A matrix as a tensor map describes it, in elements and bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) address: u64,
    pub(super) columns: u64,
    pub(super) rows: u64,
    pub(super) batch: u64,
    pub(super) row_bytes: u64,
    pub(super) batch_bytes: u64,
}

impl Rows {
    /// Of a matrix of a batch, if bulk copies can have it.
    pub(super) fn of<T: Pod>(buffer: &Buffer<T>, at: &Extent, batch: usize) -> Option<Self> {
        Self::at((buffer.device_address(), size_of::<T>()), at, batch)
    }

    /// Of a matrix whose elements, of so many bytes, lie from an address on.
    pub(super) fn at((address, size): (u64, usize), at: &Extent, batch: usize) -> Option<Self> {
        // One row has no next.
        let ld = if at.rows == 1 { at.columns.next_multiple_of(ALIGNMENT) } else { at.ld };
        let shared = batch == 1 || at.stride == 0;
        let stride = if shared { (at.rows * ld) as u64 } else { at.stride };
        let (row_bytes, batch_bytes) = ((ld * size) as u64, stride * size as u64);
        let aligned =
            [address, row_bytes, batch_bytes].iter().all(|v| v.is_multiple_of(ALIGNMENT as u64));
        let apart = batch_bytes >= row_bytes * at.rows as u64 && batch_bytes < 1 << 40;
        let (columns, rows) = (at.columns as u64, at.rows as u64);
        let batch = if shared { 1 } else { batch as u64 };
        (aligned && apart).then_some(Self { address, columns, rows, batch, row_bytes, batch_bytes })
    }
}

/// How an operand is moved to rows that lie along k.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Repack {
    /// m, or n.
    pub(in super::super) rows: usize,
    /// k.
    pub(in super::super) columns: usize,
    pub(in super::super) from_ld: usize,
    pub(in super::super) from_stride: u64,
    pub(in super::super) to_ld: usize,
    pub(in super::super) transposed: bool,
    pub(in super::super) batch: usize,
    pub(in super::super) bytes: usize,
}

impl Repack {
    pub(in super::super) fn new(at: &Extent, transposed: bool, batch: usize, size: usize) -> Self {
        let (rows, columns) =
            if transposed { (at.columns, at.rows) } else { (at.rows, at.columns) };
        let batch = if at.stride == 0 { 1 } else { batch };
        // Whole lines, so that no row of a box touches two.
        let to_ld = columns.next_multiple_of(LINEAR_WGMMA_K_BYTES as usize / size);
        let bytes = [rows, to_ld, size].into_iter().fold(batch, usize::saturating_mul);
        let (from_ld, from_stride) = (at.ld, at.stride);
        Self { rows, columns, from_ld, from_stride, to_ld, transposed, batch, bytes }
    }
}

/// An instance, and how its work is cut.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(super) instance: LinearWgmmaInstance,
    /// Output tiles of all problems, or pairs of them where blocks load for each other.
    pub(super) tiles: u32,
    /// Blocks that share a tile through memory.
    pub(super) parts: u32,
    /// Blocks of a cluster: they share the k of a tile, or, of an instance that takes whole tiles, have one each, one below
    /// the other, and load the second operand for each other.
    pub(super) cluster: u32,
    pub(super) grid: u32,
    /// Whether D leaves by bulk stores.
    pub(super) bulk: bool,
    /// How A, and B, are moved first.
    pub(super) repack: [Option<Repack>; 2],
}

impl Plan {
    /// The kernel's name.
    pub(crate) fn kernel_name(&self) -> &'static str {
        self.instance.kernel.name()
    }

    /// Blocks that share the k of a tile.
    pub(crate) fn sharers(&self) -> u32 {
        if self.instance.kind.takes_whole_tiles() { self.parts } else { self.cluster }
    }

    /// Blocks that load the second operand for each other.
    pub(super) fn loading_together(&self) -> u32 {
        if self.instance.kind.takes_whole_tiles() { self.cluster } else { 1 }
    }

    pub(crate) fn partial_bytes(&self) -> usize {
        let LinearWgmmaInstance { rows, columns, .. } = self.instance;
        let tile = rows as usize * columns as usize * size_of::<f32>();
        if self.parts == 1 { 0 } else { self.tiles as usize * self.parts as usize * tile }
    }

    pub(crate) fn arrivals(&self) -> usize {
        if self.parts == 1 { 0 } else { self.tiles as usize }
    }

    /// Room for A, and for B, where they are moved.
    pub(crate) fn repacked_bytes(&self) -> [usize; 2] {
        self.repack.map(|repack| repack.map_or(0, |repack| repack.bytes))
    }
}

/// The plan of a product that the device has an instance for. The instance and its cut are those of the least
/// [`time`], the first in the table where times are equal; `Fp8` and `Fp8Fast` have instances of their own.
pub(crate) fn plan(
    device: KernelDevice<'_>,
    dtype: DType,
    precision: Precision,
    shape: &LinearShape,
    alignment: &Alignment,
) -> Result<Option<Plan>, Error> {
    use Precision::{Bf16, F16, Fp8, Fp8Fast, Tf32};
    let own = matches!(precision, Bf16 | F16 | Tf32 | Fp8 | Fp8Fast);
    let &LinearShape { m, n, k, batch, .. } = shape;
    if !own || [m, n, k, batch].contains(&0) {
        return Ok(None);
    }
    let Some((layout, repack)) = operands(dtype, shape, alignment) else { return Ok(None) };
    let blocks = match device {
        KernelDevice::Cuda(gpu) => gpu.device().info().sm_count,
        KernelDevice::Simt(_) => SIMT_BLOCKS,
    };
    let k_tiles = (k * dtype.size_bytes()).div_ceil(LINEAR_WGMMA_K_BYTES as usize) as u32;
    let mut best: Option<(u64, Plan)> = None;
    let mut consider = |time: u64, plan: Plan| {
        if best.as_ref().is_none_or(|(least, _)| time < *least) {
            best = Some((time, plan));
        }
    };
    let scaled = precision == Fp8;
    for instance in instances::linear_wgmma(dtype, layout)
        .filter(|instance| (instance.kind == WgmmaKind::Scaled) == scaled)
    {
        let bytes = instance.dynamic_shared_bytes;
        let resident = device.blocks_with_room(instance.kernel, bytes)?;
        if resident == 0 {
            continue;
        }
        let swapped = instance.kind == WgmmaKind::Swapped;
        let whole = instance.kind.takes_whole_tiles();
        let (along_rows, along_columns) = if swapped { (n, m) } else { (m, n) };
        // Beyond, counts of works would not fit; the other variants say so.
        let tiles_of = |rows: u32| {
            let tiles = along_rows.div_ceil(rows as usize) as u64
                * along_columns.div_ceil(instance.columns as usize) as u64
                * batch as u64;
            u32::try_from(tiles).ok().filter(|tiles| *tiles < 1 << 26)
        };
        let Some(tiles) = tiles_of(instance.rows) else { continue };
        if whole && tiles > blocks && k_tiles >= PAIR_K_TILES {
            let room = device.clustered_blocks_with_room(instance.kernel, bytes, PAIR)?;
            if let Some(pairs) = tiles_of(PAIR * instance.rows).filter(|_| room >= PAIR) {
                let work = Work { tiles: pairs, sharers: 1, loaders: PAIR, k_tiles, blocks };
                let grid = (pairs * PAIR).min(room);
                let (parts, cluster, bulk) = (1, PAIR, alignment.d);
                let plan = Plan { instance, tiles: pairs, parts, cluster, grid, bulk, repack };
                consider(work.time(&instance), plan);
            }
        }
        let most = if whole { MOST_PARTS } else { MOST_CLUSTER };
        for sharers in cuts(tiles, blocks, k_tiles, most, !whole) {
            let (parts, cluster) = if whole { (sharers, 1) } else { (1, sharers) };
            // A cluster takes one tile.
            let persistent = !swapped && cluster == 1;
            let grid = if persistent { (tiles * parts).min(resident) } else { tiles * cluster };
            let bulk = persistent && alignment.d;
            let plan = Plan { instance, tiles, parts, cluster, grid, bulk, repack };
            // Clusters lie within groups of SMs, whose sizes they may not divide.
            let blocks = match cluster {
                1 => blocks,
                _ => device.clustered_blocks_with_room(instance.kernel, bytes, cluster)?,
            };
            if blocks >= cluster {
                let work = Work { tiles, sharers, loaders: 1, k_tiles, blocks };
                consider(work.time(&instance), plan);
            }
        }
    }
    Ok(best.map(|(_, plan)| plan))
}

/// The layout that instances are asked for, and which operands are moved to it; `None` where that does not pay.
fn operands(
    dtype: DType,
    shape: &LinearShape,
    alignment: &Alignment,
) -> Option<(Layout, [Option<Repack>; 2])> {
    let &LinearShape { m, n, k, batch, layout, .. } = shape;
    let size = dtype.size_bytes();
    // Of 16-bit elements alone the tensor cores take operands that lie along m or n.
    let along_k_alone = size != 2;
    let (transposed_a, transposed_b) = (layout.transposed_a(), layout.transposed_b());
    let move_a = !alignment.a || (along_k_alone && transposed_a);
    let move_b = !alignment.b || (along_k_alone && !transposed_b);
    if (move_a || move_b) && m as u128 * n as u128 * k as u128 * (batch as u128) < REPACK_WORK {
        return None;
    }
    let a = move_a.then(|| Repack::new(&shape.a(), transposed_a, batch, size));
    let b = move_b.then(|| Repack::new(&shape.b(), !transposed_b, batch, size));
    let layout = Layout::of(transposed_a && !move_a, transposed_b || move_b);
    Some((layout, [a, b]))
}

/// Into how many shares the k of a tile may be cut: 1, and more where blocks would be idle, each with k.
fn cuts(
    tiles: u32,
    blocks: u32,
    k_tiles: u32,
    most: u32,
    clusters: bool,
) -> impl Iterator<Item = u32> {
    let most = most.min(blocks / tiles.max(1)).min(k_tiles).max(1);
    (1..=most).filter(move |&sharers| !clusters || sharers.is_power_of_two())
}

/// What an estimate of time is made of.
pub(super) struct Work {
    /// Tiles, or pairs of them.
    pub(super) tiles: u32,
    /// Blocks that share the k of a tile.
    pub(super) sharers: u32,
    /// Blocks that load the second operand for each other.
    pub(super) loaders: u32,
    pub(super) k_tiles: u32,
    /// Blocks that the device holds at once.
    pub(super) blocks: u32,
}

impl Work {
    /// An estimate in cycles of an SM. For each tile of k the tensor cores take 2 cycles a column and 64 rows, its
    /// loads a cycle for 64 bytes, and the way from one to the next 300, whichever is longest; results take 32 cycles a
    /// column, whatever the number of warpgroups; a tile waits for its first loads. Shares are added at the price of their
    /// results through memory, and of a meeting, and each block's values, through a cluster.
    pub(super) fn time<P>(&self, instance: &LinearWgmmaInstance<P>) -> u64 {
        const FIRST_LOADS: u64 = 1000;
        const LEAST: u64 = 300;
        const MEETING: u64 = 600;
        const FROM_BLOCK: u64 = 100;
        let &Self { tiles, sharers, loaders, k_tiles, blocks } = self;
        let (rows, columns) = (u64::from(instance.rows), u64::from(instance.columns));
        let products = rows / 64 * columns * 2;
        let span = u64::from(LINEAR_WGMMA_K_BYTES);
        let loads = (rows + columns / u64::from(loaders)) * span / 64;
        let along_k = u64::from(k_tiles.div_ceil(sharers)) * products.max(loads).max(LEAST);
        let results = 32 * columns;
        let results = match (instance.kind.takes_whole_tiles(), sharers) {
            (_, 1) => results,
            (true, _) => results * 2 + results * u64::from(sharers) / 4,
            _ => results / u64::from(sharers) + MEETING + FROM_BLOCK * u64::from(sharers),
        };
        let waves = u64::from((tiles * sharers * loaders).div_ceil(blocks));
        waves * (along_k + results + FIRST_LOADS)
    }
}

#[cfg(test)]
mod tests {
    use kasmina_simt::Executor;

    use super::*;

    fn of(m: usize, n: usize, k: usize) -> Plan {
        let executor = Executor::new();
        let shape = LinearShape::new(Layout::NT, m, n, k);
        let alignment = Alignment { a: true, b: true, d: true };
        let (dtype, precision) = (DType::Bf16, Precision::Bf16);
        plan(KernelDevice::Simt(&executor), dtype, precision, &shape, &alignment)
            .expect("the executor has every kernel")
            .expect("an instance")
    }

    /// As on a GPU with as many blocks.
    #[test]
    fn the_executor_gets_clusters() {
        let pairs = of(256, 768, 1024);
        assert_eq!((pairs.loading_together(), pairs.sharers(), pairs.tiles), (PAIR, 1, 3));
        assert_eq!(pairs.grid, 6);
        let few = of(8, 64, 1024);
        assert_eq!((few.instance.kind, few.cluster, few.grid), (WgmmaKind::Swapped, 4, 4));
        let (alone, many) = (of(256, 768, 256), of(8, 1024, 1024));
        assert_eq!((alone.cluster, many.cluster), (1, 1));
    }
}
