//! Which points a block works on, where their coordinates are, and which candidates it may leave out.

use kasmina_device::global::Load;
use kasmina_device::reduce::warp_fold;
use kasmina_device::vector::LoadHint;
use kasmina_device::{thread, unroll, warp};
use kasmina_types::transfer_entropy::{TE_BLOCK_THREADS, TE_BOX_DIMS, TE_BOX_POINTS, TE_NONE};
use kasmina_types::{In, TePoints, TeProblem};

use super::distance::Distance;

/// Threads of a block.
pub(super) const THREADS: usize = TE_BLOCK_THREADS as usize;

/// Warps of a block.
pub(super) const WARPS: usize = THREADS / warp::WARP_SIZE as usize;

/// What a block does: the points of a query tile, `of_thread` a thread, against a slab of candidate tiles.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) problem: TeProblem,
    /// The problem's number.
    pub(super) number: usize,
    pub(super) query_tile: u32,
    pub(super) slab: u32,
    /// Points of a thread.
    of_thread: u32,
}

impl Work {
    /// # Safety
    /// `points` is as [`TePoints`] says, and the grid has a block for each problem, query tile and slab.
    #[inline(always)]
    pub(super) unsafe fn of(points: &TePoints, of_thread: usize) -> Self {
        let block = thread::block_idx_x();
        // At least one, as the launcher knows and the compiler does not.
        let (slabs, tiles) = (points.slabs.max(1), points.query_tiles.max(1));
        let (rest, slab) = (block / slabs, block % slabs);
        let (number, query_tile) = (rest / tiles, rest % tiles);
        // SAFETY: the grid has a block for each problem and no more.
        let problem = unsafe { points.problems.load(number as usize) };
        let (number, of_thread) = (number as usize, of_thread as u32);
        Self { problem, number, query_tile, slab, of_thread }
    }

    /// The first of the block's places in the order.
    #[inline(always)]
    pub(super) fn first_place(&self) -> u32 {
        self.query_tile * TE_BLOCK_THREADS * self.of_thread
    }

    /// The first of the warp's places, which are one after another.
    #[inline(always)]
    fn first_place_of_warp(&self) -> u32 {
        self.first_place() + thread::warp_idx() * warp::WARP_SIZE * self.of_thread
    }

    /// The number of the thread's point `q`, or [`TE_NONE`].
    ///
    /// # Safety
    /// As [`Self::of`].
    #[inline(always)]
    pub(super) unsafe fn query(&self, points: &TePoints, q: usize) -> u32 {
        let place = self.first_place_of_warp() + q as u32 * warp::WARP_SIZE + thread::lane_idx();
        // SAFETY: the caller's contract.
        unsafe { self.at(points, place) }
    }

    /// The number of the point at a place of the order, or [`TE_NONE`] beyond the last.
    ///
    /// # Safety
    /// As [`Self::of`].
    #[inline(always)]
    pub(super) unsafe fn at(&self, points: &TePoints, place: u32) -> u32 {
        if place >= self.problem.points {
            TE_NONE
        } else if self.problem.order == TE_NONE {
            place
        } else {
            // SAFETY: an order has an entry for each point.
            unsafe { points.orders.load(self.problem.order as usize + place as usize) }
        }
    }

    /// The row of x⁻ that a point has.
    ///
    /// # Safety
    /// As [`Self::of`]; `point` is one of the problem's.
    #[inline(always)]
    pub(super) unsafe fn row(&self, points: &TePoints, point: u32) -> u32 {
        if self.problem.rows == TE_NONE {
            point
        } else {
            // SAFETY: the rows have an entry for each point.
            unsafe { points.rows.load(self.problem.rows as usize + point as usize) }
        }
    }

    /// Coordinate `d` of a point whose row is `row`.
    ///
    /// # Safety
    /// As [`Self::row`], and `d` is below the dimensions.
    #[inline(always)]
    pub(super) unsafe fn coordinate<T: Distance>(
        &self,
        points: &TePoints,
        d: usize,
        point: u32,
        row: u32,
    ) -> T {
        let series: In<T> = points.series.cast();
        let dims = (points.past + 1 + points.source) as usize;
        // SAFETY: an offset for each problem and dimension, from which on the series has a value for each point.
        unsafe {
            let offset = points.offsets.load(self.number * dims + d);
            let from = if d > points.past as usize { row } else { point };
            if offset == TE_NONE { T::ZERO } else { series.load(offset as usize + from as usize) }
        }
    }

    /// The candidate tiles of the slab, of `tile` points each: from the first to before the last.
    #[inline(always)]
    pub(super) fn tiles(&self, points: &TePoints, tile: usize) -> (u32, u32) {
        let tiles = self.problem.points.div_ceil(tile as u32);
        let border = |slab: u32| {
            (u64::from(tiles) * u64::from(slab) / u64::from(points.slabs.max(1))) as u32
        };
        (border(self.slab), border(self.slab + 1))
    }

    /// `window` candidate tiles, of `tile` points each, about the block's own.
    #[inline(always)]
    pub(super) fn tiles_near(&self, window: u32, tile: usize) -> (u32, u32) {
        let tiles = self.problem.points.div_ceil(tile as u32);
        let middle = (self.first_place() + TE_BLOCK_THREADS * self.of_thread / 2) / tile as u32;
        let window = if window < tiles { window } else { tiles };
        let first = middle.saturating_sub(window / 2);
        let first = if first + window > tiles { tiles - window } else { first };
        (first, first + window)
    }

    /// Whether a candidate of the tile may be too near in time, or itself, for a point of the warp. The same for all
    /// its lanes.
    #[inline(always)]
    pub(super) fn excludes(&self, points: &TePoints, candidates: u32, tile: usize) -> bool {
        let (first, last) = (self.first_place_of_warp(), candidates + tile as u32 - 1);
        let end = first + warp::WARP_SIZE * self.of_thread;
        // In an order of its own near places are not near in time, but the same place is the same point.
        let reach = if self.problem.order == TE_NONE { points.theiler } else { 0 };
        let anywhere = self.problem.order != TE_NONE && points.theiler > 0;
        anywhere || (candidates < end.saturating_add(reach) && last.saturating_add(reach) >= first)
    }
}

/// The range of the warp's points in the coordinates that boxes have.
#[derive(Clone, Copy)]
pub(super) struct Range<T> {
    low: [T; TE_BOX_DIMS],
    high: [T; TE_BOX_DIMS],
}

impl<T: Distance> Range<T> {
    /// Of nothing yet.
    #[inline(always)]
    pub(super) fn new() -> Self {
        let infinity = T::INFINITY;
        let low = [infinity; TE_BOX_DIMS];
        Self { low, high: [T::difference(T::ZERO, infinity); TE_BOX_DIMS] }
    }

    /// Takes the coordinate of a point that is there.
    #[inline(always)]
    pub(super) fn include(&mut self, d: usize, value: T) {
        self.low[d] = T::smaller(self.low[d], value);
        self.high[d] = T::larger(self.high[d], value);
    }

    /// The range of all lanes. All of them call it.
    #[inline(always)]
    pub(super) fn of_warp(self) -> Self {
        let mut range = self;
        unroll!(d in TE_BOX_DIMS => {
            range.low[d] = warp_fold(range.low[d], T::smaller);
            range.high[d] = warp_fold(range.high[d], T::larger);
        });
        range
    }

    /// Whether a candidate of the box may be as near as `reach` to a point of the range: what rounding is monotonic for
    /// decides as the distances themselves would.
    ///
    /// # Safety
    /// As [`Work::of`]; `place` is one of the problem's, which has boxes.
    #[inline(always)]
    pub(super) unsafe fn reaches(
        &self,
        points: &TePoints,
        problem: &TeProblem,
        place: u32,
        reach: T,
    ) -> bool {
        let boxes: In<T> = points.boxes.cast();
        let number = (problem.first_box + place / TE_BOX_POINTS) as usize;
        let mut reaches = true;
        unroll!(d in TE_BOX_DIMS => {
            // SAFETY: a box for each `TE_BOX_POINTS` places; pairs are aligned to their size.
            let [low, high] = unsafe {
                boxes.load_vector::<2>((number * TE_BOX_DIMS + d) * 2, LoadHint::Cached).0
            };
            let above = T::difference(low, self.high[d]);
            let below = T::difference(self.low[d], high);
            reaches &= T::larger(above, below) <= reach;
        });
        reaches
    }
}
