//! The floating-point types that the reference computes in.

use num_traits::Float;

/// `f32` or `f64`.
pub trait Real: Float + Send + Sync + 'static {
    /// Rounds to the nearest value of this type.
    fn from_f64(value: f64) -> Self;

    /// Converts exactly.
    fn as_f64(self) -> f64;
}

impl Real for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }

    fn as_f64(self) -> f64 {
        self
    }
}
