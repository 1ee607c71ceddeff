//! Elementary functions.
//!
//! The accurate ones (`exp`, `log`, `tanh`, `sigmoid`, `erf`, `erfc`) are one portable algorithm each, so that GPU
//! and executor agree to the last bits; the `*_approx` ones are single instructions of the GPU's
//! special-function unit, with the error that the PTX manual states. Nothing is contracted: where a
//! fused multiply-add is wanted, [`fma`] says so.

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

mod accurate;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

pub use accurate::{erf, erfc, exp, log, sigmoid, tanh};

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(x: f32) -> f32 {
            imp::$name(x)
        }
    )*};
}

unary! {
    /// 2ˣ by `ex2.approx`: 2 ulp.
    exp2_approx,
    /// log₂ x by `lg2.approx`: absolute error 2⁻²² for x in \[0.5, 2\], else 2 ulp.
    log2_approx,
    /// tanh x by `tanh.approx` where there is one (sm_75), relative error 2⁻¹¹; else [`tanh`].
    tanh_approx,
    /// 1/√x by `rsqrt.approx`: 2 ulp.
    rsqrt,
    /// 1/x by `rcp.approx`: 1 ulp.
    rcp,
    /// √x, correctly rounded.
    sqrt,
}

/// a·b + c, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    imp::fma(a, b, c)
}

/// a·b + c in f64, rounded once.
#[inline(always)]
pub fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    imp::fma_f64(a, b, c)
}

/// √x in f64, correctly rounded.
#[inline(always)]
pub fn sqrt_f64(x: f64) -> f64 {
    imp::sqrt_f64(x)
}

/// ln x in f64, within 1 ulp; the same code on every device.
#[inline(always)]
pub fn log_f64(x: f64) -> f64 {
    libm::log(x)
}

/// The smaller number; the other one where one is NaN.
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    imp::min(a, b)
}

/// The larger number; the other one where one is NaN.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    imp::max(a, b)
}

/// The smaller number; NaN where one is NaN.
#[inline(always)]
pub fn minimum(a: f32, b: f32) -> f32 {
    imp::minimum(a, b)
}

/// The larger number; NaN where one is NaN.
#[inline(always)]
pub fn maximum(a: f32, b: f32) -> f32 {
    imp::maximum(a, b)
}
