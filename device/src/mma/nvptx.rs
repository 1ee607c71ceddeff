//! `mma.sync`, `ldmatrix` and `stmatrix` on 32-bit shared addresses.

use core::arch::asm;

use kasmina_types::{bf16, f16};

use crate::shared::Place;
use crate::wgmma::Tf32;

/// The instruction of an element.
pub trait Product {
    #[doc(hidden)]
    unsafe fn product(d: &mut [f32; 4], a: [u32; 4], b: [u32; 2]);
}

macro_rules! products {
    ($($element:ty, $shape:literal, $types:literal;)*) => {$(
        impl Product for $element {
            #[inline(always)]
            unsafe fn product(d: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
                // SAFETY: the caller's contract. It touches no memory; it is not `pure`, for all lanes take part.
                unsafe {
                    asm!(
                        concat!("mma.sync.aligned.", $shape, ".row.col.f32.", $types, ".f32 ",
                            "{{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, ",
                            "{{{0}, {1}, {2}, {3}}};"),
                        inout(reg32) d[0], inout(reg32) d[1], inout(reg32) d[2], inout(reg32) d[3],
                        in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3],
                        in(reg32) b[0], in(reg32) b[1], options(nomem, nostack)
                    );
                }
            }
        }
    )*};
}
products! {
    bf16, "m16n8k16", "bf16.bf16";
    f16, "m16n8k16", "f16.f16";
    Tf32, "m16n8k8", "tf32.tf32";
}

/// The instructions for a number of matrices.
pub trait Matrices: Sized {
    #[doc(hidden)]
    unsafe fn load<const TRANSPOSED: bool>(row: Place) -> Self;
    #[doc(hidden)]
    unsafe fn store<const TRANSPOSED: bool>(row: Place, matrices: Self);
}

macro_rules! matrices {
    ($count:literal, $braces:literal, [$($i:literal)*]) => {
        impl Matrices for [u32; $count] {
            #[inline(always)]
            unsafe fn load<const TRANSPOSED: bool>(row: Place) -> Self {
                let mut matrices = [0; $count];
                macro_rules! emit {
                    ($order:literal) => {
                        asm!(concat!("ldmatrix.sync.aligned.m8n8.x", $count, $order, ".shared.b16 ", $braces,
                                ", [{row}];"),
                            $(out(reg32) matrices[$i],)* row = in(reg32) row.address(), options(nostack))
                    };
                }
                // SAFETY: the caller's contract.
                unsafe { if TRANSPOSED { emit!(".trans") } else { emit!("") } };
                matrices
            }

            #[inline(always)]
            unsafe fn store<const TRANSPOSED: bool>(row: Place, matrices: Self) {
                macro_rules! emit {
                    ($order:literal) => {
                        asm!(concat!("stmatrix.sync.aligned.m8n8.x", $count, $order, ".shared.b16 [{row}], ",
                                $braces, ";"),
                            $(in(reg32) matrices[$i],)* row = in(reg32) row.address(), options(nostack))
                    };
                }
                // SAFETY: the caller's contract.
                unsafe { if TRANSPOSED { emit!(".trans") } else { emit!("") } };
            }
        }
    };
}
matrices!(1, "{{{0}}}", [0]);
matrices!(2, "{{{0}, {1}}}", [0 1]);
matrices!(4, "{{{0}, {1}, {2}, {3}}}", [0 1 2 3]);
