//! The executor's shared memory, each access checked.

use core::mem::align_of;

use kasmina_simt::rt::{self, Access};

use crate::vector::Vector;

/// Where an array begins.
pub(super) type Array = *mut u8;

#[inline(always)]
#[track_caller]
pub(super) fn declare(key: u64, bytes: usize, align: usize) -> Array {
    rt::shared_static(key as usize, bytes, align)
}

#[inline(always)]
#[track_caller]
pub(super) fn dynamic() -> (Array, usize) {
    rt::dynamic_shared()
}

/// The address, once the `bytes` there were seen to be written.
#[inline(always)]
#[track_caller]
pub(super) fn generic(array: Array, array_bytes: usize, offset: usize, bytes: usize) -> *const u8 {
    rt::access_shared(array, array_bytes, offset, bytes, bytes.min(16), Access::Read);
    array.wrapping_add(offset)
}

/// A vector is aligned to its size, where that is a width that the hardware moves at once.
fn alignment<T, const M: usize>() -> usize {
    if M == 1 { align_of::<T>() } else { size_of::<Vector<T, M>>() }
}

/// # Safety
/// The array has `array_bytes` bytes; what lies outside of it is reported.
#[inline(always)]
#[track_caller]
pub(super) unsafe fn load<T: Copy, const M: usize>(
    array: Array,
    array_bytes: usize,
    index: usize,
) -> Vector<T, M> {
    const { assert!(size_of::<Vector<T, M>>() <= 16, "one access moves at most 16 bytes") };
    let (offset, bytes) = (index * size_of::<T>(), size_of::<Vector<T, M>>());
    rt::access_shared(array, array_bytes, offset, bytes, alignment::<T, M>(), Access::Read);
    // SAFETY: the check above keeps the access inside the array, aligned.
    unsafe { array.add(offset).cast::<Vector<T, M>>().read_unaligned() }
}

/// # Safety
/// The array has `array_bytes` bytes; what lies outside of it is reported.
#[inline(always)]
#[track_caller]
pub(super) unsafe fn store<T: Copy, const M: usize>(
    array: Array,
    array_bytes: usize,
    index: usize,
    value: Vector<T, M>,
) {
    const { assert!(size_of::<Vector<T, M>>() <= 16, "one access moves at most 16 bytes") };
    let (offset, bytes) = (index * size_of::<T>(), size_of::<Vector<T, M>>());
    rt::access_shared(array, array_bytes, offset, bytes, alignment::<T, M>(), Access::Write);
    // SAFETY: the check above keeps the access inside the array, aligned.
    unsafe { array.add(offset).cast::<Vector<T, M>>().write_unaligned(value) };
}
