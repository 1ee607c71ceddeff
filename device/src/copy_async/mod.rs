//! A thread's own copies from global to shared memory, which run beside its work: `cp.async` (sm_80). On older GPUs they
//! are loads and stores.
//!
//! A thread closes groups of its copies and waits for them; a barrier of those who read comes after the wait.
//! No proxy fence is needed. Under the executor a copy is done when it is waited for: what reads its target before
//! finds what was there, which is reported where that is nothing.

use kasmina_types::In;

use crate::shared::Place;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// Bytes of one copy.
pub const BYTES: usize = 16;

/// Copies `BYTES` bytes from byte `index` of a buffer to `target`, past the SM's own cache, in the thread's open group:
/// `cp.async.cg.shared.global` (sm_80).
///
/// # Safety
/// Both ranges are inside and aligned to 16 bytes. Nobody touches the target before the thread has waited for the
/// group and a barrier has followed, and nobody writes the source until then.
#[inline(always)]
#[track_caller]
pub unsafe fn copy(target: Place, source: &In<u8>, index: usize) {
    // SAFETY: the caller's contract.
    unsafe { imp::copy(target, source, index, BYTES as u32) };
}

/// As [`copy`], of the first `bytes` bytes, 0 to 16; the rest of the target is filled with zeros. For edges.
///
/// # Safety
/// As [`copy`]; of the source, `bytes` bytes are inside. The kernel is for sm_80 or newer.
#[inline(always)]
#[track_caller]
pub unsafe fn copy_or_zero(target: Place, source: &In<u8>, index: usize, bytes: u32) {
    // SAFETY: the caller's contract.
    unsafe { imp::copy(target, source, index, bytes) };
}

/// Closes the thread's open group: `cp.async.commit_group` (sm_80).
#[inline(always)]
pub fn commit_group() {
    imp::commit_group();
}

/// Waits until, but for the thread's last `PENDING` groups, all copies are done and visible to the thread:
/// `cp.async.wait_group` (sm_80).
#[inline(always)]
#[track_caller]
pub fn wait_group<const PENDING: u32>() {
    imp::wait_group::<PENDING>();
}
