//! Reductions within a warp and a block, in a fixed order: the same inputs give the same bits.
//!
//! The operation is given as a closure; it need not commute, but the butterfly pairs lane `i` with
//! lane `i ^ step`, so that it must be associative for the result to mean anything.

use bytemuck::Pod;

use crate::shared::Shared;
use crate::thread;
use crate::warp::{self, FULL_MASK, WARP_SIZE};

/// Folds the 32 lanes' values; every lane gets the result. All lanes call it.
#[inline(always)]
#[track_caller]
pub fn warp_fold<T: Pod>(value: T, combine: impl Fn(T, T) -> T) -> T {
    warp_fold_width(value, WARP_SIZE, combine)
}

/// Folds each group of `width` neighbouring lanes, a power of two up to 32; every lane gets its
/// group's result. All lanes of the warp call it.
#[inline(always)]
#[track_caller]
pub fn warp_fold_width<T: Pod>(value: T, width: u32, combine: impl Fn(T, T) -> T) -> T {
    let mut folded = value;
    let mut step = width / 2;
    while step > 0 {
        let other = warp::shuffle_xor(FULL_MASK, folded, step);
        // The lower lane's value comes first, so that both lanes of a pair compute the same bits.
        let lower = thread::lane_idx() & step == 0;
        let (first, second) = if lower { (folded, other) } else { (other, folded) };
        folded = combine(first, second);
        step /= 2;
    }
    folded
}

/// Folds the values of all the block's threads: lanes by butterfly, then the warps in their order.
/// Every thread of warp 0 gets the result, the others `None`. `scratch` has the words of a value for
/// each of the `WARPS` warps; it may be used again after the next barrier.
///
/// All threads of the block call it, from the same place. The barrier orders the warps' results
/// before warp 0 reads them.
#[inline(always)]
#[track_caller]
pub fn block_fold<T: Pod, const WARPS: usize, const WORDS: usize>(
    value: T,
    scratch: &Shared<u32, WORDS>,
    combine: impl Fn(T, T) -> T + Copy,
) -> Option<T> {
    const { assert!(WARPS * size_of::<T>() <= WORDS * 4, "scratch for each warp's value") };
    let words = size_of::<T>() / 4;
    let folded = warp_fold(value, combine);
    let warp = thread::warp_idx();
    if thread::lane_idx() == 0 {
        // SAFETY: one lane a warp writes, each its own place; the assertion above made room.
        unsafe { scratch.write_words(warp as usize * words, folded) };
    }
    thread::sync_threads();
    if warp != 0 {
        return None;
    }
    // SAFETY: every warp wrote its place before the barrier.
    let mut total: T = unsafe { scratch.read_words(0) };
    let mut i = 1;
    while i < WARPS {
        // SAFETY: as above.
        total = combine(total, unsafe { scratch.read_words(i * words) });
        i += 1;
    }
    Some(total)
}
