//! What four consecutive warps do together, the first of them at a multiple of four.
//!
//! A kernel with roles launches one warpgroup more than it computes with: the one that issues copies gives registers
//! back, the others take them. Over a block, what is taken is no more than what the launch gave and others gave back:
//! with 384 threads, 168 registers each, one warpgroup at 40 and two at 232 are 40 + 2 · 232 = 3 · 168.

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// Threads of a warpgroup.
pub const THREADS: u32 = 128;

/// The warpgroup's position in its one-dimensional block: what roles are told apart by.
#[inline(always)]
#[track_caller]
pub fn index() -> u32 {
    crate::thread::thread_idx_x() / THREADS
}

/// The thread's position in its warpgroup, 0 to 127: what [`wgmma::Fragment`](crate::wgmma::Fragment) asks for.
#[inline(always)]
#[track_caller]
pub fn thread_idx() -> u32 {
    crate::thread::thread_idx_x() % THREADS
}

/// Gives registers back, so that a thread keeps `REGISTERS`: `setmaxnreg.dec.sync.aligned` (sm_90a).
///
/// # Safety
/// All threads of a warpgroup call it, from the same place; the kernel declares its launch bounds and has at least
/// that many registers now. Under the executor nothing happens.
#[inline(always)]
pub unsafe fn lower_registers<const REGISTERS: u32>() {
    const { assert!(valid(REGISTERS), "registers come in eights, 24 to 256") };
    // SAFETY: the caller's contract.
    unsafe { imp::lower_registers::<REGISTERS>() };
}

/// Takes registers that others gave back, so that a thread has `REGISTERS`; waits until they are there:
/// `setmaxnreg.inc.sync.aligned` (sm_90a).
///
/// # Safety
/// As [`lower_registers`], with at most that many now.
#[inline(always)]
pub unsafe fn raise_registers<const REGISTERS: u32>() {
    const { assert!(valid(REGISTERS), "registers come in eights, 24 to 256") };
    // SAFETY: the caller's contract.
    unsafe { imp::raise_registers::<REGISTERS>() };
}

const fn valid(registers: u32) -> bool {
    registers.is_multiple_of(8) && registers >= 24 && registers <= 256
}
