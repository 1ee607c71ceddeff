//! `mbarrier.*` on 32-bit shared addresses. No instruction here is `.aligned`: each thread's is its own, and
//! the compiler may place it as it likes among the thread's branches.

use core::arch::asm;

use crate::shared::Place;

#[inline(always)]
pub(super) unsafe fn init(word: Place, arrivals: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("mbarrier.init.shared::cta.b64 [{}], {};", in(reg32) word.address(), in(reg32) arrivals,
            options(nostack));
    }
}

#[inline(always)]
pub(super) unsafe fn invalidate(word: Place) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("mbarrier.inval.shared::cta.b64 [{}];", in(reg32) word.address(), options(nostack))
    };
}

#[inline(always)]
pub(super) unsafe fn arrive(word: Place) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("mbarrier.arrive.shared::cta.b64 _, [{}];", in(reg32) word.address(), options(nostack))
    };
}

#[inline(always)]
pub(super) unsafe fn arrive_expect_tx(word: Place, bytes: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [{}], {};", in(reg32) word.address(),
            in(reg32) bytes, options(nostack));
    }
}

#[inline(always)]
pub(super) unsafe fn test(word: Place, parity: bool) -> bool {
    let over: u32;
    // SAFETY: the caller's contract.
    unsafe {
        asm!("{{", ".reg .pred over;",
            "mbarrier.test_wait.parity.shared::cta.b64 over, [{}], {};",
            "selp.u32 {}, 1, 0, over;", "}}",
            in(reg32) word.address(), in(reg32) u32::from(parity), out(reg32) over,
            options(nostack));
    }
    over != 0
}

#[inline(always)]
pub(super) unsafe fn wait(word: Place, parity: bool) {
    loop {
        let over: u32;
        // SAFETY: the caller's contract. The instruction suspends the thread for a while itself.
        unsafe {
            asm!("{{", ".reg .pred over;",
                "mbarrier.try_wait.parity.shared::cta.b64 over, [{}], {};",
                "selp.u32 {}, 1, 0, over;", "}}",
                in(reg32) word.address(), in(reg32) u32::from(parity), out(reg32) over,
                options(nostack));
        }
        if over != 0 {
            return;
        }
    }
}

#[inline(always)]
pub(super) fn fence_init() {
    // SAFETY: fences touch no memory.
    unsafe {
        asm!(
            "fence.mbarrier_init.release.cluster;",
            "fence.proxy.async.shared::cta;",
            options(nostack)
        );
    }
}
