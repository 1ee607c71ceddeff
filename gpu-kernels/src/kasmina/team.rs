//! The threads that work on a strip and meet at barriers: a whole block, or those that consume what another
//! warp fetches.

use kasmina_device::thread;

/// Threads 0 to [`BLOCK`](super::strip::BLOCK) − 1 of a block, and how they meet.
pub(crate) trait Team: Copy {
    /// Orders what the team's threads did before it before what they do after it. All of them call it.
    fn sync(self);
    /// [`Team::sync`], and whether the predicate holds in one of them.
    fn sync_or(self, predicate: bool) -> bool;
}

/// The block has no other threads.
#[derive(Clone, Copy)]
pub(crate) struct WholeBlock;

impl Team for WholeBlock {
    #[inline(always)]
    fn sync(self) {
        thread::sync_threads();
    }

    #[inline(always)]
    fn sync_or(self, predicate: bool) -> bool {
        thread::sync_threads_or(predicate)
    }
}
