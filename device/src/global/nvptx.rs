//! `ld.global` and `st.global`, one instruction a vector.

use core::arch::asm;
use core::mem::transmute_copy;

use kasmina_types::{In, Out};

use crate::vector::{LoadHint, StoreHint, Vector};

/// Reads `$bytes` bytes with `$instruction` and gives them as the vector.
macro_rules! read {
    ($instruction:literal, $address:expr, $type:ty, [$($option:ident),*]) => {
        match size_of::<$type>() {
            16 => {
                let (a, b, c, d): (u32, u32, u32, u32);
                asm!(concat!($instruction, ".v4.b32 {{{}, {}, {}, {}}}, [{}];"),
                    out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d,
                    in(reg64) $address, options($($option),*));
                transmute_copy::<_, $type>(&[a, b, c, d])
            }
            8 => {
                let (a, b): (u32, u32);
                asm!(concat!($instruction, ".v2.b32 {{{}, {}}}, [{}];"),
                    out(reg32) a, out(reg32) b, in(reg64) $address, options($($option),*));
                transmute_copy(&[a, b])
            }
            4 => {
                let a: u32;
                asm!(concat!($instruction, ".b32 {}, [{}];"),
                    out(reg32) a, in(reg64) $address, options($($option),*));
                transmute_copy(&a)
            }
            2 => {
                let a: u16;
                asm!(concat!($instruction, ".b16 {}, [{}];"),
                    out(reg16) a, in(reg64) $address, options($($option),*));
                transmute_copy(&a)
            }
            _ => {
                let a: u16;
                asm!(concat!($instruction, ".u8 {}, [{}];"),
                    out(reg16) a, in(reg64) $address, options($($option),*));
                transmute_copy(&(a as u8))
            }
        }
    };
}

/// Writes the vector's bytes with `$instruction`.
macro_rules! write {
    ($instruction:literal, $address:expr, $value:expr) => {
        match size_of_val(&$value) {
            16 => {
                let [a, b, c, d]: [u32; 4] = transmute_copy(&$value);
                asm!(concat!($instruction, ".v4.b32 [{}], {{{}, {}, {}, {}}};"),
                    in(reg64) $address, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d,
                    options(nostack));
            }
            8 => {
                let [a, b]: [u32; 2] = transmute_copy(&$value);
                asm!(concat!($instruction, ".v2.b32 [{}], {{{}, {}}};"),
                    in(reg64) $address, in(reg32) a, in(reg32) b, options(nostack));
            }
            4 => {
                let a: u32 = transmute_copy(&$value);
                asm!(concat!($instruction, ".b32 [{}], {};"),
                    in(reg64) $address, in(reg32) a, options(nostack));
            }
            2 => {
                let a: u16 = transmute_copy(&$value);
                asm!(concat!($instruction, ".b16 [{}], {};"),
                    in(reg64) $address, in(reg16) a, options(nostack));
            }
            _ => {
                let a: u8 = transmute_copy(&$value);
                asm!(concat!($instruction, ".u8 [{}], {};"),
                    in(reg64) $address, in(reg16) u16::from(a), options(nostack));
            }
        }
    };
}

/// Refuses, at compile time, a vector that no single instruction moves.
#[inline(always)]
fn check_width<T, const N: usize>() {
    const { assert!(matches!(size_of::<Vector<T, N>>(), 1 | 2 | 4 | 8 | 16)) };
}

/// # Safety
/// The `N` elements from `index` are inside the view, aligned for one access, and nobody writes them
/// while the kernel runs: which is what makes the load `pure`.
#[inline(always)]
pub(super) unsafe fn load_constant<T: Copy, const N: usize, const COHERENT: bool>(
    view: &In<T, COHERENT>,
    index: usize,
    hint: LoadHint,
) -> Vector<T, N> {
    check_width::<T, N>();
    // SAFETY: the caller's contract; each arm moves exactly the vector's bytes.
    unsafe {
        let address = view.as_ptr().add(index);
        match hint {
            LoadHint::Cached => {
                read!("ld.global.nc", address, Vector<T, N>, [pure, nomem, nostack])
            }
            #[cfg(not(target_feature = "ptx74"))]
            LoadHint::Streaming => {
                read!("ld.global.nc", address, Vector<T, N>, [pure, nomem, nostack])
            }
            #[cfg(target_feature = "ptx74")]
            LoadHint::Streaming => {
                read!("ld.global.nc.L1::no_allocate", address, Vector<T, N>, [pure, nomem, nostack])
            }
        }
    }
}

/// # Safety
/// The `N` elements from `index` are inside the view and aligned for one access.
#[inline(always)]
pub(super) unsafe fn load<T: Copy, const N: usize>(view: &Out<T>, index: usize) -> Vector<T, N> {
    check_width::<T, N>();
    // SAFETY: the caller's contract. Not `pure`: another thread may write between two loads.
    unsafe {
        let address = view.as_ptr().add(index);
        read!("ld.global", address, Vector<T, N>, [readonly, nostack])
    }
}

/// # Safety
/// As [`load`], and no other thread accesses the elements without an order to this store.
#[inline(always)]
pub(super) unsafe fn store<T: Copy, const N: usize>(
    view: &Out<T>,
    index: usize,
    value: Vector<T, N>,
    hint: StoreHint,
) {
    check_width::<T, N>();
    // SAFETY: the caller's contract; each arm moves exactly the vector's bytes.
    unsafe {
        let address = view.as_ptr().add(index);
        match hint {
            StoreHint::Cached => write!("st.global", address, value),
            StoreHint::Streaming => write!("st.global.cs", address, value),
        }
    }
}
