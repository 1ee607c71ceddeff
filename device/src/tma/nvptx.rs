//! `cp.async.bulk` and its fences.

use core::arch::asm;

use kasmina_types::{In, Out, TensorMapHandle};

use super::L2Hint;
use crate::mbarrier::Mbarrier;
use crate::shared::Place;

#[inline(always)]
pub(super) unsafe fn acquire_map(map: TensorMapHandle) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("fence.proxy.tensormap::generic.acquire.sys [{}], 128;", in(reg64) map.as_ptr(),
            options(nostack));
    }
}

#[inline(always)]
pub(super) unsafe fn prefetch_map(map: TensorMapHandle) {
    // SAFETY: the caller's contract.
    unsafe { asm!("prefetch.tensormap [{}];", in(reg64) map.as_ptr(), options(nostack)) };
}

#[inline(always)]
pub(super) unsafe fn load_2d(
    target: Place,
    map: TensorMapHandle,
    x: i32,
    y: i32,
    barrier: Mbarrier,
    hint: L2Hint,
) {
    macro_rules! load {
        ($policy:expr) => {
            asm!(
                "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes\
                 .L2::cache_hint [{}], [{}, {{{}, {}}}], [{}], {};",
                in(reg32) target.address(), in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y,
                in(reg32) barrier.place().address(), in(reg64) $policy, options(nostack)
            )
        };
    }
    // SAFETY: the caller's contract.
    unsafe {
        match hint {
            L2Hint::Default => asm!(
                "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes \
                 [{}], [{}, {{{}, {}}}], [{}];",
                in(reg32) target.address(), in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y,
                in(reg32) barrier.place().address(), options(nostack)
            ),
            L2Hint::EvictFirst => load!(evict_first()),
            L2Hint::EvictLast => load!(evict_last()),
        }
    }
}

#[inline(always)]
pub(super) unsafe fn load_3d(
    target: Place,
    map: TensorMapHandle,
    [x, y, z]: [i32; 3],
    barrier: Mbarrier,
) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes \
             [{}], [{}, {{{}, {}, {}}}], [{}];",
            in(reg32) target.address(), in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y,
            in(reg32) z, in(reg32) barrier.place().address(), options(nostack)
        );
    }
}

#[inline(always)]
pub(super) unsafe fn load_3d_multicast(
    target: Place,
    map: TensorMapHandle,
    [x, y, z]: [i32; 3],
    barrier: Mbarrier,
    blocks: u16,
) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes\
             .multicast::cluster [{}], [{}, {{{}, {}, {}}}], [{}], {};",
            in(reg32) target.address(), in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y,
            in(reg32) z, in(reg32) barrier.place().address(), in(reg16) blocks, options(nostack)
        );
    }
}

#[inline(always)]
pub(super) unsafe fn load_2d_multicast(
    target: Place,
    map: TensorMapHandle,
    x: i32,
    y: i32,
    barrier: Mbarrier,
    hint: L2Hint,
    blocks: u16,
) {
    macro_rules! load {
        ($policy:expr) => {
            asm!(
                "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes\
                 .multicast::cluster.L2::cache_hint [{}], [{}, {{{}, {}}}], [{}], {}, {};",
                in(reg32) target.address(), in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y,
                in(reg32) barrier.place().address(), in(reg16) blocks, in(reg64) $policy,
                options(nostack)
            )
        };
    }
    // SAFETY: the caller's contract.
    unsafe {
        match hint {
            L2Hint::Default => asm!(
                "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes\
                 .multicast::cluster [{}], [{}, {{{}, {}}}], [{}], {};",
                in(reg32) target.address(), in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y,
                in(reg32) barrier.place().address(), in(reg16) blocks, options(nostack)
            ),
            L2Hint::EvictFirst => load!(evict_first()),
            L2Hint::EvictLast => load!(evict_last()),
        }
    }
}

#[inline(always)]
fn evict_first() -> u64 {
    let policy: u64;
    // SAFETY: makes a number.
    unsafe {
        asm!("createpolicy.fractional.L2::evict_first.b64 {}, 1.0;", out(reg64) policy,
            options(pure, nomem, nostack));
    }
    policy
}

#[inline(always)]
fn evict_last() -> u64 {
    let policy: u64;
    // SAFETY: makes a number.
    unsafe {
        asm!("createpolicy.fractional.L2::evict_last.b64 {}, 1.0;", out(reg64) policy,
            options(pure, nomem, nostack));
    }
    policy
}

#[inline(always)]
pub(super) unsafe fn store_2d(source: Place, map: TensorMapHandle, x: i32, y: i32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [{}, {{{}, {}}}], [{}];",
            in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y, in(reg32) source.address(),
            options(nostack)
        );
    }
}

#[inline(always)]
pub(super) unsafe fn store_3d(source: Place, map: TensorMapHandle, [x, y, z]: [i32; 3]) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [{}, {{{}, {}, {}}}], [{}];",
            in(reg64) map.as_ptr(), in(reg32) x, in(reg32) y, in(reg32) z,
            in(reg32) source.address(), options(nostack)
        );
    }
}

#[inline(always)]
pub(super) unsafe fn load(
    target: Place,
    source: &In<u8>,
    index: usize,
    bytes: u32,
    barrier: Mbarrier,
) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [{}], [{}], {}, [{}];",
            in(reg32) target.address(), in(reg64) source.as_ptr().add(index), in(reg32) bytes,
            in(reg32) barrier.place().address(), options(nostack)
        );
    }
}

#[inline(always)]
pub(super) unsafe fn store(source: Place, target: &Out<u8>, index: usize, bytes: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "cp.async.bulk.global.shared::cta.bulk_group [{}], [{}], {};",
            in(reg64) target.as_ptr().add(index), in(reg32) source.address(), in(reg32) bytes,
            options(nostack)
        );
    }
}

#[inline(always)]
pub(super) fn commit_stores() {
    // SAFETY: closes a group of copies that were issued under their own contracts.
    unsafe { asm!("cp.async.bulk.commit_group;", options(nostack)) };
}

#[inline(always)]
pub(super) fn wait_stores_read<const PENDING: u32>() {
    // SAFETY: waits.
    unsafe { asm!("cp.async.bulk.wait_group.read {};", const PENDING, options(nostack)) };
}

#[inline(always)]
pub(super) fn wait_stores<const PENDING: u32>() {
    // SAFETY: waits.
    unsafe { asm!("cp.async.bulk.wait_group {};", const PENDING, options(nostack)) };
}

#[inline(always)]
pub(super) fn fence_proxy_async() {
    // SAFETY: a fence touches no memory.
    unsafe { asm!("fence.proxy.async.shared::cta;", options(nostack)) };
}
