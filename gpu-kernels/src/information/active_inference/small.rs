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
//! Reads J once: 32 KiB of 64 × 64 in f64. One model: bound by latency, that of L2 once, of two barriers and a sum over
//! lanes. Many: by memory.
//!
//! # Launch
//! Blocks of 384 threads, in turn over the models. Eight warps take eight rows each, two columns a lane; of the other four
//! two take the columns and two the rows' precisions. No dynamic shared memory.
//!
//! # Determinism
//! Bitwise: a row's lanes by butterfly, a warp's rows in their order, their misfits by butterfly, then warps in pairs.
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

/// A step of model `first` and each that comes `blocks` after, which is asked for when it is needed. `sync` is a barrier of
/// the [`BLOCK`] threads.
///
/// # Safety
/// As [`ActiveInference`] says, with one part, for no more than [`STATES`] states and observations; the first `BLOCK`
/// threads of the block call it.
#[inline(always)]
pub(crate) unsafe fn step<T: Scalar, const C: bool>(
    p: &ActiveInference<C>,
    first: u32,
    blocks: impl Fn() -> u32,
    sync: impl Fn(),
) {
    // x, s, π and o − b.
    let staged = shared_array![f64; 4 * STATES];
    let partials = shared_array![f64; ROW_WARPS * STATES];
    // Misfit and spread of the warps that take rows; complexity and logarithms of two warps each.
    let row_sums = shared_array![f64; 2 * ROW_WARPS];
    let other_sums = shared_array![f64; 4];
    let mut model = first;
    while model < p.models {
        // The thread's place afresh for each stage: what is computed from it is computed there, and not before J is under way.
        let t = here();
        let (lane, warp, i) = (t % WARP, t / WARP, t % STATES);
        let takes_rows = t < COLUMN_THREADS;
        let takes_columns = !takes_rows && t < PRECISION_THREADS;
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
                let (row, column) = ((warp * ROWS) as u32, 2 * lane as u32);
                let rows = if column < p.stride { p.observations } else { 0 };
                let first = (first_row as usize + row as usize) * p.stride as usize;
                let first = first + column as usize;
                unroll!(k in ROWS => {
                    if row + (k as u32) < rows {
                        let at = first + (k as u32 * p.stride) as usize;
                        j[k] = jacobian.load_vector(at, LoadHint::Streaming);
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
        let (mut ratio, mut log) = (0.0, 0.0);
        if !takes_rows {
            // While J is on its way.
            ratio = above / below;
            log = math::log_f64(ratio);
        }
        // Known now, while J is on its way.
        let is_last = p.models - model <= blocks();
        // Orders what was staged before all reads of it.
        sync();
        let t = here();
        let (lane, warp) = (t % WARP, t / WARP);
        let mut pull = 0.0;
        if takes_rows {
            // SAFETY: written before the barrier, or by the warp itself; the places written are this lane's.
            unsafe {
                let read = |at: usize| staged.read_vector::<2>(at).0;
                let first = warp * ROWS;
                let (x, s) = (read(2 * lane), read(STATES + 2 * lane));
                let (mut dots, mut squares) = ([0.0_f64; ROWS], [0.0_f64; 2]);
                unroll!(pair in ROWS / 2 => {
                    let precisions = read(2 * STATES + first + 2 * pair);
                    unroll!(k in 2, at most 2 => {
                        let [a, b] = [j[2 * pair + k].0[0].wide(), j[2 * pair + k].0[1].wide()];
                        dots[2 * pair + k] = math::fma_f64(b, x[1], a * x[0]);
                        squares[0] = math::fma_f64(precisions[k] * a, a, squares[0]);
                        squares[1] = math::fma_f64(precisions[k] * b, b, squares[1]);
                    });
                });
                // The spread of all lanes, while four lanes come to have a row's sum, and then each of them.
                let mut spread = math::fma_f64(squares[1], s[1], squares[0] * s[0]);
                let other = |value: f64, step: u32| warp::shuffle_xor(warp::FULL_MASK, value, step);
                let fours = halve::<4>(&dots, 16);
                spread += other(spread, 16);
                let twos = halve::<2>(&fours, 8);
                spread += other(spread, 8);
                let [mut dot] = halve::<1>(&twos, 4);
                spread += other(spread, 4);
                let row = first + lane / 4;
                let (target, precision) =
                    (staged.read(3 * STATES + row), staged.read(2 * STATES + row));
                dot += other(dot, 2);
                spread += other(spread, 2);
                dot += other(dot, 1);
                spread += other(spread, 1);
                let residual = target - dot;
                let weighted = precision * residual;
                if lane % 4 == 0 {
                    // In the place of o − b, which the row's lanes have read.
                    staged.write(3 * STATES + row, weighted);
                }
                // Orders the rows' residuals before the warp's reads of them.
                warp::sync_warp(warp::FULL_MASK);
                let mut misfit = weighted * residual;
                misfit += other(misfit, 4);
                misfit += other(misfit, 8);
                misfit += other(misfit, 16);
                let mut sums = [0.0_f64; 2];
                unroll!(pair in ROWS / 2 => {
                    let weighted = read(3 * STATES + first + 2 * pair);
                    unroll!(k in 2, at most 2 => { unroll!(l in 2, at most 2 => {
                        let j = j[2 * pair + k].0[l].wide();
                        sums[l] = math::fma_f64(weighted[k], j, sums[l]);
                    }); });
                });
                partials.write_vector(warp * STATES + 2 * lane, Vector(sums));
                if lane == 0 {
                    row_sums.write_vector(2 * warp, Vector([misfit, spread]));
                }
            }
        } else {
            pull = difference / below;
            let complexity = math::fma_f64(difference, pull, ratio - 1.0 - log);
            let own = if is_column { complexity } else { log };
            let own = if is_column || is_precision { own } else { 0.0 };
            let sum = lane_sum(own, warp::WARP_SIZE);
            if lane == 0 {
                // SAFETY: the place is the warp's.
                unsafe { other_sums.write(warp - ROW_WARPS, sum) };
            }
        }
        // Orders the warps' sums before their merge.
        sync();
        let t = here();
        if is_column {
            let i = t % STATES;
            let mut sums = [0.0_f64; ROW_WARPS];
            // SAFETY: every warp of rows wrote its places before the barrier; the state is this thread's.
            unsafe {
                unroll!(w in ROW_WARPS => { sums[w] = partials.read(w * STATES + i) });
                unroll!(w in 4, at most 4 => { sums[w] += sums[w + 4] });
                let direction = (sums[0] + sums[2]) + (sums[1] + sums[3]) - pull;
                p.mean.store(base as usize + i, math::fma_f64(kappa, direction, x));
            }
        }
        if t == BLOCK - 1 {
            // SAFETY: all was written before the barrier; one thread writes the model's figures.
            unsafe {
                let mut sums = [[0.0_f64; 2]; ROW_WARPS];
                unroll!(w in ROW_WARPS => { sums[w] = row_sums.read_vector::<2>(2 * w).0 });
                unroll!(w in 4, at most 4 => { sums[w] = added(sums[w], sums[w + 4]) });
                let [misfit, spread] = added(added(sums[0], sums[2]), added(sums[1], sums[3]));
                let ([c, d], [e, f]) =
                    (other_sums.read_vector::<2>(0).0, other_sums.read_vector::<2>(2).0);
                let total = Sums { misfit, logs: e + f, spread, complexity: c + d };
                leave(p, model, InferenceFigures { steps: 1, ..total.figures() });
            }
        }
        if is_last {
            break;
        }
        model += blocks();
    }
}

#[inline(always)]
fn added(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
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
            unsafe {
                let BlockPlace { block, blocks } = BlockPlace::of_launch();
                step::<$element, _>(&p, block, || blocks, thread::sync_threads);
            }
        }
    };
}

kasmina_types::small_inference_tiles!(instance);
