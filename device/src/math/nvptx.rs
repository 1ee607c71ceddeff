//! The special-function unit, and the compiler's own fused multiply-add.

use core::arch::asm;

macro_rules! unary {
    ($($name:ident = $instruction:literal),* $(,)?) => {$(
        #[inline(always)]
        pub(super) fn $name(x: f32) -> f32 {
            let y: f32;
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(concat!($instruction, " {}, {};"), out(reg32) y, in(reg32) x,
                    options(pure, nomem, nostack));
            }
            y
        }
    )*};
}

unary! {
    exp2_approx = "ex2.approx.f32",
    log2_approx = "lg2.approx.f32",
    rsqrt = "rsqrt.approx.f32",
    rcp = "rcp.approx.f32",
    sqrt = "sqrt.rn.f32",
}

#[inline(always)]
pub(super) fn tanh_approx(x: f32) -> f32 {
    if cfg!(target_feature = "sm_75") {
        let y: f32;
        // SAFETY: arithmetic on registers.
        unsafe {
            asm!("tanh.approx.f32 {}, {};", out(reg32) y, in(reg32) x,
                options(pure, nomem, nostack));
        }
        y
    } else {
        super::tanh(x)
    }
}

#[inline(always)]
pub(super) fn fma(a: f32, b: f32, c: f32) -> f32 {
    core::intrinsics::fmaf32(a, b, c)
}

#[inline(always)]
pub(super) fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    core::intrinsics::fmaf64(a, b, c)
}

#[inline(always)]
pub(super) fn sqrt_f64(x: f64) -> f64 {
    core::intrinsics::sqrtf64(x)
}

#[inline(always)]
pub(super) fn min(a: f32, b: f32) -> f32 {
    f32::min(a, b)
}

#[inline(always)]
pub(super) fn max(a: f32, b: f32) -> f32 {
    f32::max(a, b)
}

macro_rules! propagating {
    ($name:ident, $instruction:literal, $comparison:tt) => {
        #[cfg(target_feature = "sm_80")]
        #[inline(always)]
        pub(super) fn $name(a: f32, b: f32) -> f32 {
            let y: f32;
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(concat!($instruction, " {}, {}, {};"), out(reg32) y, in(reg32) a,
                    in(reg32) b, options(pure, nomem, nostack));
            }
            y
        }

        #[cfg(not(target_feature = "sm_80"))]
        #[inline(always)]
        pub(super) fn $name(a: f32, b: f32) -> f32 {
            if a $comparison b || a.is_nan() { a } else { b }
        }
    };
}

propagating!(minimum, "min.NaN.f32", <);
propagating!(maximum, "max.NaN.f32", >);
