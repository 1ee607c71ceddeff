//! Matrices with rows that bulk copies can load: `to[b, i, j] = from[b, i, j]`, or `from[b, j, i]`.
//!
//! # Math
//! None: elements are moved. It goes before products of operands whose rows are not aligned, or do not lie along k
//! where the tensor cores ask for that.
//!
//! `linear_repack_f32_*` convert f32 on the way: to the nearest bf16 or f16, ties to even, what is too large to ±∞; or, divided
//! by a scale s, to the nearest fp8 e4m3, beyond 448 to ±448. NaN stays NaN, and for fp8, which has no ∞, so becomes ±∞.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `from` | `[batch, rows, columns]` or, transposed, `[batch, columns, rows]`, rows `from_ld` apart | elements of 1, 2 or 4 bytes | in |
//! | `to` | `[batch, rows, columns]`, rows `to_ld` apart, a multiple of 4 | the same, or bf16, f16 or fp8 of f32 | out; up to 3 elements past a row have no meaning |
//! | `scale` | `[1]`, of `linear_repack_f32_e4m3` | f32 | in |
//!
//! # Traffic
//! Each element is read and written once. Bound by memory, or the L2 cache: 4096 × 1024 of 2 bytes: 16.8 MB.
//!
//! # Launch
//! A block of 256 threads for each 64 × 64 elements of each matrix, which it turns in dynamic shared memory.
//!
//! # Determinism
//! Bitwise: each element is by itself.
//!
//! # Source
//! Original. It has no sums; what it serves is `kasmina_reference::linear::forward`. The scale is that of
//! `kasmina_reference::linear::absmax`.

use bytemuck::Pod;
use kasmina_device::convert::{E4m3, Float};
use kasmina_device::global::{Load, Store};
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::{StoreHint, Vector};
use kasmina_device::{kernel, thread};
use kasmina_types::tiles::{LINEAR_REPACK_BLOCK_THREADS, LINEAR_REPACK_TILE};
use kasmina_types::{In, LinearConvert, LinearRepack, Out, bf16, f16};

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
/// As [`LinearRepack`] says, with a block for each tile of each matrix, and [`shared_bytes`] of the type it goes to.
#[inline(always)]
unsafe fn repack<S: Pod, T: Pod>(p: LinearRepack, convert: impl Fn(S) -> T) {
    let (from, to): (In<S>, Out<T>) = (p.from.cast(), p.to.cast());
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
                staged.write(r * PITCH + c, convert(value));
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
        #[kernel(block = LINEAR_REPACK_BLOCK_THREADS, arch = "90a")]
        pub unsafe fn $entry(p: LinearRepack) {
            // SAFETY: the entry's contract.
            unsafe { repack::<$element, $element>(p, |value| value) }
        }
    };
}

kasmina_types::linear_repack_tiles!(instance);

/// A type that f32 is converted to.
trait Narrow: Float {
    /// Whether values are divided by a scale, and those that are not finite become NaN.
    const SCALED: bool = false;
}

impl Narrow for bf16 {}
impl Narrow for f16 {}
impl Narrow for E4m3 {
    const SCALED: bool = true;
}

/// # Safety
/// As [`LinearConvert`] says; else as [`repack`].
#[inline(always)]
unsafe fn convert<T: Narrow>(p: LinearConvert) {
    // SAFETY: there is a scale where the type asks for one.
    let scale = if T::SCALED { unsafe { p.scale.load(0) } } else { 1.0 };
    let nearest = |value: f32| {
        if !T::SCALED {
            return T::from_f32(value);
        }
        T::from_f32(if value.abs() < f32::INFINITY { value / scale } else { f32::NAN })
    };
    // SAFETY: the caller's contract.
    unsafe { repack::<f32, T>(p.places, nearest) }
}

macro_rules! converting {
    ($entry:ident, $element:ty, $dtype:ident, $arch:tt) => {
        /// A block for each 64 × 64 elements of each matrix.
        ///
        /// # Safety
        /// As [`LinearConvert`] says.
        #[kernel(block = LINEAR_REPACK_BLOCK_THREADS, arch = $arch)]
        pub unsafe fn $entry(p: LinearConvert) {
            // SAFETY: the entry's contract.
            unsafe { convert::<$element>(p) }
        }
    };
}

kasmina_types::linear_convert_tiles!(converting);
