//! Matrix products of a warp on the tensor cores, `mma.sync` (sm_80), and what moves 8 × 8 matrices between shared
//! memory and the registers that they take: `ldmatrix` (sm_75) and `stmatrix` (sm_90).
//!
//! All 32 lanes of a warp call each function together, from the same place. D = A·B + D with D of shape [16, 8] in
//! f32, four registers a lane; [`Fragment16x8`] says which element each is. Products are exact; the order of an
//! instruction's sums is the hardware's own. The executor adds with k ascending, in f32.

use kasmina_types::{bf16, f16};

use crate::shared::Place;
use crate::wgmma::Tf32;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// An element of A and B. Registers are 32 bits and hold one tf32 or two neighbouring 16-bit elements along K, that
/// of the lower k in the lower half.
pub trait Element: imp::Product {
    /// Elements along K of one product: A is [16, K], B is [K, 8].
    const K: usize;
    /// Elements of a register.
    const PACKED: usize = Self::K / 8;

    /// The row of A in register `i` (0 to 3) of a lane: ⌊lane / 4⌋, and 8 more in odd registers.
    #[inline(always)]
    fn row_of_a(lane: usize, i: usize) -> usize {
        lane / 4 + i % 2 * 8
    }

    /// The k of the first element of A in register `i` of a lane: registers 2 and 3 are half of K further.
    #[inline(always)]
    fn k_of_a(lane: usize, i: usize) -> usize {
        Self::k_of_b(lane, i / 2)
    }

    /// The k of the first element of B in register `i` (0 or 1) of a lane: lane mod 4 registers on in that half.
    #[inline(always)]
    fn k_of_b(lane: usize, i: usize) -> usize {
        lane % 4 * Self::PACKED + i * (Self::K / 2)
    }

    /// The column of B in both registers of a lane: ⌊lane / 4⌋.
    #[inline(always)]
    fn column_of_b(lane: usize) -> usize {
        lane / 4
    }
}

/// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`.
impl Element for bf16 {
    const K: usize = 16;
}
/// `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`.
impl Element for f16 {
    const K: usize = 16;
}
/// `mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32`.
impl Element for Tf32 {
    const K: usize = 8;
}

/// D of shape [16, 8] as a lane holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fragment16x8 {
    /// The lane's elements.
    pub registers: [f32; 4],
}

impl Fragment16x8 {
    /// All zero.
    pub const ZERO: Self = Self { registers: [0.0; 4] };

    /// The row in register `i` of a lane: ⌊lane / 4⌋, and 8 more in registers 2 and 3.
    #[inline(always)]
    pub const fn row(lane: usize, i: usize) -> usize {
        lane / 4 + i / 2 * 8
    }

    /// The column in register `i` of a lane: 2 · (lane mod 4), and 1 more in odd registers.
    #[inline(always)]
    pub const fn column(lane: usize, i: usize) -> usize {
        lane % 4 * 2 + i % 2
    }

    /// D = A·B + D.
    ///
    /// # Safety
    /// All lanes of the warp call it together. The kernel is for sm_80 or newer.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn multiply_add<E: Element>(&mut self, a: [u32; 4], b: [u32; 2]) {
        // SAFETY: the caller's contract.
        unsafe { <E as imp::Product>::product(&mut self.registers, a, b) };
    }
}

/// How many 8 × 8 matrices of 16-bit elements move at once.
pub trait Matrices: imp::Matrices {}
impl Matrices for [u32; 1] {}
impl Matrices for [u32; 2] {}
impl Matrices for [u32; 4] {}

/// Loads one, two or four 8 × 8 matrices of 16-bit elements, one to each register:
/// `ldmatrix.sync.aligned.m8n8.x1/x2/x4.shared.b16` (sm_75), with `.trans` where `TRANSPOSED`.
///
/// Lane 8·j + r says where row r of matrix j is, 16 bytes at a multiple of 16; what lanes past the last row say is
/// not used. Register j of lane l gets the elements (⌊l / 4⌋, 2·(l mod 4)) and its right neighbour of matrix j, or of
/// its transpose.
///
/// # Safety
/// All lanes of the warp call it together. The rows that are named are inside and written, and a barrier or
/// `sync_warp` orders that before.
#[inline(always)]
#[track_caller]
pub unsafe fn load_matrices<M: Matrices, const TRANSPOSED: bool>(row: Place) -> M {
    // SAFETY: the caller's contract.
    unsafe { <M as imp::Matrices>::load::<TRANSPOSED>(row) }
}

/// Stores matrices as [`load_matrices`] loads them: `stmatrix.sync.aligned.m8n8.x1/x2/x4.shared.b16` (sm_90).
///
/// # Safety
/// As [`load_matrices`]; no other thread accesses the rows until a barrier. The kernel is for sm_90 or newer.
#[inline(always)]
#[track_caller]
pub unsafe fn store_matrices<M: Matrices, const TRANSPOSED: bool>(row: Place, matrices: M) {
    // SAFETY: the caller's contract.
    unsafe { <M as imp::Matrices>::store::<TRANSPOSED>(row, matrices) };
}
