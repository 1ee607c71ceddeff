//! What the layer's passes blend for seeds that grow a dense block, `T(x) = act(W·x + b)`.
//!
//! # Math
//! Of each listed seed, with a = clip(α, 0, 1): `output = (1−a)·input + a·act(z)`, z = W·x + b; or, of gradients,
//! `(1−a)·input + z`, z = Wᵀ·∂z. In f32; what is written is rounded once, and sanitised first where the numerical mode is
//! strict. z comes from the products of `linear`, with sums of f32.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `input`, `output` | `[batch, hidden]` row-major | f32, f16, bf16 | in; out, the listed seeds' columns |
//! | `z` | `[listed, batch, chunk_size]` | f32 | in |
//! | `seeds` | `[listed]` of 16 bytes | record | in |
//! | `alpha`, `unstable` | `[num_seeds]` | f32, u8 | in |
//!
//! # Traffic
//! Reads z and the input, writes the output: (4 + 2·size) · listed · batch · chunk_size bytes, up to 30 operations an
//! element; bound by memory. 64 seeds of 256 columns and 4096 rows in bf16 at 4.2 TB/s: 128 µs. Not measured.
//!
//! # Launch
//! Blocks of 256 threads, one for each slab of 128 rows of each 32 columns of each seed: a warp has a row of them at a
//! time. No barriers; threads beyond the chunk's columns leave.
//!
//! # Determinism
//! Bitwise: every element is one thread's.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::dense_blend`.

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::vector::LoadHint;
use kasmina_device::{kernel, math, thread};
use kasmina_types::dense_blend::DenseShape;
use kasmina_types::tiles::{DENSE_BLOCK_THREADS, DENSE_COLUMNS, DENSE_ROWS};
use kasmina_types::{DenseBlend, DenseSeed, In, Numerical, Out, bf16, f16};

use super::coefficients::sanitise;
use crate::normalization::activation::{Precision, activate};

const COLUMNS: usize = DENSE_COLUMNS as usize;
const ROWS: usize = DENSE_ROWS as usize;
/// Rows that a block's warps take side by side.
pub(super) const WARPS: usize = DENSE_BLOCK_THREADS as usize / COLUMNS;

/// One thread's part of a listed seed.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The seed's number in the list.
    pub(super) listed: usize,
    pub(super) slab: usize,
    /// The column tile.
    pub(super) tile: usize,
    /// The thread's column of the chunk; it may lie beyond.
    pub(super) column: usize,
    /// Its first row, and where the slab's rows end.
    pub(super) row: usize,
    pub(super) end: usize,
}

impl Place {
    #[inline(always)]
    pub(super) fn of(shape: &DenseShape) -> Self {
        let (slabs, tiles) = (shape.slabs.max(1), shape.tiles.max(1));
        let block = thread::block_idx_x();
        let (tile, rest) = ((block % tiles) as usize, block / tiles);
        let (slab, listed) = ((rest % slabs) as usize, (rest / slabs) as usize);
        let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
        let (batch, first) = (shape.batch as usize, slab * ROWS);
        let end = if batch - first < ROWS { batch } else { first + ROWS };
        Self { listed, slab, tile, column: tile * COLUMNS + lane, row: first + warp, end }
    }
}

/// Entry `listed` of the list.
///
/// # Safety
/// It is one.
#[inline(always)]
pub(super) unsafe fn entry(seeds: &In<DenseSeed>, listed: usize) -> DenseSeed {
    let words: In<u32> = seeds.cast();
    // SAFETY: the entry's four words, aligned to 16 bytes.
    let [seed, activation, ..] = unsafe { words.load_vector::<4>(4 * listed, LoadHint::Cached) }.0;
    DenseSeed { seed, activation, _padding: [0; 2] }
}

/// # Safety
/// As [`DenseBlend`] says; a block for each slab of each column tile of each listed seed.
#[inline(always)]
unsafe fn blend<T: Float>(p: DenseBlend) {
    let (input, output): (In<T>, Out<T>) = (p.input.cast(), p.output.cast());
    let place = Place::of(&p.shape);
    let (batch, chunk) = (p.shape.batch as usize, p.shape.chunk_size as usize);
    if place.column >= chunk {
        return;
    }
    // SAFETY: the grid has blocks for listed seeds alone, each of which is one of the layer's.
    let (entry, a, strict) = unsafe {
        let entry = entry(&p.seeds, place.listed);
        let seed = entry.seed as usize;
        let strict = match p.numerical.mode {
            Numerical::FAST => false,
            Numerical::STRICT => true,
            _ => p.unstable.load(seed) != 0,
        };
        (entry, math::min(math::max(p.alpha.load(seed), 0.0), 1.0), strict)
    };
    let first = entry.seed as usize * chunk + place.column;
    let mut row = place.row;
    while row < place.end {
        let at = row * p.shape.hidden as usize + first;
        // SAFETY: a row and a column of the arrays; the output's element is this thread's.
        unsafe {
            let mut z = [p.z.load((place.listed * batch + row) * chunk + place.column)];
            let added = if p.gradient != 0 {
                z[0]
            } else {
                activate(Precision::of::<T>(), entry.activation, &mut z);
                a * z[0]
            };
            let value = math::fma(1.0 - a, input.load(at).to_f32(), added);
            let value = if strict { sanitise(&p.numerical, value) } else { value };
            output.store(at, T::from_f32(value));
        }
        row += WARPS;
    }
}

macro_rules! instance {
    ($entry:ident, $backward:ident, $element:ty, $dtype:ident) => {
        /// A block for each slab of each column tile of each listed seed.
        ///
        /// # Safety
        /// As [`DenseBlend`] says.
        #[kernel(block = DENSE_BLOCK_THREADS)]
        pub unsafe fn $entry(p: DenseBlend) {
            // SAFETY: the entry's contract.
            unsafe { blend::<$element>(p) }
        }
    };
}

kasmina_types::dense_tiles!(instance);
