//! An empty piece of assembly that the number passes through.

use core::arch::asm;

#[inline(always)]
pub(super) fn opaque(value: usize) -> usize {
    let mut result = value;
    // SAFETY: it does nothing. Not `pure`, so that it stays in the loop where it stands.
    unsafe { asm!("// {0}", inout(reg64) result, options(nomem, nostack, preserves_flags)) };
    result
}
