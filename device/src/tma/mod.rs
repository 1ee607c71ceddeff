//! Bulk copies: one thread's order, carried out by the copy engine while the threads go on.
//!
//! A load from global to shared memory completes on an [`Mbarrier`], which was told how many bytes come; a
//! store from shared to global memory belongs to a group that the issuing thread waits for. *Tensor* copies
//! move a box of a tensor that a descriptor describes: what of the box lies outside is filled with zeros by a
//! load and left alone by a store.
//!
//! The copy engine sees shared memory through another proxy than the threads: what they wrote with ordinary
//! stores needs [`fence_proxy_async`] in the writing threads, before the barrier that orders it before the
//! copy. The executor does each copy as late as it may, and reports a fence that is missing, memory that is
//! touched before it was waited for, and copies that outlive their block.
//!
//! All of it needs compute capability 9.0 (PTX 8.0). No instruction here is `.aligned`: each is the calling
//! thread's own.

use kasmina_types::{In, Out, TensorMapHandle};

use crate::mbarrier::Mbarrier;
use crate::shared::Place;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// How the L2 cache treats what a load passes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2Hint {
    /// As the descriptor and the hardware decide.
    Default,
    /// First to go: read once (`createpolicy.fractional.L2::evict_first`).
    EvictFirst,
    /// Last to go: read again by others (`createpolicy.fractional.L2::evict_last`).
    EvictLast,
}

/// Makes a descriptor that the host wrote usable: `fence.proxy.tensormap::generic.acquire.sys` (sm_90, PTX 8.3),
/// once by each thread that issues copies with it, before the first.
///
/// # Safety
/// The handle leads to a descriptor in global memory.
#[inline(always)]
#[track_caller]
pub unsafe fn acquire_map(map: TensorMapHandle) {
    // SAFETY: the caller's contract.
    unsafe { imp::acquire_map(map) };
}

/// Fetches a descriptor before it is needed: `prefetch.tensormap` (sm_90). A hint.
///
/// # Safety
/// As [`acquire_map`].
#[inline(always)]
#[track_caller]
pub unsafe fn prefetch_map(map: TensorMapHandle) {
    // SAFETY: the caller's contract.
    unsafe { imp::prefetch_map(map) };
}

/// Loads the box whose first element is at column `x` and row `y` of a two-dimensional tensor to `target`, rows
/// one after the other: `cp.async.bulk.tensor.2d.shared::cluster.global` (sm_90). `x` and `y` may be outside.
/// When it is done, the bytes of the whole box are told to `barrier`, and are visible to who waits there.
///
/// # Safety
/// The descriptor is of rank 2 and was acquired; the tensor is readable, and nobody writes it during the launch.
/// `target` has room for the box and is aligned to 128 bytes (1024 for a swizzle of 128); no thread touches it
/// until it has waited. The barrier's current phase expects the box's bytes.
#[inline(always)]
#[track_caller]
pub unsafe fn load_2d(
    target: Place,
    map: TensorMapHandle,
    x: i32,
    y: i32,
    barrier: Mbarrier,
    hint: L2Hint,
) {
    // SAFETY: the caller's contract.
    unsafe { imp::load_2d(target, map, x, y, barrier, hint) };
}

/// [`load_2d`] of a box at index `z` of the outermost dimension of a tensor of rank 3, where a box has one index:
/// `cp.async.bulk.tensor.3d.shared::cluster.global` (sm_90).
///
/// # Safety
/// As [`load_2d`], with a descriptor of rank 3.
#[inline(always)]
#[track_caller]
pub unsafe fn load_3d(target: Place, map: TensorMapHandle, at: [i32; 3], barrier: Mbarrier) {
    // SAFETY: the caller's contract.
    unsafe { imp::load_3d(target, map, at, barrier) };
}

/// [`load_2d`] to the same place of each block of the cluster whose bit is set in `blocks`, by one copy for all:
/// `.multicast::cluster`. The bytes of the whole box are told to the same `barrier` of each of them.
///
/// The executor makes a copy for each block of it, for nothing orders what they bring.
///
/// # Safety
/// `blocks` names blocks of the cluster, one at least. As [`load_2d`] in each of the blocks, which are all there: a barrier of the cluster came after their barriers were
/// initialised, and another comes before the first of them ends. Their threads are done with the target, in an order
/// of the cluster.
#[inline(always)]
#[track_caller]
pub unsafe fn load_2d_multicast(
    target: Place,
    map: TensorMapHandle,
    x: i32,
    y: i32,
    barrier: Mbarrier,
    hint: L2Hint,
    blocks: u16,
) {
    // SAFETY: the caller's contract.
    unsafe { imp::load_2d_multicast(target, map, x, y, barrier, hint, blocks) };
}

/// [`load_2d_multicast`] of a box of a tensor of rank 3, as [`load_3d`].
///
/// # Safety
/// As [`load_2d_multicast`], with a descriptor of rank 3.
#[inline(always)]
#[track_caller]
pub unsafe fn load_3d_multicast(
    target: Place,
    map: TensorMapHandle,
    at: [i32; 3],
    barrier: Mbarrier,
    blocks: u16,
) {
    // SAFETY: the caller's contract.
    unsafe { imp::load_3d_multicast(target, map, at, barrier, blocks) };
}

/// Stores the box at `source` to column `x` and row `y` of a two-dimensional tensor, in the thread's open group:
/// `cp.async.bulk.tensor.2d.global.shared::cta` (sm_90).
///
/// # Safety
/// As [`load_2d`] for descriptor and `source`; the tensor is writable and nobody else accesses the box without an
/// order. `source` was written, fenced ([`fence_proxy_async`]) and ordered before this call, and is not written
/// until [`wait_stores_read`] or [`wait_stores`] has returned.
#[inline(always)]
#[track_caller]
pub unsafe fn store_2d(source: Place, map: TensorMapHandle, x: i32, y: i32) {
    // SAFETY: the caller's contract.
    unsafe { imp::store_2d(source, map, x, y) };
}

/// [`store_2d`] of a box at index `z` of the outermost dimension of a tensor of rank 3, where a box has one index:
/// `cp.async.bulk.tensor.3d.global.shared::cta` (sm_90).
///
/// # Safety
/// As [`store_2d`], with a descriptor of rank 3.
#[inline(always)]
#[track_caller]
pub unsafe fn store_3d(source: Place, map: TensorMapHandle, at: [i32; 3]) {
    // SAFETY: the caller's contract.
    unsafe { imp::store_3d(source, map, at) };
}

/// Loads `bytes` bytes from byte `index` of a buffer to `target`: `cp.async.bulk.shared::cluster.global` (sm_90).
/// Completes as [`load_2d`].
///
/// # Safety
/// Both ranges are inside and aligned to 16 bytes, and `bytes` is a multiple of 16; for `target` and `barrier` as
/// [`load_2d`].
#[inline(always)]
#[track_caller]
pub unsafe fn load<const COHERENT: bool>(
    target: Place,
    source: &In<u8, COHERENT>,
    index: usize,
    bytes: u32,
    barrier: Mbarrier,
) {
    let source = In::new(source.as_ptr(), source.len());
    // SAFETY: the caller's contract.
    unsafe { imp::load(target, &source, index, bytes, barrier) };
}

/// Stores `bytes` bytes from `source` to byte `index` of a buffer, in the thread's open group:
/// `cp.async.bulk.global.shared::cta` (sm_90).
///
/// # Safety
/// Both ranges are inside and aligned to 16 bytes, and `bytes` is a multiple of 16; for `source` as [`store_2d`].
#[inline(always)]
#[track_caller]
pub unsafe fn store(source: Place, target: &Out<u8>, index: usize, bytes: u32) {
    // SAFETY: the caller's contract.
    unsafe { imp::store(source, target, index, bytes) };
}

/// Closes the thread's open group of stores: `cp.async.bulk.commit_group` (sm_90).
#[inline(always)]
#[track_caller]
pub fn commit_stores() {
    imp::commit_stores();
}

/// Waits until, but for the thread's last `PENDING` groups, every store has read its shared memory, which may then
/// be written again: `cp.async.bulk.wait_group.read` (sm_90).
#[inline(always)]
#[track_caller]
pub fn wait_stores_read<const PENDING: u32>() {
    imp::wait_stores_read::<PENDING>();
}

/// Waits until, but for the thread's last `PENDING` groups, every store is done, and visible to the thread:
/// `cp.async.bulk.wait_group` (sm_90).
#[inline(always)]
#[track_caller]
pub fn wait_stores<const PENDING: u32>() {
    imp::wait_stores::<PENDING>();
}

/// Shows the thread's ordinary accesses of shared memory to the copy engine (and the tensor cores), once a barrier
/// has followed: `fence.proxy.async.shared::cta` (sm_90).
#[inline(always)]
#[track_caller]
pub fn fence_proxy_async() {
    imp::fence_proxy_async();
}
