//! Reductions of an array's segments: sum, max, min, mean, variance; the whole array is one segment.
//!
//! # Math
//! `sum = Σx`, `mean = Σx / n`, `variance = Σ(x − mean)² / n`, max and min with NaN propagating. f16
//! and bf16 accumulate in f32, f32 in f32, f64 in f64; i32 sums in i64 (exact) and takes mean and
//! variance in f64. Sums are pairwise within a group of vectors; variances are two-pass within a
//! group and merged by Chan's form of Welford's update.
//!
//! # Layout
//! | buffer     | shape            | type | access |
//! |------------|------------------|------|--------|
//! | `input`    | `[n]`            | the instance's | in, 16-byte aligned; segments may begin anywhere |
//! | `offsets`  | `[segments + 1]` | u64  | in; empty for segments of `uniform_length` |
//! | `output`   | `[segments]`     | f32 for f16, bf16, f32; f64; i64, i32 or f64 for i32 | out, every element written |
//! | `partials` | `[segments, parts]` of 32 bytes | state | scratch |
//! | `arrivals` | `[segments]`     | u32  | scratch, zero before and after |
//!
//! # Traffic
//! Reads each element once: n · size bytes; about one operation an element, five for a variance.
//! Bound by memory. 2²⁸ f32 at 4.24 TB/s: 253 µs. Measured: see `docs/performance.md`, `reduction`.
//!
//! # Launch
//! Blocks of 256 threads, persistent: teams take (segment, part) pairs in turn. A team is a block, or
//! a warp where segments are short. Each thread has up to
//! eight 16-byte loads in flight, as the tile table says; in a warp team half as many.
//! No thread leaves before the last barrier; heads and tails that are not aligned are read singly.
//!
//! # Determinism
//! Bitwise: the order of operations depends on lengths, alignment within the array and `parts` only.
//!
//! # Source
//! T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing
//! sample variances", 1979. Reference: `kasmina_reference::reduction::reduce`.

use kasmina_device::global::{Load, Store, load_words, store_words};
use kasmina_device::reduce::{block_fold, warp_fold};
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{grid, kernel, shared_array, thread, unroll, warp};
use kasmina_types::tiles::{REDUCE_BLOCK_THREADS, REDUCE_MIN_BLOCKS};
use kasmina_types::{In, Out, ReduceSegments, bf16, f16, reduction::REDUCE_PARTIAL_BYTES};

use super::reducer::{Max, Mean, Min, Reducer, Reducible, Sum, Variance};

const WARPS: usize = (REDUCE_BLOCK_THREADS / warp::WARP_SIZE) as usize;

/// A state's words in shared memory: the scratch of every instance has the widest's size.
const SCRATCH_BYTES: usize = WARPS * REDUCE_PARTIAL_BYTES;

const PARTIAL_WORDS: usize = REDUCE_PARTIAL_BYTES / 4;

/// The elements of one segment.
#[derive(Clone, Copy)]
struct Segment {
    begin: usize,
    end: usize,
}

/// # Safety
/// `segment < p.segments`, and the offsets are as [`ReduceSegments`] says.
#[inline(always)]
unsafe fn segment_of(p: &ReduceSegments, segment: usize) -> Segment {
    if p.offsets.is_empty() {
        let begin = segment * p.uniform_length as usize;
        return Segment { begin, end: begin + p.uniform_length as usize };
    }
    // SAFETY: `offsets` has `segments + 1` elements.
    unsafe {
        Segment {
            begin: p.offsets.load(segment) as usize,
            end: p.offsets.load(segment + 1) as usize,
        }
    }
}

/// What one thread of a team absorbs of a segment. The team's `team` threads take groups of
/// `team · U` vectors in turn with the teams of the other parts.
///
/// # Safety
/// The segment is inside `input`, which is 16-byte aligned.
#[inline(always)]
unsafe fn absorb_share<R: Reducer<T>, T: Reducible, const L: usize, const U: usize>(
    input: In<T>,
    segment: Segment,
    thread: usize,
    team: usize,
    part: usize,
    parts: usize,
) -> R::State {
    let mut state = R::identity();
    let Segment { begin, end } = segment;

    // Vectors are aligned within the array: [first, last) in vectors, the rest singly by part 0.
    let first = begin.div_ceil(L);
    let last = end / L;
    if last <= first {
        if part == 0 {
            let mut i = begin + thread;
            while i < end {
                // SAFETY: `i < end` stays inside the segment.
                state = R::absorb(state, &[Vector([unsafe { input.load(i) }])]);
                i += team;
            }
        }
        return state;
    }
    if part == 0 {
        // Head and tail are shorter than a vector, a vector than a team.
        let (head, tail) = (begin + thread, last * L + thread);
        if head < first * L {
            // SAFETY: `head` is inside the segment, before its first vector.
            state = R::absorb(state, &[Vector([unsafe { input.load(head) }])]);
        }
        if tail < end {
            // SAFETY: `tail < end`.
            state = R::absorb(state, &[Vector([unsafe { input.load(tail) }])]);
        }
    }

    let stride = team * U;
    let mut vector = first + part * stride + thread;
    // Whole groups: the last vector that this thread loads is inside.
    while vector + (U - 1) * team < last {
        let mut group = [Vector([T::zeroed(); L]); U];
        unroll!(u in U => {
            // SAFETY: `vector + u·team < last`; a vector's index times its size is aligned.
            group[u] = unsafe { input.load_vector((vector + u * team) * L, LoadHint::Cached) };
        });
        state = R::absorb(state, &group);
        vector += stride * parts;
    }
    while vector < last {
        // SAFETY: `vector < last`.
        let single = unsafe { input.load_vector::<L>(vector * L, LoadHint::Cached) };
        state = R::absorb(state, &[single]);
        vector += team;
        // The ragged group ends where the next part's would begin; there is none after it.
    }
    state
}

/// A block reduces each segment, or a part of it.
///
/// # Safety
/// As [`ReduceSegments`] says; every block of the grid runs it.
#[inline(always)]
unsafe fn reduce_block<R: Reducer<T>, T: Reducible, const L: usize, const U: usize>(
    p: ReduceSegments,
) {
    let scratch = shared_array![u32; SCRATCH_BYTES / 4];
    let thread = thread::thread_idx_x() as usize;
    let team = REDUCE_BLOCK_THREADS as usize;
    let parts = p.parts as usize;
    let partials: Out<u32> = p.partials.cast();
    let output: Out<R::Output> = p.output.cast();

    let mut tile = thread::block_idx_x();
    while tile < p.segments * p.parts {
        let (segment, part) = ((tile / p.parts.max(1)) as usize, (tile % p.parts.max(1)) as usize);
        // SAFETY: `segment < p.segments`; the launcher checked input and offsets.
        let range = unsafe { segment_of(&p, segment) };
        let count = (range.end - range.begin) as u64;
        // SAFETY: as above.
        let share =
            unsafe { absorb_share::<R, T, L, U>(p.input.cast(), range, thread, team, part, parts) };
        let total = block_fold::<_, WARPS, _>(share, &scratch, R::merge);
        if parts == 1 {
            if let (Some(total), 0) = (total, thread) {
                // SAFETY: one thread writes the segment's place.
                unsafe { output.store(segment, R::finish(total, count)) };
            }
        } else {
            if let (Some(total), 0) = (total, thread) {
                // SAFETY: one thread writes the part's place.
                unsafe { store_words(&partials, (segment * parts + part) * PARTIAL_WORDS, total) };
            }
            // SAFETY: every thread of the block arrives, once for each part of the segment.
            if unsafe { grid::arrive_is_last(&p.arrivals, segment, p.parts) } {
                let mut merged = R::identity();
                let mut other = thread;
                while other < parts {
                    let place = (segment * parts + other) * PARTIAL_WORDS;
                    // SAFETY: all parts were stored before their blocks arrived.
                    let state = unsafe { load_words(&partials, place) };
                    merged = R::merge(merged, state);
                    other += team;
                }
                let total = block_fold::<_, WARPS, _>(merged, &scratch, R::merge);
                if let (Some(total), 0) = (total, thread) {
                    // SAFETY: one thread of one block writes the segment's place.
                    unsafe { output.store(segment, R::finish(total, count)) };
                }
            }
        }
        // Warp 0 has read the scratch before the next tile writes it.
        thread::sync_threads();
        tile += thread::grid_dim_x();
    }
}

/// A warp reduces each segment whole.
///
/// # Safety
/// As [`ReduceSegments`] says, with `parts` 1; every block of the grid runs it.
#[inline(always)]
unsafe fn reduce_warp<R: Reducer<T>, T: Reducible, const L: usize, const U: usize>(
    p: ReduceSegments,
) {
    let lane = thread::lane_idx() as usize;
    let output: Out<R::Output> = p.output.cast();
    let mut segment = thread::block_idx_x() as usize * WARPS + thread::warp_idx() as usize;
    while segment < p.segments as usize {
        // SAFETY: `segment < p.segments`; the launcher checked input and offsets.
        let range = unsafe { segment_of(&p, segment) };
        let team = warp::WARP_SIZE as usize;
        // SAFETY: as above.
        let share = unsafe { absorb_share::<R, T, L, U>(p.input.cast(), range, lane, team, 0, 1) };
        let total = warp_fold(share, R::merge);
        // Every lane holds the total. That another lane stores each time keeps the compiler from
        // making a loop of its own for lane 0, which would split the warp at the shuffles.
        if lane == segment % team {
            let count = (range.end - range.begin) as u64;
            // SAFETY: one lane writes the segment's place.
            unsafe { output.store(segment, R::finish(total, count)) };
        }
        segment += thread::grid_dim_x() as usize * WARPS;
    }
}

macro_rules! instance {
    ($block:ident, $warp:ident, $op:ident, $element:ty, $dtype:ident, $lanes:literal,
     $vectors:literal) => {
        /// A block for each segment or part of one.
        ///
        /// # Safety
        /// As [`ReduceSegments`] says.
        #[kernel(block = REDUCE_BLOCK_THREADS, min_blocks = REDUCE_MIN_BLOCKS)]
        pub unsafe fn $block(p: ReduceSegments) {
            // SAFETY: the entry's contract.
            unsafe { reduce_block::<$op, $element, $lanes, $vectors>(p) }
        }

        /// A warp for each segment.
        ///
        /// # Safety
        /// As [`ReduceSegments`] says, with `parts` 1.
        #[kernel(block = REDUCE_BLOCK_THREADS, min_blocks = REDUCE_MIN_BLOCKS)]
        pub unsafe fn $warp(p: ReduceSegments) {
            // SAFETY: the entry's contract.
            unsafe { reduce_warp::<$op, $element, $lanes, { $vectors / 2 }>(p) }
        }
    };
}

kasmina_types::reduce_tiles!(instance);
