//! A block that has a seed to itself, all rows of it: for passes so short that what counts is how long a thread takes from
//! its first instruction to its last. Every branch on the seed's state and blueprint is one for the whole block.

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{thread, unroll, warp};
use kasmina_types::{In, LayerPass, Out};

/// Threads of a block.
pub(crate) const BLOCK: usize = 128;
/// Warps of a block.
pub(crate) const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;

/// A thread's vectors of some rows.
pub(crate) type Rows<T, const L: usize, const R: usize> = [Vector<T, L>; R];

/// The block's seed and the thread's part of it: a vector of columns, in every `row_lanes`-th row.
#[derive(Clone, Copy)]
pub(crate) struct SeedBlock {
    pub(crate) seed: u32,
    /// Vectors of the chunk, a power of two up to a warp's lanes: neighbouring threads have a row's.
    pub(crate) vectors: u32,
    /// The thread's first column in the chunk.
    pub(crate) column: u32,
    /// Its first row.
    row: u32,
    /// Rows that the block covers side by side.
    row_lanes: u32,
    /// Elements of a row, and the first of the thread's in its first row.
    hidden: u32,
    start: u32,
}

impl SeedBlock {
    /// The place of this thread in a grid with a block for each seed, with vectors of `L` elements.
    #[inline(always)]
    pub(crate) fn of<const L: usize, const C: bool>(p: &impl LayerPass<C>) -> Self {
        let g = p.geometry();
        // Up to 32: a shift that is seen to leave the one where it is not lost.
        let shift = g.chunk_vectors.trailing_zeros() & 7;
        let vectors = 1 << shift;
        // Seeds of a kind are often at regular distances: blocks that run on the same multiprocessor are not.
        let seed = thread::block_idx_x() * g.seed_stride % p.num_seeds().max(1);
        let t = thread::thread_idx_x();
        let (row, column) = (t >> shift, (t & (vectors - 1)) * L as u32);
        let hidden = p.num_seeds() * p.chunk_size();
        Self {
            seed,
            vectors,
            column,
            row,
            row_lanes: BLOCK as u32 >> shift,
            hidden,
            start: row * hidden + seed * p.chunk_size() + column,
        }
    }

    /// Groups of `R` rows a thread in which `batch` rows are.
    #[inline(always)]
    pub(crate) fn groups<const R: usize>(&self, batch: u32) -> u32 {
        batch.div_ceil((R as u32 * self.row_lanes).max(1))
    }

    /// How many of the thread's rows of the `group`-th group are among `batch`: `R`, or fewer in the last group.
    #[inline(always)]
    pub(crate) fn rows_left<const R: usize>(&self, batch: u32, group: u32) -> u32 {
        let first = self.row + group * R as u32 * self.row_lanes;
        let left = batch.saturating_sub(first).div_ceil(self.row_lanes.max(1));
        left.min(R as u32)
    }

    /// The first element of row `r` of the `group`-th group.
    #[inline(always)]
    pub(crate) fn at<const R: usize>(&self, group: u32, r: usize) -> usize {
        let rows = (group * R as u32 + r as u32) * self.row_lanes;
        (self.start + rows * self.hidden) as usize
    }

    /// The first `left` rows of a group, and zeros for the rest.
    ///
    /// # Safety
    /// The array has the batch's rows; `left` is at most [`Self::rows_left`].
    #[inline(always)]
    pub(crate) unsafe fn load<T: Float, const L: usize, const R: usize>(
        &self,
        from: &In<T>,
        group: u32,
        left: u32,
    ) -> Rows<T, L, R> {
        let mut rows = [Vector([T::zeroed(); L]); R];
        unroll!(r in R => {
            if (r as u32) < left {
                // SAFETY: the row is there.
                rows[r] = unsafe { from.load_vector(self.at::<R>(group, r), LoadHint::Cached) };
            }
        });
        rows
    }

    /// Stores row `r` of a group, if it is among the first `left`.
    ///
    /// # Safety
    /// As [`Self::load`]; the vector is this thread's alone.
    #[inline(always)]
    pub(crate) unsafe fn store<T: Float, const L: usize, const R: usize>(
        &self,
        to: &Out<T>,
        group: u32,
        left: u32,
        r: usize,
        row: Vector<T, L>,
    ) {
        if (r as u32) < left {
            // SAFETY: the row is there.
            unsafe { to.store_vector(self.at::<R>(group, r), row, StoreHint::Cached) };
        }
    }
}
