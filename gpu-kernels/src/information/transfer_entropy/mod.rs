//! Transfer entropy after Kraskov, Stögbauer and Grassberger: the K-th neighbours' distances, then counts, ψ and
//! sums; and the rows of surrogates.

mod distance;
pub mod fused_distance_kth;
pub mod fused_te_reduction;
mod nearest;
mod points;
pub mod surrogate_rows;

/// Candidates of a tile of the kernels for any dimensions.
pub const WIDE_TILE: u32 = distance::WIDE_TILE as u32;
