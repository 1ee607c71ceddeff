//! The executor's own copies of a thread.

use kasmina_simt::rt::{self, Access, Space, within};
use kasmina_types::In;

use super::BYTES;
use crate::shared::Place;

#[track_caller]
pub(super) unsafe fn copy(target: Place, source: &In<u8>, index: usize, bytes: u32) {
    let copied = bytes as usize;
    assert!(copied <= BYTES, "a copy moves at most {BYTES} bytes, got {copied}");
    let shared = target.checked(BYTES, BYTES, Access::Write);
    let global = source.as_ptr();
    if copied > 0 {
        within(Space::Global, global, source.len(), index, copied, BYTES, Access::Read);
    }
    // SAFETY: both ranges were seen to be inside.
    unsafe { rt::copy_async(shared, global.wrapping_add(index), BYTES, copied) };
}

pub(super) fn commit_group() {
    rt::copy_async_commit();
}

pub(super) fn wait_group<const PENDING: u32>() {
    rt::copy_async_wait(PENDING);
}
