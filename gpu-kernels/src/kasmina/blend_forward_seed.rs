//! The layer's forward pass with its telemetry for few rows: a block takes a seed.
//!
//! # Math
//! As `blend_forward`.
//!
//! # Layout
//! As `blend_forward`; `partials` and `arrivals` are not touched.
//!
//! # Traffic
//! As `blend_forward`. Of few rows most is in the L2 cache, and a thread's chain of instructions and accesses is what
//! takes the time: launch, seed, blueprint, weights, rows, telemetry. Measured: see `docs/performance.md`,
//! `blend_forward` 32 × 1000 × 64.
//!
//! # Launch
//! A 128-thread block for each seed. A chunk is a power of two of vectors, at most a warp's lanes; so whatever depends on
//! the seed is one branch for the block, a convolution's neighbours are in the warp, and a dormant seed costs a copy. The
//! rows' moments are made while the blueprint is fetched.
//!
//! # Determinism
//! Bitwise: the order depends on the shape, and on which values are finite and which are dead.
//!
//! # Source
//! Original; moments after Chan, Golub and LeVeque, 1979. Reference: `kasmina_reference::kasmina::blend_forward`.

use kasmina_device::convert::Float;
use kasmina_device::global::Store;
use kasmina_device::vector::Vector;
use kasmina_device::{kernel, reduce, shared_array, thread, unroll, warp};
use kasmina_types::{BlendForward, In, Numerical, Out, SeedLifecycle, bf16, f16};

use super::coefficients::{Coefficients, SeedWords, is_strict};
use super::moments::Moments;
use super::seed_block::{BLOCK, Rows, SeedBlock, WARPS};
use super::softmax;
use super::telemetry::MOMENT_WORDS;

/// The kernel for elements of `T`, `L` of them an access, `R` rows a group.
///
/// # Safety
/// As [`BlendForward`] says, with `chunk_size / L` a power of two of at most 32, fewer than 2³² elements, and a block for
/// each seed; every thread of the block runs it.
#[inline(always)]
unsafe fn blend_forward_seed<T: Float, const L: usize, const R: usize>(p: BlendForward) {
    let place = SeedBlock::of::<L, _>(&p);
    let (input, output): (In<T>, Out<T>) = (p.input.cast(), p.output.cast());
    let gathers = p.gathers != 0;
    // Nothing of what is above is in memory.
    thread::await_previous_grid();
    // SAFETY: the seed is one; every thread of the block is here.
    unsafe {
        let words = SeedWords::load(&p, place.seed as usize);
        let mut left = place.rows_left::<R>(p.batch, 0);
        let mut rows: Rows<T, L, R> = place.load(&input, 0, left);
        let mut moments = Moments::EMPTY;
        if gathers {
            moments = of_rows(&rows, left);
        }
        let blueprint = words.in_states(&p, SeedLifecycle::is_active).map(|found| found.1);
        let c = blueprint.map(|blueprint| {
            let first = Some(blueprint.offset + place.column as usize);
            let normaliser = if blueprint.attends() {
                softmax::of_neighbours::<L, _>(&p.weights, first, place.vectors)
            } else {
                0.0
            };
            let column = place.column as usize;
            let mut c = Coefficients::<L>::of(&p, Some(blueprint), column, normaliser);
            c.strict = is_strict(&p, place.seed as usize);
            c
        });
        let groups = place.groups::<R>(p.batch);
        let mut group = 0;
        while group < groups {
            if group > 0 {
                left = place.rows_left::<R>(p.batch, group);
                rows = place.load(&input, group, left);
                if gathers {
                    moments = moments.merge(of_rows(&rows, left));
                }
            }
            match &c {
                None => {
                    unroll!(r in R => { place.store::<T, L, R>(&output, group, left, r, rows[r]) })
                }
                Some(c) if c.convolves || c.kinked || c.strict => unroll!(r in R => {
                    let row = blend::<T, L, true>(&place, &p.numerical, c, rows[r]);
                    place.store::<T, L, R>(&output, group, left, r, row);
                }),
                Some(c) => unroll!(r in R => {
                    let row = blend::<T, L, false>(&place, &p.numerical, c, rows[r]);
                    place.store::<T, L, R>(&output, group, left, r, row);
                }),
            }
            group += 1;
        }
        if gathers {
            merge(&p, place.seed as usize, moments);
        }
    }
}

/// The moments of a group's first `left` rows.
#[inline(always)]
fn of_rows<T: Float, const L: usize, const R: usize>(rows: &Rows<T, L, R>, left: u32) -> Moments {
    let mut values = [[0.0; L]; R];
    unroll!(r in R => { values[r] = rows[r].map(T::to_f32).0; });
    if left == R as u32 {
        return Moments::of_group(&values);
    }
    let mut moments = Moments::EMPTY;
    unroll!(r in R => {
        if (r as u32) < left {
            moments = moments.absorb_group(&[values[r]]);
        }
    });
    moments
}

/// One row's vector, blended.
#[inline(always)]
fn blend<T: Float, const L: usize, const GENERAL: bool>(
    place: &SeedBlock,
    numerical: &Numerical,
    c: &Coefficients<L>,
    raw: Vector<T, L>,
) -> Vector<T, L> {
    let x = raw.map(T::to_f32).0;
    c.blend::<T, GENERAL>(numerical, raw, x, || {
        // The left neighbours are in the lane before.
        let near = warp::shuffle_up(warp::FULL_MASK, x[L - 1], 1);
        let far = warp::shuffle_up(warp::FULL_MASK, x[L - 2], 1);
        if place.column == 0 { [0.0; 2] } else { [near, far] }
    })
}

/// Folds the block's moments, and finishes the seed's telemetry.
///
/// # Safety
/// Every thread of the block calls it; the seed is this block's.
#[inline(always)]
unsafe fn merge(p: &BlendForward, seed: usize, moments: Moments) {
    let scratch = shared_array![u32; WARPS * MOMENT_WORDS];
    let folded = moments.fold_warp();
    if thread::lane_idx() == 0 {
        // SAFETY: one lane a warp writes, its own place.
        unsafe { scratch.write_words(thread::warp_idx() as usize * MOMENT_WORDS, folded) };
    }
    thread::sync_threads();
    if thread::warp_idx() != 0 {
        return;
    }
    // Each group of lanes has all the warps' moments.
    let warp = thread::lane_idx() as usize % WARPS;
    // SAFETY: each warp wrote its place before the barrier.
    let of_warp: Moments = unsafe { scratch.read_words(warp * MOMENT_WORDS) };
    let folded = reduce::warp_fold_width(of_warp, WARPS as u32, Moments::merge);
    if thread::lane_idx() == 0 {
        // SAFETY: one lane of one block writes the seed's telemetry and its flag, which the block read before the barrier.
        unsafe {
            folded.finish(&p.telemetry, seed);
            if p.numerical.mode == Numerical::ADAPTIVE {
                p.unstable.store(seed, u8::from(folded.is_unstable()));
            }
        }
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal $(, $spills:ident)?) => {
        /// The layer's forward pass, a block a seed, for one element type.
        ///
        /// # Safety
        /// As [`BlendForward`] says, with the geometry of a block a seed, and fewer than 2³² elements.
        #[kernel(block = $block, min_blocks = $min_blocks, awaits $(, $spills)?)]
        pub unsafe fn $entry(p: BlendForward) {
            const { assert!($block == BLOCK) };
            // SAFETY: the entry's contract.
            unsafe { blend_forward_seed::<$element, $lanes, $rows>(p) }
        }
    };
}

kasmina_types::blend_forward_seed_tiles!(instance);
