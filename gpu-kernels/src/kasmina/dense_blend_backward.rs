//! The backward pass of seeds that grow a dense block, between the products of matrices.
//!
//! # Math
//! Of each listed seed, with a = clip(α, 0, 1), or 1 in TRAINING: ∂z = a·g·act′(z). Of one that trains its blueprint
//! also ∂b = Σ ∂z over the batch, its norm, population variance (two passes) and largest magnitude, and
//! ∂α = Σ g·(act(z) − x) where the seed is active and 0 < α < 1, else 0. In f32; ∂z is rounded to the element type for
//! the products, and added up before that. The merge adds the ∂b of the seeds that share a blueprint.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `input`, `grad_output` | `[batch, hidden]` row-major | f32, f16, bf16 | in |
//! | `z` | `[listed, batch, chunk_size]` | f32 | in |
//! | `seeds` | `[listed]` of 16 bytes | record | in |
//! | `lifecycle`, `alpha` | `[num_seeds]` | u8, f32 | in |
//! | `grad_z`, `kept_input` | `[listed, batch, chunk_size]` | as the input | out, x of those that train |
//! | `grad_alpha`, `norm`, `variance`, `max` | `[num_seeds]` | f32 | out, of those that train |
//! | `column_sums` | `[listed, slabs, chunk_size]` | f32 | scratch; the first slab's totals go to the merge |
//! | `alpha_sums`, `arrivals` | `[listed, slabs · tiles]`, `[listed]` | f32, u32 | scratch; arrivals zero before and after |
//! | merge: `users` | `[LINEAR blueprints]` of 16 bytes | record | in |
//! | merge: `weights`, `scales` | by offset, `[num_blueprints]` | f32 | out, the LINEAR blueprints' |
//!
//! # Traffic
//! Reads x, g and z, writes ∂z and, of seeds that train, x: (4 + 4·size) · listed · batch · chunk_size bytes, about 40
//! operations an element; bound by memory. 64 seeds of 256 columns and 4096 rows in bf16 at 4.2 TB/s: 192 µs. Not
//! measured.
//!
//! # Launch
//! Blocks of 256 threads, one for each slab of 128 rows of each 32 columns of each seed; every thread meets every
//! barrier. The merge: blocks of 256 threads, as many for a blueprint as its columns need; no barriers.
//!
//! # Determinism
//! Bitwise: a thread adds its rows in their order, a block its warps in theirs, the last block of a seed to arrive its
//! slabs and tiles, whichever block it is; the merge its seeds in the order of the list.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::dense_blend_backward`.

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::{block_fold, warp_fold};
use kasmina_device::vector::LoadHint;
use kasmina_device::{grid, kernel, math, shared_array, thread};
use kasmina_types::tiles::{DENSE_BLOCK_THREADS, DENSE_COLUMNS};
use kasmina_types::{DenseBlendBackward, DenseMerge, In, Out, SeedLifecycle, bf16, f16};

use super::dense_blend::{Place, WARPS, entry};
use crate::normalization::activation::{Precision, differentiate};

const BLOCK: usize = DENSE_BLOCK_THREADS as usize;
const COLUMNS: usize = DENSE_COLUMNS as usize;

/// What a seed's state lets through.
#[derive(Clone, Copy)]
struct Gates {
    /// a, or 1.
    blend: f32,
    trains: bool,
    /// Whether α has a gradient.
    blends: bool,
}

/// # Safety
/// As [`DenseBlendBackward`] says; a block for each slab of each column tile of each listed seed.
#[inline(always)]
unsafe fn backward<T: Float>(p: DenseBlendBackward) {
    let of_columns = shared_array![f32; BLOCK];
    let of_alpha = shared_array![f32; WARPS];
    let (input, grad_output): (In<T>, In<T>) = (p.input.cast(), p.grad_output.cast());
    let (grad_z, kept_input): (Out<T>, Out<T>) = (p.grad_z.cast(), p.kept_input.cast());
    let place = Place::of(&p.shape);
    let (batch, chunk) = (p.shape.batch as usize, p.shape.chunk_size as usize);
    let (slabs, tiles) = (p.shape.slabs as usize, p.shape.tiles as usize);
    let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
    // SAFETY: the grid has blocks for listed seeds alone, each of which is one of the layer's.
    let (entry, gates) = unsafe {
        let entry = entry(&p.seeds, place.listed);
        (entry, gates(&p, entry.seed as usize))
    };
    let first = entry.seed as usize * chunk + place.column;

    let (mut column_sum, mut alpha_sum) = (0.0, 0.0);
    let mut row = place.row;
    while row < place.end && place.column < chunk {
        let at = row * p.shape.hidden as usize + first;
        let in_list = (place.listed * batch + row) * chunk + place.column;
        // SAFETY: a row and a column of the arrays; what is written is this thread's.
        unsafe {
            let raw = input.load(at);
            let (x, g) = (raw.to_f32(), grad_output.load(at).to_f32());
            let (mut value, mut slope) = ([p.z.load(in_list)], [0.0]);
            differentiate(Precision::of::<T>(), entry.activation, &mut value, &mut slope);
            let gradient = gates.blend * g * slope[0];
            column_sum += gradient;
            if gates.blends {
                alpha_sum = math::fma(g, value[0] - x, alpha_sum);
            }
            grad_z.store(in_list, T::from_f32(gradient));
            if gates.trains {
                kept_input.store(in_list, raw);
            }
        }
        row += WARPS;
    }
    if !gates.trains {
        // The whole block: its seed's blueprint does not train.
        return;
    }
    let alpha_sum = warp_fold(alpha_sum, |a: f32, b| a + b);
    // SAFETY: each thread's own place; one lane's of a warp.
    unsafe {
        of_columns.write(warp * COLUMNS + lane, column_sum);
        if lane == 0 {
            of_alpha.write(warp, alpha_sum);
        }
    }
    // Orders the warps' sums before warp 0's reads.
    thread::sync_threads();
    if warp == 0 {
        let (mut total, mut total_alpha) = (0.0, 0.0);
        let mut other = 0;
        while other < WARPS {
            // SAFETY: written before the barrier.
            unsafe {
                total += of_columns.read(other * COLUMNS + lane);
                total_alpha += of_alpha.read(other);
            }
            other += 1;
        }
        // SAFETY: the block's own places.
        unsafe {
            if place.column < chunk {
                let at = (place.listed * slabs + place.slab) * chunk + place.column;
                p.column_sums.store(at, total);
            }
            if lane == 0 {
                let at = (place.listed * slabs + place.slab) * tiles + place.tile;
                p.alpha_sums.store(at, total_alpha);
            }
        }
    }
    // SAFETY: every thread of the block is here, once for each slab of each tile of the seed.
    if unsafe { grid::arrive_is_last(&p.arrivals, place.listed, (slabs * tiles) as u32) } {
        // SAFETY: all blocks of the seed have stored their sums.
        unsafe { finish(&p, place.listed, entry.seed as usize, gates.blends) };
    }
}

/// # Safety
/// `seed` is one of the layer's.
#[inline(always)]
unsafe fn gates(p: &DenseBlendBackward, seed: usize) -> Gates {
    // SAFETY: the caller's contract.
    let (state, alpha) = unsafe { (p.lifecycle.load(seed), p.alpha.load(seed)) };
    let state = SeedLifecycle::from_u8(state);
    let active = state.is_some_and(SeedLifecycle::is_active);
    let trains = state.is_some_and(SeedLifecycle::trains);
    let blend = if active { math::min(math::max(alpha, 0.0), 1.0) } else { 1.0 };
    Gates { blend, trains, blends: active && trains && alpha > 0.0 && alpha < 1.0 }
}

/// A seed's totals from the sums of its blocks: ∂b, and the figures of it, and ∂α.
///
/// # Safety
/// Every thread of one block calls it, after the last of the seed's blocks has arrived.
#[inline(always)]
unsafe fn finish(p: &DenseBlendBackward, listed: usize, seed: usize, blends: bool) {
    let scratch = shared_array![u32; 4 * WARPS];
    let shared_mean = shared_array![f32; 1];
    let chunk = p.shape.chunk_size as usize;
    let (slabs, tiles) = (p.shape.slabs as usize, p.shape.tiles as usize);
    let thread = thread::thread_idx_x() as usize;
    let base = listed * slabs * chunk;
    let (mut sum, mut squares, mut largest) = (0.0_f32, 0.0_f32, 0.0_f32);
    let mut column = thread;
    while column < chunk {
        let mut total = 0.0;
        let mut slab = 0;
        while slab < slabs {
            // SAFETY: stored before the blocks arrived.
            total += unsafe { p.column_sums.load(base + slab * chunk + column) };
            slab += 1;
        }
        // SAFETY: the column is this thread's.
        unsafe { p.column_sums.store(base + column, total) };
        sum += total;
        squares = math::fma(total, total, squares);
        largest = math::max(largest, total.abs());
        column += BLOCK;
    }
    let folded = block_fold::<_, WARPS, { 4 * WARPS }>(
        [sum, squares, largest],
        &scratch,
        |a: [f32; 3], b: [f32; 3]| [a[0] + b[0], a[1] + b[1], math::max(a[2], b[2])],
    );
    if let Some([sum, squares, largest]) = folded
        && thread == 0
    {
        let mut total_alpha = 0.0;
        let mut part = 0;
        while blends && part < slabs * tiles {
            // SAFETY: stored before the blocks arrived.
            total_alpha += unsafe { p.alpha_sums.load(listed * slabs * tiles + part) };
            part += 1;
        }
        // SAFETY: the seed's figures are this thread's; the mean is written by it alone.
        unsafe {
            p.grad_alpha.store(seed, total_alpha);
            p.norm.store(seed, math::sqrt(squares));
            p.max.store(seed, largest);
            shared_mean.write(0, sum / chunk as f32);
        }
    }
    // Orders the mean before its readers, and the reads of the scratch before it is written again.
    thread::sync_threads();
    // SAFETY: written before the barrier.
    let mean = unsafe { shared_mean.read(0) };
    let mut deviations = 0.0_f32;
    let mut column = thread;
    while column < chunk {
        // SAFETY: this thread's own total.
        let deviation = unsafe { p.column_sums.load(base + column) } - mean;
        deviations = math::fma(deviation, deviation, deviations);
        column += BLOCK;
    }
    let folded =
        block_fold::<_, WARPS, { 4 * WARPS }>(deviations, &scratch, |a: f32, b: f32| a + b);
    if let Some(deviations) = folded
        && thread == 0
    {
        // SAFETY: as above.
        unsafe { p.variance.store(seed, deviations / chunk as f32) };
    }
}

/// ∂b of each LINEAR blueprint.
///
/// # Safety
/// As [`DenseMerge`] says; `blocks` blocks for each blueprint, which have a thread for each column.
#[kernel(block = DENSE_BLOCK_THREADS)]
pub unsafe fn dense_blend_backward_merge_f32(p: DenseMerge) {
    let blocks = p.blocks.max(1);
    let (number, part) = (thread::block_idx_x() / blocks, thread::block_idx_x() % blocks);
    let words: In<u32> = p.users.cast();
    // SAFETY: the grid has blocks for listed blueprints alone; four words each, aligned to 16 bytes.
    let [blueprint, offset, first, seeds] =
        unsafe { words.load_vector::<4>(4 * number as usize, LoadHint::Cached) }.0;
    let column = part as usize * BLOCK + thread::thread_idx_x() as usize;
    let chunk = p.chunk_size as usize;
    if column < chunk {
        let mut total = 0.0;
        let mut seed = 0;
        while seed < seeds {
            let at = (first + seed) as usize * p.slabs as usize * chunk + column;
            // SAFETY: a seed of the list that trains: its totals are there.
            total += unsafe { p.column_sums.load(at) };
            seed += 1;
        }
        // SAFETY: a column of the blueprint's place, which is this thread's.
        unsafe { p.weights.store(offset as usize + column, total) };
    }
    if column == 0 {
        // SAFETY: one thread has the blueprint's first column.
        unsafe { p.scales.store(blueprint as usize, 0.0) };
    }
}

macro_rules! instance {
    ($forward:ident, $entry:ident, $element:ty, $dtype:ident) => {
        /// A block for each slab of each column tile of each listed seed.
        ///
        /// # Safety
        /// As [`DenseBlendBackward`] says.
        #[kernel(block = DENSE_BLOCK_THREADS)]
        pub unsafe fn $entry(p: DenseBlendBackward) {
            // SAFETY: the entry's contract.
            unsafe { backward::<$element>(p) }
        }
    };
}

kasmina_types::dense_tiles!(instance);
