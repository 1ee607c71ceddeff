//! `atom`, `ld`, `st` and `fence` with `.sem` and `.scope` (PTX 6.0, sm_70).

use core::arch::asm;

use kasmina_types::Out;

use super::{Order, Scope};

/// A word that `atom` takes, with its instructions.
pub trait Word: Copy {
    #[doc(hidden)]
    unsafe fn add(address: *mut Self, value: Self, order: Order, scope: Scope) -> Self;
    #[doc(hidden)]
    unsafe fn min(address: *mut Self, value: Self, order: Order, scope: Scope) -> Self;
    #[doc(hidden)]
    unsafe fn max(address: *mut Self, value: Self, order: Order, scope: Scope) -> Self;
    #[doc(hidden)]
    unsafe fn exch(address: *mut Self, value: Self, order: Order, scope: Scope) -> Self;
    #[doc(hidden)]
    unsafe fn cas(address: *mut Self, old: Self, new: Self, order: Order, scope: Scope) -> Self;
    #[doc(hidden)]
    unsafe fn ld(address: *const Self, order: Order, scope: Scope) -> Self;
    #[doc(hidden)]
    unsafe fn st(address: *mut Self, value: Self, order: Order, scope: Scope);
}

/// Expands `$emit!` once for each scope, with the instruction's text for an order.
macro_rules! by_scope {
    ($scope:expr, $emit:ident, $head:literal, $tail:expr) => {
        match $scope {
            Scope::Block => $emit!(concat!($head, ".cta", $tail)),
            Scope::Device => $emit!(concat!($head, ".gpu", $tail)),
            Scope::System => $emit!(concat!($head, ".sys", $tail)),
        }
    };
}

macro_rules! by_order_and_scope {
    ($order:expr, $scope:expr, $emit:ident, $tail:expr) => {
        match $order {
            Order::Relaxed => by_scope!($scope, $emit, "atom.relaxed", $tail),
            Order::Acquire => by_scope!($scope, $emit, "atom.acquire", $tail),
            Order::Release => by_scope!($scope, $emit, "atom.release", $tail),
            Order::AcqRel => by_scope!($scope, $emit, "atom.acq_rel", $tail),
        }
    };
}

macro_rules! word {
    ($type:ty, $class:ident, $arithmetic:literal, $bits:literal) => {
        impl Word for $type {
            word!(@rmw add, $class, concat!(".global.add.", $arithmetic, " {}, [{}], {};"));
            word!(@rmw min, $class, concat!(".global.min.", $arithmetic, " {}, [{}], {};"));
            word!(@rmw max, $class, concat!(".global.max.", $arithmetic, " {}, [{}], {};"));
            word!(@rmw exch, $class, concat!(".global.exch.", $bits, " {}, [{}], {};"));

            #[inline(always)]
            unsafe fn cas(
                address: *mut Self, old: Self, new: Self, order: Order, scope: Scope,
            ) -> Self {
                let before: Self;
                macro_rules! emit {
                    ($text:expr) => {
                        asm!($text, out($class) before, in(reg64) address, in($class) old,
                            in($class) new, options(nostack))
                    };
                }
                // SAFETY: the caller's contract.
                unsafe {
                    by_order_and_scope!(order, scope, emit,
                        concat!(".global.cas.", $bits, " {}, [{}], {}, {};"));
                }
                before
            }

            #[inline(always)]
            unsafe fn ld(address: *const Self, order: Order, scope: Scope) -> Self {
                let value: Self;
                macro_rules! emit {
                    ($text:expr) => {
                        asm!($text, out($class) value, in(reg64) address, options(nostack))
                    };
                }
                // SAFETY: the caller's contract.
                unsafe {
                    match order {
                        Order::Relaxed => by_scope!(scope, emit, "ld.relaxed",
                            concat!(".global.", $bits, " {}, [{}];")),
                        _ => by_scope!(scope, emit, "ld.acquire",
                            concat!(".global.", $bits, " {}, [{}];")),
                    }
                }
                value
            }

            #[inline(always)]
            unsafe fn st(address: *mut Self, value: Self, order: Order, scope: Scope) {
                macro_rules! emit {
                    ($text:expr) => {
                        asm!($text, in(reg64) address, in($class) value, options(nostack))
                    };
                }
                // SAFETY: the caller's contract.
                unsafe {
                    match order {
                        Order::Relaxed => by_scope!(scope, emit, "st.relaxed",
                            concat!(".global.", $bits, " [{}], {};")),
                        _ => by_scope!(scope, emit, "st.release",
                            concat!(".global.", $bits, " [{}], {};")),
                    }
                }
            }
        }
    };
    (@rmw $name:ident, $class:ident, $tail:expr) => {
        #[inline(always)]
        unsafe fn $name(address: *mut Self, value: Self, order: Order, scope: Scope) -> Self {
            let before: Self;
            macro_rules! emit {
                ($text:expr) => {
                    asm!($text, out($class) before, in(reg64) address, in($class) value,
                        options(nostack))
                };
            }
            // SAFETY: the caller's contract.
            unsafe { by_order_and_scope!(order, scope, emit, $tail) };
            before
        }
    };
}

word!(u32, reg32, "u32", "b32");
word!(i32, reg32, "s32", "b32");
word!(u64, reg64, "u64", "b64");

macro_rules! on_view {
    ($($name:ident => $method:ident),*) => {$(
        #[inline(always)]
        pub(super) unsafe fn $name<T: Word>(
            view: &Out<T>, index: usize, value: T, order: Order, scope: Scope,
        ) -> T {
            // SAFETY: the caller's contract: the element is inside the view.
            unsafe { T::$method(view.as_ptr().add(index), value, order, scope) }
        }
    )*};
}

on_view!(fetch_add => add, fetch_min => min, fetch_max => max, exchange => exch);

#[inline(always)]
pub(super) unsafe fn compare_exchange<T: Word>(
    view: &Out<T>,
    index: usize,
    expected: T,
    new: T,
    order: Order,
    scope: Scope,
) -> T {
    // SAFETY: the caller's contract: the element is inside the view.
    unsafe { T::cas(view.as_ptr().add(index), expected, new, order, scope) }
}

#[inline(always)]
pub(super) unsafe fn load<T: Word>(view: &Out<T>, index: usize, order: Order, scope: Scope) -> T {
    // SAFETY: the caller's contract: the element is inside the view.
    unsafe { T::ld(view.as_ptr().add(index), order, scope) }
}

#[inline(always)]
pub(super) unsafe fn store<T: Word>(
    view: &Out<T>,
    index: usize,
    value: T,
    order: Order,
    scope: Scope,
) {
    // SAFETY: the caller's contract: the element is inside the view.
    unsafe { T::st(view.as_ptr().add(index), value, order, scope) };
}

#[inline(always)]
pub(super) fn fence(scope: Scope) {
    // SAFETY: a fence only orders.
    unsafe {
        match scope {
            Scope::Block => asm!("fence.acq_rel.cta;", options(nostack)),
            Scope::Device => asm!("fence.acq_rel.gpu;", options(nostack)),
            Scope::System => asm!("fence.acq_rel.sys;", options(nostack)),
        }
    }
}
