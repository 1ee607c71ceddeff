//! `cp.async`. No instruction here is `.aligned`.

use core::arch::asm;

use kasmina_types::In;

use crate::shared::Place;

#[inline(always)]
pub(super) unsafe fn copy(target: Place, source: &In<u8>, index: usize, bytes: u32) {
    // SAFETY: the caller's contract. The generic address of a buffer in global memory is its global one.
    unsafe {
        asm!("cp.async.cg.shared.global [{}], [{}], 16, {};", in(reg32) target.address(),
            in(reg64) source.as_ptr().wrapping_add(index), in(reg32) bytes, options(nostack));
    }
}

#[inline(always)]
pub(super) fn commit_group() {
    // SAFETY: closes a group of copies that were issued under their own contracts.
    unsafe { asm!("cp.async.commit_group;", options(nostack)) };
}

#[inline(always)]
pub(super) fn wait_group<const PENDING: u32>() {
    // SAFETY: waits.
    unsafe { asm!("cp.async.wait_group {};", const PENDING, options(nostack)) };
}
