//! The templates that kernels of chains are generated from: values one by one, a contraction, values one by one.
//!
//! In all of them `inner` gives a value before the contraction from its segment, its place in the segment, and its place in
//! `[batch, inner]`; `outer` makes a result of a contracted value from the same in `[batch, outer]`.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::block_fold;
use kasmina_device::vector::Vector;
use kasmina_device::{grid, shared_array, thread, warp};
use kasmina_types::tiles::FUSION_BLOCK_THREADS;
use kasmina_types::{FusionArguments, In, Out};

use crate::linear::gemv::{Operand, straight, transposed};
use crate::reduction::reducer::{Number, Real};

const BLOCK: usize = FUSION_BLOCK_THREADS as usize;
const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;
/// Columns of a row that a thread of a product has in flight.
const IN_FLIGHT: usize = 4;

/// A chain's kernels.
#[cfg(not(target_arch = "nvptx64"))]
pub trait Kernels: kasmina_types::fusion::Fusion {
    /// The one that computes all stages; none where a product of matrices has them as its epilogue.
    fn fused() -> Option<&'static kasmina_device::Kernel<FusionArguments>>;

    /// The one of each stage; none for a product of matrices.
    fn stages() -> Vec<Option<&'static kasmina_device::Kernel<FusionArguments>>>;
}

/// An element of an operand.
///
/// # Safety
/// As [`FusionArguments`] says; `at` is inside the operand's extent.
#[inline(always)]
#[track_caller]
pub unsafe fn operand<T: Operand>(p: &FusionArguments, number: usize, at: usize) -> T {
    let operand: In<T> = p.operands[number].cast();
    // SAFETY: the caller's contract.
    unsafe { operand.load(at) }
}

/// What the stage before left at a place.
///
/// # Safety
/// As [`FusionArguments`] says, for a stage alone.
#[inline(always)]
#[track_caller]
pub unsafe fn value<T: Operand>(p: &FusionArguments, at: usize) -> T {
    let values: In<T> = p.values.cast();
    // SAFETY: the caller's contract.
    unsafe { values.load(at) }
}

/// Values one by one.
///
/// # Safety
/// As [`FusionArguments`] says; every place is inside of what `inner` reads.
#[inline(always)]
pub unsafe fn map<T: Operand>(p: &FusionArguments, inner: impl Fn(usize, usize, usize) -> T) {
    let output: Out<T> = p.output.cast();
    let length = p.cut.columns as usize;
    let mut at = thread::block_idx_x() as usize * BLOCK + thread::thread_idx_x() as usize;
    while at < p.cut.batch as usize * length {
        // SAFETY: the place is inside the output, and this thread's.
        unsafe { output.store(at, inner(at / length, at % length, at)) };
        at += thread::grid_dim_x() as usize * BLOCK;
    }
}

/// How the values of a segment come to one.
trait Reduction<N> {
    /// Of no values.
    const NONE: N;
    /// Of both.
    fn combine(a: N, b: N) -> N;
    /// The result for so many values.
    #[inline(always)]
    fn finish(total: N, count: usize) -> N {
        let _ = count;
        total
    }
}

struct Total;
struct Average;
struct Largest;
struct Smallest;

macro_rules! reduction {
    ($name:ident, $none:ident, $combine:ident) => {
        impl<N: Number> Reduction<N> for $name {
            const NONE: N = N::$none;
            #[inline(always)]
            fn combine(a: N, b: N) -> N {
                a.$combine(b)
            }
        }
    };
}

reduction!(Total, ZERO, add);
reduction!(Largest, LOWEST, maximum);
reduction!(Smallest, HIGHEST, minimum);

impl<N: Real> Reduction<N> for Average {
    const NONE: N = N::ZERO;
    #[inline(always)]
    fn combine(a: N, b: N) -> N {
        a.add(b)
    }
    #[inline(always)]
    fn finish(total: N, count: usize) -> N {
        total.div(N::from_count(count as u64))
    }
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident by $reduction:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As [`map`]; every thread of the grid calls it.
        #[inline(always)]
        pub unsafe fn $name<T: Operand>(
            p: &FusionArguments,
            inner: impl Fn(usize, usize, usize) -> T,
            outer: impl Fn(usize, usize, usize, T) -> T,
        ) {
            // SAFETY: the caller's contract.
            unsafe { reduce::<T, $reduction>(p, inner, outer) };
        }
    )*};
}

reductions! {
    /// The sum of each segment.
    sum by Total;
    /// The mean of each segment.
    mean by Average;
    /// The largest value of each segment, which has one.
    max by Largest;
    /// The smallest value of each segment, which has one.
    min by Smallest;
}

/// What each segment comes to.
///
/// # Safety
/// As [`map`]; every thread of the grid calls it.
#[inline(always)]
unsafe fn reduce<T: Operand, R: Reduction<T::Sum>>(
    p: &FusionArguments,
    inner: impl Fn(usize, usize, usize) -> T,
    outer: impl Fn(usize, usize, usize, T) -> T,
) {
    let scratch = shared_array![u32; WARPS * 2];
    let (output, partials): (Out<T>, Out<T::Sum>) = (p.output.cast(), p.cut.partials.cast());
    let (length, parts) = (p.cut.columns as usize, p.cut.parts as usize);
    let share = length.div_ceil(parts);
    let own = thread::thread_idx_x() as usize;
    let mut turn = thread::block_idx_x() as usize;
    while turn < p.cut.batch as usize * parts {
        let (segment, part) = (turn / parts, turn % parts);
        let end = if (part + 1) * share < length { (part + 1) * share } else { length };
        let mut partial = R::NONE;
        let mut at = part * share + own;
        while at < end {
            partial = R::combine(partial, inner(segment, at, segment * length + at).wide());
            at += BLOCK;
        }
        let mut total = block_fold::<_, WARPS, _>(partial, &scratch, R::combine);
        if parts > 1 {
            if let (Some(total), 0) = (total, own) {
                // SAFETY: one thread of one block has the part's place.
                unsafe { partials.store(turn, total) };
            }
            // SAFETY: every thread of the block arrives, once for each part of the segment.
            if unsafe { grid::arrive_is_last(&p.cut.arrivals, segment, p.cut.parts) } {
                let mut merged = R::NONE;
                let mut other = own;
                while other < parts {
                    // SAFETY: all parts were stored before their blocks arrived.
                    let part = unsafe { partials.load(segment * parts + other) };
                    merged = R::combine(merged, part);
                    other += BLOCK;
                }
                total = block_fold::<_, WARPS, _>(merged, &scratch, R::combine);
            } else {
                total = None;
            }
        }
        if let (Some(total), 0) = (total, own) {
            // SAFETY: one thread of one block writes the segment's place.
            unsafe {
                output
                    .store(segment, outer(segment, 0, segment, T::narrow(R::finish(total, length))))
            };
        }
        // Warp 0 has read the scratch.
        thread::sync_threads();
        turn += thread::grid_dim_x() as usize;
    }
}

/// A·x, A operand `matrix`.
///
/// # Safety
/// As [`map`]; every thread of the grid calls it.
#[inline(always)]
pub unsafe fn gemv<T: Operand>(
    p: &FusionArguments,
    matrix: usize,
    inner: impl Fn(usize, usize, usize) -> T + Copy,
    outer: impl Fn(usize, usize, usize, T) -> T,
) {
    let output: Out<T> = p.output.cast();
    let (rows, columns) = (p.cut.rows as usize, p.cut.columns as usize);
    let x = |at| Vector([inner(at / columns, at % columns, at)]);
    let finish = |at, sum| {
        // SAFETY: each output is one thread's.
        unsafe { output.store(at, outer(at / rows, at % rows, at, T::narrow(sum))) };
    };
    // SAFETY: the caller's contract.
    unsafe { straight::<T, 1, IN_FLIGHT>(p.operands[matrix].cast(), &p.cut, x, finish) };
}

/// Aᵀ·x, A operand `matrix`.
///
/// # Safety
/// As [`map`]; every thread of the grid calls it.
#[inline(always)]
pub unsafe fn gemv_transposed<T: Operand>(
    p: &FusionArguments,
    matrix: usize,
    inner: impl Fn(usize, usize, usize) -> T + Copy,
    outer: impl Fn(usize, usize, usize, T) -> T,
) {
    let output: Out<T> = p.output.cast();
    let (rows, columns) = (p.cut.rows as usize, p.cut.columns as usize);
    let x = |at| inner(at / rows, at % rows, at);
    let finish = |at, sum| {
        // SAFETY: each output is one thread's.
        unsafe { output.store(at, outer(at / columns, at % columns, at, T::narrow(sum))) };
    };
    // SAFETY: the caller's contract.
    unsafe { transposed::<T, 1, true>(p.operands[matrix].cast(), &p.cut, x, finish) };
}
