//! Parameters of products of a matrix and a vector.

use crate::view::{In, Out};

/// How the products are cut among teams, and where their parts meet. An *output tile* is what one team computes at a
/// time: [`GEMV_ROWS`] rows of A, or with Aᵀ a warp's width of vectors of its columns. A *task* is an output tile of one
/// product of the batch.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct GemvCut {
    /// Scratch: a part's sums, `[tasks, parts, outputs of a tile]`, in the sums' type; empty where `parts` is 1.
    pub partials: Out<u8>,
    /// Scratch: teams that have finished a task, `[tasks]`, zero before and after.
    pub arrivals: Out<u32>,
    /// Products: matrices, xs and ys one after the other.
    pub batch: u32,
    /// Rows of A.
    pub rows: u32,
    /// Columns of A.
    pub columns: u32,
    /// Blocks that share a task, each with terms of its own.
    pub parts: u32,
    /// Warps that share a tile of rows, each with columns of its own: 1, and then `parts` is 1, or all of a block. With Aᵀ
    /// always all.
    pub team_warps: u32,
    #[doc(hidden)]
    pub _padding: [u32; 3],
}

crate::assert_layout!(GemvCut, size = 64, align = 16, {
    partials: 0, arrivals: 16, batch: 32, rows: 36, columns: 40, parts: 44, team_warps: 48,
});

/// What `gemv_*` take: y ← α·A·x + β·y, or with Aᵀ.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Gemv<const COHERENT: bool = false> {
    /// A, `[batch, rows, columns]`, row-major, in the instance's type; rows are a multiple of its access.
    pub matrix: In<u8, COHERENT>,
    /// x, `[batch, columns]`, with Aᵀ `[batch, rows]`.
    pub x: In<u8, COHERENT>,
    /// y, `[batch, rows]`, with Aᵀ `[batch, columns]`; read only where β is not 0.
    pub y: Out<u8>,
    /// α.
    pub alpha: f64,
    /// β.
    pub beta: f64,
    /// Who computes what.
    pub cut: GemvCut,
}

crate::assert_layout!(Gemv, size = 128, align = 16, {
    matrix: 0, x: 16, y: 32, alpha: 48, beta: 56, cut: 64,
});

/// Rows of A that a team takes at once: an element of x is read once for all of them.
pub const GEMV_ROWS: usize = 4;
