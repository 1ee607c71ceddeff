//! The layer's backward pass over the batch for few rows: a block takes a seed, and finishes it.
//!
//! # Math
//! As `blend_backward`; ∂α, the statistics and what the seed adds to its blueprint's gradients as in
//! `parameter_gradients`.
//!
//! # Layout
//! As `blend_backward`, of one slab.
//!
//! # Traffic
//! As `blend_backward`; see `blend_forward_seed` for what takes the time. Measured: see `docs/performance.md`,
//! `blend_backward` and `layer_step` 32 × 1000 × 64.
//!
//! # Launch
//! As `blend_forward_seed`. x of a seed that trains is on its way before the kind of its blueprint is known. The warps' sums
//! meet in the first warp, which finishes the seed.
//!
//! # Determinism
//! Bitwise: rows and threads are added up in an order that depends on the shape only.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::blend_backward`.

use kasmina_device::convert::Float;
use kasmina_device::vector::Vector;
use kasmina_device::{kernel, shared_array, thread, unroll, warp};
use kasmina_types::blueprint::CONV_TAPS;
use kasmina_types::{BlendBackward, In, Out, SeedLifecycle, bf16, f16};

use super::coefficients::{SeedWords, is_strict};
use super::column_sums;
use super::seed_block::{BLOCK, Rows, SeedBlock, WARPS};
use super::slopes::{Role, Slopes, Sums};
use super::softmax;

/// The kernel for elements of `T`, `L` of them an access, `R` rows a group, and `W` f32 an access of the
/// scratch: `L`, at most 4.
///
/// # Safety
/// As [`BlendBackward`] says, with `chunk_size / L` a power of two of at most 32, fewer than 2³² elements, and a block for
/// each seed; every thread of the block runs it.
#[inline(always)]
unsafe fn blend_backward_seed<T: Float, const L: usize, const R: usize, const W: usize>(
    p: BlendBackward,
) {
    let place = SeedBlock::of::<L, _>(&p);
    let (input, grad_output): (In<T>, In<T>) = (p.input.cast(), p.grad_output.cast());
    let grad_input: Out<T> = p.grad_input.cast();
    let groups = place.groups::<R>(p.batch);
    // Nothing of what is above is in memory.
    thread::await_previous_grid();
    // SAFETY: the seed is one; every thread of the block is here.
    unsafe {
        let words = SeedWords::load(&p, place.seed as usize);
        let mut left = place.rows_left::<R>(p.batch, 0);
        let mut g: Rows<T, L, R> = place.load(&grad_output, 0, left);
        // x of a seed that trains, before the kind of its blueprint is known.
        let ones: Rows<T, L, R> = [Vector([T::from_f32(1.0); L]); R];
        let mut x = ones;
        if words.state(SeedLifecycle::trains).is_some() {
            x = place.load(&input, 0, left);
        }
        let Some(role) = Role::of_words(&p, &words) else {
            let mut group = 0;
            loop {
                unroll!(r in R => { place.store::<T, L, R>(&grad_input, group, left, r, g[r]); });
                group += 1;
                if group >= groups {
                    return;
                }
                left = place.rows_left::<R>(p.batch, group);
                g = place.load(&grad_output, group, left);
            }
        };
        let (column, reads) = (place.column as usize, role.reads_input());
        if !reads {
            x = ones;
        } else if !role.trains {
            x = place.load(&input, 0, left);
        }
        let normaliser = if role.blueprint.attends() {
            let first = Some(role.blueprint.offset + column);
            softmax::of_neighbours::<L, _>(&p.layer.weights, first, place.vectors)
        } else {
            0.0
        };
        let mut c = Slopes::<L>::of(&p, Some(role), column, normaliser);
        c.strict = !c.identity && is_strict(&p, place.seed as usize);
        let general = c.convolves || c.kinked || c.strict;
        let mut sums = Sums::<L>::ZERO;
        let mut group = 0;
        loop {
            if general {
                unroll!(r in R => {
                    let dx = general_row(&place, &p, &c, g[r], x[r], &mut sums);
                    place.store::<T, L, R>(&grad_input, group, left, r, c.output(g[r], dx));
                });
            } else {
                let mut of_group = [0.0; L];
                unroll!(r in R => {
                    let (wide, input) = (g[r].map(T::to_f32).0, x[r].map(T::to_f32).0);
                    let dx = c.line(&wide, &input, &mut of_group);
                    place.store::<T, L, R>(&grad_input, group, left, r, c.output(g[r], dx));
                });
                sums.add_columns(&of_group);
            }
            group += 1;
            if group >= groups {
                break;
            }
            left = place.rows_left::<R>(p.batch, group);
            g = place.load(&grad_output, group, left);
            if reads {
                x = place.load(&input, group, left);
            }
        }
        if role.trains {
            finish::<L, W>(&p, &place, role, normaliser, sums);
        }
    }
}

/// ∂x of one row of a seed of any kind; adds to the sums. Rows that are not there are zeros.
#[inline(always)]
fn general_row<T: Float, const L: usize>(
    place: &SeedBlock,
    p: &BlendBackward,
    c: &Slopes<L>,
    g: Vector<T, L>,
    x: Vector<T, L>,
    sums: &mut Sums<L>,
) -> [f32; L] {
    let (wide, input) = (g.map(T::to_f32).0, x.map(T::to_f32).0);
    let mut dx = c.bent_line(&wide, &input, sums);
    if c.convolves {
        // The right neighbours are in the next lane.
        let near = warp::shuffle_down(warp::FULL_MASK, wide[0], 1);
        let far = warp::shuffle_down(warp::FULL_MASK, wide[1 % L], 1);
        let ends = place.column + L as u32 == p.chunk_size;
        let beyond = if ends { [0.0; 2] } else { [near, far] };
        let at = (place.column as usize, p.chunk_size as usize);
        c.convolve(&wide, &input, beyond, at, &mut dx, sums);
    }
    c.settle(&p.numerical, &mut dx);
    dx
}

/// Adds up the block's sums, and finishes the seed in the first warp.
///
/// # Safety
/// Every thread of the block calls it; the seed is this block's, and trains.
#[inline(always)]
unsafe fn finish<const L: usize, const W: usize>(
    p: &BlendBackward,
    place: &SeedBlock,
    role: Role,
    log_partition: f32,
    mut sums: Sums<L>,
) {
    // Widest vector, and extras.
    let shared = shared_array![u32; (WARPS - 1) * 32 * (8 + CONV_TAPS)];
    let extras = role.needs_extras();
    // The rows that a warp has side by side.
    let mut step = place.vectors;
    while step < warp::WARP_SIZE {
        unroll!(l in L => {
            sums.columns[l] += warp::shuffle_xor(warp::FULL_MASK, sums.columns[l], step);
        });
        if extras {
            unroll!(j in CONV_TAPS => {
                sums.extras[j] += warp::shuffle_xor(warp::FULL_MASK, sums.extras[j], step);
            });
        }
        step *= 2;
    }
    let (lane, warp) = (thread::lane_idx(), thread::warp_idx() as usize);
    // Word by word, so that neighbouring lanes use neighbouring banks.
    let word = |warp: usize, i: usize| ((warp - 1) * (8 + CONV_TAPS) + i) * 32 + lane as usize;
    if warp > 0 {
        // SAFETY: each thread has its own words.
        unsafe {
            unroll!(l in L => { shared.write(word(warp, l), sums.columns[l].to_bits()); });
            if extras {
                unroll!(j in CONV_TAPS => {
                    shared.write(word(warp, L + j), sums.extras[j].to_bits());
                });
            }
        }
    }
    thread::sync_threads();
    if warp > 0 {
        return;
    }
    let mut other = 1;
    while other < WARPS {
        // SAFETY: that warp's lane wrote before the barrier.
        unsafe {
            unroll!(l in L => {
                sums.columns[l] += f32::from_bits(shared.read(word(other, l)));
            });
            if extras {
                unroll!(j in CONV_TAPS => {
                    sums.extras[j] += f32::from_bits(shared.read(word(other, L + j)));
                });
            }
        }
        other += 1;
    }
    // Each row's lanes have the same sums by now: those of the first leave them.
    let role = if lane < place.vectors { Some(role) } else { None };
    let at = (place.seed * p.chunk_size + place.column) as usize;
    // SAFETY: a whole warp is here, with all vectors of the seed; there is one slab.
    unsafe { column_sums::finish::<L, W>(p, place.seed, role, log_partition, at, sums) };
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal $(, $spills:ident)?) => {
        /// The layer's backward pass, a block a seed, for one element type.
        ///
        /// # Safety
        /// As [`BlendBackward`] says, with the geometry of a block a seed, and fewer than 2³² elements.
        #[kernel(block = $block, min_blocks = $min_blocks, awaits $(, $spills)?)]
        pub unsafe fn $entry(p: BlendBackward) {
            const { assert!($block == BLOCK) };
            // SAFETY: the entry's contract.
            unsafe { blend_backward_seed::<$element, $lanes, $rows, { if $lanes < 4 { $lanes } else { 4 } }>(p) }
        }
    };
}

kasmina_types::blend_backward_seed_tiles!(instance);
