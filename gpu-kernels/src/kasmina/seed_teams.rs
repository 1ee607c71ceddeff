//! How a block's threads share seeds and their columns: teams, a row of threads each.

use kasmina_device::{shared_array, thread, unroll, warp};
use kasmina_types::ParameterGradients;
use kasmina_types::blueprint::CONV_TAPS;

use super::seed_finish::{Folds, LaneTeams};

/// Threads of a block.
pub(crate) const BLOCK: usize = 256;
/// Warps of a block.
pub(crate) const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;

/// How a block's threads are cut into teams: rows of threads, each thread with one vector of columns.
#[derive(Clone, Copy)]
pub(crate) struct Teams {
    /// Threads of a team, a power of two up to the block, as a shift: a division would bring a panic into
    /// the kernel.
    pub(crate) shift: u32,
    /// Teams that share a seed's slabs, as a shift too.
    pub(crate) share_shift: u32,
}

impl Teams {
    #[inline(always)]
    pub(crate) fn of<const W: usize>(p: &ParameterGradients) -> Self {
        let vectors = p.chunk_size / W as u32;
        let vectors = if vectors > BLOCK as u32 { BLOCK as u32 } else { vectors.max(1) };
        Self { shift: 32 - (vectors - 1).leading_zeros(), share_shift: 0 }
    }

    /// The same teams, as many to a seed as leave none without work.
    #[inline(always)]
    pub(crate) fn shared(self, seeds: u32, slabs: u32) -> Self {
        let mut share_shift = 0;
        while (2 * seeds) << share_shift <= self.count() && 8 << share_shift <= slabs {
            share_shift += 1;
        }
        Self { share_shift, ..self }
    }

    #[inline(always)]
    pub(crate) fn shares(self) -> u32 {
        1 << self.share_shift
    }

    #[inline(always)]
    pub(crate) fn size(self) -> u32 {
        1 << self.shift
    }

    #[inline(always)]
    pub(crate) fn count(self) -> u32 {
        BLOCK as u32 >> self.shift
    }

    /// The thread's team.
    #[inline(always)]
    pub(crate) fn row(self) -> u32 {
        thread::thread_idx_x() >> self.shift
    }

    /// The thread's place in its team.
    #[inline(always)]
    pub(crate) fn member(self) -> u32 {
        thread::thread_idx_x() & (self.size() - 1)
    }

    /// Adds up what each group of `rows` neighbouring teams, a power of two, has for the same columns; the
    /// first team of the group gets the sum.
    ///
    /// # Safety
    /// Every thread of the block calls it, with the same `rows`.
    #[inline(always)]
    pub(crate) unsafe fn add_rows<const W: usize, const X: usize>(
        self,
        value: RowSums<W, X>,
        rows: u32,
    ) -> RowSums<W, X> {
        let mut sum = value;
        if rows == 1 {
            return sum;
        }
        const {
            assert!(W + X <= ROW_WORDS);
        }
        let slots = shared_array![u32; BLOCK * ROW_WORDS];
        let t = thread::thread_idx_x();
        let own = t as usize * ROW_WORDS;
        let mut step = rows;
        while step > 1 {
            // SAFETY: each thread writes its own words, which are read after a barrier and, in a later turn,
            // written by teams that no one reads any more.
            unsafe {
                if self.row() & (rows - 1) < step {
                    unroll!(l in W => { slots.write(own + l, sum.columns[l].to_bits()); });
                    unroll!(j in X => { slots.write(own + W + j, sum.extras[j].to_bits()); });
                }
                thread::sync_threads();
                step /= 2;
                if self.row() & (rows - 1) < step {
                    let other = (t + (step << self.shift)) as usize * ROW_WORDS;
                    unroll!(l in W => { sum.columns[l] += f32::from_bits(slots.read(other + l)); });
                    unroll!(j in X => {
                        sum.extras[j] += f32::from_bits(slots.read(other + W + j));
                    });
                }
            }
        }
        // Read before the next call writes.
        thread::sync_threads();
        sum
    }
}

impl Folds for Teams {
    #[inline(always)]
    unsafe fn fold<const N: usize>(
        self,
        values: [f32; N],
        combine: impl Fn(usize, f32, f32) -> f32,
    ) -> [f32; N] {
        const {
            assert!(N <= FOLD_WORDS);
        }
        // SAFETY: whole warps are here.
        let within =
            |values: [f32; N], lanes: u32| unsafe { LaneTeams(lanes).fold(values, &combine) };
        let size = self.size();
        let lanes = if size < warp::WARP_SIZE { size } else { warp::WARP_SIZE };
        let folded = within(values, lanes);
        if size <= warp::WARP_SIZE {
            return folded;
        }
        let of_warps = shared_array![u32; WARPS * FOLD_WORDS];
        let warps = size / warp::WARP_SIZE;
        let first = thread::warp_idx() & !(warps - 1);
        // SAFETY: one lane a warp writes its own words; the barriers order these writes before the reads
        // and the reads before the next fold's writes.
        unsafe {
            if thread::lane_idx() == 0 {
                let own = thread::warp_idx() as usize * FOLD_WORDS;
                unroll!(j in N => { of_warps.write(own + j, folded[j].to_bits()); });
            }
            thread::sync_threads();
            // Each group of lanes has all the team's warps' values.
            let other = (first + (thread::lane_idx() & (warps - 1))) as usize * FOLD_WORDS;
            let mut of_warp = [0.0; N];
            unroll!(j in N => { of_warp[j] = f32::from_bits(of_warps.read(other + j)); });
            thread::sync_threads();
            within(of_warp, warps)
        }
    }

    /// A block's teams are all of one blueprint, and answer alike.
    #[inline(always)]
    fn any(self, predicate: bool) -> bool {
        predicate
    }
}

/// Words of the widest value that a team folds.
const FOLD_WORDS: usize = CONV_TAPS;
/// Words of the widest [`RowSums`].
const ROW_WORDS: usize = 4 + CONV_TAPS;

/// What teams add up: a vector of columns, and `X` figures beside it.
#[derive(Clone, Copy)]
pub(crate) struct RowSums<const W: usize, const X: usize> {
    pub(crate) columns: [f32; W],
    pub(crate) extras: [f32; X],
}

impl<const W: usize, const X: usize> RowSums<W, X> {
    pub(crate) const ZERO: Self = Self { columns: [0.0; W], extras: [0.0; X] };

    #[inline(always)]
    pub(crate) fn add(&mut self, other: &Self) {
        unroll!(l in W => { self.columns[l] += other.columns[l]; });
        unroll!(j in X => { self.extras[j] += other.extras[j]; });
    }
}
