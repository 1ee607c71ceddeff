//! Exchanges and votes among the 32 threads of a warp.
//!
//! Each call is a collective of the lanes in `mask`: they all call it, from the same place, with the
//! same mask. Values are any plain data whose size is a multiple of four bytes.

use bytemuck::Pod;

use crate::words::for_each_word;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// Threads of a warp.
pub const WARP_SIZE: u32 = 32;

/// Every lane.
pub const FULL_MASK: u32 = 0xffff_ffff;

/// Rebuilds `$value` from what `$exchange` makes of each of its 32-bit words. A macro, so that a report
/// names the kernel's line.
macro_rules! by_words {
    ($value:ident: $type:ty, |$word:ident| $exchange:expr) => {{
        let mut result = $value;
        let words = (&raw mut result).cast::<u32>();
        for_each_word!($type, |i| {
            // SAFETY: `i` stays below the number of words in `result`, whose type is plain data;
            // the access is unaligned because the type may be aligned to less than four bytes.
            unsafe {
                let $word = words.add(i).read_unaligned();
                words.add(i).write_unaligned($exchange);
            }
        });
        result
    }};
}

/// The value of the lane whose index is this lane's XOR `lane_mask`.
#[inline(always)]
#[track_caller]
pub fn shuffle_xor<T: Pod>(mask: u32, value: T, lane_mask: u32) -> T {
    by_words!(value: T, |word| imp::shuffle_xor(mask, word, lane_mask))
}

/// The value of the lane `delta` above; the lane's own where there is none.
#[inline(always)]
#[track_caller]
pub fn shuffle_down<T: Pod>(mask: u32, value: T, delta: u32) -> T {
    by_words!(value: T, |word| imp::shuffle_down(mask, word, delta))
}

/// The value of the lane `delta` below; the lane's own where there is none.
#[inline(always)]
#[track_caller]
pub fn shuffle_up<T: Pod>(mask: u32, value: T, delta: u32) -> T {
    by_words!(value: T, |word| imp::shuffle_up(mask, word, delta))
}

/// The value of lane `source`.
#[inline(always)]
#[track_caller]
pub fn shuffle<T: Pod>(mask: u32, value: T, source: u32) -> T {
    by_words!(value: T, |word| imp::shuffle(mask, word, source))
}

/// One bit for each lane of `mask` whose predicate holds.
#[inline(always)]
#[track_caller]
pub fn ballot(mask: u32, predicate: bool) -> u32 {
    imp::ballot(mask, predicate)
}

/// Whether the predicate holds in some lane of `mask`.
#[inline(always)]
#[track_caller]
pub fn any(mask: u32, predicate: bool) -> bool {
    ballot(mask, predicate) != 0
}

/// Whether the predicate holds in every lane of `mask`.
#[inline(always)]
#[track_caller]
pub fn all(mask: u32, predicate: bool) -> bool {
    ballot(mask, predicate) == mask
}

/// Waits for the lanes of `mask` and orders their memory accesses among them.
#[inline(always)]
#[track_caller]
pub fn sync_warp(mask: u32) {
    imp::sync_warp(mask);
}
