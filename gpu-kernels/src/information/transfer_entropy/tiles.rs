//! Candidate tiles in shared memory, and the block's own points where they do not fit in registers.

use kasmina_device::shared::Shared;
use kasmina_device::{shared_array, thread, unroll};
use kasmina_types::TePoints;
use kasmina_types::transfer_entropy::{TE_BOX_DIMS, TE_NONE};

use super::distance::{Candidates, Distance, Queries, WIDE_TILE};
use super::points::{Range, THREADS, Work};

/// Candidates of a tile of the kernels for few dimensions: one a thread.
pub(super) const TILE: usize = THREADS;

/// Coordinates of the kernels for few dimensions, at most.
const SMALL_DIMS: usize = 7;

/// A tile of the kernels for few dimensions.
#[derive(Clone, Copy)]
pub(super) struct SmallTile {
    coordinates: Shared<f32, { SMALL_DIMS * TILE }>,
    numbers: Shared<u32, TILE>,
}

impl SmallTile {
    #[inline(always)]
    pub(super) fn new() -> Self {
        let coordinates = shared_array![f32; SMALL_DIMS * TILE];
        Self { coordinates, numbers: shared_array![u32; TILE] }
    }

    /// Brings the candidates from place `first` on: a thread one of them. What is beyond the last is infinitely far.
    /// Nobody reads the tile any more; a barrier follows before anybody does.
    ///
    /// # Safety
    /// As [`Work::of`], and the points have `dims` dimensions.
    #[inline(always)]
    pub(super) unsafe fn load(&self, work: &Work, points: &TePoints, first: u32, dims: usize) {
        let me = thread::thread_idx_x();
        // SAFETY: each thread writes its own column; coordinates are those of a point that is there.
        unsafe {
            let point = work.at(points, first + me);
            let there = point != TE_NONE;
            let row = if there { work.row(points, point) } else { 0 };
            unroll!(d in SMALL_DIMS => {
                if d < dims {
                    let value =
                        if there { work.coordinate(points, d, point, row) } else { f32::INFINITY };
                    self.coordinates.write(d * TILE + me as usize, value);
                }
            });
            self.numbers.write(me as usize, point);
        }
    }

    /// Coordinate `d` of the four candidates from `c` on, a multiple of four.
    ///
    /// # Safety
    /// The tile has that coordinate, and a barrier lies between.
    #[inline(always)]
    pub(super) unsafe fn four(&self, d: usize, c: usize) -> [f32; 4] {
        // SAFETY: the caller's contract; columns of four are aligned.
        unsafe { self.coordinates.read_vector::<4>(d * TILE + c) }.0
    }

    /// Their numbers.
    ///
    /// # Safety
    /// As [`Self::four`].
    #[inline(always)]
    pub(super) unsafe fn numbers(&self, c: usize) -> [u32; 4] {
        // SAFETY: the caller's contract.
        unsafe { self.numbers.read_vector::<4>(c) }.0
    }
}

/// A tile of the kernels for any dimensions, and the block's points: one a thread.
#[derive(Clone, Copy)]
pub(super) struct WideTile<T> {
    candidates: Candidates<T>,
    numbers: Shared<u32, WIDE_TILE>,
    own: Queries<T>,
    dims: usize,
}

impl<T: Distance> WideTile<T> {
    #[inline(always)]
    pub(super) fn new(points: &TePoints) -> Self {
        let (candidates, own) = (T::candidates(), T::queries());
        let dims = (points.past + 1 + points.source) as usize;
        Self { candidates, numbers: shared_array![u32; WIDE_TILE], own, dims }
    }

    /// Brings the thread's own point, which only the thread itself reads, and widens `range` by it.
    ///
    /// # Safety
    /// As [`Work::row`].
    #[inline(always)]
    pub(super) unsafe fn take(
        &self,
        work: &Work,
        points: &TePoints,
        point: u32,
        range: &mut Range<T>,
    ) {
        let me = thread::thread_idx_x() as usize;
        // SAFETY: the caller's contract; each thread writes its own column.
        unsafe {
            let row = work.row(points, point);
            let mut d = 0;
            while d < self.dims {
                let value: T = work.coordinate(points, d, point, row);
                self.own.write(d * THREADS + me, value);
                unroll!(of_box in TE_BOX_DIMS => {
                    if d == of_box && d < points.past as usize {
                        range.include(of_box, value);
                    }
                });
                d += 1;
            }
        }
    }

    /// Brings the candidates from place `first` on: a warp a coordinate of all of them. What is beyond the last is
    /// infinitely far. Nobody reads the tile any more; a barrier follows before anybody does.
    ///
    /// # Safety
    /// As [`Work::of`].
    #[inline(always)]
    pub(super) unsafe fn load(&self, work: &Work, points: &TePoints, first: u32) {
        let column = thread::lane_idx() as usize;
        // SAFETY: each thread writes its own places; coordinates are those of a point that is there.
        unsafe {
            let point = work.at(points, first + column as u32);
            let there = point != TE_NONE;
            let row = if there { work.row(points, point) } else { 0 };
            let mut d = thread::warp_idx() as usize;
            while d < self.dims {
                let value =
                    if there { work.coordinate(points, d, point, row) } else { T::INFINITY };
                self.candidates.write(d * WIDE_TILE + column, value);
                d += THREADS / WIDE_TILE;
            }
            if thread::warp_idx() == 0 {
                self.numbers.write(column, point);
            }
        }
    }

    /// `far`, of the four candidates from `c` on, grown to their distances from the thread's point in coordinate `d`.
    ///
    /// # Safety
    /// The thread took its point, the tile was brought, a barrier lies between; `d` is one of the dimensions, `c` a
    /// multiple of four.
    #[inline(always)]
    pub(super) unsafe fn grow(&self, far: &mut [T; 4], d: usize, c: usize) {
        // SAFETY: the caller's contract.
        let (own, [a, b]) = unsafe {
            let own = self.own.read(d * THREADS + thread::thread_idx_x() as usize);
            let low = self.candidates.read_vector::<2>(d * WIDE_TILE + c).0;
            (own, [low, self.candidates.read_vector::<2>(d * WIDE_TILE + c + 2).0])
        };
        let values = [a[0], a[1], b[0], b[1]];
        unroll!(j in 4 => { far[j] = T::larger(T::between(values[j], own), far[j]); });
    }

    /// The number of candidate `c`, or [`TE_NONE`] if it is too near in time to `point`, itself or beyond the last.
    ///
    /// # Safety
    /// As [`Self::grow`].
    #[inline(always)]
    pub(super) unsafe fn candidate(&self, points: &TePoints, point: u32, c: usize) -> u32 {
        // SAFETY: the caller's contract.
        let number = unsafe { self.numbers.read(c) };
        if number != TE_NONE && number.abs_diff(point) > points.theiler { number } else { TE_NONE }
    }
}
