//! `barrier.cluster` through intrinsics, which are convergent; the rest is each thread's own.

use core::arch::asm;

use crate::mbarrier::Mbarrier;
use crate::shared::Place;

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.barrier.cluster.arrive.aligned"]
    fn barrier_cluster_arrive();
    #[link_name = "llvm.nvvm.barrier.cluster.wait.aligned"]
    fn barrier_cluster_wait();
}

/// A 32-bit address in the cluster's shared memory.
pub(super) type Remote = u32;

macro_rules! register {
    ($($name:ident = $register:literal),*) => {$(
        #[inline(always)]
        pub(super) fn $name() -> u32 {
            let value: u32;
            // SAFETY: reads a special register.
            unsafe {
                asm!(concat!("mov.u32 {}, ", $register, ";"), out(reg32) value,
                    options(pure, nomem, nostack));
            }
            value
        }
    )*};
}
register!(rank = "%cluster_ctarank", size = "%cluster_nctarank", id_x = "%clusterid.x");

#[inline(always)]
pub(super) fn arrive() {
    // SAFETY: the caller's contract: all threads of the cluster come.
    unsafe { barrier_cluster_arrive() };
}

#[inline(always)]
pub(super) fn wait() {
    // SAFETY: as above.
    unsafe { barrier_cluster_wait() };
}

#[inline(always)]
pub(super) fn map(place: Place, rank: u32) -> Remote {
    let address: u32;
    // SAFETY: computes an address.
    unsafe {
        asm!("mapa.shared::cluster.u32 {}, {}, {};", out(reg32) address, in(reg32) place.address(),
            in(reg32) rank, options(pure, nomem, nostack));
    }
    address
}

#[inline(always)]
pub(super) unsafe fn read(place: Remote) -> u32 {
    let word: u32;
    // SAFETY: the caller's contract.
    unsafe {
        asm!("ld.shared::cluster.b32 {}, [{}];", out(reg32) word, in(reg32) place,
            options(readonly, nostack));
    }
    word
}

#[inline(always)]
pub(super) unsafe fn read_four(place: Remote) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    // SAFETY: the caller's contract.
    unsafe {
        asm!("ld.shared::cluster.v4.b32 {{{}, {}, {}, {}}}, [{}];", out(reg32) a, out(reg32) b,
            out(reg32) c, out(reg32) d, in(reg32) place, options(readonly, nostack));
    }
    [a, b, c, d]
}

#[inline(always)]
pub(super) unsafe fn write(place: Remote, word: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("st.shared::cluster.b32 [{}], {};", in(reg32) place, in(reg32) word, options(nostack))
    };
}

#[inline(always)]
pub(super) unsafe fn arrive_remote(word: Remote) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [{}];", in(reg32) word,
            options(nostack));
    }
}

#[inline(always)]
pub(super) unsafe fn arrive_reader(word: Remote) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("mbarrier.arrive.release.cta.shared::cluster.b64 _, [{}];", in(reg32) word,
            options(nostack));
    }
}

#[inline(always)]
pub(super) unsafe fn wait_acquire(mbarrier: Mbarrier, parity: bool) {
    loop {
        let over: u32;
        // SAFETY: the caller's contract. The instruction suspends the thread for a while itself.
        unsafe {
            asm!("{{", ".reg .pred over;",
                "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [{}], {};",
                "selp.u32 {}, 1, 0, over;", "}}",
                in(reg32) mbarrier.place().address(), in(reg32) u32::from(parity), out(reg32) over,
                options(nostack));
        }
        if over != 0 {
            return;
        }
    }
}
