//! `ld.shared` and `st.shared` on 32-bit addresses.

use core::arch::{asm, global_asm};
use core::mem::transmute_copy;

use crate::vector::Vector;

/// An array's shared address.
pub(super) type Array = u32;

global_asm!(".extern .shared .align 1024 .b8 kasmina_dynamic_shared[];");

#[inline(always)]
pub(super) fn dynamic() -> (Array, usize) {
    let (address, bytes): (u32, u32);
    // SAFETY: reads an address and a special register.
    unsafe {
        asm!(
            "mov.u32 {}, kasmina_dynamic_shared;", "mov.u32 {}, %dynamic_smem_size;",
            out(reg32) address, out(reg32) bytes, options(pure, nomem, nostack)
        );
    }
    (address, bytes as usize)
}

/// The generic address.
#[inline(always)]
pub(super) fn generic(
    array: Array,
    _array_bytes: usize,
    offset: usize,
    _bytes: usize,
) -> *const u8 {
    let address: u64;
    // SAFETY: computes an address.
    unsafe {
        asm!("{{.reg .u64 wide; cvt.u64.u32 wide, {1}; cvta.shared.u64 {0}, wide;}}", out(reg64) address,
            in(reg32) array + offset as u32, options(pure, nomem, nostack));
    }
    address as *const u8
}

/// # Safety
/// The `M` elements from `index` are inside the array, written, and aligned for one access.
#[inline(always)]
pub(super) unsafe fn load<T: Copy, const M: usize>(
    array: Array,
    _array_bytes: usize,
    index: usize,
) -> Vector<T, M> {
    const { assert!(size_of::<Vector<T, M>>() <= 16, "one access moves at most 16 bytes") };
    let address = array + (index * size_of::<T>()) as u32;
    // SAFETY: the caller's contract; each arm moves exactly the vector's bytes. The loads are not
    // `pure`: another thread may write between two of them.
    unsafe {
        match size_of::<Vector<T, M>>() {
            16 => {
                let (a, b, c, d): (u32, u32, u32, u32);
                asm!("ld.shared.v4.b32 {{{}, {}, {}, {}}}, [{}];",
                    out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) address,
                    options(readonly, nostack));
                transmute_copy(&[a, b, c, d])
            }
            8 => {
                let (a, b): (u32, u32);
                asm!("ld.shared.v2.b32 {{{}, {}}}, [{}];",
                    out(reg32) a, out(reg32) b, in(reg32) address, options(readonly, nostack));
                transmute_copy(&[a, b])
            }
            4 => {
                let a: u32;
                asm!("ld.shared.b32 {}, [{}];", out(reg32) a, in(reg32) address,
                    options(readonly, nostack));
                transmute_copy(&a)
            }
            2 => {
                let a: u16;
                asm!("ld.shared.b16 {}, [{}];", out(reg16) a, in(reg32) address,
                    options(readonly, nostack));
                transmute_copy(&a)
            }
            1 => {
                let a: u32;
                asm!("ld.shared.u8 {}, [{}];", out(reg32) a, in(reg32) address,
                    options(readonly, nostack));
                transmute_copy(&(a as u8))
            }
            _ => unreachable!(),
        }
    }
}

/// # Safety
/// As [`load`], and no other thread accesses the elements until a barrier.
#[inline(always)]
pub(super) unsafe fn store<T: Copy, const M: usize>(
    array: Array,
    _array_bytes: usize,
    index: usize,
    value: Vector<T, M>,
) {
    const { assert!(size_of::<Vector<T, M>>() <= 16, "one access moves at most 16 bytes") };
    let address = array + (index * size_of::<T>()) as u32;
    // SAFETY: the caller's contract; each arm moves exactly the vector's bytes.
    unsafe {
        match size_of::<Vector<T, M>>() {
            16 => {
                let [a, b, c, d]: [u32; 4] = transmute_copy(&value);
                asm!("st.shared.v4.b32 [{}], {{{}, {}, {}, {}}};", in(reg32) address,
                    in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d, options(nostack));
            }
            8 => {
                let [a, b]: [u32; 2] = transmute_copy(&value);
                asm!("st.shared.v2.b32 [{}], {{{}, {}}};", in(reg32) address,
                    in(reg32) a, in(reg32) b, options(nostack));
            }
            4 => {
                let a: u32 = transmute_copy(&value);
                asm!("st.shared.b32 [{}], {};", in(reg32) address, in(reg32) a, options(nostack));
            }
            2 => {
                let a: u16 = transmute_copy(&value);
                asm!("st.shared.b16 [{}], {};", in(reg32) address, in(reg16) a, options(nostack));
            }
            1 => {
                let a: u8 = transmute_copy(&value);
                asm!("st.shared.u8 [{}], {};", in(reg32) address, in(reg32) u32::from(a),
                    options(nostack));
            }
            _ => unreachable!(),
        }
    }
}
