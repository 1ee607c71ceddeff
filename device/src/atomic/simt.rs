//! The host's atomics on the buffers of the executor. Every scope is the whole process.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use kasmina_simt::rt::{self, Access};
use kasmina_types::Out;

use super::{Order, Scope};

fn ordering(order: Order) -> Ordering {
    match order {
        Order::Relaxed => Ordering::Relaxed,
        Order::Acquire => Ordering::Acquire,
        Order::Release => Ordering::Release,
        Order::AcqRel => Ordering::AcqRel,
    }
}

/// A word with its atomic type.
pub trait Word: Copy {
    #[doc(hidden)]
    unsafe fn add(address: *mut Self, value: Self, order: Ordering) -> Self;
    #[doc(hidden)]
    unsafe fn min(address: *mut Self, value: Self, order: Ordering) -> Self;
    #[doc(hidden)]
    unsafe fn max(address: *mut Self, value: Self, order: Ordering) -> Self;
    #[doc(hidden)]
    unsafe fn swap(address: *mut Self, value: Self, order: Ordering) -> Self;
    #[doc(hidden)]
    unsafe fn cas(address: *mut Self, old: Self, new: Self, order: Ordering) -> Self;
    #[doc(hidden)]
    unsafe fn ld(address: *mut Self, order: Ordering) -> Self;
    #[doc(hidden)]
    unsafe fn st(address: *mut Self, value: Self, order: Ordering);
}

macro_rules! word {
    ($type:ty, $atomic:ty) => {
        impl Word for $type {
            word!(@rmw $atomic, add => fetch_add, min => fetch_min, max => fetch_max, swap => swap);

            unsafe fn cas(address: *mut Self, old: Self, new: Self, order: Ordering) -> Self {
                let failure = match order {
                    Ordering::AcqRel | Ordering::Acquire => Ordering::Acquire,
                    _ => Ordering::Relaxed,
                };
                // SAFETY: the caller checked that the word is inside its buffer and aligned.
                let word = unsafe { <$atomic>::from_ptr(address) };
                word.compare_exchange(old, new, order, failure).unwrap_or_else(|found| found)
            }
            unsafe fn ld(address: *mut Self, order: Ordering) -> Self {
                // SAFETY: as above.
                unsafe { <$atomic>::from_ptr(address) }.load(order)
            }
            unsafe fn st(address: *mut Self, value: Self, order: Ordering) {
                // SAFETY: as above.
                unsafe { <$atomic>::from_ptr(address) }.store(value, order);
            }
        }
    };
    (@rmw $atomic:ty, $($name:ident => $method:ident),*) => {$(
        unsafe fn $name(address: *mut Self, value: Self, order: Ordering) -> Self {
            // SAFETY: the caller checked that the word is inside its buffer and aligned.
            unsafe { <$atomic>::from_ptr(address) }.$method(value, order)
        }
    )*};
}

word!(u32, AtomicU32);
word!(i32, AtomicI32);
word!(u64, AtomicU64);

/// The address of the element, once the executor has seen that it is inside the view.
#[track_caller]
fn checked<T>(view: &Out<T>, index: usize, access: Access) -> *mut T {
    let bytes = size_of::<T>();
    let base = view.as_ptr().cast_const().cast();
    rt::access_global(base, view.len() * bytes, index * bytes, bytes, bytes, access, false);
    view.as_ptr().wrapping_add(index)
}

macro_rules! on_view {
    ($($name:ident => $method:ident),*) => {$(
        #[track_caller]
        pub(super) unsafe fn $name<T: Word>(
            view: &Out<T>, index: usize, value: T, order: Order, _scope: Scope,
        ) -> T {
            // SAFETY: `checked` keeps the word inside the view, aligned.
            unsafe { T::$method(checked(view, index, Access::Atomic), value, ordering(order)) }
        }
    )*};
}

on_view!(fetch_add => add, fetch_min => min, fetch_max => max, exchange => swap);

#[track_caller]
pub(super) unsafe fn compare_exchange<T: Word>(
    view: &Out<T>,
    index: usize,
    expected: T,
    new: T,
    order: Order,
    _scope: Scope,
) -> T {
    // SAFETY: `checked` keeps the word inside the view, aligned.
    unsafe { T::cas(checked(view, index, Access::Atomic), expected, new, ordering(order)) }
}

#[track_caller]
pub(super) unsafe fn load<T: Word>(view: &Out<T>, index: usize, order: Order, _scope: Scope) -> T {
    // SAFETY: `checked` keeps the word inside the view, aligned.
    unsafe { T::ld(checked(view, index, Access::AtomicLoad), ordering(order)) }
}

#[track_caller]
pub(super) unsafe fn store<T: Word>(
    view: &Out<T>,
    index: usize,
    value: T,
    order: Order,
    _scope: Scope,
) {
    // SAFETY: `checked` keeps the word inside the view, aligned.
    unsafe { T::st(checked(view, index, Access::AtomicStore), value, ordering(order)) };
}

pub(super) fn fence(_scope: Scope) {
    core::sync::atomic::fence(Ordering::SeqCst);
}
