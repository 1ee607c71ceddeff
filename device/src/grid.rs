//! Reductions over the grid in one launch: every block leaves its part in memory, and the block that
//! comes last merges the parts, in their own order, whichever block it is. And a barrier for blocks that are all
//! resident at once.

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

/// Which block of a kernel's grid this one is. In a resident kernel the grid is that of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// The block.
    pub block: u32,
    /// Blocks of the grid.
    pub blocks: u32,
}

impl BlockPlace {
    /// The launch's, along x.
    #[inline(always)]
    pub fn of_launch() -> Self {
        Self { block: thread::block_idx_x(), blocks: thread::grid_dim_x() }
    }
}

/// What is added to the count of a [`barrier`] each time that all have come: above it a number of the meeting, so that one
/// who looks late, when others have met again without him, still sees that his is over.
const MEETING: u32 = 1 << MEETING_SHIFT;
const MEETING_SHIFT: u32 = 12;

/// Waits until all `blocks` blocks of a group, 4095 at most, have come, and makes what each stored before visible to all
/// after. One block of the group is its `leader`. The count needs no reset: it is ready for the next barrier, of this
/// launch or of the next, and of these or of other blocks of the group.
///
/// The first barrier of the block orders every thread's stores before thread 0, whose arrival releases them; its
/// acquisition, and the second, order them before every thread.
///
/// # Safety
/// Every thread of each of the `blocks` blocks calls it, equally often and with one leader; where other blocks of the group
/// meet next, they come only after all of these have; `blocks` is 1 or more;
/// all of them are resident at once, as a cooperative launch sees to; `index < counts.len()`, the count is the group's
/// alone and was zero before its first barrier.
#[inline(always)]
#[track_caller]
pub unsafe fn barrier(counts: &Out<u32>, index: usize, blocks: u32, leader: bool) {
    thread::sync_threads();
    // SAFETY: the caller's contract.
    unsafe { meet(counts, index, blocks, leader, || false) };
    thread::sync_threads();
}

/// As [`barrier`], but a block that waits gives up once thread 0's `gives_up`, asked time and again, says so. Answers, to
/// every thread of the block, whether the blocks met; after a `false` the count is of no use any more.
///
/// # Safety
/// As [`barrier`].
#[inline(always)]
#[track_caller]
pub unsafe fn barrier_unless(
    counts: &Out<u32>,
    index: usize,
    blocks: u32,
    leader: bool,
    gives_up: impl FnMut() -> bool,
) -> bool {
    thread::sync_threads();
    // SAFETY: the caller's contract.
    let met = unsafe { meet(counts, index, blocks, leader, gives_up) };
    !thread::sync_threads_or(!met)
}

/// Thread 0 of each block announces it and waits for the others.
///
/// # Safety
/// As [`barrier`].
#[inline(always)]
#[track_caller]
unsafe fn meet(
    counts: &Out<u32>,
    index: usize,
    blocks: u32,
    leader: bool,
    mut gives_up: impl FnMut() -> bool,
) -> bool {
    // A group of one has met. A condition around the barriers would have a compiler duplicate them.
    if blocks > 1 && thread::thread_idx_x() == 0 {
        // Together the arrivals add one meeting, and nothing below it.
        let arrival = if leader { MEETING - (blocks - 1) } else { 1 };
        // SAFETY: the caller's contract.
        unsafe {
            let before = atomic::fetch_add(counts, index, arrival, Order::AcqRel, Scope::Device);
            while (atomic::load(counts, index, Order::Acquire, Scope::Device) ^ before)
                >> MEETING_SHIFT
                == 0
            {
                if gives_up() {
                    return false;
                }
                thread::spin_wait(0);
            }
        }
    }
    true
}
