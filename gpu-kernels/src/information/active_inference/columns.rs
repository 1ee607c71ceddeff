//! What becomes of a column's sum: the parts' shares are added up, and the state is moved.

use kasmina_device::global::{Load, Store};
use kasmina_device::{hint, math, shared_array, thread, unroll, warp};
use kasmina_types::{ActiveInference, In, Out};

use super::sums::Moved;
use super::sweep::{Share, WARPS, here};

/// What a kernel does: one step.
pub const STEP: u32 = 0;
/// Steps until they converge.
pub const INFER: u32 = 1;
/// The power iteration.
pub const CURVATURE: u32 = 2;

const WARP: usize = warp::WARP_SIZE as usize;

/// Columns that a block adds up at a time.
const STRIPE: usize = 32;

/// Parts' sums that a thread has in flight, in fours: in one step enough for one round where each of up to 192 blocks is a
/// part, where steps repeat fewer, for the registers.
const MOST_FOURS: usize = 3;

/// A step of one model, as far as a column needs to know.
#[derive(Clone, Copy)]
pub struct Move {
    /// The block's rows of the model.
    pub share: Share,
    /// κ.
    pub kappa: f64,
    /// What the power iteration's vector is scaled by first.
    pub scale: f64,
    /// μ, or the vector, before.
    pub from: Out<f64>,
    /// And after.
    pub to: Out<f64>,
}

/// What a state's move needs beside the sum: x, m0 and v0.
#[derive(Clone, Copy)]
pub struct Column {
    /// μ, or the vector, before.
    pub x: f64,
    /// m0.
    pub prior_mean: f64,
    /// v0.
    pub prior_var: f64,
}

/// Reads what the move of state `j` needs.
///
/// # Safety
/// `j` is a state of the model, and nobody writes it meanwhile.
#[inline(always)]
pub unsafe fn look_up<const C: bool>(p: &ActiveInference<C>, step: &Move, j: usize) -> Column {
    let at = step.share.fresh(p).base + j;
    // Loads that the compiler leaves where they are: ahead of a barrier, not behind it.
    let here = |view: &In<f64, C>| Out::new(view.as_ptr().cast_mut(), view.len());
    // SAFETY: the caller's contract; nothing is written through the views.
    unsafe {
        Column {
            x: step.from.load(at),
            prior_mean: here(&p.prior_mean).load(at),
            prior_var: here(&p.prior_var).load(at),
        }
    }
}

/// Moves one column.
///
/// # Safety
/// `j` is a state of the model, and this thread's alone.
#[inline(always)]
pub unsafe fn move_column<const MODE: u32, const C: bool>(
    p: &ActiveInference<C>,
    step: &Move,
    j: usize,
    column: Column,
    sum: f64,
    moved: Moved,
) -> Moved {
    let at = step.share.fresh(p).base + j;
    let Column { x, prior_mean, prior_var: v0 } = column;
    // SAFETY: the caller's contract.
    unsafe {
        if MODE == CURVATURE {
            let x = step.scale * x;
            let next = x / v0 - sum;
            step.to.store(at, next);
            let first = math::fma_f64(x, next, moved.first);
            return Moved { first, second: math::fma_f64(next, next, moved.second) };
        }
        let direction = sum - (x - prior_mean) / v0;
        step.to.store(at, math::fma_f64(step.kappa, direction, x));
        Moved { first: math::fma_f64(v0 * direction, direction, moved.first), ..moved }
    }
}

/// Adds up the parts' shares of some columns, and moves these: each warp every sixteenth part, then warp 0 the warps.
///
/// # Safety
/// Every thread of the block calls it, after all parts of the group left their shares; the columns are the block's, and
/// `ahead` is what [`look_up`] finds of the first ones, in the lanes of warp 0.
#[inline(always)]
pub unsafe fn gather<const MODE: u32, const C: bool>(
    p: &ActiveInference<C>,
    step: &Move,
    first_slot: u32,
    begin: usize,
    end: usize,
    ahead: Column,
) -> Moved {
    let fours = if MODE == STEP { MOST_FOURS } else { MOST_FOURS - 1 };
    let stripes_smem = shared_array![f64; WARPS * STRIPE];
    let (lane, warp) = (here() % WARP, here() / WARP);
    let parts = p.parts as usize;
    let mut moved = Moved::ZERO;
    let mut stripe = begin;
    while stripe < end {
        let (first_slot, stride) =
            (hint::opaque(first_slot) as usize, hint::opaque(p.stride) as usize);
        let column = stripe + lane;
        let mut sum = 0.0;
        let mut part = warp;
        while part < parts && column < end {
            let mut values = [[0.0; 4]; MOST_FOURS];
            unroll!(f in MOST_FOURS => { unroll!(i in 4 => {
                let other = part + (4 * f + i) * WARPS;
                if f < fours && other < parts {
                    // SAFETY: the part left it before the barrier.
                    values[f][i] = unsafe { p.partials.load((first_slot + other) * stride + column) };
                }
            }); });
            unroll!(f in MOST_FOURS => { unroll!(i in 4 => { sum += values[f][i] }); });
            part += 4 * fours * WARPS;
        }
        // SAFETY: the place is this thread's.
        unsafe { stripes_smem.write(warp * STRIPE + lane, sum) };
        // Orders the warps' sums before warp 0's merge.
        thread::sync_threads();
        if warp == 0 && column < end {
            let mut total = 0.0;
            let mut other = 0;
            while other < WARPS {
                // SAFETY: warp `other` wrote it before the barrier.
                total += unsafe { stripes_smem.read(other * STRIPE + lane) };
                other += 1;
            }
            // SAFETY: the column is the block's, and in it this thread's.
            moved = unsafe {
                let found = if stripe == begin { ahead } else { look_up(p, step, column) };
                move_column::<MODE, C>(p, step, column, found, total, moved)
            };
        }
        // Warp 0 has read the sums before the next stripe's.
        thread::sync_threads();
        stripe += STRIPE;
    }
    moved
}
