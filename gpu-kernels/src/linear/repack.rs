//! Matrices with rows that bulk copies can load: `to[b, i, j] = from[b, i, j]`, or `from[b, j, i]`.
//!
//! # Math
//! None: elements are moved. It goes before products of operands whose rows are not aligned, or do not lie along k
//! where the tensor cores ask for that.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `from` | `[batch, rows, columns]` or, transposed, `[batch, columns, rows]`, rows `from_ld` apart | elements of 1, 2 or 4 bytes | in |
//! | `to` | `[batch, rows, columns]`, rows `to_ld` apart, a multiple of 4 | the same | out; up to 3 elements past a row have no meaning |
//!
//! # Traffic
//! Each element is read and written once. Bound by memory, or the L2 cache: 4096 × 1024 of 2 bytes: 16.8 MB.
//!
//! # Launch
//! A block of 256 threads for each 64 × 64 elements of each matrix, which it turns in dynamic shared memory.
//!
//! # Determinism
//! Bitwise: nothing is computed.
//!
//! # Source
//! Original. It has no arithmetic; what it serves is `kasmina_reference::linear::forward`.

use bytemuck::Pod;
use kasmina_device::global::{Load, Store};
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::{StoreHint, Vector};
use kasmina_device::{kernel, thread};
use kasmina_types::tiles::{LINEAR_REPACK_BLOCK_THREADS, LINEAR_REPACK_TILE};
use kasmina_types::{In, LinearRepack, Out};

const THREADS: usize = LINEAR_REPACK_BLOCK_THREADS as usize;
const TILE: usize = LINEAR_REPACK_TILE as usize;
/// Elements of a row in shared memory: columns come to lie in different banks.
const PITCH: usize = TILE + 4;
/// Elements of a store.
const LANES: usize = 4;

/// Dynamic shared memory for elements of so many bytes.
pub const fn shared_bytes(size: usize) -> usize {
    TILE * PITCH * size
}

/// # Safety
/// As [`LinearRepack`] says, with a block for each tile of each matrix, and [`shared_bytes`].
#[inline(always)]
unsafe fn repack<T: Pod>(p: LinearRepack) {
    let (from, to): (In<T>, Out<T>) = (p.from.cast(), p.to.cast());
    let (rows, columns) = (p.rows as usize, p.columns as usize);
    let tile_columns = columns.div_ceil(TILE);
    let tiles = rows.div_ceil(TILE) * tile_columns;
    let block = thread::block_idx_x() as usize;
    let (number, tile) = (block / tiles, block % tiles);
    let (row, column) = (tile / tile_columns * TILE, tile % tile_columns * TILE);
    let thread = thread::thread_idx_x() as usize;
    let staged = DynamicShared::<T>::whole();
    let base = number * p.from_stride as usize;

    let (lane, line) = (thread % TILE, thread / TILE);
    let mut i = line;
    while i < TILE {
        // Lanes follow one another along the source's rows.
        let (r, c) = if p.transposed != 0 { (lane, i) } else { (i, lane) };
        if row + r < rows && column + c < columns {
            let (outer, inner) =
                if p.transposed != 0 { (column + c, row + r) } else { (row + r, column + c) };
            // SAFETY: inside the matrix; each element of the tile is one thread's.
            unsafe {
                let value = from.load(base + outer * p.from_ld as usize + inner);
                staged.write(r * PITCH + c, value);
            }
        }
        i += THREADS / TILE;
    }
    thread::sync_threads();
    let mut vector = thread;
    while vector < TILE * TILE / LANES {
        let (r, c) = (vector / (TILE / LANES), vector % (TILE / LANES) * LANES);
        if row + r < rows && column + c < columns {
            let left = columns - column - c;
            // SAFETY: elements that are inside were written before the barrier; a row of `to` has room for whole
            // vectors, which are aligned, for its distance is a multiple of them.
            unsafe {
                let at = |l: usize| staged.read(r * PITCH + c + if l < left { l } else { 0 });
                let values = Vector([at(0), at(1), at(2), at(3)]);
                let index =
                    number * p.to_stride as usize + (row + r) * p.to_ld as usize + column + c;
                to.store_vector(index, values, StoreHint::Cached);
            }
        }
        vector += THREADS;
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident) => {
        /// A block for each 64 × 64 elements of each matrix.
        ///
        /// # Safety
        /// As [`LinearRepack`] says.
        #[kernel(block = LINEAR_REPACK_BLOCK_THREADS, arch = 90)]
        pub unsafe fn $entry(p: LinearRepack) {
            // SAFETY: the entry's contract.
            unsafe { repack::<$element>(p) }
        }
    };
}

kasmina_types::linear_repack_tiles!(instance);
