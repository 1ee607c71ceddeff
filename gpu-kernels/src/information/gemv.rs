//! Matrix times vector: y ← α·A·x + β·y, and y ← α·Aᵀ·x + β·y.
//!
//! # Math
//! Each product in f64 by fused multiply-add; the result is rounded once. Where β is 0, y is not read.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `matrix` | `[rows, columns]`, row-major | the instance's | in |
//! | `x` | `[columns]`, with Aᵀ `[rows]` | the instance's | in |
//! | `y` | `[rows]`, with Aᵀ `[columns]` | the instance's | out, in where β ≠ 0 |
//!
//! # Traffic
//! Reads A once: 8·m·n bytes in f64, two operations an element; bound by memory. 4096 × 4096 in f64 at 4.2 TB/s:
//! 32 µs.
//!
//! # Launch
//! Blocks of 256 threads over a persistent grid. A warp takes a row; with Aᵀ a block takes 32 columns. Any shape, no
//! alignment beyond the element's. Every thread meets every barrier.
//!
//! # Determinism
//! Bitwise: lanes by butterfly, warps in their order, whatever the grid.
//!
//! # Source
//! Original. Reference: `kasmina_reference::information::{gemv, gemv_transposed}`.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::warp_fold;
use kasmina_device::{kernel, math, shared_array, thread, unroll, warp};
use kasmina_types::{Gemv, In, Out};

use super::scalar::Scalar;

const BLOCK: usize = kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS as usize;
const WARP: usize = warp::WARP_SIZE as usize;
const WARPS: usize = BLOCK / WARP;
/// Elements that a thread has in flight.
const IN_FLIGHT: usize = 8;

/// α·sum + β·y in its place.
///
/// # Safety
/// The element is inside y and this thread's alone.
#[inline(always)]
unsafe fn finish<T: Scalar>(p: &Gemv, index: usize, sum: f64) {
    let y: Out<T> = p.y.cast();
    // SAFETY: the caller's contract.
    unsafe {
        let before = if p.beta == 0.0 { 0.0 } else { p.beta * y.load(index).wide() };
        y.store(index, T::narrow(math::fma_f64(p.alpha, sum, before)));
    }
}

/// # Safety
/// As [`Gemv`] says; every block of the grid runs it.
#[inline(always)]
unsafe fn gemv<T: Scalar>(p: Gemv) {
    let (matrix, x): (In<T>, In<T>) = (p.matrix.cast(), p.x.cast());
    let (rows, columns) = (p.rows as usize, p.columns as usize);
    let lane = thread::lane_idx() as usize;
    let mut row = thread::block_idx_x() as usize * WARPS + thread::warp_idx() as usize;
    while row < rows {
        let mut sum = 0.0;
        let mut column = lane;
        while column < columns {
            let mut values = [0.0; IN_FLIGHT];
            unroll!(i in IN_FLIGHT => {
                if column + i * WARP < columns {
                    // SAFETY: a row and a column of the matrix.
                    values[i] = unsafe { matrix.load(row * columns + column + i * WARP) }.wide();
                }
            });
            unroll!(i in IN_FLIGHT => {
                if column + i * WARP < columns {
                    // SAFETY: an element of x.
                    sum = math::fma_f64(values[i], unsafe { x.load(column + i * WARP) }.wide(), sum);
                }
            });
            column += IN_FLIGHT * WARP;
        }
        let total = warp_fold(sum, |a, b| a + b);
        if lane == row % WARP {
            // SAFETY: one lane of one warp has the row.
            unsafe { finish::<T>(&p, row, total) };
        }
        row += thread::grid_dim_x() as usize * WARPS;
    }
}

/// # Safety
/// As [`gemv`].
#[inline(always)]
unsafe fn gemv_transposed<T: Scalar>(p: Gemv) {
    let sums_smem = shared_array![f64; BLOCK];
    let (matrix, x): (In<T>, In<T>) = (p.matrix.cast(), p.x.cast());
    let (rows, columns) = (p.rows as usize, p.columns as usize);
    let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
    let mut tile = thread::block_idx_x() as usize;
    while tile * WARP < columns {
        let column = tile * WARP + lane;
        let mut sum = 0.0;
        let mut row = warp;
        while row < rows && column < columns {
            let mut values = [0.0; IN_FLIGHT];
            unroll!(i in IN_FLIGHT => {
                if row + i * WARPS < rows {
                    // SAFETY: a row and a column of the matrix.
                    values[i] = unsafe { matrix.load((row + i * WARPS) * columns + column) }.wide();
                }
            });
            unroll!(i in IN_FLIGHT => {
                if row + i * WARPS < rows {
                    // SAFETY: an element of x.
                    sum = math::fma_f64(values[i], unsafe { x.load(row + i * WARPS) }.wide(), sum);
                }
            });
            row += IN_FLIGHT * WARPS;
        }
        // SAFETY: the place is this thread's.
        unsafe { sums_smem.write(warp * WARP + lane, sum) };
        // Orders the warps' sums before warp 0's merge.
        thread::sync_threads();
        if warp == 0 && column < columns {
            let mut total = 0.0;
            unroll!(i in WARPS => {
                // SAFETY: warp `i` wrote it before the barrier.
                total += unsafe { sums_smem.read(i * WARP + lane) };
            });
            // SAFETY: one thread of one block has the column.
            unsafe { finish::<T>(&p, column, total) };
        }
        // Warp 0 has read the sums.
        thread::sync_threads();
        tile += thread::grid_dim_x() as usize;
    }
}

macro_rules! instance {
    ($gemv:ident, $transposed:ident, $element:ty, $dtype:ident) => {
        /// y ← α·A·x + β·y.
        ///
        /// # Safety
        /// As [`Gemv`] says.
        #[kernel(block = BLOCK as u32)]
        pub unsafe fn $gemv(p: Gemv) {
            // SAFETY: the entry's contract.
            unsafe { gemv::<$element>(p) }
        }

        /// y ← α·Aᵀ·x + β·y.
        ///
        /// # Safety
        /// As [`Gemv`] says.
        #[kernel(block = BLOCK as u32)]
        pub unsafe fn $transposed(p: Gemv) {
            // SAFETY: the entry's contract.
            unsafe { gemv_transposed::<$element>(p) }
        }
    };
}

kasmina_types::gemv_tiles!(instance);
