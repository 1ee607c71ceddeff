//! Parameters of the products of matrices on the warpgroups' tensor cores of compute capability 9.0, and of the pass
//! that gives their operands rows which bulk copies can load.

use bytemuck::{Pod, Zeroable};

use crate::linear::LinearParams;
use crate::tensor_map::{TensorMapBytes, TensorMapHandle};
use crate::view::{In, Out};

/// What the `linear_wgmma_*` kernels take.
///
/// All tensor maps are of rank 3, with the problems of a batch along the outermost dimension, which is 1 where all
/// share an operand. A box of an operand that lies along k is 128 bytes of k by the tile's edge; of one that does not,
/// 64 elements of m or n by 64 of k. A box of D is 128 bytes of a row by 64 rows. Boxes are swizzled by 128 bytes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearWgmmaParams {
    /// The problem. Grouped problems are not taken, and scales of blocks by `_scaled` instances alone; `tiles` and `parts`
    /// are 1 or more, and parts have k each.
    pub linear: LinearParams,
    /// Of A, or of B where the instance is swapped: what the tile's rows come from.
    pub first: TensorMapHandle,
    /// Of the other.
    pub second: TensorMapHandle,
    /// Of D, or none: results then leave by ordinary stores.
    pub d: TensorMapHandle,
    /// Whether D has a map.
    pub bulk: u32,
    /// Tiles of one problem along the rows of the first operand; where blocks of a cluster have tiles one below the other,
    /// sets of these.
    pub tile_rows: u32,
    /// Tiles of one problem along the rows of the second operand.
    pub tile_columns: u32,
    /// The product of the two: `linear.tiles` are `linear.batch` times as many.
    pub tiles_of_one: u32,
    /// Tiles of k, 1 or more.
    pub k_tiles: u32,
    /// No meaning.
    pub _padding: u32,
}

crate::assert_layout!(LinearWgmmaParams, size = 464, align = 16, {
    linear: 0, first: 416, second: 424, d: 432, bulk: 440, tile_rows: 444, tile_columns: 448, tiles_of_one: 452,
    k_tiles: 456, _padding: 460,
});

/// An output tile of a problem of a group.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LinearTile {
    /// The problem's number in the list.
    pub problem: u32,
    /// The tile's first row of D.
    pub row: u32,
    /// The tile's first column of D.
    pub column: u32,
    /// The problem's k, 1 or more.
    pub k: u32,
}

crate::assert_layout!(LinearTile, size = 16, align = 16, { problem: 0, row: 4, column: 8, k: 12 });

/// What the `linear_grouped_wgmma_*` kernels take: problems of any shapes, of which blocks have whole tiles.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearGroupedWgmma {
    /// As [`LinearWgmmaParams`] says, but with `linear.problems`, none of them empty or without k, whose `first_tile` has
    /// no meaning; `linear.parts` is 1, scales are for tensors, and none of the maps is there.
    pub product: LinearWgmmaParams,
    /// The `linear.tiles` tiles, in the order in which blocks take them.
    pub tiles: In<LinearTile>,
    /// Three tensor maps of each problem: of A, of B, and of D where `product.bulk`; aligned to 64 bytes.
    pub maps: In<TensorMapBytes>,
}

crate::assert_layout!(LinearGroupedWgmma, size = 496, align = 16, { product: 0, tiles: 464, maps: 480 });

/// What the `linear_repack_*` kernels take: `to[b, i, j] = from[b, i, j]`, or `from[b, j, i]`.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearRepack {
    /// Where the matrices are.
    pub from: In<u8>,
    /// Where they go to, rows `to_ld` apart.
    pub to: Out<u8>,
    /// From one matrix to the next, in elements.
    pub from_stride: u64,
    /// Likewise.
    pub to_stride: u64,
    /// From one row to the next, in elements.
    pub from_ld: u32,
    /// Likewise; a multiple of 4. What is between rows gets no meaning.
    pub to_ld: u32,
    /// Rows of what is made.
    pub rows: u32,
    /// Columns of what is made.
    pub columns: u32,
    /// Whether `from` holds the transpose.
    pub transposed: u32,
    /// Matrices.
    pub batch: u32,
    /// No meaning.
    pub _padding: [u32; 2],
}

crate::assert_layout!(LinearRepack, size = 80, align = 16, {
    from: 0, to: 16, from_stride: 32, to_stride: 40, from_ld: 48, to_ld: 52, rows: 56, columns: 60, transposed: 64,
    batch: 68, _padding: 72,
});
