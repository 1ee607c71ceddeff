//! A pass over rows of any number of states.

use kasmina_device::global::{Load, Store};
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{math, shared_array, thread, unroll, warp};
use kasmina_types::{ActiveInference, In};

use super::sweep::{BLOCK, Pass, Share, Sweep, WARPS, floored, here, lane_sum};
use crate::information::scalar::Scalar;

/// Rows that the block reduces together.
const WIDE_ROWS: usize = 2;

/// The block as one team that reads its rows twice, the second time from the cache, and has its column sums in
/// memory: for any number of states.
pub struct Wide<T, const L: usize>(core::marker::PhantomData<T>);

impl<T: Scalar, const L: usize> Sweep for Wide<T, L> {
    type Held = ();

    #[inline(always)]
    fn nothing<const C: bool>(_: &ActiveInference<C>) -> Self::Held {}

    #[inline(always)]
    unsafe fn hold<const C: bool>(_: &ActiveInference<C>, _: &Share, _: &Pass, _: &mut Self::Held) {
    }

    #[inline(always)]
    unsafe fn pass<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        pass: &Pass,
        _held: &mut Self::Held,
        spread: &mut f64,
        mut emit: impl FnMut(usize, f64),
    ) -> f64 {
        let tid = here();
        let fresh = share.fresh(p);
        let (stride, states, zero) = (fresh.stride, p.states as usize, fresh.base);
        let (vectors, row_zero) = (stride / L, fresh.first_row);
        let jacobian: In<T, C> = p.jacobian.cast();
        let dots_smem = shared_array![f64; WIDE_ROWS * WARPS];
        let mut misfit = 0.0;
        let (begin, end) = (fresh.begin, fresh.begin + fresh.rows);
        let mut row = begin;
        while row < end {
            let second = row + 1 < end;
            let places =
                [(row_zero + row) * stride, (row_zero + row + usize::from(second)) * stride];
            let mut weights = [0.0; WIDE_ROWS];
            let mut targets = [0.0; WIDE_ROWS];
            unroll!(r in WIDE_ROWS => {
                if r == 0 || second {
                    // SAFETY: a row of the model.
                    unsafe {
                        weights[r] = p.obs_precision.load(row_zero + row + r);
                        targets[r] =
                            if pass.observes { p.target.load(row_zero + row + r) } else { 0.0 };
                    }
                }
            });
            let mut dots = [0.0; WIDE_ROWS];
            let mut vector = tid;
            while vector < vectors {
                unroll!(r in WIDE_ROWS => {
                    // SAFETY: inside a row of the model; rows and vectors are aligned.
                    let j: Vector<T, L> = unsafe {
                        jacobian.load_vector(places[r] + vector * L, LoadHint::Streaming)
                    };
                    unroll!(l in L => {
                        let column = zero + vector * L + l;
                        // SAFETY: below the model's stride, which the arrays are padded to.
                        let x = unsafe { pass.mean.load(column) } * pass.scale;
                        dots[r] = math::fma_f64(j.0[l].wide(), x, dots[r]);
                        if pass.first && pass.observes {
                            // SAFETY: as above.
                            let s = floored(unsafe { p.variance.load(column) });
                            let square = j.0[l].wide() * j.0[l].wide();
                            *spread = math::fma_f64(square * weights[r], s, *spread);
                        }
                    });
                });
                vector += BLOCK;
            }
            unroll!(r in WIDE_ROWS => { dots[r] = lane_sum(dots[r], warp::WARP_SIZE) });
            // The last rows' dots have been read.
            thread::sync_threads();
            if thread::lane_idx() == 0 {
                unroll!(r in WIDE_ROWS => {
                    // SAFETY: one lane a warp writes its place.
                    unsafe {
                        dots_smem.write(r * WARPS + thread::warp_idx() as usize, dots[r]);
                    }
                });
            }
            // Orders the warps' dots before all reads of them.
            thread::sync_threads();
            let mut weighted = [0.0; WIDE_ROWS];
            unroll!(r in WIDE_ROWS => {
                let mut total = 0.0;
                let mut i = 0;
                while i < WARPS {
                    // SAFETY: every warp wrote its place before the barrier.
                    total += unsafe { dots_smem.read(r * WARPS + i) };
                    i += 1;
                }
                let residual = targets[r] - total;
                weighted[r] = weights[r] * residual;
                if tid == 0 {
                    misfit = math::fma_f64(weighted[r], residual, misfit);
                }
            });
            let mut vector = tid;
            while vector < vectors {
                let mut sums = [0.0; L];
                let own = fresh.own + vector * L;
                if row > begin {
                    unroll!(l in L => {
                        // SAFETY: the slot and the column are this thread's, which wrote it.
                        sums[l] = unsafe { p.partials.load(own + l) };
                    });
                }
                unroll!(r in WIDE_ROWS => {
                    // SAFETY: as above.
                    let j: Vector<T, L> = unsafe {
                        jacobian.load_vector(places[r] + vector * L, LoadHint::Streaming)
                    };
                    unroll!(l in L => {
                        sums[l] = math::fma_f64(weighted[r], j.0[l].wide(), sums[l]);
                    });
                });
                unroll!(l in L => {
                    // SAFETY: the slot and the column are this thread's.
                    unsafe { p.partials.store(own + l, sums[l]) };
                });
                vector += BLOCK;
            }
            row += WIDE_ROWS;
        }
        // A wide block has rows: its columns' sums are all there, each in the thread that asks.
        let mut vector = tid;
        while vector < vectors {
            unroll!(l in L => {
                let column = vector * L + l;
                if column < states {
                    // SAFETY: this thread wrote it.
                    emit(column, unsafe { p.partials.load(fresh.own + column) });
                }
            });
            vector += BLOCK;
        }
        misfit
    }
}
