//! `shfl.sync`, `vote.sync` and `bar.warp.sync`, through intrinsics: they are marked convergent, as
//! `asm!` is not.

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    fn shfl_sync_bfly(mask: u32, value: u32, lane_mask: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.down.i32"]
    fn shfl_sync_down(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.up.i32"]
    fn shfl_sync_up(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_sync_idx(mask: u32, value: u32, source: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.vote.ballot.sync"]
    fn vote_ballot_sync(mask: u32, predicate: bool) -> u32;
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn bar_warp_sync(mask: u32);
}

/// The last lane of a 32-wide segment; `shfl.up` clamps at the first instead.
const CLAMP: u32 = 31;

#[inline(always)]
pub(super) fn shuffle_xor(mask: u32, value: u32, lane_mask: u32) -> u32 {
    // SAFETY: the caller's contract: the lanes of `mask` all arrive.
    unsafe { shfl_sync_bfly(mask, value, lane_mask, CLAMP) }
}

#[inline(always)]
pub(super) fn shuffle_down(mask: u32, value: u32, delta: u32) -> u32 {
    // SAFETY: as above.
    unsafe { shfl_sync_down(mask, value, delta, CLAMP) }
}

#[inline(always)]
pub(super) fn shuffle_up(mask: u32, value: u32, delta: u32) -> u32 {
    // SAFETY: as above.
    unsafe { shfl_sync_up(mask, value, delta, 0) }
}

#[inline(always)]
pub(super) fn shuffle(mask: u32, value: u32, source: u32) -> u32 {
    // SAFETY: as above.
    unsafe { shfl_sync_idx(mask, value, source, CLAMP) }
}

#[inline(always)]
pub(super) fn ballot(mask: u32, predicate: bool) -> u32 {
    // SAFETY: as above.
    unsafe { vote_ballot_sync(mask, predicate) }
}

#[inline(always)]
pub(super) fn sync_warp(mask: u32) {
    // SAFETY: as above.
    unsafe { bar_warp_sync(mask) };
}
