//! Reductions over the grid in one launch: every block leaves its part in memory, and the block that
//! comes last merges the parts, in their own order, whichever block it is.

use kasmina_types::Out;

use crate::atomic::{self, Order, Scope};
use crate::{shared_array, thread};

/// Counts this block's arrival in `arrivals[index]` and says, to every thread of the block, whether
/// it was the last of `expected`. To that block, what all the others stored before they arrived is
/// visible. The count goes back to zero, ready for the next launch.
///
/// The first barrier orders every thread's stores before thread 0, whose arrival releases them all to
/// the device, for causality is transitive; the second orders its acquisition, and the answer in
/// shared memory, before every thread.
///
/// # Safety
/// Every thread of the block calls it, from the same place; `index < arrivals.len()`; each of the
/// `expected` blocks arrives once.
#[inline(always)]
#[track_caller]
pub unsafe fn arrive_is_last(arrivals: &Out<u32>, index: usize, expected: u32) -> bool {
    // SAFETY: the caller's contract; the block meets as a whole.
    unsafe { team_arrive_is_last(arrivals, index, expected, thread::sync_threads) }
}

/// [`arrive_is_last`] for a part of the block that has thread 0 in it and meets at `sync`.
///
/// # Safety
/// As [`arrive_is_last`], with the team's threads for the block's; the team is the same for every call of the
/// block.
#[inline(always)]
pub unsafe fn team_arrive_is_last(
    arrivals: &Out<u32>,
    index: usize,
    expected: u32,
    sync: impl Fn(),
) -> bool {
    let last = shared_array![u32; 1];
    sync();
    if thread::thread_idx_x() == 0 {
        // SAFETY: the caller's contract; after the last arrival nobody else touches the count, and
        // only this thread writes `last` between the two barriers.
        unsafe {
            let before = atomic::fetch_add(arrivals, index, 1, Order::AcqRel, Scope::Device);
            let is_last = before + 1 == expected;
            if is_last {
                atomic::store(arrivals, index, 0, Order::Relaxed, Scope::Device);
            }
            last.write(0, u32::from(is_last));
        }
    }
    sync();
    // SAFETY: thread 0 wrote it before the barrier.
    unsafe { last.read(0) != 0 }
}
