//! What the compiler should not know, and the way out.

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// The same number, of which the compiler knows nothing: it costs no instruction.
///
/// What is computed from a loop's invariants the compiler computes before the loop and keeps in registers,
/// whether it is used once or often. From an opaque number it is computed where it is used.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    imp::opaque(value)
}

/// As [`opaque`], for an index.
#[inline(always)]
pub fn opaque_index(value: usize) -> usize {
    imp::opaque_index(value)
}

/// The same reference, of which the compiler knows nothing: what was read through another is read anew, and no register holds
/// it meanwhile.
#[inline(always)]
pub fn opaque_reference<T>(value: &T) -> &T {
    // SAFETY: the address of a reference of the same lifetime.
    unsafe { &*(imp::opaque_index(core::ptr::from_ref(value) as usize) as *const T) }
}

/// Keeps the end of one branch, of number `I`, apart from those of the others: it costs no instruction.
///
/// Branches that end in the same accesses at different places the compiler joins to one at a computed place, and keeps what
/// is accessed in local memory for that.
#[inline(always)]
pub fn end_of_branch<const I: usize>() {
    imp::end_of_branch::<I>();
}

/// Ends the kernel with an error: every launch that the context still has fails. Under the executor the launch fails.
#[inline(always)]
#[track_caller]
pub fn trap() -> ! {
    imp::trap()
}
