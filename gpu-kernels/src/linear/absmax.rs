//! The scale that an operand of f32 is rounded to fp8 with.
//!
//! # Math
//! s = max |x| / 448 over all finite x, at least the smallest normal f32; 1 where there are none but 0.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `from` | `[batch, rows, columns]`, rows `ld` apart | f32 | in |
//! | `scale` | `[1]` | f32 | out |
//! | `state` | `[2]`: bits of the largest magnitude, blocks that have arrived | u32 | scratch, zero before and after |
//!
//! # Traffic
//! Reads each element once, with those at the edges of tiles again, from the L1 cache. Bound by memory, or the L2 cache:
//! 4096 × 4096: 67 MB.
//!
//! # Launch
//! Blocks of 256 threads, as many as are resident; each takes tiles of 64 × 64 elements. All meet at the end.
//!
//! # Determinism
//! Bitwise: of magnitudes the larger bits are the larger number, and a maximum has no order.
//!
//! # Source
//! Original. Reference: `kasmina_reference::linear::absmax`.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::global::{Load, Store};
use kasmina_device::grid::arrive_is_last;
use kasmina_device::reduce::block_fold;
use kasmina_device::{kernel, shared_array, thread, unroll, warp};
use kasmina_types::tiles::LINEAR_ABSMAX_BLOCK_THREADS;
use kasmina_types::{LINEAR_FP8_LARGEST, LinearAbsmax};

const THREADS: usize = LINEAR_ABSMAX_BLOCK_THREADS as usize;
const WARPS: usize = THREADS / warp::WARP_SIZE as usize;
/// Rows, and columns, that a block takes at once.
const TILE: usize = 64;
/// Rows that it loads at once.
const LINES: usize = THREADS / TILE;
/// Loads of a thread that wait for each other.
const DEPTH: usize = 8;

const INFINITY: u32 = f32::INFINITY.to_bits();

/// Where the largest magnitude is in `state`, and the arrivals.
const LARGEST: usize = 0;
const ARRIVALS: usize = 1;

const _: () = assert!(TILE.is_multiple_of(LINES * DEPTH));

#[inline(always)]
fn larger(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

/// Each block takes tiles of 64 × 64 elements, so many blocks apart.
///
/// # Safety
/// As [`LinearAbsmax`] says.
#[kernel(block = LINEAR_ABSMAX_BLOCK_THREADS, arch = "90a")]
pub unsafe fn linear_absmax_f32(p: LinearAbsmax) {
    let scratch = shared_array![u32; WARPS];
    let (rows, columns) = (p.rows as usize, p.columns as usize);
    let tile_columns = columns.div_ceil(TILE);
    let tiles = rows.div_ceil(TILE) * tile_columns;
    let own = thread::thread_idx_x() as usize;
    let (lane, line) = (own % TILE, own / TILE);
    let mut largest = 0;
    let mut work = thread::block_idx_x() as usize;
    while work < p.batch as usize * tiles {
        let (number, tile) = (work / tiles, work % tiles);
        let (row, column) = (tile / tile_columns * TILE + line, tile % tile_columns * TILE + lane);
        // Beyond the edges the last ones are looked at again.
        let column = if column < columns { column } else { columns - 1 };
        let at = number * p.stride as usize + column;
        let mut done = 0;
        while done < TILE {
            let mut magnitudes = [0; DEPTH];
            unroll!(i in DEPTH => {
                let row = row + done + i * LINES;
                let row = if row < rows { row } else { rows - 1 };
                // SAFETY: inside the matrix.
                let value = unsafe { p.from.load(at + row * p.ld as usize) };
                magnitudes[i] = value.to_bits() & !(1 << 31);
            });
            unroll!(i in DEPTH => {
                let finite = if magnitudes[i] < INFINITY { magnitudes[i] } else { 0 };
                largest = larger(largest, finite);
            });
            done += LINES * DEPTH;
        }
        work += thread::grid_dim_x() as usize;
    }
    if let (Some(total), 0) = (block_fold::<_, WARPS, _>(largest, &scratch, larger), own) {
        // SAFETY: every block comes to it by atomics.
        unsafe {
            atomic::fetch_max(&p.state, LARGEST, total, Order::Relaxed, Scope::Device);
        }
    }
    // SAFETY: every thread is here, once for each block.
    let is_last = unsafe { arrive_is_last(&p.state, ARRIVALS, thread::grid_dim_x()) };
    if is_last && own == 0 {
        // SAFETY: all blocks left theirs before they arrived, and no other touches it now.
        unsafe {
            let bits = atomic::exchange(&p.state, LARGEST, 0, Order::Relaxed, Scope::Device);
            let scale = f32::from_bits(bits) / LINEAR_FP8_LARGEST;
            // A quotient of two normal numbers keeps its digits.
            let scale = if scale < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { scale };
            p.scale.store(0, if bits == 0 { 1.0 } else { scale });
        }
    }
}
