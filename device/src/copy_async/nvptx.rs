//! `cp.async`. No instruction here is `.aligned`.

use core::arch::asm;

use kasmina_types::In;

use crate::shared::Place;

#[cfg(target_feature = "sm_80")]
#[inline(always)]
pub(super) unsafe fn copy(target: Place, source: &In<u8>, index: usize, bytes: u32) {
    // SAFETY: the caller's contract. The generic address of a buffer in global memory is its global one.
    unsafe {
        asm!("cp.async.cg.shared.global [{}], [{}], 16, {};", in(reg32) target.address(),
            in(reg64) source.as_ptr().wrapping_add(index), in(reg32) bytes, options(nostack));
    }
}

#[cfg(target_feature = "sm_80")]
#[inline(always)]
pub(super) fn commit_group() {
    // SAFETY: closes a group of copies that were issued under their own contracts.
    unsafe { asm!("cp.async.commit_group;", options(nostack)) };
}

#[cfg(target_feature = "sm_80")]
#[inline(always)]
pub(super) fn wait_group<const PENDING: u32>() {
    // SAFETY: waits.
    unsafe { asm!("cp.async.wait_group {};", const PENDING, options(nostack)) };
}

/// Of whole pieces, which are all that kernels for older GPUs ask for.
#[cfg(not(target_feature = "sm_80"))]
#[inline(always)]
pub(super) unsafe fn copy(target: Place, source: &In<u8>, index: usize, _bytes: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        let (a, b, c, d): (u32, u32, u32, u32);
        asm!("ld.global.cg.v4.b32 {{{}, {}, {}, {}}}, [{}];", out(reg32) a, out(reg32) b,
            out(reg32) c, out(reg32) d, in(reg64) source.as_ptr().wrapping_add(index),
            options(readonly, nostack));
        asm!("st.shared.v4.b32 [{}], {{{}, {}, {}, {}}};", in(reg32) target.address(), in(reg32) a,
            in(reg32) b, in(reg32) c, in(reg32) d, options(nostack));
    }
}

#[cfg(not(target_feature = "sm_80"))]
#[inline(always)]
pub(super) fn commit_group() {}

#[cfg(not(target_feature = "sm_80"))]
#[inline(always)]
pub(super) fn wait_group<const PENDING: u32>() {}
