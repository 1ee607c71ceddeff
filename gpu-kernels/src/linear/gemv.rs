//! Matrix times vector: y ← α·A·x + β·y, and y ← α·Aᵀ·x + β·y, of many matrices at once.
//!
//! # Math
//! Products and sums by fused multiply-add in f64, of bf16 in f32; then α·sum + β·y in that type, rounded once to what is
//! stored. Where β is 0, y is not read.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `matrix` | `[batch, rows, columns]`, row-major | the instance's | in, 16-byte aligned |
//! | `x` | `[batch, columns]`, with Aᵀ `[batch, rows]` | the instance's | in, 16-byte aligned |
//! | `y` | `[batch, rows]`, with Aᵀ `[batch, columns]` | the instance's | out, in where β ≠ 0 |
//! | `partials` | `[tasks, parts, outputs of a tile]` | the sums' | scratch |
//! | `arrivals` | `[tasks]` | u32 | scratch, zero before and after |
//!
//! # Traffic
//! Reads A once: 4·m·n bytes in f32, two operations an element; bound by memory. 16384 × 16384 in f32 at 4.24 TB/s:
//! 253 µs. x is read once for four rows, from the caches.
//!
//! # Launch
//! Blocks of 256 threads, three a multiprocessor or more, over a persistent grid; 8 KB of static shared memory with Aᵀ. A
//! team, which is a warp or a block, takes four rows; with Aᵀ a block takes 32 vectors of columns. Each thread has eight
//! 16-byte loads in flight. `parts` blocks share the terms of a tile where tiles are few: the last to arrive adds up. The
//! `_odd` instances take rows that are no multiple of 16 bytes. Every thread of a block team meets every barrier.
//!
//! # Determinism
//! Bitwise: lanes by butterfly, warps and parts in their order; what they are depends on shape and device alone.
//!
//! # Source
//! Original. Reference: `kasmina_reference::linear::gemv`.

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::grid::BlockPlace;
use kasmina_device::reduce::warp_fold;
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{grid, kernel, shared_array, thread, unroll, warp};
use kasmina_types::dtype::Element;
use kasmina_types::gemv::GEMV_ROWS;
use kasmina_types::tiles::{GEMV_BLOCK_THREADS, GEMV_MIN_BLOCKS};
use kasmina_types::{Gemv, GemvCut, In, Out, bf16};

use crate::reduction::reducer::{Number, Real};

const WARP: usize = warp::WARP_SIZE as usize;
const WARPS: usize = GEMV_BLOCK_THREADS as usize / WARP;
/// Rows that a thread has in flight with Aᵀ, and parts when they are added up.
const IN_FLIGHT: usize = 8;
/// Words of the warps' sums with Aᵀ: of 128 columns in f64, or 256 in f32.
const COLUMN_WORDS: usize = WARPS * WARP * 8;

/// An element type with what its products are summed in.
pub trait Operand: Element {
    /// Products and sums.
    type Sum: Real;
    /// The value, exactly.
    fn wide(self) -> Self::Sum;
    /// The nearest value.
    fn narrow(sum: Self::Sum) -> Self;
    /// α or β.
    fn factor(value: f64) -> Self::Sum;
}

macro_rules! operand {
    ($type:ty, $sum:ty, $wide:expr, $narrow:expr) => {
        impl Operand for $type {
            type Sum = $sum;
            #[inline(always)]
            fn wide(self) -> $sum {
                $wide(self)
            }
            #[inline(always)]
            fn narrow(sum: $sum) -> Self {
                $narrow(sum)
            }
            #[inline(always)]
            fn factor(value: f64) -> $sum {
                value as $sum
            }
        }
    };
}

operand!(f32, f64, |value| value as f64, |sum| sum as f32);
operand!(f64, f64, |value| value, |sum| sum);
operand!(bf16, f32, Float::to_f32, Float::from_f32);

/// Sums of the four rows of a team.
type RowSums<T> = [<T as Operand>::Sum; GEMV_ROWS];

/// The rows' sums of `N` more vectors of each row, `team` apart.
///
/// # Safety
/// The vectors are inside the rows that begin at `starts`, which are aligned to a vector.
#[inline(always)]
unsafe fn absorb_rows<T: Operand, const L: usize, const N: usize, const C: bool>(
    mut sums: RowSums<T>,
    matrix: In<T, C>,
    starts: &[usize; GEMV_ROWS],
    x: impl Fn(usize) -> Vector<T, L>,
    vector: usize,
    team: usize,
) -> RowSums<T> {
    let mut xs = [Vector([T::zeroed(); L]); N];
    let mut values = [[Vector([T::zeroed(); L]); N]; GEMV_ROWS];
    unroll!(u in N => {
        let column = (vector + u * team) * L;
        xs[u] = x(column);
        unroll!(r in GEMV_ROWS => {
            // SAFETY: the caller's contract.
            values[r][u] = unsafe { matrix.load_vector(starts[r] + column, LoadHint::Streaming) };
        });
    });
    unroll!(u in N => {
        unroll!(l in L => {
            let x = xs[u].0[l].wide();
            unroll!(r in GEMV_ROWS => { sums[r] = values[r][u].0[l].wide().mul_add(x, sums[r]) });
        });
    });
    sums
}

/// The sums of a task's four rows over a part's columns, of those that `thread` of a team has.
///
/// # Safety
/// `task` and `part` are of the cut, whose matrices `matrix` has.
#[inline(always)]
unsafe fn row_sums<T: Operand, const L: usize, const U: usize, const C: bool>(
    matrix: In<T, C>,
    cut: &GemvCut,
    x: impl Fn(usize) -> Vector<T, L> + Copy,
    (task, part): (usize, usize),
    (thread, team): (usize, usize),
) -> RowSums<T> {
    let (rows, columns) = (cut.rows as usize, cut.columns as usize);
    let groups = rows.div_ceil(GEMV_ROWS);
    let (product, first) = (task / groups, task % groups * GEMV_ROWS);
    // Beyond the last row, the last again: loads without a condition, whose sums nobody stores.
    let mut starts = [0; GEMV_ROWS];
    unroll!(r in GEMV_ROWS => {
        let row = if first + r < rows { first + r } else { rows - 1 };
        starts[r] = (product * rows + row) * columns;
    });
    let x = |column| x(product * columns + column);
    let vectors = columns / L;
    let share = vectors.div_ceil(cut.parts as usize);
    let end = if (part + 1) * share < vectors { (part + 1) * share } else { vectors };
    let mut sums = [T::Sum::ZERO; GEMV_ROWS];
    let mut vector = part * share + thread;
    while vector + (U - 1) * team < end {
        // SAFETY: the last of the `U` vectors is inside the rows.
        sums = unsafe { absorb_rows::<T, L, U, C>(sums, matrix, &starts, x, vector, team) };
        vector += U * team;
    }
    while vector < end {
        // SAFETY: the vector is inside the rows.
        sums = unsafe { absorb_rows::<T, L, 1, C>(sums, matrix, &starts, x, vector, team) };
        vector += team;
    }
    warp_fold(sums, |mut a, b| {
        unroll!(r in GEMV_ROWS => { a[r] = a[r].add(b[r]) });
        a
    })
}

/// A·x for the whole batch: `x` gives a vector of x at an index into `[batch, columns]`, `finish` takes an index into
/// `[batch, rows]` and its sum, once each.
///
/// # Safety
/// `matrix` and scratch are as [`GemvCut`] says, columns a multiple of `L`; every thread of the grid calls it.
#[inline(always)]
pub(crate) unsafe fn straight<T: Operand, const L: usize, const U: usize>(
    matrix: In<T>,
    cut: &GemvCut,
    x: impl Fn(usize) -> Vector<T, L> + Copy,
    finish: impl Fn(usize, T::Sum),
) {
    // SAFETY: the caller's contract.
    unsafe {
        if cut.team_warps == 1 {
            by_warps::<T, L, U, _>(matrix, cut, BlockPlace::of_launch(), x, finish);
        } else {
            by_blocks::<T, L, U>(matrix, cut, x, finish);
        }
    }
}

/// [`straight`] where a warp is a team, in the first [`GEMV_BLOCK_THREADS`] threads of each block of a grid; no barriers.
///
/// # Safety
/// As [`straight`].
#[inline(always)]
unsafe fn by_warps<T: Operand, const L: usize, const U: usize, const C: bool>(
    matrix: In<T, C>,
    cut: &GemvCut,
    place: BlockPlace,
    x: impl Fn(usize) -> Vector<T, L> + Copy,
    finish: impl Fn(usize, T::Sum),
) {
    let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
    let rows = cut.rows as usize;
    let groups = rows.div_ceil(GEMV_ROWS);
    let tasks = cut.batch as usize * groups;
    let mut task = place.block as usize * WARPS + warp;
    while task < tasks {
        // SAFETY: a task; the only part.
        let sums = unsafe { row_sums::<T, L, U, C>(matrix, cut, x, (task, 0), (lane, WARP)) };
        let (product, first) = (task / groups, task % groups * GEMV_ROWS);
        unroll!(r in GEMV_ROWS => {
            // One lane for each row: every lane has the sums.
            if lane == r && first + r < rows {
                finish(product * rows + first + r, sums[r]);
            }
        });
        task += place.blocks as usize * WARPS;
    }
}

/// [`straight`] where a block is a team.
///
/// # Safety
/// As [`straight`].
#[inline(always)]
unsafe fn by_blocks<T: Operand, const L: usize, const U: usize>(
    matrix: In<T>,
    cut: &GemvCut,
    x: impl Fn(usize) -> Vector<T, L> + Copy,
    finish: impl Fn(usize, T::Sum),
) {
    let scratch = shared_array![u32; WARPS * GEMV_ROWS * 2];
    let words = size_of::<T::Sum>() / 4;
    let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
    let (block, blocks) = (thread::block_idx_x() as usize, thread::grid_dim_x() as usize);
    let rows = cut.rows as usize;
    let groups = rows.div_ceil(GEMV_ROWS);
    let tasks = cut.batch as usize * groups;
    let parts = cut.parts as usize;
    let partials: Out<T::Sum> = cut.partials.cast();
    let own = thread::thread_idx_x() as usize;
    let mut turn = block;
    while turn < tasks * parts {
        let (task, part) = (turn / parts, turn % parts);
        let team = (own, WARPS * WARP);
        // SAFETY: a task and a part of it.
        let sums = unsafe { row_sums::<T, L, U, _>(matrix, cut, x, (task, part), team) };
        if lane == 0 {
            // SAFETY: the places are this warp's, and this lane alone writes them.
            unsafe { scratch.write_words(warp * GEMV_ROWS * words, sums) };
        }
        // Orders the warps' sums before the threads that add them.
        thread::sync_threads();
        let (product, row) = (task / groups, task % groups * GEMV_ROWS + own);
        let holds = own < GEMV_ROWS && row < rows;
        let mut total = T::Sum::ZERO;
        if holds {
            unroll!(w in WARPS => {
                // SAFETY: warp `w` wrote it before the barrier.
                total = total.add(unsafe { scratch.read_words((w * GEMV_ROWS + own) * words) });
            });
        }
        // SAFETY: every thread of the block calls it, for each part of the task once.
        let total = unsafe { merge_parts(cut, &partials, (task, part), GEMV_ROWS, holds, total) };
        if let (Some(total), true) = (total, holds) {
            finish(product * rows + row, total);
        }
        // The sums have been read.
        thread::sync_threads();
        turn += blocks;
    }
}

/// What the parts of a task come to, for threads that hold an output; to the block that arrives last, or where there is
/// one part.
///
/// # Safety
/// Every thread of the block calls it, once for each part of a task; `partials` and arrivals are as [`GemvCut`] says, and
/// threads that hold an output are numbered below `outputs`.
#[inline(always)]
unsafe fn merge_parts<N: Number>(
    cut: &GemvCut,
    partials: &Out<N>,
    (task, part): (usize, usize),
    outputs: usize,
    holds: bool,
    total: N,
) -> Option<N> {
    let parts = cut.parts as usize;
    if parts == 1 {
        return Some(total);
    }
    let own = thread::thread_idx_x() as usize;
    if holds {
        // SAFETY: one thread of one block has the part's output.
        unsafe { partials.store((task * parts + part) * outputs + own, total) };
    }
    // SAFETY: the caller's contract.
    if !unsafe { grid::arrive_is_last(&cut.arrivals, task, cut.parts) } {
        return None;
    }
    let mut merged = N::ZERO;
    if holds {
        let mut other = 0;
        while other < parts {
            let mut sums = [N::ZERO; IN_FLIGHT];
            unroll!(i in IN_FLIGHT => {
                if other + i < parts {
                    let place = (task * parts + other + i) * outputs + own;
                    // SAFETY: all parts were stored before their blocks arrived.
                    sums[i] = unsafe { partials.load(place) };
                }
            });
            unroll!(i in IN_FLIGHT => { merged = merged.add(sums[i]) });
            other += IN_FLIGHT;
        }
    }
    Some(merged)
}

/// The columns' sums of `N` more rows, a block's warps apart.
///
/// # Safety
/// The rows are inside the matrix that begins at `start`, and so is the vector of columns, which is aligned.
#[inline(always)]
unsafe fn absorb_columns<T: Operand, const L: usize, const N: usize>(
    mut sums: [T::Sum; L],
    matrix: In<T>,
    start: usize,
    columns: usize,
    x: impl Fn(usize) -> T,
    row: usize,
) -> [T::Sum; L] {
    let mut xs = [T::zeroed(); N];
    let mut values = [Vector([T::zeroed(); L]); N];
    unroll!(u in N => {
        xs[u] = x(row + u * WARPS);
        let at = start + (row + u * WARPS) * columns;
        // SAFETY: the caller's contract.
        values[u] = unsafe { matrix.load_vector(at, LoadHint::Streaming) };
    });
    unroll!(u in N => {
        let x = xs[u].wide();
        unroll!(l in L => { sums[l] = values[u].0[l].wide().mul_add(x, sums[l]) });
    });
    sums
}

/// As [`absorb_columns`], where one lane works out x for each row, and hands it to the others. An x of several loads has
/// then as few of them in flight beside the matrix as a plain one; with all in each lane, registers run out, and half of
/// the matrix's loads wait for x.
///
/// # Safety
/// As [`absorb_columns`]; every lane of the warp calls it, with the same rows.
#[inline(always)]
unsafe fn absorb_columns_spread<T: Operand, const L: usize, const N: usize>(
    mut sums: [T::Sum; L],
    matrix: In<T>,
    start: usize,
    columns: usize,
    x: impl Fn(usize) -> T,
    row: usize,
) -> [T::Sum; L] {
    const { assert!(N <= WARP, "a lane for each row") };
    let mut values = [Vector([T::zeroed(); L]); N];
    unroll!(u in N => {
        let at = start + (row + u * WARPS) * columns;
        // SAFETY: the caller's contract.
        values[u] = unsafe { matrix.load_vector(at, LoadHint::Streaming) };
    });
    let own = x(row + thread::lane_idx() as usize % N * WARPS).wide();
    unroll!(u in N => {
        let x = if N == 1 { own } else { warp::shuffle(warp::FULL_MASK, own, u as u32) };
        unroll!(l in L => { sums[l] = values[u].0[l].wide().mul_add(x, sums[l]) });
    });
    sums
}

/// [`absorb_columns_spread`] where `SPREAD`, else [`absorb_columns`].
///
/// # Safety
/// As that.
#[inline(always)]
unsafe fn absorb<T: Operand, const L: usize, const N: usize, const SPREAD: bool>(
    sums: [T::Sum; L],
    matrix: In<T>,
    (start, columns): (usize, usize),
    x: impl Fn(usize) -> T,
    row: usize,
) -> [T::Sum; L] {
    // SAFETY: the caller's contract.
    unsafe {
        if SPREAD {
            absorb_columns_spread::<T, L, N>(sums, matrix, start, columns, x, row)
        } else {
            absorb_columns::<T, L, N>(sums, matrix, start, columns, x, row)
        }
    }
}

/// Aᵀ·x for the whole batch: `x` gives the element of x at an index into `[batch, rows]`, `finish` takes an index into
/// `[batch, columns]` and its sum, once each. With `SPREAD` one lane of a warp calls `x` for a row, and not every one; the
/// sums have the same order.
///
/// # Safety
/// As [`straight`].
#[inline(always)]
pub(crate) unsafe fn transposed<T: Operand, const L: usize, const SPREAD: bool>(
    matrix: In<T>,
    cut: &GemvCut,
    x: impl Fn(usize) -> T + Copy,
    finish: impl Fn(usize, T::Sum),
) {
    const { assert!(L * size_of::<T::Sum>() <= 32, "the warps' sums fit in COLUMN_WORDS") };
    let scratch = shared_array![u32; COLUMN_WORDS];
    let words = size_of::<T::Sum>() / 4;
    let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
    let own = thread::thread_idx_x() as usize;
    let (rows, columns) = (cut.rows as usize, cut.columns as usize);
    let (width, parts) = (WARP * L, cut.parts as usize);
    let tiles = columns.div_ceil(width);
    let share = rows.div_ceil(parts);
    let partials: Out<T::Sum> = cut.partials.cast();
    let mut turn = thread::block_idx_x() as usize;
    while turn < cut.batch as usize * tiles * parts {
        let (task, part) = (turn / parts, turn % parts);
        let (product, tile) = (task / tiles, task % tiles);
        let column = tile * width + lane * L;
        // Beyond the last column, the last again where every lane takes part: sums that nobody stores.
        let inside = if SPREAD && column >= columns { columns - L } else { column };
        let place = (product * rows * columns + inside, columns);
        let x = |row| x(product * rows + row);
        let end = if (part + 1) * share < rows { (part + 1) * share } else { rows };
        let mut sums = [T::Sum::ZERO; L];
        if SPREAD || column < columns {
            let mut row = part * share + warp;
            while row + (IN_FLIGHT - 1) * WARPS < end {
                // SAFETY: the last of the rows is inside the matrix, whose columns are a multiple of L; they are the warp's.
                sums = unsafe { absorb::<T, L, IN_FLIGHT, SPREAD>(sums, matrix, place, x, row) };
                row += IN_FLIGHT * WARPS;
            }
            while row < end {
                // SAFETY: the row is inside the matrix, and the warp's.
                sums = unsafe { absorb::<T, L, 1, SPREAD>(sums, matrix, place, x, row) };
                row += WARPS;
            }
        }
        unroll!(l in L => {
            // SAFETY: the place is this thread's.
            unsafe { scratch.write_words((warp * width + lane * L + l) * words, sums[l]) };
        });
        // Orders the warps' sums before the threads that add them.
        thread::sync_threads();
        let holds = own < width && tile * width + own < columns;
        let mut total = T::Sum::ZERO;
        if holds {
            unroll!(w in WARPS => {
                // SAFETY: warp `w` wrote it before the barrier.
                total = total.add(unsafe { scratch.read_words((w * width + own) * words) });
            });
        }
        // SAFETY: every thread of the block calls it, for each part of the task once.
        let total = unsafe { merge_parts(cut, &partials, (task, part), width, holds, total) };
        if let (Some(total), true) = (total, holds) {
            finish(product * columns + tile * width + own, total);
        }
        // The sums have been read.
        thread::sync_threads();
        turn += thread::grid_dim_x() as usize;
    }
}

/// α·sum + β·y in its place.
///
/// # Safety
/// The element is inside y and this thread's alone.
#[inline(always)]
unsafe fn store<T: Operand, const C: bool>(p: &Gemv<C>, index: usize, sum: T::Sum) {
    let y: Out<T> = p.y.cast();
    let mut before = T::Sum::ZERO;
    if p.beta != 0.0 {
        // SAFETY: the caller's contract.
        before = T::factor(p.beta).mul_add(unsafe { y.load(index) }.wide(), before);
    }
    // SAFETY: the caller's contract.
    unsafe { y.store(index, T::narrow(T::factor(p.alpha).mul_add(sum, before))) };
}

/// y ← α·A·x + β·y where a warp is a team, as one of several operations of a kernel.
///
/// # Safety
/// As [`Gemv`] says, with rows a multiple of `L`; the first [`GEMV_BLOCK_THREADS`] threads of the grid's blocks call it.
#[inline(always)]
pub(crate) unsafe fn gemv<T: Operand, const L: usize, const U: usize, const C: bool>(
    p: &Gemv<C>,
    place: BlockPlace,
) {
    let xs: In<T, C> = p.x.cast();
    // SAFETY: a vector of x, which is as long as the columns.
    let x = |at| unsafe { xs.load_vector(at, LoadHint::Cached) };
    // SAFETY: the caller's contract; each output is one thread's.
    unsafe {
        by_warps::<T, L, U, C>(p.matrix.cast(), &p.cut, place, x, |at, sum| {
            store::<T, C>(p, at, sum);
        });
    }
}

macro_rules! instance {
    ($gemv:ident, $transposed:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal) => {
        /// y ← α·A·x + β·y.
        ///
        /// # Safety
        /// As [`Gemv`] says.
        #[kernel(block = GEMV_BLOCK_THREADS, min_blocks = GEMV_MIN_BLOCKS)]
        pub unsafe fn $gemv(p: Gemv) {
            let xs: In<$element> = p.x.cast();
            // SAFETY: a vector of x, which is as long as the columns.
            let x = |at| unsafe { xs.load_vector(at, LoadHint::Cached) };
            // SAFETY: the entry's contract; each output is one thread's.
            unsafe {
                straight::<$element, $lanes, $vectors>(p.matrix.cast(), &p.cut, x, |at, sum| {
                    store::<$element, _>(&p, at, sum)
                })
            }
        }

        /// y ← α·Aᵀ·x + β·y.
        ///
        /// # Safety
        /// As [`Gemv`] says.
        #[kernel(block = GEMV_BLOCK_THREADS, min_blocks = GEMV_MIN_BLOCKS)]
        pub unsafe fn $transposed(p: Gemv) {
            let xs: In<$element> = p.x.cast();
            // SAFETY: an element of x, which is as long as the rows.
            let x = |at| unsafe { xs.load(at) };
            // SAFETY: the entry's contract; each output is one thread's.
            unsafe {
                transposed::<$element, $lanes, false>(p.matrix.cast(), &p.cut, x, |at, sum| {
                    store::<$element, _>(&p, at, sum)
                })
            }
        }
    };
}

kasmina_types::gemv_tiles!(instance);
