//! A thread's own copies from global to shared memory, which it waits for by groups. Each is done as late as may be:
//! when its group is waited for. What reads the target before finds what was there.

use std::collections::VecDeque;
use std::panic::Location;
use std::ptr;
use std::thread::panicking;

use crate::context::{Context, current};
use crate::report::{Access, Space};
use crate::shadow::Touching;
use crate::thread_side::report_of;

/// One thread's copies.
#[derive(Default)]
pub(crate) struct Copies {
    queue: VecDeque<Copy>,
    /// Groups that are closed.
    committed: u32,
}

struct Copy {
    target: *mut u8,
    source: *const u8,
    bytes: usize,
    /// Bytes that come from the source; zeros follow.
    copied: usize,
    group: u32,
    location: &'static Location<'static>,
}

/// Issues a copy of `copied` bytes, followed by zeros up to `bytes`, in the thread's open group.
///
/// # Safety
/// The source is readable and nobody writes it until the group was waited for; both ranges were seen to be
/// [`within`](crate::rt::within) their memory.
#[track_caller]
pub unsafe fn copy_async(target: *mut u8, source: *const u8, bytes: usize, copied: usize) {
    let context = current();
    let mut copies = context.thread().copies.borrow_mut();
    let (group, location) = (copies.committed, Location::caller());
    copies.queue.push_back(Copy { target, source, bytes, copied, group, location });
}

/// Closes the thread's open group of copies.
pub fn copy_async_commit() {
    current().thread().copies.borrow_mut().committed += 1;
}

/// Waits until no more than `pending` of the thread's last groups of copies are under way.
pub fn copy_async_wait(pending: u32) {
    if panicking() {
        return;
    }
    let context = current();
    let closed = context.thread().copies.borrow().committed.saturating_sub(pending);
    loop {
        let next = {
            let mut copies = context.thread().copies.borrow_mut();
            if copies.queue.front().is_none_or(|copy| copy.group >= closed) {
                return;
            }
            copies.queue.pop_front()
        };
        if let Some(copy) = next {
            context.finish_own_copy(&copy);
        }
    }
}

impl Context {
    fn finish_own_copy(&self, copy: &Copy) {
        if self.launch.checks {
            let thread = self.current.get();
            let touching = Touching { thread, access: Access::Write, location: copy.location };
            let (address, at) = (copy.target.addr(), self.locate(copy.target.addr()));
            let checked = self.shadow.borrow_mut().touch_shared(at, copy.bytes, touching, address);
            if let Err(finding) = checked {
                return self.fail(report_of(self, Space::Shared, at, finding, touching).into());
            }
        }
        // SAFETY: the issuer's contract: both ranges are inside, and nobody else is at them now.
        unsafe {
            ptr::copy_nonoverlapping(copy.source, copy.target, copy.copied);
            copy.target.add(copy.copied).write_bytes(0, copy.bytes - copy.copied);
        }
    }
}
