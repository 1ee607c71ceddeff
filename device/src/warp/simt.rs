//! Collectives of the executor's warps.

use kasmina_simt::rt;

use super::WARP_SIZE;

#[inline(always)]
#[track_caller]
fn lane() -> u32 {
    rt::linear_thread() % WARP_SIZE
}

/// The deposit of lane `source`, or the caller's own where `source` is past the warp.
#[inline(always)]
#[track_caller]
fn exchange(mask: u32, value: u32, source: u32) -> u32 {
    let deposits = rt::warp_exchange(mask, u64::from(value));
    deposits.get(source as usize).map_or(value, |&deposit| deposit as u32)
}

#[inline(always)]
#[track_caller]
pub(super) fn shuffle_xor(mask: u32, value: u32, lane_mask: u32) -> u32 {
    exchange(mask, value, lane() ^ lane_mask)
}

#[inline(always)]
#[track_caller]
pub(super) fn shuffle_down(mask: u32, value: u32, delta: u32) -> u32 {
    exchange(mask, value, lane() + delta)
}

#[inline(always)]
#[track_caller]
pub(super) fn shuffle_up(mask: u32, value: u32, delta: u32) -> u32 {
    exchange(mask, value, lane().wrapping_sub(delta))
}

#[inline(always)]
#[track_caller]
pub(super) fn shuffle(mask: u32, value: u32, source: u32) -> u32 {
    exchange(mask, value, source % WARP_SIZE)
}

#[inline(always)]
#[track_caller]
pub(super) fn ballot(mask: u32, predicate: bool) -> u32 {
    let deposits = rt::warp_exchange(mask, u64::from(predicate));
    deposits.iter().enumerate().fold(0, |bits, (lane, &held)| bits | ((held as u32) << lane))
}

#[inline(always)]
#[track_caller]
pub(super) fn sync_warp(mask: u32) {
    rt::warp_sync(mask);
}
