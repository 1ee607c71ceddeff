//! The counts in the three subspaces, ψ of them, and the mean: the transfer entropy, for many sets of points.
//!
//! # Math
//! With the radii r of a point: `n_Z = #(d_z ≤ r_z)`, `n_yZ = #(d_z ≤ r_z, d_y ≤ r_y)`,
//! `n_xZ = #(d_z ≤ r_z, d_x ≤ r_x)` over the other points outside its Theiler window. Its part is, by algorithm 1,
//! `ψ(K) + ψ(n_Z+1) − ψ(n_yZ+1) − ψ(n_xZ+1)`, by algorithm 2
//! `ψ(K) − 2/K + ψ(n_Z) − ψ(n_yZ) + 1/n_yZ − ψ(n_xZ) + 1/n_xZ`; the transfer entropy is the parts' mean. Counts
//! are exact, ψ (a table) in f64; parts are added as whole multiples of 2⁻⁵⁵ · points, as near as f64 has them for a
//! thousand points, so that their order does not matter.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `series`, `offsets`, `orders`, `rows`, `problems`, `boxes` | see [`TePoints`](kasmina_types::TePoints) | f32 or f64; u32 | in |
//! | `radii` | `[problems, 3, stride]` | as `series` | in |
//! | `tied` | `[problems, stride]` | u32 | in |
//! | `psi` | `[points + 1]` | f64 | in |
//! | `te`, `ties` | `[problems]` | f64; u32 | out |
//! | `local` | `[problems, stride]`, or empty | f64 | out |
//! | `counts`, `sums`, `tile_ties`, `arrivals` | see [`TeReduction`] | u32, f64 | scratch |
//!
//! # Traffic
//! Bound by arithmetic. A pair of points costs D subtractions, an addition and two multiply-adds (128 lanes of an SM),
//! D − 3 maxima with |·| folded in and 3 comparisons to 1.0 or 0.0 (64 lanes): 2·D + 3 instructions, of which an SM's
//! quarter issues one a cycle for 32 pairs. N = 20000, D = 7: 17 cycles for 32 of 4e8 pairs, on 132 SMs at 1.755 GHz
//! 0.23 ms. sm_90a's loop has 286 instructions for 16 pairs, those for loads and the loop among them. Reads as
//! `fused_distance_kth`. Measured: see `docs/performance.md`, `transfer_entropy`.
//!
//! # Launch
//! 128 threads; a block for each problem, query tile (1 or 4 points a thread) and slab of candidates. The last of a
//! query tile's slabs adds the counts and takes ψ, the last of a problem's query tiles adds their sums. Where
//! a problem has boxes, a warp leaves out candidate tiles that are farther in y⁻ than all its radii. No thread leaves before
//! the last barrier.
//!
//! # Determinism
//! Bitwise: counts and sums are integers. The order of points and candidates does not matter, nor how they are cut.
//!
//! # Source
//! As `fused_distance_kth`. Reference: `kasmina_reference::information::transfer_entropy::estimate`.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::{block_fold, warp_fold};
use kasmina_device::{grid, kernel, math, shared_array, thread, unroll};
use kasmina_types::transfer_entropy::{
    TE_BLOCK_THREADS, TE_BOX_DIMS, TE_NONE, TE_SMALL_MIN_BLOCKS,
};
use kasmina_types::{In, TeReduction};

use super::distance::{Distance, WIDE_TILE};
use super::points::{Range, THREADS, WARPS, Work};
use super::tiles::{SmallTile, TILE, WideTile};

/// A point of a thread of the kernels for few dimensions.
#[derive(Clone, Copy)]
struct Query<const Z: usize> {
    number: u32,
    past: [f32; Z],
    next: f32,
    source: [f32; Z],
    /// In y⁻, y_t, x⁻; below every distance for a point that is not there.
    radii: [f32; 3],
}

/// The radii of a point.
///
/// # Safety
/// As [`TeReduction`] says; `point` is one of the problem's.
#[inline(always)]
unsafe fn radii_of<T: Distance>(p: &TeReduction, work: &Work, point: u32) -> [T; 3] {
    let radii: In<T> = p.radii.cast();
    let stride = p.points.stride as usize;
    let at = work.number * 3 * stride + point as usize;
    // SAFETY: three radii for each point.
    unsafe { [radii.load(at), radii.load(at + stride), radii.load(at + 2 * stride)] }
}

/// The kernel for `Z` coordinates of y⁻ and as many of x⁻, and `Q` points a thread.
///
/// # Safety
/// As [`TeReduction`] says, with `past` and `source` of `Z`; the grid has a block for each problem, query tile and slab.
#[inline(always)]
unsafe fn small<const Z: usize, const Q: usize>(p: TeReduction) {
    let tile = SmallTile::new();
    // SAFETY: the caller's contract.
    let work = unsafe { Work::of(&p.points, Q) };

    let nowhere = Query {
        number: TE_NONE,
        past: [0.0; Z],
        next: 0.0,
        source: [0.0; Z],
        radii: [f32::BELOW_ALL; 3],
    };
    let mut queries = [nowhere; Q];
    let mut range = Range::new();
    let mut reach = f32::BELOW_ALL;
    unroll!(q in Q => {
        // SAFETY: the caller's contract; what is loaded is that of a point that is there.
        unsafe {
            let number = work.query(&p.points, q);
            if number != TE_NONE {
                let row = work.row(&p.points, number);
                let query = &mut queries[q];
                query.number = number;
                unroll!(d in Z => {
                    query.past[d] = work.coordinate(&p.points, d, number, row);
                    query.source[d] = work.coordinate(&p.points, Z + 1 + d, number, row);
                    if d < TE_BOX_DIMS {
                        range.include(d, query.past[d]);
                    }
                });
                query.next = work.coordinate(&p.points, Z, number, row);
                query.radii = radii_of(&p, &work, number);
                reach = f32::larger(reach, query.radii[0]);
            }
        }
    });
    range.close(Z);
    let pruned = work.problem.first_box != TE_NONE;
    if pruned {
        range = range.of_warp();
        reach = warp_fold(reach, f32::larger);
    }

    let mut counts = [[0; 3]; Q];
    let (mut at, end) = work.tiles(&p.points, TILE);
    while at < end {
        let first = at * TILE as u32;
        // SAFETY: the place is one of the problem's.
        let needed = !pruned || unsafe { range.reaches(&p.points, &work.problem, first, reach) };
        // Nobody reads the tile before any more.
        if thread::sync_threads_or(needed) {
            // SAFETY: the caller's contract.
            unsafe { tile.load(&work, &p.points, first, 2 * Z + 1) };
            // The tile is there.
            thread::sync_threads();
            if needed {
                let theiler = p.points.theiler;
                // SAFETY: the tile was written before the barrier.
                unsafe {
                    if work.excludes(&p.points, first, TILE) {
                        scan::<true, Z, Q>(&tile, &queries, theiler, &mut counts);
                    } else {
                        scan::<false, Z, Q>(&tile, &queries, theiler, &mut counts);
                    }
                }
            }
        }
        at += 1;
    }
    let mut query = [TE_NONE; Q];
    unroll!(q in Q => { query[q] = queries[q].number; });
    // SAFETY: the caller's contract; the whole block is here.
    unsafe { finish(&p, &work, &query, &mut counts) };
}

/// Counts a tile of candidates: with a look at each one's number if `EXCLUDES`.
///
/// # Safety
/// The tile is written, and a barrier lies between.
#[inline(always)]
unsafe fn scan<const EXCLUDES: bool, const Z: usize, const Q: usize>(
    tile: &SmallTile,
    queries: &[Query<Z>; Q],
    theiler: u32,
    counts: &mut [[u32; 3]; Q],
) {
    // Of this tile.
    let mut near = [[0.0_f32; 3]; Q];
    let mut c = 0;
    while c < TILE {
        // SAFETY: the caller's contract.
        let four = |d: usize| unsafe { tile.four(d, c) };
        let (mut past, next, mut source) = ([[0.0; 4]; Z], four(Z), [[0.0; 4]; Z]);
        unroll!(d in Z => {
            past[d] = four(d);
            source[d] = four(Z + 1 + d);
        });
        let mut others = [0; 4];
        if EXCLUDES {
            // SAFETY: as above.
            others = unsafe { tile.numbers(c) };
        }
        unroll!(q in Q => {
            let query = &queries[q];
            unroll!(j in 4 => {
                let (mut far_past, mut far_source) = (0.0, 0.0);
                unroll!(d in Z => {
                    let in_past = f32::between(past[d][j], query.past[d]);
                    let in_source = f32::between(source[d][j], query.source[d]);
                    far_past = if d == 0 { in_past } else { f32::larger(in_past, far_past) };
                    far_source =
                        if d == 0 { in_source } else { f32::larger(in_source, far_source) };
                });
                if EXCLUDES && others[j].abs_diff(query.number) <= theiler {
                    far_past = f32::INFINITY;
                }
                // Ones and zeros, whose products and sums go to other lanes than comparisons do.
                let in_past = one_if(far_past <= query.radii[0]);
                let in_next = one_if(f32::between(next[j], query.next) <= query.radii[1]);
                let in_source = one_if(far_source <= query.radii[2]);
                near[q][0] += in_past;
                near[q][1] = math::fma(in_past, in_next, near[q][1]);
                near[q][2] = math::fma(in_past, in_source, near[q][2]);
            });
        });
        c += 4;
    }
    unroll!(q in Q => {
        unroll!(subspace in 3 => { counts[q][subspace] += near[q][subspace] as u32; });
    });
}

#[inline(always)]
fn one_if(near: bool) -> f32 {
    if near { 1.0 } else { 0.0 }
}

/// Adds the slabs' counts in the last block, takes ψ, and adds the query tiles' sums in the last block of all.
///
/// # Safety
/// As [`TeReduction`] says; every thread of the block calls it.
#[inline(always)]
unsafe fn finish<const Q: usize>(
    p: &TeReduction,
    work: &Work,
    query: &[u32; Q],
    counts: &mut [[u32; 3]; Q],
) {
    let sums_scratch = shared_array![u32; WARPS * 2];
    let ties_scratch = shared_array![u32; WARPS];
    let points = &p.points;
    let (stride, tiles) = (points.stride as usize, points.query_tiles as usize);
    let tile = work.number * tiles + work.query_tile as usize;
    if points.slabs > 1 {
        let first = |slab: u32| (work.number * points.slabs as usize + slab as usize) * 3 * stride;
        unroll!(q in Q => {
            if query[q] != TE_NONE {
                unroll!(subspace in 3 => {
                    let at = first(work.slab) + subspace * stride + query[q] as usize;
                    // SAFETY: the slab's places for this point are written by its thread alone.
                    unsafe { p.counts.store(at, counts[q][subspace]) };
                });
            }
        });
        // SAFETY: every thread of the block arrives, once for each slab.
        if !unsafe { grid::arrive_is_last(&p.arrivals, tile, points.slabs) } {
            return;
        }
        unroll!(q in Q => {
            if query[q] != TE_NONE {
                let mut slab = 0;
                while slab < points.slabs {
                    if slab != work.slab {
                        unroll!(subspace in 3 => {
                            let at = first(slab) + subspace * stride + query[q] as usize;
                            // SAFETY: all slabs' counts were stored before their blocks arrived.
                            counts[q][subspace] += unsafe { p.counts.load(at) };
                        });
                    }
                    slab += 1;
                }
            }
        });
    }
    // No part is 64 or more, so that no sum of the problem's is 2⁶².
    let unit = power_of_two(55 - (32 - work.problem.points.leading_zeros() as i32));
    let (mut sum, mut ties) = (0_u64, 0);
    unroll!(q in Q => {
        if query[q] != TE_NONE {
            // SAFETY: the table has an entry for each count, and the buffers a place for each point.
            unsafe {
                let part = part(p, counts[q]);
                let at = work.number * stride + query[q] as usize;
                if !p.local.is_empty() {
                    p.local.store(at, part);
                }
                sum = sum.wrapping_add(nearest(part * unit));
                ties += p.tied.load(at);
            }
        }
    });
    let sum = block_fold::<u64, WARPS, _>(sum, &sums_scratch, u64::wrapping_add);
    let ties = block_fold::<u32, WARPS, _>(ties, &ties_scratch, |a, b| a + b);
    if let (Some(sum), Some(ties), 0) = (sum, ties, thread::thread_idx_x()) {
        // SAFETY: one thread of one block writes the query tile's places.
        unsafe {
            p.sums.store(tile, sum);
            p.tile_ties.store(tile, ties);
        }
    }
    let problem = points.num_problems as usize * tiles + work.number;
    // SAFETY: one block of each query tile arrives.
    if !unsafe { grid::arrive_is_last(&p.arrivals, problem, points.query_tiles) } {
        return;
    }
    let (mut sum, mut ties) = (0_u64, 0);
    let mut other = thread::thread_idx_x() as usize;
    while other < tiles {
        // SAFETY: all query tiles' sums were stored before their blocks arrived.
        unsafe {
            sum = sum.wrapping_add(p.sums.load(work.number * tiles + other));
            ties += p.tile_ties.load(work.number * tiles + other);
        }
        other += THREADS;
    }
    let sum = block_fold::<u64, WARPS, _>(sum, &sums_scratch, u64::wrapping_add);
    let ties = block_fold::<u32, WARPS, _>(ties, &ties_scratch, |a, b| a + b);
    if let (Some(sum), Some(ties), 0) = (sum, ties, thread::thread_idx_x()) {
        // SAFETY: one thread of one block writes the problem's places.
        unsafe {
            let sum = sum as i64 as f64 / unit;
            p.te.store(work.number, sum / f64::from(work.problem.points));
            p.ties.store(work.number, ties);
        }
    }
}

/// 2ⁿ, of a normal number.
#[inline(always)]
fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// The nearest integer in two's complement.
#[inline(always)]
fn nearest(x: f64) -> u64 {
    (x + if x < 0.0 { -0.5 } else { 0.5 }) as i64 as u64
}

/// A point's part of the estimate.
///
/// # Safety
/// The table has an entry for each count, and one more.
#[inline(always)]
unsafe fn part(p: &TeReduction, [past, next, source]: [u32; 3]) -> f64 {
    // SAFETY: the caller's contract; K is not more than the points.
    let psi = |n: u32| unsafe { p.psi.load(n as usize) };
    let k = p.points.k;
    if p.algorithm == 2 {
        let inverse = |n: u32| 1.0 / f64::from(n);
        psi(k) - 2.0 / f64::from(k) + psi(past) - psi(next) + inverse(next) - psi(source)
            + inverse(source)
    } else {
        psi(k) + psi(past + 1) - psi(next + 1) - psi(source + 1)
    }
}

/// The kernel for any dimensions: coordinates stay in shared memory.
///
/// # Safety
/// As [`TeReduction`] says; the grid has a block for each problem, query tile and slab.
#[inline(always)]
unsafe fn wide<T: Distance>(p: TeReduction) {
    // SAFETY: the caller's contract.
    let work = unsafe { Work::of(&p.points, 1) };
    let (past, dims) = (p.points.past as usize, (p.points.past + 1 + p.points.source) as usize);
    let tile = WideTile::<T>::new(&p.points);

    // SAFETY: the caller's contract.
    let query = unsafe { work.query(&p.points, 0) };
    let mut radii = [T::BELOW_ALL; 3];
    let mut range = Range::new();
    if query != TE_NONE {
        // SAFETY: the point is there.
        unsafe {
            tile.take(&work, &p.points, query, &mut range);
            radii = radii_of(&p, &work, query);
        }
    }
    range.close(past);
    let pruned = work.problem.first_box != TE_NONE;
    let mut reach = radii[0];
    if pruned {
        range = range.of_warp();
        reach = warp_fold(reach, T::larger);
    }

    let mut counts = [0; 3];
    let (mut at, end) = work.tiles(&p.points, WIDE_TILE);
    while at < end {
        let first = at * WIDE_TILE as u32;
        // SAFETY: the place is one of the problem's.
        let needed = !pruned || unsafe { range.reaches(&p.points, &work.problem, first, reach) };
        // Nobody reads the tile before any more.
        if thread::sync_threads_or(needed) {
            // SAFETY: the caller's contract.
            unsafe { tile.load(&work, &p.points, first) };
            // The tile is there.
            thread::sync_threads();
            if needed && query != TE_NONE {
                let mut c = 0;
                while c < WIDE_TILE {
                    // The distances in y⁻, y_t and x⁻.
                    let mut far = [[T::ZERO; 4]; 3];
                    let mut d = 0;
                    unroll!(subspace in 3 => {
                        let end = match subspace {
                            0 => past,
                            1 => past + 1,
                            _ => dims,
                        };
                        while d < end {
                            // SAFETY: the point was taken, the tile brought before the barrier.
                            unsafe { tile.grow(&mut far[subspace], d, c) };
                            d += 1;
                        }
                    });
                    unroll!(j in 4 => {
                        // SAFETY: as above.
                        let number = unsafe { tile.candidate(&p.points, query, c + j) };
                        let past = number != TE_NONE && far[0][j] <= radii[0];
                        counts[0] += u32::from(past);
                        counts[1] += u32::from(past & (far[1][j] <= radii[1]));
                        counts[2] += u32::from(past & (far[2][j] <= radii[2]));
                    });
                    c += 4;
                }
            }
        }
        at += 1;
    }
    // SAFETY: the caller's contract; the whole block is here.
    unsafe { finish(&p, &work, &[query], &mut [counts]) };
}

macro_rules! small_instance {
    ($entry:ident, $dims:literal, $points:literal $(, $spills:ident)?) => {
        /// Few dimensions.
        ///
        /// # Safety
        /// As [`TeReduction`] says, with the instance's dimensions.
        #[kernel(block = TE_BLOCK_THREADS, min_blocks = TE_SMALL_MIN_BLOCKS $(, $spills)?)]
        pub unsafe fn $entry(p: TeReduction) {
            // SAFETY: the entry's contract.
            unsafe { small::<$dims, $points>(p) }
        }
    };
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident) => {
        /// Any dimensions.
        ///
        /// # Safety
        /// As [`TeReduction`] says, with series of the instance's type.
        #[kernel(block = TE_BLOCK_THREADS)]
        pub unsafe fn $entry(p: TeReduction) {
            // SAFETY: the entry's contract.
            unsafe { wide::<$element>(p) }
        }
    };
}

kasmina_types::fused_te_reduction_small_tiles!(small_instance);
kasmina_types::fused_te_reduction_tiles!(instance);
