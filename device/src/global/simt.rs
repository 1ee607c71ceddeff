//! Plain memory under the executor, each access checked.

use core::mem::align_of;

use kasmina_simt::rt::{self, Access};
use kasmina_types::{In, Out};

use crate::vector::{LoadHint, StoreHint, Vector};

/// A vector is aligned to its size; a single element to its type.
fn alignment<T, const N: usize>() -> usize {
    if N == 1 { align_of::<T>() } else { size_of::<Vector<T, N>>() }
}

#[inline(always)]
#[track_caller]
fn check<T, const N: usize>(
    base: *const T,
    length: usize,
    index: usize,
    access: Access,
    read_only: bool,
) {
    rt::access_global(
        base.cast(),
        length * size_of::<T>(),
        index * size_of::<T>(),
        size_of::<Vector<T, N>>(),
        alignment::<T, N>(),
        access,
        read_only,
    );
}

/// # Safety
/// The view's memory is readable; what lies outside of it is reported.
#[inline(always)]
#[track_caller]
pub(super) unsafe fn load_constant<T: Copy, const N: usize, const COHERENT: bool>(
    view: &In<T, COHERENT>,
    index: usize,
    _hint: LoadHint,
) -> Vector<T, N> {
    check::<T, N>(view.as_ptr(), view.len(), index, Access::Read, true);
    // SAFETY: the check keeps the access inside the view, aligned.
    unsafe { view.as_ptr().add(index).cast::<Vector<T, N>>().read_unaligned() }
}

/// # Safety
/// As [`load_constant`].
#[inline(always)]
#[track_caller]
pub(super) unsafe fn load<T: Copy, const N: usize>(view: &Out<T>, index: usize) -> Vector<T, N> {
    check::<T, N>(view.as_ptr(), view.len(), index, Access::Read, false);
    // SAFETY: the check keeps the access inside the view, aligned.
    unsafe { view.as_ptr().add(index).cast::<Vector<T, N>>().read_unaligned() }
}

/// # Safety
/// As [`load_constant`]; no other block accesses the elements without an order to this store.
#[inline(always)]
#[track_caller]
pub(super) unsafe fn store<T: Copy, const N: usize>(
    view: &Out<T>,
    index: usize,
    value: Vector<T, N>,
    _hint: StoreHint,
) {
    check::<T, N>(view.as_ptr(), view.len(), index, Access::Write, false);
    // SAFETY: the check keeps the access inside the view, aligned.
    unsafe { view.as_ptr().add(index).cast::<Vector<T, N>>().write_unaligned(value) };
}
