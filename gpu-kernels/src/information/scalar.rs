//! The element types of these kernels: what is stored in f32 is computed in f64 all the same.

/// f32 or f64.
pub trait Scalar: bytemuck::Pod {
    /// Zero.
    const ZERO: Self;

    /// The value, exactly.
    fn wide(self) -> f64;

    /// The nearest value.
    fn narrow(value: f64) -> Self;
}

impl Scalar for f64 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value
    }
}

impl Scalar for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn wide(self) -> f64 {
        self as f64
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value as f32
    }
}
