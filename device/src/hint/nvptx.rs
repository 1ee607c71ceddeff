//! An empty piece of assembly that the number passes through. Not `pure`, so that it stays where it stands.

use core::arch::asm;

#[inline(always)]
pub(super) fn opaque(value: u32) -> u32 {
    let mut result = value;
    // SAFETY: it does nothing.
    unsafe { asm!("// {0}", inout(reg32) result, options(nomem, nostack, preserves_flags)) };
    result
}

#[inline(always)]
pub(super) fn opaque_index(value: usize) -> usize {
    let mut result = value;
    // SAFETY: it does nothing.
    unsafe { asm!("// {0}", inout(reg64) result, options(nomem, nostack, preserves_flags)) };
    result
}

#[inline(always)]
pub(super) fn end_of_branch<const I: usize>() {
    // SAFETY: it does nothing.
    unsafe { asm!("// {}", const I, options(nomem, nostack, preserves_flags)) };
}

#[inline(always)]
pub(super) fn trap() -> ! {
    // SAFETY: ends the kernel; nothing runs after it.
    unsafe { core::arch::nvptx::trap() }
}
