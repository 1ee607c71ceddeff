//! A pass over rows of J that bulk copies bring into shared memory, ahead of the threads.
//!
//! The block takes two rows at a time from a ring of places, each of which holds a row: while it works on two, the next
//! ones are there or on their way. A thread has the same columns of every row, so that it keeps its part of μ in registers:
//! shared memory is read once an element of J, but for s in a first pass. Two rows share one barrier and one butterfly.

use kasmina_device::global::Load;
use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::{DynamicShared, Shared};
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{math, shared_array, thread, tma, unroll, warp};
use kasmina_types::ActiveInference;

use super::sweep::{
    BLOCK, Pass, Share, Sweep, WARPS, WINDOW, floored, here, lane_sum, merge, numbers, row_of,
};
use crate::information::scalar::Scalar;

/// Rows that are worked on at a time: one for each half of a warp's lanes, where totals are added up.
const ROWS: usize = 2;
const HALF: usize = warp::WARP_SIZE as usize / ROWS;
/// Places of the ring.
const PLACES: usize = 5;
/// States at most.
pub const CAPACITY: usize = 4096;
/// Where the ring begins in the dynamic shared memory, in bytes: behind s, and later the column sums.
const RING: usize = CAPACITY * size_of::<f64>();
/// Bytes of a place of the ring.
const PLACE: usize = CAPACITY * size_of::<f64>();
/// Dynamic shared memory of a block, in bytes.
pub const SHARED_BYTES: usize = RING + PLACES * PLACE;

/// Bulk copies; `P` vectors of `L` elements a thread, together a row for the block.
pub struct Bulk<T, const L: usize, const P: usize>(core::marker::PhantomData<T>);

/// What a thread keeps: how far the ring is, and the numbers of some rows.
pub struct Held {
    words: Shared<u64, PLACES>,
    /// The place of the next row, and the parity of its phase.
    place: usize,
    parity: bool,
    numbers: [f64; 2],
}

/// The place that comes `ahead` places later, at most a ring's.
#[inline(always)]
fn later(place: usize, ahead: usize) -> usize {
    if place + ahead < PLACES { place + ahead } else { place + ahead - PLACES }
}

/// Asks for a row of the share: one thread copies.
///
/// # Safety
/// As [`Sweep::pass`]; the share has the row, and no thread uses the place any more.
#[inline(always)]
unsafe fn ask<T: Scalar, const C: bool>(
    p: &ActiveInference<C>,
    share: &Share,
    held: &Held,
    row: u32,
    place: usize,
) {
    if here() == 0 {
        let bytes = p.stride * size_of::<T>() as u32;
        let from = row_of(p, share, 1, 0, row) * bytes as usize;
        let target = DynamicShared::<u8>::whole().place(RING + place * PLACE);
        let barrier = Mbarrier::of(&held.words, place);
        // SAFETY: the row is the model's, a multiple of 16 bytes, as strides are; the place has room and is free; the
        // phase expects the row's bytes.
        unsafe {
            barrier.arrive_expect_tx(bytes);
            tma::load(target, &p.jacobian, from, bytes, barrier);
        }
    }
}

impl<T: Scalar, const L: usize, const P: usize> Sweep for Bulk<T, L, P> {
    type Held = Held;

    #[inline(always)]
    fn nothing<const C: bool>(p: &ActiveInference<C>) -> Self::Held {
        let words = shared_array![u64; PLACES];
        if thread::thread_idx_x() == 0 {
            let mut i = 0;
            while i < PLACES {
                // SAFETY: one thread initialises, before the barrier.
                unsafe { Mbarrier::of(&words, i).init(1) };
                i += 1;
            }
            mbarrier::fence_init();
        }
        let rows = DynamicShared::<T>::whole();
        let mut column = p.stride as usize + here();
        while column < CAPACITY {
            unroll!(place in PLACES => {
                // SAFETY: inside the place; copies end at the stride, before it.
                unsafe { rows.write((RING + place * PLACE) / size_of::<T>() + column, T::ZERO) };
            });
            column += BLOCK;
        }
        // Orders the initialisation before all uses, and the zeros before they are read.
        thread::sync_threads();
        Held { words, place: 0, parity: false, numbers: [0.0; 2] }
    }

    #[inline(always)]
    unsafe fn hold<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        pass: &Pass,
        held: &mut Self::Held,
    ) {
        let mut row = 0;
        while row < PLACES && row < (share.end - share.begin) as usize {
            // SAFETY: the caller's contract; the last pass has taken every row that it asked for, behind a barrier.
            unsafe { ask::<T, C>(p, share, held, row as u32, later(held.place, row)) };
            row += 1;
        }
        // SAFETY: the caller's contract.
        held.numbers = unsafe { numbers(p, share, pass, 1, 0, 0) };
    }

    #[inline(always)]
    unsafe fn pass<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        pass: &Pass,
        held: &mut Self::Held,
        spread: &mut f64,
        emit: impl FnMut(usize, f64),
    ) -> f64 {
        const {
            assert!(BLOCK * L * P == CAPACITY && ROWS == 2 && WARPS == HALF);
            assert!(WINDOW.is_multiple_of(ROWS));
        }
        let count = share.end - share.begin;
        let (t, half) = (here(), thread::lane_idx() as usize / HALF);
        let spreads = pass.first && pass.observes;
        let column = |v: usize| (v * BLOCK + t) * L;

        // The thread's part of x, and in shared memory of s, which no other thread reads.
        let mut x = [[0.0_f64; L]; P];
        let (rows, staged) = (DynamicShared::<T>::whole(), DynamicShared::<f64>::whole());
        let fresh = share.fresh(p);
        unroll!(v in P => {
            if column(v) < fresh.stride {
                unroll!(h in L / 2 => {
                    let at = fresh.base + column(v) + 2 * h;
                    // SAFETY: below the model's stride, which the arrays are padded to; even, as strides are. The column
                    // is this thread's; the last pass's sums there were read before the barrier behind it.
                    unsafe {
                        let pair: Vector<f64, 2> = pass.mean.load_vector(at, LoadHint::Cached);
                        x[v][2 * h] = pass.scale * pair.0[0];
                        x[v][2 * h + 1] = pass.scale * pair.0[1];
                        if spreads {
                            let pair: Vector<f64, 2> = p.variance.load_vector(at, LoadHint::Cached);
                            let s = Vector([floored(pair.0[0]), floored(pair.0[1])]);
                            staged.write_vector(column(v) + 2 * h, s);
                        }
                    }
                });
            } else if spreads {
                unroll!(h in L / 2 => {
                    // SAFETY: as above.
                    unsafe { staged.write_vector(column(v) + 2 * h, Vector([0.0; 2])) };
                });
            }
        });

        let dots_smem = shared_array![f64; 2 * ROWS * WARPS];
        let mut sums = [[0.0_f64; L]; P];
        let (mut misfit, mut parity, mut row, mut window) = (0.0, 0, 0_u32, 0_u32);
        while row < count {
            let first = held.place;
            let mut parts = [[Vector([T::ZERO; L]); P]; ROWS];
            unroll!(r in ROWS => {
                // The same for the whole block.
                if row + (r as u32) < count {
                    let place = held.place;
                    // SAFETY: initialised; the block asked for this row in this phase.
                    unsafe { Mbarrier::of(&held.words, place).wait(held.parity) };
                    held.place = later(place, 1);
                    held.parity ^= held.place == 0;
                    unroll!(v in P => {
                        let at = (RING + place * PLACE) / size_of::<T>() + column(v);
                        // SAFETY: inside the row that the copy brought, which the wait ordered before, or in the zeros
                        // behind it.
                        parts[r][v] = unsafe { rows.read_vector::<L>(at) };
                    });
                }
            });
            // Beside the dots, for chains of half the length.
            let (mut dots, mut odds) = ([0.0_f64; ROWS], [0.0_f64; ROWS]);
            let mut spread_of = [0.0_f64; ROWS];
            unroll!(q in L * P / 2 => {
                // Two columns of one vector.
                let (v, l) = (2 * q / L, 2 * q % L);
                unroll!(r in ROWS => {
                    dots[r] = math::fma_f64(parts[r][v].0[l].wide(), x[v][l], dots[r]);
                    odds[r] = math::fma_f64(parts[r][v].0[l + 1].wide(), x[v][l + 1], odds[r]);
                });
            });
            if spreads {
                unroll!(q in L * P / 2 => {
                    let (v, l) = (2 * q / L, 2 * q % L);
                    // SAFETY: this thread wrote it.
                    let s = unsafe { staged.read_vector::<2>(column(v) + l) }.0;
                    unroll!(r in ROWS => {
                        let (a, b) = (parts[r][v].0[l].wide(), parts[r][v].0[l + 1].wide());
                        spread_of[r] = math::fma_f64(a * a, s[0], spread_of[r]);
                        spread_of[r] = math::fma_f64(b * b, s[1], spread_of[r]);
                    });
                });
            }
            // Each half of the lanes goes on with a row.
            let (low, high) = (dots[0] + odds[0], dots[1] + odds[1]);
            let (keep, give) = if half == 0 { (low, high) } else { (high, low) };
            let other = warp::shuffle_xor(warp::FULL_MASK, give, HALF as u32);
            let folded = lane_sum(keep + other, HALF as u32);
            let (lane, base) = (thread::lane_idx() as usize % HALF, (parity * ROWS + half) * WARPS);
            if lane == 0 {
                // SAFETY: one lane a warp and row; the reads of the rows before the last lie before the last barrier.
                unsafe { dots_smem.write(base + t / warp::WARP_SIZE as usize, folded) };
            }
            // Orders the warps' dots before their reads, and all reads of the rows before their places are filled again.
            thread::sync_threads();
            unroll!(r in ROWS => {
                let next = row + (PLACES + r) as u32;
                if next < count {
                    // SAFETY: every thread has read the place, before the barrier.
                    unsafe { ask::<T, C>(p, share, held, next, later(first, r)) };
                }
            });
            // SAFETY: every warp wrote its place before the barrier.
            let total = lane_sum(unsafe { dots_smem.read(base + lane) }, HALF as u32);
            parity ^= 1;
            let source = row - window + half as u32;
            let [weight, target]: [f64; 2] = warp::shuffle(warp::FULL_MASK, held.numbers, source);
            // Beyond the last row the weight is 0.
            let residual = target - total;
            let weighted = weight * residual;
            if t == half * HALF {
                misfit = math::fma_f64(weighted, residual, misfit);
            }
            unroll!(r in ROWS => {
                let [weighted, weight]: [f64; 2] =
                    warp::shuffle(warp::FULL_MASK, [weighted, weight], (r * HALF) as u32);
                *spread = math::fma_f64(weight, spread_of[r], *spread);
                unroll!(v in P => {
                    unroll!(l in L => {
                        sums[v][l] = math::fma_f64(weighted, parts[r][v].0[l].wide(), sums[v][l]);
                    });
                });
            });
            row += ROWS as u32;
            if row - window == WINDOW as u32 && row < count {
                window = row;
                // SAFETY: the caller's contract.
                held.numbers = unsafe { numbers(p, share, pass, 1, 0, row) };
            }
        }

        unroll!(v in P => {
            unroll!(l in L => {
                // SAFETY: the column is this thread's, and so is the s that was there.
                unsafe { staged.write(column(v) + l, sums[v][l]) };
            });
        });
        // Orders the sums before they are emitted, a column a thread.
        thread::sync_threads();
        // SAFETY: every thread is here, behind the barrier.
        unsafe { merge(p, &staged, 1, CAPACITY, emit) };
        misfit
    }
}
