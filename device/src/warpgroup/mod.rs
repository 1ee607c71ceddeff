//! What four consecutive warps do together, the first of them at a multiple of four.

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

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
