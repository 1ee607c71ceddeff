//! Parameters of the transfer entropy's kernels.

use bytemuck::{Pod, Zeroable};

use crate::view::{In, Out};

/// An offset that says: there is none.
pub const TE_NONE: u32 = u32::MAX;

/// Threads of a block of the transfer entropy's kernels.
pub const TE_BLOCK_THREADS: u32 = 128;

/// Blocks of the kernels for few dimensions that fit on a multiprocessor, at least.
pub const TE_SMALL_MIN_BLOCKS: u32 = 4;

/// Neighbouring points of an order that have a box.
pub const TE_BOX_POINTS: u32 = 128;

/// Coordinates of a box: the first of y⁻.
pub const TE_BOX_DIMS: usize = 3;

/// Coordinates of a point, at most.
pub const TE_MAX_DIMS: usize = 32;

/// Neighbours, at most.
pub const TE_MAX_K: u32 = 32;

/// One set of points: a pair of series, a delay, or a surrogate.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TeProblem {
    /// Points.
    pub points: u32,
    /// Where its order begins in [`TePoints::orders`], or [`TE_NONE`]: in order of time.
    pub order: u32,
    /// Where its rows begin in [`TePoints::rows`], or [`TE_NONE`]: each point has its own x⁻.
    pub rows: u32,
    /// Its first box, of [`TE_BOX_POINTS`] points in its order, in [`TePoints::boxes`], or [`TE_NONE`].
    pub first_box: u32,
}

crate::assert_layout!(TeProblem, size = 16, align = 16, {
    points: 0, order: 4, rows: 8, first_box: 12,
});

/// The points of all problems, and how they are cut among blocks. A point's coordinates are y⁻ with the
/// conditions' pasts, y_t, x⁻; each is a value of the series.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct TePoints {
    /// The series one after another, f32 or f64.
    pub series: In<u8>,
    /// `[num_problems]`.
    pub problems: In<TeProblem>,
    /// `[num_problems, past + 1 + source]`: where in `series` the coordinate of point 0 is; that of point i is i
    /// further, of x⁻ its row. [`TE_NONE`]: a coordinate that is 0 everywhere.
    pub offsets: In<u32>,
    /// Orders of points: any permutations.
    pub orders: In<u32>,
    /// `[boxes, TE_BOX_DIMS, 2]`, of the series' type: the least and the largest value of the first coordinates among
    /// the points of a box; 0 and 0 for coordinates that y⁻ has not.
    pub boxes: In<u8>,
    /// Rows of x⁻.
    pub rows: In<u32>,
    /// Problems.
    pub num_problems: u32,
    /// Places for points that each problem has in what the kernels write.
    pub stride: u32,
    /// Coordinates of y⁻ and the conditions.
    pub past: u32,
    /// Coordinates of x⁻.
    pub source: u32,
    /// Points whose numbers differ by so much or less are no neighbours.
    pub theiler: u32,
    /// Blocks along a problem's points.
    pub query_tiles: u32,
    /// Blocks that share a query tile's candidates.
    pub slabs: u32,
    /// K.
    pub k: u32,
}

crate::assert_layout!(TePoints, size = 128, align = 16, {
    series: 0, problems: 16, offsets: 32, orders: 48, boxes: 64, rows: 80, num_problems: 96,
    stride: 100, past: 104, source: 108, theiler: 112, query_tiles: 116, slabs: 120, k: 124,
});

/// What the `fused_distance_kth_*` kernels take. Distances have the series' type.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct DistanceKth {
    /// The points.
    pub points: TePoints,
    /// `[num_problems, stride]`, or empty: above the distance to the K-th neighbour of each point.
    pub bounds: In<u8>,
    /// `[num_problems, stride]`, or empty. If not empty, this launch only makes bounds, from the candidates near
    /// the block's points in their order.
    pub new_bounds: Out<u8>,
    /// `[num_problems, 3, stride]`: the distances in y⁻, y_t and x⁻ up to which points count.
    pub radii: Out<u8>,
    /// `[num_problems, stride]`: 1 where another point is as far as the K-th neighbour, else 0.
    pub tied: Out<u32>,
    /// Scratch: `[num_problems, slabs, capacity + 1, stride]` distances; empty for one slab.
    pub lists: Out<u8>,
    /// Scratch: as `lists`, the neighbours' numbers, for the kernels that keep them.
    pub list_points: Out<u32>,
    /// Scratch: `[num_problems, query_tiles]`, zero before and after.
    pub arrivals: Out<u32>,
    /// Candidate tiles around the block's points from which bounds are made.
    pub window_tiles: u32,
    /// 1, or 2 for the kernels that keep the neighbours' numbers.
    pub algorithm: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

crate::assert_layout!(DistanceKth, size = 256, align = 16, {
    points: 0, bounds: 128, new_bounds: 144, radii: 160, tied: 176, lists: 192, list_points: 208,
    arrivals: 224, window_tiles: 240, algorithm: 244, reserved: 248,
});

/// What the `fused_te_reduction_*` kernels take.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct TeReduction {
    /// The points.
    pub points: TePoints,
    /// `[num_problems, 3, stride]`, of the series' type.
    pub radii: In<u8>,
    /// `[num_problems, stride]`.
    pub tied: In<u32>,
    /// ψ(0), which is not used, ψ(1), … ψ(largest problem's points).
    pub psi: In<f64>,
    /// `[num_problems]`: the transfer entropy in nats.
    pub te: Out<f64>,
    /// `[num_problems]`: points with a tie.
    pub ties: Out<u32>,
    /// `[num_problems, stride]`, or empty: each point's part.
    pub local: Out<f64>,
    /// Scratch: `[num_problems, slabs, 3, stride]`; empty for one slab.
    pub counts: Out<u32>,
    /// Scratch: `[num_problems, query_tiles]` sums, of multiples of a power of two, in two's complement.
    pub sums: Out<u64>,
    /// Scratch: `[num_problems, query_tiles]` ties.
    pub tile_ties: Out<u32>,
    /// Scratch: `[num_problems, query_tiles]`, then `[num_problems]`, zero before and after.
    pub arrivals: Out<u32>,
    /// 1 or 2.
    pub algorithm: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

crate::assert_layout!(TeReduction, size = 304, align = 16, {
    points: 0, radii: 128, tied: 144, psi: 160, te: 176, ties: 192, local: 208, counts: 224,
    sums: 240, tile_ties: 256, arrivals: 272, algorithm: 288, reserved: 292,
});

/// Which rows a surrogate has.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RowMap {
    /// Points.
    pub points: u32,
    /// Tells apart the pairs of series that share a seed.
    pub stream: u32,
    /// Number of the surrogate.
    pub surrogate: u32,
    /// Zero.
    pub reserved: u32,
}

crate::assert_layout!(RowMap, size = 16, align = 16, {
    points: 0, stream: 4, surrogate: 8, reserved: 12,
});

/// Each row goes anywhere.
pub const ROWS_PERMUTE: u32 = 0;
/// All rows rotate together.
pub const ROWS_ROTATE: u32 = 1;
/// Blocks of rows go anywhere.
pub const ROWS_BLOCK: u32 = 2;

/// What the kernel `surrogate_rows` takes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct SurrogateRows {
    /// `[num_maps]`.
    pub maps: In<RowMap>,
    /// `[num_maps, stride]`: those below a map's points are written.
    pub rows: Out<u32>,
    /// Maps.
    pub num_maps: u32,
    /// Places of a map.
    pub stride: u32,
    /// [`ROWS_PERMUTE`], [`ROWS_ROTATE`] or [`ROWS_BLOCK`].
    pub kind: u32,
    /// Rows of a block, from 1 to the points.
    pub block_length: u32,
    /// The seed, its lower half first.
    pub seed: [u32; 2],
    /// Zero.
    pub reserved: [u32; 2],
}

crate::assert_layout!(SurrogateRows, size = 64, align = 16, {
    maps: 0, rows: 16, num_maps: 32, stride: 36, kind: 40, block_length: 44, seed: 48,
    reserved: 56,
});
