//! One belief step of models of up to 64 states and as many observations, a block each: J is in registers, and what the
//! step needs beside it comes while J is on its way.
//!
//! # Math
//! That of [`infer`](super::infer)'s belief step, in another order of addition.
//!
//! # Layout
//! As [`ActiveInference`] says, with one part.
//!
//! # Traffic
//! Reads J once: 32 KiB of 64 × 64 in f64. One model: bound by latency, that of L2 once, of two barriers and two sums over
//! lanes. Many: by memory.
//!
//! # Launch
//! Blocks of 384 threads, in turn over the models. Eight warps take eight rows each, two columns a lane; of the other four
//! two take the columns and two the rows' precisions. No dynamic shared memory.
//!
//! # Determinism
//! Bitwise: a row's lanes by butterfly, a warp's rows in their order, then warps in pairs.
//!
//! # Source
//! As [`infer`](super::infer). Reference: `kasmina_reference::information::active_inference::belief_step`.

use kasmina_device::global::{Load, Store};
use kasmina_device::grid::BlockPlace;
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{kernel, math, shared_array, thread, unroll, warp};
use kasmina_types::tiles::{SMALL_INFERENCE_BLOCK_THREADS, SMALL_INFERENCE_STATES};
use kasmina_types::{ActiveInference, In, InferenceFigures};

use super::sums::{Sums, leave};
use super::sweep::{floored, here, lane_sum};
use crate::information::scalar::Scalar;

const BLOCK: usize = SMALL_INFERENCE_BLOCK_THREADS as usize;
const WARP: usize = warp::WARP_SIZE as usize;
/// States, and rows, that there is room for.
const STATES: usize = SMALL_INFERENCE_STATES;
/// Rows of a warp, and warps that take rows.
const ROWS: usize = 8;
const ROW_WARPS: usize = STATES / ROWS;
/// The first thread that takes a column, and the first that takes a row's precision.
const COLUMN_THREADS: usize = ROW_WARPS * WARP;
const PRECISION_THREADS: usize = COLUMN_THREADS + STATES;

const _: () = assert!(BLOCK == PRECISION_THREADS + STATES && STATES == 2 * WARP && ROWS == 8);

/// A step of each of a block's models. `sync` is a barrier of the [`BLOCK`] threads.
///
/// # Safety
/// As [`ActiveInference`] says, with one part, for no more than [`STATES`] states and observations; the first `BLOCK`
/// threads of the block call it.
#[inline(always)]
pub(crate) unsafe fn step<T: Scalar, const C: bool>(
    p: &ActiveInference<C>,
    place: BlockPlace,
    sync: impl Fn(),
) {
    // x, s, π and o − b.
    let staged = shared_array![f64; 4 * STATES];
    let partials = shared_array![f64; ROW_WARPS * STATES];
    // π·r² of each row; what each lane that takes rows has of the spread; complexity and logarithms of two warps each.
    let misfits = shared_array![f64; STATES];
    let spreads = shared_array![f64; COLUMN_THREADS];
    let sums_smem = shared_array![f64; 4];
    let t = here();
    let (lane, warp, i) = (t % WARP, t / WARP, t % STATES);
    let takes_rows = t < COLUMN_THREADS;
    let takes_columns = !takes_rows && t < PRECISION_THREADS;
    let mut model = place.block;
    while model < p.models {
        let (base, first_row) = (model * p.stride, model * p.observations);
        let is_column = takes_columns && i < p.states as usize;
        let is_precision = t >= PRECISION_THREADS && i < p.observations as usize;
        let mut j = [Vector([T::ZERO; 2]); ROWS];
        let (mut x, mut difference, mut kappa) = (0.0, 0.0, 0.0);
        // What the logarithm is taken of: s/v0 or 2π/π.
        let (mut above, mut below) = (core::f64::consts::TAU, core::f64::consts::TAU);
        // SAFETY: rows below the observations and columns below the stride are the model's; each place of shared memory is
        // one thread's until the barrier.
        unsafe {
            if takes_rows {
                let jacobian: In<T, C> = p.jacobian.cast();
                let (row, column, stride) = (warp * ROWS, 2 * lane, p.stride as usize);
                let rows = if column < stride { p.observations as usize } else { 0 };
                let first = (first_row as usize + row) * stride + column;
                unroll!(k in ROWS => {
                    if row + k < rows {
                        j[k] = jacobian.load_vector(first + k * stride, LoadHint::Streaming);
                    }
                });
            } else if takes_columns {
                let at = base as usize + i;
                let mut s = 0.0;
                if i < p.stride as usize {
                    x = p.mean.load(at);
                    s = floored(p.variance.load(at));
                }
                staged.write(i, x);
                staged.write(STATES + i, s);
                if is_column {
                    (above, below) = (s, p.prior_var.load(at));
                    difference = x - p.prior_mean.load(at);
                    kappa = p.kappa.load(model as usize);
                }
            } else {
                let (mut precision, mut target) = (0.0, 0.0);
                if is_precision {
                    precision = p.obs_precision.load(first_row as usize + i);
                    target = p.target.load(first_row as usize + i);
                    below = precision;
                }
                staged.write(2 * STATES + i, precision);
                staged.write(3 * STATES + i, target);
            }
        }
        // Orders what was staged before all reads of it.
        sync();
        let mut pull = 0.0;
        if takes_rows {
            // SAFETY: written before the barrier, or by the warp itself; the places written are this lane's.
            unsafe {
                let read = |at: usize| staged.read_vector::<2>(at).0;
                let (x, s) = (read(2 * lane), read(STATES + 2 * lane));
                let mut dots = [0.0_f64; ROWS];
                unroll!(k in ROWS => {
                    dots[k] = math::fma_f64(j[k].0[1].wide(), x[1], j[k].0[0].wide() * x[0]);
                });
                // Four lanes a row, then one.
                let [dot] = halve::<1>(&halve::<2>(&halve::<4>(&dots, 16), 8), 4);
                let (first, row) = (warp * ROWS, warp * ROWS + lane / 4);
                let residual = staged.read(3 * STATES + row) - lane_sum(dot, 4);
                let weighted = staged.read(2 * STATES + row) * residual;
                if lane % 4 == 0 {
                    misfits.write(row, weighted * residual);
                    // In the place of o − b, which the row's lanes have read.
                    staged.write(3 * STATES + row, weighted);
                }
                // Orders the rows' residuals before the warp's reads of them.
                warp::sync_warp(warp::FULL_MASK);
                let (mut sums, mut squares) = ([0.0_f64; 2], [0.0_f64; 2]);
                unroll!(pair in ROWS / 2 => {
                    let precisions = read(2 * STATES + first + 2 * pair);
                    let weighted = read(3 * STATES + first + 2 * pair);
                    unroll!(k in 2, at most 2 => { unroll!(l in 2, at most 2 => {
                        let j = j[2 * pair + k].0[l].wide();
                        sums[l] = math::fma_f64(weighted[k], j, sums[l]);
                        squares[l] = math::fma_f64(precisions[k] * j, j, squares[l]);
                    }); });
                });
                partials.write_vector(warp * STATES + 2 * lane, Vector(sums));
                spreads.write(t, math::fma_f64(squares[1], s[1], squares[0] * s[0]));
            }
        } else {
            let ratio = above / below;
            let log = math::log_f64(ratio);
            pull = difference / below;
            let complexity = math::fma_f64(difference, pull, ratio - 1.0 - log);
            let own = if is_column { complexity } else { log };
            let own = if is_column || is_precision { own } else { 0.0 };
            let sum = lane_sum(own, warp::WARP_SIZE);
            if lane == 0 {
                // SAFETY: the place is the warp's.
                unsafe { sums_smem.write(warp - ROW_WARPS, sum) };
            }
        }
        // Orders the warps' sums before their merge.
        sync();
        if is_column {
            let mut sums = [0.0_f64; ROW_WARPS];
            // SAFETY: every warp of rows wrote its places before the barrier; the state is this thread's.
            unsafe {
                unroll!(w in ROW_WARPS => { sums[w] = partials.read(w * STATES + i) });
                unroll!(w in 4, at most 4 => { sums[w] += sums[w + 4] });
                let direction = (sums[0] + sums[2]) + (sums[1] + sums[3]) - pull;
                p.mean.store(base as usize + i, math::fma_f64(kappa, direction, x));
            }
        }
        if warp == BLOCK / WARP - 1 {
            // SAFETY: all was written before the barrier; one thread writes the model's figures.
            unsafe {
                let [misfit, other] = misfits.read_vector::<2>(2 * lane).0;
                let mut spread = [0.0_f64; 2];
                unroll!(k in COLUMN_THREADS / (2 * WARP), at most 4 => {
                    let pair = spreads.read_vector::<2>(2 * (k * WARP + lane)).0;
                    spread = [spread[0] + pair[0], spread[1] + pair[1]];
                });
                // The misfit in the first half of the warp, the spread in the second.
                let [half] = halve::<1>(&[misfit + other, spread[0] + spread[1]], 16);
                let sum = lane_sum(half, 16);
                let spread = warp::shuffle(warp::FULL_MASK, sum, 16);
                let ([c, d], [e, f]) =
                    (sums_smem.read_vector::<2>(0).0, sums_smem.read_vector::<2>(2).0);
                let total = Sums { misfit: sum, logs: e + f, spread, complexity: c + d };
                if lane == 0 {
                    leave(p, model, InferenceFigures { steps: 1, ..total.figures() });
                }
            }
        }
        model += place.blocks;
    }
}

/// Sums over pairs of lanes `step` apart: each lane keeps half of the values, the one with that bit the second half.
#[inline(always)]
fn halve<const N: usize>(values: &[f64], step: u32) -> [f64; N] {
    let keeps_second = thread::lane_idx() & step != 0;
    let mut halves = [0.0; N];
    unroll!(k in N => {
        let (kept, sent) = if keeps_second {
            (values[N + k], values[k])
        } else {
            (values[k], values[N + k])
        };
        halves[k] = kept + warp::shuffle_xor(warp::FULL_MASK, sent, step);
    });
    halves
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident) => {
        /// One belief step, and the free energy before it.
        ///
        /// # Safety
        /// As [`ActiveInference`] says; states and observations are within what the instance is for.
        #[kernel(block = BLOCK as u32)]
        pub unsafe fn $entry(p: ActiveInference) {
            // SAFETY: the entry's contract; the block has no other threads.
            unsafe { step::<$element, _>(&p, BlockPlace::of_launch(), thread::sync_threads) }
        }
    };
}

kasmina_types::small_inference_tiles!(instance);
