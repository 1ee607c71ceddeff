//! A pass over rows of J that bulk copies bring into shared memory, ahead of the threads.
//!
//! Two teams of eight warps take rows in turn, each through a ring of its own: while it works on one row, the next is
//! there or on its way, and the place of the one before is filled again. The teams run out of step, so that one computes
//! while the other waits for its warps.

use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::{DynamicShared, Shared};
use kasmina_device::vector::Vector;
use kasmina_device::{math, shared_array, thread, tma, unroll, warp};
use kasmina_types::ActiveInference;

use super::sweep::{
    Pass, Share, Sweep, WARPS, WINDOW, here, lane_sum, merge, numbers, row_of, stage, turns,
};
use crate::information::scalar::Scalar;

/// Teams of a block.
const TEAMS: usize = 2;
/// Warps of a team.
const TEAM: usize = WARPS / TEAMS;
const TEAM_THREADS: usize = TEAM * warp::WARP_SIZE as usize;
/// Places of a team's ring.
const STAGES: usize = 2;
/// States at most.
pub const CAPACITY: usize = 4096;
/// Where the ring begins in the dynamic shared memory, in bytes: behind the staged vectors.
const RING: usize = 2 * CAPACITY * size_of::<f64>();
/// Bytes of a place of the ring.
const PLACE: usize = CAPACITY * size_of::<f64>();
/// Dynamic shared memory of a block, in bytes.
pub const SHARED_BYTES: usize = RING + TEAMS * STAGES * PLACE;

/// Bulk copies; `P` vectors of `L` elements a thread, together a row for a team.
pub struct Bulk<T, const L: usize, const P: usize>(core::marker::PhantomData<T>);

/// What a thread keeps: how far its team's ring is, and the numbers of the rows of some turns.
pub struct Held {
    words: Shared<u64, { TEAMS * STAGES }>,
    /// Rows that the team has asked for, in all passes, and rows that it has taken.
    asked: u32,
    taken: u32,
    numbers: [f64; 2],
}

/// The thread's team, and its place there.
#[inline(always)]
fn place() -> (usize, usize) {
    let tid = here();
    (tid / TEAM_THREADS, tid % TEAM_THREADS)
}

/// Asks for the row of a turn: one thread of the team copies, all count.
///
/// # Safety
/// As [`Sweep::pass`]; the team has the turn, and no thread of it uses the ring's next place any more.
#[inline(always)]
unsafe fn ask<T: Scalar>(
    p: &ActiveInference,
    share: &Share,
    held: &mut Held,
    team: usize,
    t: usize,
    turn: u32,
) {
    let slot = team * STAGES + held.asked as usize % STAGES;
    if t == 0 {
        let bytes = p.stride * size_of::<T>() as u32;
        let row = row_of(p, share, TEAMS, team, turn);
        let target = DynamicShared::<u8>::whole().place(RING + slot * PLACE);
        let barrier = Mbarrier::of(&held.words, slot);
        // SAFETY: the row is the model's, a multiple of 16 bytes, as strides are; the place has room and is free; the
        // phase expects the row's bytes.
        unsafe {
            barrier.arrive_expect_tx(bytes);
            tma::load(target, &p.jacobian, row * bytes as usize, bytes, barrier);
        }
    }
    held.asked += 1;
}

impl<T: Scalar, const L: usize, const P: usize> Sweep for Bulk<T, L, P> {
    type Held = Held;

    #[inline(always)]
    fn nothing() -> Self::Held {
        let words = shared_array![u64; TEAMS * STAGES];
        if thread::thread_idx_x() == 0 {
            let mut i = 0;
            while i < TEAMS * STAGES {
                // SAFETY: one thread initialises, before the barrier.
                unsafe { Mbarrier::of(&words, i).init(1) };
                i += 1;
            }
            mbarrier::fence_init();
        }
        // Orders the initialisation before all uses.
        thread::sync_threads();
        Held { words, asked: 0, taken: 0, numbers: [0.0; 2] }
    }

    #[inline(always)]
    unsafe fn hold(p: &ActiveInference, share: &Share, pass: &Pass, held: &mut Self::Held) {
        let (team, t) = place();
        let count = turns(share, TEAMS, team);
        let mut turn = 0;
        while turn < STAGES as u32 && turn < count {
            // SAFETY: the caller's contract; the last pass has taken every row that it asked for, behind a barrier.
            unsafe { ask::<T>(p, share, held, team, t, turn) };
            turn += 1;
        }
        // SAFETY: the caller's contract.
        held.numbers = unsafe { numbers(p, share, pass, TEAMS, team, 0) };
    }

    #[inline(always)]
    unsafe fn pass(
        p: &ActiveInference,
        share: &Share,
        pass: &Pass,
        held: &mut Self::Held,
        spread: &mut f64,
        emit: impl FnMut(usize, f64),
    ) -> f64 {
        const { assert!(TEAM_THREADS * L * P == CAPACITY) };
        let (team, t) = place();
        let count = turns(share, TEAMS, team);
        let staged = DynamicShared::<f64>::whole();
        let rows = DynamicShared::<T>::whole();
        // SAFETY: the caller's contract; the launch has room for both vectors.
        unsafe { stage(p, share, pass, &staged, CAPACITY) };

        let dots_smem = shared_array![f64; 2 * WARPS];
        let mut sums = [[0.0_f64; L]; P];
        let (mut misfit, mut parity, mut turn, mut window) = (0.0, 0, 0_u32, 0_u32);
        while turn < count {
            let slot = team * STAGES + held.taken as usize % STAGES;
            // SAFETY: initialised; the team asked for this row in this phase.
            unsafe {
                Mbarrier::of(&held.words, slot).wait(held.taken / STAGES as u32 % 2 == 1);
            }
            held.taken += 1;
            let first = (RING + slot * PLACE) / size_of::<T>();
            let mut row = [Vector([T::ZERO; L]); P];
            let (mut dot, mut odd, mut spreads) = (0.0_f64, 0.0_f64, 0.0_f64);
            unroll!(v in P => {
                let column = (v * TEAM_THREADS + t) * L;
                if column < p.stride as usize {
                    // SAFETY: inside the row that the copy brought, which the wait ordered before.
                    row[v] = unsafe { rows.read_vector::<L>(first + column) };
                }
                unroll!(h in L / 2 => {
                    let (a, b) = (row[v].0[2 * h].wide(), row[v].0[2 * h + 1].wide());
                    // SAFETY: inside what was staged; even, as vectors are.
                    let x = unsafe { staged.read_vector::<2>(column + 2 * h) }.0;
                    dot = math::fma_f64(a, x[0], dot);
                    odd = math::fma_f64(b, x[1], odd);
                    if pass.first && pass.observes {
                        // SAFETY: as above.
                        let s = unsafe { staged.read_vector::<2>(CAPACITY + column + 2 * h) }.0;
                        spreads = math::fma_f64(a * a, s[0], spreads);
                        spreads = math::fma_f64(b * b, s[1], spreads);
                    }
                });
            });
            let folded = lane_sum(dot + odd, warp::WARP_SIZE);
            let base = (parity * TEAMS + team) * TEAM;
            if thread::lane_idx() == 0 {
                // SAFETY: one lane a warp; the reads of the row before last lie before the last barrier.
                unsafe { dots_smem.write(base + t / warp::WARP_SIZE as usize, folded) };
            }
            // Orders the team's dots before its reads, and its reads of the row before the place is filled again.
            thread::sync_team(1 + team as u32, TEAM_THREADS as u32);
            if turn + (STAGES as u32) < count {
                // SAFETY: every thread of the team has read the place, before the barrier.
                unsafe { ask::<T>(p, share, held, team, t, turn + STAGES as u32) };
            }
            let (mut total, mut other, mut i) = (0.0, 0.0, 0);
            while i < TEAM {
                // SAFETY: every warp of the team wrote its place before the barrier.
                let pair = unsafe { dots_smem.read_vector::<2>(base + i) }.0;
                total += pair[0];
                other += pair[1];
                i += 2;
            }
            parity ^= 1;
            let [weight, target]: [f64; 2] =
                warp::shuffle(warp::FULL_MASK, held.numbers, turn - window);
            let residual = target - (total + other);
            let weighted = weight * residual;
            if t == 0 {
                misfit = math::fma_f64(weighted, residual, misfit);
            }
            *spread = math::fma_f64(weight, spreads, *spread);
            unroll!(v in P => {
                unroll!(l in L => {
                    sums[v][l] = math::fma_f64(weighted, row[v].0[l].wide(), sums[v][l]);
                });
            });
            turn += 1;
            if turn - window == WINDOW as u32 && turn < count {
                window = turn;
                // SAFETY: the caller's contract.
                held.numbers = unsafe { numbers(p, share, pass, TEAMS, team, turn) };
            }
        }

        // All have read the staged vectors, whose place the teams' sums take.
        thread::sync_threads();
        let (team, t) = place();
        unroll!(v in P => {
            unroll!(l in L => {
                let column = (v * TEAM_THREADS + t) * L + l;
                // SAFETY: the column is this thread's in its team.
                unsafe { staged.write(team * CAPACITY + column, sums[v][l]) };
            });
        });
        // Orders the teams' sums before their merge.
        thread::sync_threads();
        // SAFETY: every thread is here, behind the barrier.
        unsafe { merge(p, &staged, TEAMS, CAPACITY, emit) };
        misfit
    }
}
