//! The number itself.

#[inline(always)]
pub(super) fn opaque(value: u32) -> u32 {
    value
}

#[inline(always)]
pub(super) fn opaque_index(value: usize) -> usize {
    value
}

#[track_caller]
pub(super) fn trap() -> ! {
    panic!("trap")
}
