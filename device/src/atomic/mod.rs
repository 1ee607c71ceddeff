//! Atomic operations on buffers, with the order and the scope that the caller names, and fences.
//!
//! A scope says whose view is ordered: the block's, the device's, or that of the device and the host
//! together (`Scope::System`, for mapped memory).

use kasmina_types::Out;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// What an atomic orders besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    Relaxed,
    /// What follows stays after it. Loads and read-modify-writes only.
    Acquire,
    /// What precedes stays before it. Stores and read-modify-writes only.
    Release,
    /// Both. Read-modify-writes only.
    AcqRel,
}

/// Among whom an atomic is atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The threads of the block.
    Block,
    /// The threads of the device.
    Device,
    /// Every thread of the device, of other devices and of the host.
    System,
}

/// A type that the hardware's atomics take: `u32`, `i32`, `u64`.
pub trait Atomic: Copy + imp::Word {}
impl<T: Copy + imp::Word> Atomic for T {}

macro_rules! read_modify_write {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        ///
        /// Returns what was there before.
        ///
        /// # Safety
        /// `index < view.len()`; whoever else accesses the element meanwhile does so atomically.
        #[inline(always)]
        #[track_caller]
        pub unsafe fn $name<T: Atomic>(
            view: &Out<T>,
            index: usize,
            value: T,
            order: Order,
            scope: Scope,
        ) -> T {
            // SAFETY: the caller's contract.
            unsafe { imp::$name(view, index, value, order, scope) }
        }
    )*};
}

read_modify_write! {
    /// Adds, wrapping around.
    fetch_add,
    /// Takes the smaller.
    fetch_min,
    /// Takes the larger.
    fetch_max,
    /// Puts `value` in its place.
    exchange,
}

/// Puts `new` in the place of `expected`, if that is what is there. Returns what was there before.
///
/// # Safety
/// As [`fetch_add`].
#[inline(always)]
#[track_caller]
pub unsafe fn compare_exchange<T: Atomic>(
    view: &Out<T>,
    index: usize,
    expected: T,
    new: T,
    order: Order,
    scope: Scope,
) -> T {
    // SAFETY: the caller's contract.
    unsafe { imp::compare_exchange(view, index, expected, new, order, scope) }
}

/// Reads; `order` is `Relaxed` or `Acquire`.
///
/// # Safety
/// As [`fetch_add`].
#[inline(always)]
#[track_caller]
pub unsafe fn load<T: Atomic>(view: &Out<T>, index: usize, order: Order, scope: Scope) -> T {
    // SAFETY: the caller's contract.
    unsafe { imp::load(view, index, order, scope) }
}

/// Writes; `order` is `Relaxed` or `Release`.
///
/// # Safety
/// As [`fetch_add`].
#[inline(always)]
#[track_caller]
pub unsafe fn store<T: Atomic>(view: &Out<T>, index: usize, value: T, order: Order, scope: Scope) {
    // SAFETY: the caller's contract.
    unsafe { imp::store(view, index, value, order, scope) };
}

/// Orders the thread's earlier accesses before its later ones, in the eyes of `scope`.
#[inline(always)]
#[track_caller]
pub fn fence(scope: Scope) {
    imp::fence(scope);
}
