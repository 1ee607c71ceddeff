//! What the compiler should not know.

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
/// Addresses that are a loop's variable and an invariant make the compiler keep their invariant parts in
/// registers, one for each array and row. From an opaque variable it computes them where they are used.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    imp::opaque(value)
}
