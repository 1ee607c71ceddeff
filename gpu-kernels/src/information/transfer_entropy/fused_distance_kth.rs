//! The distance to the K-th nearest other point of each point, in the maximum norm, for many sets of points.
//!
//! # Math
//! Points are p = (y⁻, y_t, x⁻); `d(i, j) = max_c |p_jc − p_ic|`, each difference rounded once. ε_i is the K-th smallest
//! d(i, j) over |i − j| > Theiler window. Algorithm 1: all three radii are the number before ε_i, for its counts are
//! strict. Algorithm 2: each subspace's largest distance to the K nearest; of equally near ones the lower number is
//! nearer. `tied` says whether another point is as far as the K-th.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `series`, `offsets`, `orders`, `rows`, `problems` | see [`TePoints`](kasmina_types::TePoints) | f32 or f64; u32 | in |
//! | `boxes` | `[boxes, 3, 2]` | as `series` | in |
//! | `bounds` | `[problems, stride]`, or empty | as `series` | in, or out of a launch that makes them |
//! | `radii` | `[problems, 3, stride]` | as `series` | out |
//! | `tied` | `[problems, stride]` | u32 | out |
//! | `lists`, `list_points` | `[problems, slabs, capacity + 1, stride]` | as `series`; u32 | scratch |
//! | `arrivals` | `[problems, query tiles]` | u32 | scratch, zero before and after |
//!
//! # Traffic
//! Bound by arithmetic. A pair of points in D dimensions costs D subtractions (128 lanes of an SM), D − 1 maxima with |·|
//! folded in and one comparison (64 lanes): 2·D cycles of an SM's quarter for 32 pairs, and insertions. N = 20000,
//! D = 7: 4e8 pairs, 14 cycles for 32, on 132 SMs at 1.755 GHz 0.19 ms. Candidates come through shared memory, four
//! of one coordinate in 16 bytes, for all of the thread's points: D/4 loads for a candidate. A tile of 128
//! candidates is read from L2 by each block: query tiles · N · D · 4 bytes. A list that starts at a bound is entered about K · N /
//! (candidates of the bound) times less often than one that starts empty. Measured: see `docs/performance.md`,
//! `transfer_entropy`.
//!
//! # Launch
//! 128 threads; a block for each problem, query tile (1 to 4 points a thread) and slab of candidates. The last
//! of a query tile's slabs to finish merges their lists. A launch with `new_bounds` has one slab, the candidates near
//! the block's points. Where a problem has boxes, a warp leaves out candidate tiles that are farther than all
//! its K-th neighbours. No thread leaves before the last barrier; points beyond the last have closed lists.
//!
//! # Determinism
//! Bitwise, and the same whatever the slabs, bounds, order and boxes: the K smallest of a set do not depend on the order in
//! which it is looked through, and what is left out cannot be among them.
//!
//! # Source
//! A. Kraskov, H. Stögbauer, P. Grassberger, "Estimating mutual information", 2004; M. Wibral, R. Vicente, M. Lindner,
//! "Transfer entropy in neuroscience", 2014. Reference:
//! `kasmina_reference::information::transfer_entropy::nearest`.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::warp_fold;
use kasmina_device::shared::Shared;
use kasmina_device::{grid, kernel, shared_array, thread, unroll};
use kasmina_types::transfer_entropy::{
    TE_BLOCK_THREADS, TE_BOX_DIMS, TE_NONE, TE_SMALL_MIN_BLOCKS,
};
use kasmina_types::{DistanceKth, In, Out};

use super::distance::{Candidates, Distance, Queries, WIDE_TILE};
use super::nearest::{Distances, Nearest, Numbered};
use super::points::{Range, THREADS, Work};

/// Candidates of a tile of the kernels for few dimensions: one a thread.
const TILE: usize = THREADS;

/// Coordinates of the kernels for few dimensions, at most.
const SMALL_DIMS: usize = 7;

/// The kernel for `D` dimensions, the first `Z` of them y⁻, and `Q` points a thread.
///
/// # Safety
/// As [`DistanceKth`] says, with `past` of `Z` and `source` of `D − 1 − Z`; the grid has a block for each problem, query tile
/// and slab.
#[inline(always)]
unsafe fn small<const Z: usize, const D: usize, const Q: usize, const W: usize, const G: usize>(
    p: DistanceKth,
) {
    let tile = shared_array![f32; SMALL_DIMS * TILE];
    let numbers = shared_array![u32; TILE];
    // SAFETY: the caller's contract.
    let work = unsafe { Work::of(&p.points, Q) };
    let bounds: In<f32> = p.bounds.cast();

    let mut query = [TE_NONE; Q];
    let mut own = [[0.0; D]; Q];
    let mut lists = [Distances::<f32, W, G>::new(0, f32::BELOW_ALL); Q];
    let mut range = Range::new();
    unroll!(q in Q => {
        // SAFETY: the caller's contract; coordinates and bounds are those of a point that is there.
        unsafe {
            query[q] = work.query(&p.points, q);
            if query[q] != TE_NONE {
                let row = work.row(&p.points, query[q]);
                unroll!(d in D => {
                    own[q][d] = work.coordinate(&p.points, d, query[q], row);
                    if d < Z && d < TE_BOX_DIMS {
                        range.include(d, own[q][d]);
                    }
                });
                lists[q] = Distances::new(p.points.k, fill(&p, &bounds, &work, query[q]));
            }
        }
    });
    unroll!(d in TE_BOX_DIMS => {
        if d >= Z {
            range.include(d, 0.0);
        }
    });
    let pruned = work.problem.first_box != TE_NONE;
    if pruned {
        range = range.of_warp();
    }

    let (mut at, end) = candidate_tiles(&p, &work, TILE);
    while at < end {
        let first = at * TILE as u32;
        let needed = !pruned || {
            let mut worst = lists[0].worst();
            unroll!(q in Q => { worst = f32::larger(worst, lists[q].worst()); });
            let worst = warp_fold(worst, f32::larger);
            // SAFETY: the place is one of the problem's.
            unsafe { range.reaches(&p.points, &work.problem, first, worst) }
        };
        // Nobody reads the tile before any more.
        if thread::sync_threads_or(needed) {
            let me = thread::thread_idx_x();
            // SAFETY: each thread writes its own column, and coordinates are those of a point that is there.
            unsafe {
                let point = work.at(&p.points, first + me);
                let there = point != TE_NONE;
                let row = if there { work.row(&p.points, point) } else { 0 };
                unroll!(d in D => {
                    let value = if there {
                        work.coordinate(&p.points, d, point, row)
                    } else {
                        f32::INFINITY
                    };
                    tile.write(d * TILE + me as usize, value);
                });
                numbers.write(me as usize, point);
            }
            // The tile is there.
            thread::sync_threads();
            if needed {
                let excludes = work.excludes(&p.points, first, TILE);
                // SAFETY: the tile was written before the barrier.
                unsafe {
                    scan(&tile, &numbers, &own, &query, p.points.theiler, excludes, &mut lists);
                }
            }
        }
        at += 1;
    }
    // SAFETY: the caller's contract; the whole block is here.
    unsafe { finish(&p, &work, &query, &mut lists) };
}

/// Offers a tile of candidates to the thread's lists.
///
/// # Safety
/// The tile is written, and a barrier lies between.
#[inline(always)]
unsafe fn scan<const D: usize, const Q: usize, const W: usize, const G: usize>(
    tile: &Shared<f32, { SMALL_DIMS * TILE }>,
    numbers: &Shared<u32, TILE>,
    own: &[[f32; D]; Q],
    query: &[u32; Q],
    theiler: u32,
    excludes: bool,
    lists: &mut [Distances<f32, W, G>; Q],
) {
    let mut c = 0;
    while c < TILE {
        let mut far = [[0.0; 4]; Q];
        unroll!(d in D => {
            // SAFETY: the caller's contract; four of the tile's columns, aligned.
            let values = unsafe { tile.read_vector::<4>(d * TILE + c) }.0;
            unroll!(q in Q => {
                unroll!(j in 4 => {
                    let one = f32::between(values[j], own[q][d]);
                    far[q][j] = if d == 0 { one } else { f32::larger(one, far[q][j]) };
                });
            });
        });
        if excludes {
            // SAFETY: as above.
            let others = unsafe { numbers.read_vector::<4>(c) }.0;
            unroll!(q in Q => {
                unroll!(j in 4 => {
                    if others[j].abs_diff(query[q]) <= theiler {
                        far[q][j] = f32::INFINITY;
                    }
                });
            });
        }
        unroll!(q in Q => {
            let worst = lists[q].worst();
            let [a, b, c, d] = far[q];
            // Rare, once the list has seen some candidates.
            if (a <= worst) | (b <= worst) | (c <= worst) | (d <= worst) {
                unroll!(j in 4 => {
                    if far[q][j] <= lists[q].worst() {
                        lists[q].insert(far[q][j], TE_NONE);
                    }
                });
            }
        });
        c += 4;
    }
}

/// What a point's list is filled with at the beginning.
///
/// # Safety
/// As [`DistanceKth`] says; `point` is one of the problem's.
#[inline(always)]
unsafe fn fill<T: Distance>(p: &DistanceKth, bounds: &In<T>, work: &Work, point: u32) -> T {
    if bounds.is_empty() {
        T::INFINITY
    } else {
        // SAFETY: a bound for each point.
        unsafe { bounds.load(work.number * p.points.stride as usize + point as usize) }
    }
}

/// The candidate tiles of this launch.
#[inline(always)]
fn candidate_tiles(p: &DistanceKth, work: &Work, tile: usize) -> (u32, u32) {
    if p.new_bounds.is_empty() {
        work.tiles(&p.points, tile)
    } else {
        work.tiles_near(p.window_tiles, tile)
    }
}

/// Merges the slabs' lists in the last block, and writes what they say.
///
/// # Safety
/// As [`DistanceKth`] says; every thread of the block calls it.
#[inline(always)]
unsafe fn finish<T: Distance, L: Nearest<T>, const Q: usize>(
    p: &DistanceKth,
    work: &Work,
    query: &[u32; Q],
    lists: &mut [L; Q],
) {
    let points = &p.points;
    let stride = points.stride as usize;
    if !p.new_bounds.is_empty() {
        let bounds: Out<T> = p.new_bounds.cast();
        unroll!(q in Q => {
            if query[q] != TE_NONE {
                let at = work.number * stride + query[q] as usize;
                // SAFETY: each point's place is written by its thread alone.
                unsafe { bounds.store(at, lists[q].worst().above()) };
            }
        });
        return;
    }
    if points.slabs > 1 {
        let stored: Out<T> = p.lists.cast();
        let first = |slab: u32| {
            (work.number * points.slabs as usize + slab as usize) * (L::CAPACITY + 1) * stride
        };
        unroll!(q in Q => {
            if query[q] != TE_NONE {
                let base = first(work.slab) + query[q] as usize;
                lists[q].each(|place, distance, number| {
                    // SAFETY: the slab's places for this point are written by its thread alone.
                    unsafe {
                        stored.store(base + place * stride, distance);
                        if L::NUMBERED {
                            p.list_points.store(base + place * stride, number);
                        }
                    }
                });
            }
        });
        let arrival = work.number * points.query_tiles as usize + work.query_tile as usize;
        // SAFETY: every thread of the block arrives, once for each slab.
        if !unsafe { grid::arrive_is_last(&p.arrivals, arrival, points.slabs) } {
            return;
        }
        let load = |at: usize| {
            // SAFETY: all slabs' lists were stored before their blocks arrived.
            unsafe {
                let number = if L::NUMBERED { p.list_points.load(at) } else { TE_NONE };
                (stored.load(at), number)
            }
        };
        let offer = |list: &mut L, distance: T, number: u32| {
            if distance >= T::ZERO && distance <= list.worst() {
                list.insert(distance, number);
            }
        };
        let mut slab = 0;
        while slab < points.slabs {
            if slab != work.slab {
                let mut others = *lists;
                unroll!(q in Q => {
                    if query[q] != TE_NONE {
                        let base = first(slab) + query[q] as usize;
                        // Two long lists do not fit in registers.
                        if L::CAPACITY <= 8 {
                            others[q] = L::gather(|place| load(base + place * stride));
                        } else {
                            let mut place = 0;
                            while place <= L::CAPACITY {
                                let (distance, number) = load(base + place * stride);
                                offer(&mut lists[q], distance, number);
                                place += 1;
                            }
                        }
                    }
                });
                if L::CAPACITY <= 8 {
                    unroll!(q in Q => {
                        others[q].each(|_, distance, number| {
                            offer(&mut lists[q], distance, number);
                        });
                    });
                }
            }
            slab += 1;
        }
    }
    let radii: Out<T> = p.radii.cast();
    unroll!(q in Q => {
        if query[q] != TE_NONE {
            let list = &lists[q];
            let radius = if L::NUMBERED && p.algorithm == 2 {
                // SAFETY: the neighbours are points of the problem.
                unsafe { largest::<T, L>(p, work, query[q], list) }
            } else {
                [list.worst().before(); 3]
            };
            let at = work.number * 3 * stride + query[q] as usize;
            unroll!(subspace in 3 => {
                // SAFETY: each point's places are written by its thread alone.
                unsafe { radii.store(at + subspace * stride, radius[subspace]) };
            });
            let tied = u32::from(list.next() == list.worst());
            // SAFETY: as above.
            unsafe { p.tied.store(work.number * stride + query[q] as usize, tied) };
        }
    });
}

/// The largest distances to a point's neighbours in y⁻, y_t and x⁻.
///
/// # Safety
/// As [`DistanceKth`] says; the list is that of the problem's point `point`.
#[inline(always)]
unsafe fn largest<T: Distance, L: Nearest<T>>(
    p: &DistanceKth,
    work: &Work,
    point: u32,
    list: &L,
) -> [T; 3] {
    let points = &p.points;
    let (past, dims) = (points.past as usize, (points.past + 1 + points.source) as usize);
    // SAFETY: the caller's contract.
    let row = unsafe { work.row(points, point) };
    let mut most = [T::ZERO; 3];
    list.each(|place, _, number| {
        if place < L::CAPACITY && number != TE_NONE {
            // SAFETY: neighbours are points of the problem.
            let other_row = unsafe { work.row(points, number) };
            let mut d = 0;
            while d < dims {
                // SAFETY: as above, and `d` is a dimension.
                let far = unsafe {
                    let own: T = work.coordinate(points, d, point, row);
                    T::between(work.coordinate(points, d, number, other_row), own)
                };
                let grown = |most: T, here: bool| if here { T::larger(most, far) } else { most };
                most =
                    [grown(most[0], d < past), grown(most[1], d == past), grown(most[2], d > past)];
                d += 1;
            }
        }
    });
    most
}

/// The kernel for any dimensions: coordinates stay in shared memory.
///
/// # Safety
/// As [`DistanceKth`] says; the grid has a block for each problem, query tile and slab.
#[inline(always)]
unsafe fn wide<T: Distance, L: Nearest<T>>(p: DistanceKth) {
    let tile: Candidates<T> = T::candidates();
    let queries: Queries<T> = T::queries();
    let numbers = shared_array![u32; WIDE_TILE];
    // SAFETY: the caller's contract.
    let work = unsafe { Work::of(&p.points, 1) };
    let bounds: In<T> = p.bounds.cast();
    let dims = (p.points.past + 1 + p.points.source) as usize;
    let me = thread::thread_idx_x() as usize;

    // SAFETY: the caller's contract.
    let query = unsafe { work.query(&p.points, 0) };
    let mut list = L::new(0, T::BELOW_ALL);
    let mut range = Range::new();
    if query != TE_NONE {
        // SAFETY: the point is there; each thread writes its own column.
        unsafe {
            let row = work.row(&p.points, query);
            let mut d = 0;
            while d < dims {
                let value: T = work.coordinate(&p.points, d, query, row);
                queries.write(d * THREADS + me, value);
                unroll!(of_box in TE_BOX_DIMS => {
                    if d == of_box && d < p.points.past as usize {
                        range.include(of_box, value);
                    }
                });
                d += 1;
            }
            list = L::new(p.points.k, fill(&p, &bounds, &work, query));
        }
    }
    unroll!(d in TE_BOX_DIMS => {
        if d >= p.points.past as usize {
            range.include(d, T::ZERO);
        }
    });
    let pruned = work.problem.first_box != TE_NONE;
    if pruned {
        range = range.of_warp();
    }

    let (mut at, end) = candidate_tiles(&p, &work, WIDE_TILE);
    while at < end {
        let first = at * WIDE_TILE as u32;
        let needed = !pruned || {
            let worst = warp_fold(list.worst(), T::larger);
            // SAFETY: the place is one of the problem's.
            unsafe { range.reaches(&p.points, &work.problem, first, worst) }
        };
        // Nobody reads the tile before any more.
        if thread::sync_threads_or(needed) {
            // A warp loads a coordinate of the tile's points.
            let column = thread::lane_idx() as usize;
            // SAFETY: each thread writes its own places; coordinates are those of a point that is there.
            unsafe {
                let point = work.at(&p.points, first + column as u32);
                let there = point != TE_NONE;
                let row = if there { work.row(&p.points, point) } else { 0 };
                let mut d = thread::warp_idx() as usize;
                while d < dims {
                    let value =
                        if there { work.coordinate(&p.points, d, point, row) } else { T::INFINITY };
                    tile.write(d * WIDE_TILE + column, value);
                    d += THREADS / WIDE_TILE;
                }
                if thread::warp_idx() == 0 {
                    numbers.write(column, point);
                }
            }
            // The tile is there.
            thread::sync_threads();
            if needed && query != TE_NONE {
                let mut c = 0;
                while c < WIDE_TILE {
                    let mut far = [T::ZERO; 4];
                    let mut d = 0;
                    while d < dims {
                        // SAFETY: both were written before the barrier; this column by this thread.
                        let (own, [a, b]) = unsafe {
                            let own = queries.read(d * THREADS + me);
                            let low = tile.read_vector::<2>(d * WIDE_TILE + c).0;
                            (own, [low, tile.read_vector::<2>(d * WIDE_TILE + c + 2).0])
                        };
                        let values = [a[0], a[1], b[0], b[1]];
                        unroll!(j in 4 => {
                            far[j] = T::larger(T::between(values[j], own), far[j]);
                        });
                        d += 1;
                    }
                    unroll!(j in 4 => {
                        // SAFETY: as above.
                        let number = unsafe { numbers.read(c + j) };
                        if number != TE_NONE
                            && number.abs_diff(query) > p.points.theiler
                            && far[j] <= list.worst()
                        {
                            list.insert(far[j], number);
                        }
                    });
                    c += 4;
                }
            }
        }
        at += 1;
    }
    // SAFETY: the caller's contract; the whole block is here.
    unsafe { finish(&p, &work, &[query], &mut [list]) };
}

macro_rules! small_instance {
    ($entry:ident, $past:literal, $dims:literal, $points:literal, $w:literal, $g:literal) => {
        /// Algorithm 1 for few dimensions.
        ///
        /// # Safety
        /// As [`DistanceKth`] says, with the instance's dimensions.
        #[kernel(block = TE_BLOCK_THREADS, min_blocks = TE_SMALL_MIN_BLOCKS)]
        pub unsafe fn $entry(p: DistanceKth) {
            // SAFETY: the entry's contract.
            unsafe { small::<$past, $dims, $points, $w, $g>(p) }
        }
    };
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $w:literal, $g:literal) => {
        /// Both algorithms for any dimensions.
        ///
        /// # Safety
        /// As [`DistanceKth`] says, with series of the instance's type.
        #[kernel(block = TE_BLOCK_THREADS)]
        pub unsafe fn $entry(p: DistanceKth) {
            // SAFETY: the entry's contract.
            unsafe { wide::<$element, Numbered<$element, $w, $g>>(p) }
        }
    };
}

kasmina_types::fused_distance_kth_small_tiles!(small_instance);
kasmina_types::fused_distance_kth_tiles!(instance);
