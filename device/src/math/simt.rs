//! The same functions on the host. The GPU's approximations become the rounded true values.

pub(super) fn exp2_approx(x: f32) -> f32 {
    f64::from(x).exp2() as f32
}

pub(super) fn log2_approx(x: f32) -> f32 {
    f64::from(x).log2() as f32
}

pub(super) fn tanh_approx(x: f32) -> f32 {
    f64::from(x).tanh() as f32
}

pub(super) fn rsqrt(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

pub(super) fn rcp(x: f32) -> f32 {
    1.0 / x
}

pub(super) fn sqrt(x: f32) -> f32 {
    x.sqrt()
}

#[inline(always)]
pub(super) fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

#[inline(always)]
pub(super) fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    a.mul_add(b, c)
}

pub(super) fn sqrt_f64(x: f64) -> f64 {
    x.sqrt()
}

pub(super) fn min(a: f32, b: f32) -> f32 {
    a.min(b)
}

pub(super) fn max(a: f32, b: f32) -> f32 {
    a.max(b)
}

pub(super) fn minimum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { a.min(b) }
}

pub(super) fn maximum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }
}
