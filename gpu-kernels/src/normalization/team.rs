//! The threads that share a row: which columns are whose, and their sums.

use kasmina_device::global::Load;
use kasmina_device::shared::Shared;
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{thread, unroll, warp};
use kasmina_types::tiles::NORM_BLOCK_THREADS;
use kasmina_types::{In, NormPlan};

/// Threads of a block.
pub(crate) const BLOCK: usize = NORM_BLOCK_THREADS as usize;
/// Warps of a block.
pub(crate) const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;

/// Words of the scratch memory of [`Team::sum`]: two places, used in turn, for two sums of each warp.
pub(crate) const SCRATCH_WORDS: usize = 2 * WARPS * 2;

/// One thread's place: all teams of a block take rows in step, so that they meet at its barriers.
#[derive(Clone, Copy)]
pub(crate) struct Team {
    /// Threads, a power of two.
    pub(crate) threads: u32,
    /// Teams of the block.
    pub(crate) of_block: u32,
    /// The team's index in the block.
    pub(crate) index: u32,
    /// The thread's index in the team.
    pub(crate) member: u32,
}

/// The vectors of a chunk that a thread holds: `first`, `first + stride`, … below `end`.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    first: u32,
    stride: u32,
    end: u32,
    depth: u32,
    chunk_vectors: u32,
}

impl Team {
    #[inline(always)]
    pub(crate) fn of(plan: &NormPlan) -> Self {
        let t = thread::thread_idx_x();
        // A power of two: no division, and nothing to trap on.
        let shift = plan.team.trailing_zeros() & 31;
        Self {
            threads: plan.team,
            of_block: NORM_BLOCK_THREADS >> shift,
            index: t >> shift,
            member: t & plan.team.wrapping_sub(1),
        }
    }

    /// What this thread holds of a chunk.
    #[inline(always)]
    pub(crate) fn share(&self, plan: &NormPlan, chunk: u32) -> Share {
        let most = self.threads * plan.depth;
        let begin = chunk * most;
        Share {
            first: begin + self.member,
            stride: self.threads,
            end: plan.vectors,
            depth: plan.depth,
            chunk_vectors: most.min(plan.vectors - begin),
        }
    }

    /// The sums of the team's threads, in every one of them. All threads of the block call it.
    ///
    /// `turn` counts the calls: the one after the next writes the same place again, and the barrier of
    /// the next is between that and this one's readers.
    #[inline(always)]
    pub(crate) fn sum(
        &self,
        values: [f32; 2],
        turn: &mut u32,
        scratch: &Shared<f32, SCRATCH_WORDS>,
    ) -> [f32; 2] {
        let [mut a, mut b] = values;
        let mut step = self.threads.min(warp::WARP_SIZE) / 2;
        while step > 0 {
            a += warp::shuffle_xor(warp::FULL_MASK, a, step);
            b += warp::shuffle_xor(warp::FULL_MASK, b, step);
            step /= 2;
        }
        if self.threads <= warp::WARP_SIZE {
            return [a, b];
        }
        let place = (*turn & 1) as usize * WARPS * 2;
        *turn += 1;
        if thread::lane_idx() == 0 {
            let own = place + thread::warp_idx() as usize * 2;
            // SAFETY: one lane a warp writes, each its own two words of this turn's place.
            unsafe { scratch.write_vector(own, Vector([a, b])) };
        }
        // Orders the warps' sums before the team reads them; all threads of the block wait.
        thread::sync_threads();
        let warps = self.threads / warp::WARP_SIZE;
        let first = self.index * warps;
        let (mut a, mut b) = (0.0, 0.0);
        let mut w = 0;
        while w < warps {
            // SAFETY: the team's warps wrote their words before the barrier.
            let Vector([x, y]) =
                unsafe { scratch.read_vector::<2>(place + (first + w) as usize * 2) };
            a += x;
            b += y;
            w += 1;
        }
        [a, b]
    }
}

impl Share {
    /// Vectors of the whole chunk, the team's threads together.
    #[inline(always)]
    pub(crate) fn vectors_of_chunk(&self) -> u32 {
        self.chunk_vectors
    }

    /// Vector number `v` of the share, if the row has it: its first vector is always there for some
    /// thread, the others where `v` is below the plan's depth.
    #[inline(always)]
    pub(crate) fn vector(&self, v: usize) -> Option<usize> {
        let vector = self.first + v as u32 * self.stride;
        ((v as u32) < self.depth && vector < self.end).then_some(vector as usize)
    }
}

/// `L` f32 from element `index`, in accesses of up to 16 bytes.
///
/// # Safety
/// They are inside the view, which is 16-byte aligned; `index` is a multiple of `L`.
#[inline(always)]
pub(crate) unsafe fn load_f32<const L: usize>(view: &In<f32>, index: usize) -> [f32; L] {
    let mut values = [0.0; L];
    if L.is_multiple_of(4) {
        unroll!(q in 2 => {
            if q < L / 4 {
                // SAFETY: the caller's contract.
                let quad = unsafe { view.load_vector::<4>(index + 4 * q, LoadHint::Cached).0 };
                unroll!(l in 4 => { values[4 * q + l] = quad[l]; });
            }
        });
    } else {
        unroll!(l in L => {
            // SAFETY: the caller's contract.
            values[l] = unsafe { view.load(index + l) };
        });
    }
    values
}

/// γ or β of the columns from `column`, or `otherwise` where there is none.
///
/// # Safety
/// As [`load_f32`], where the view is not empty.
#[inline(always)]
pub(crate) unsafe fn parameter<const L: usize>(
    view: &In<f32>,
    column: usize,
    otherwise: f32,
) -> [f32; L] {
    if view.is_empty() {
        return [otherwise; L];
    }
    // SAFETY: the caller's contract.
    unsafe { load_f32(view, column) }
}
