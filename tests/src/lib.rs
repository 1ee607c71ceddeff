//! Comparisons of kernels with the f64 reference, on any device: the executor's tests and the GPU's
//! instantiate the same ones.

pub mod fusion;
pub mod information;
pub mod kasmina;
pub mod linear;
pub mod normalization;
pub mod persistent;
pub mod reduction;

use half::{bf16, f16};

/// Numbers from a seed: the same on every machine.
pub struct Numbers(rand::rngs::SmallRng);

impl Numbers {
    /// Numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(rand::SeedableRng::seed_from_u64(seed))
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        use rand::RngExt;
        self.0.random_range(0..bound)
    }

    /// In [low, high).
    pub fn in_range(&mut self, low: f32, high: f32) -> f32 {
        use rand::RngExt;
        self.0.random_range(low..high)
    }
}

/// An element type with its exact value in f64, and how far a kernel's result may be from the
/// reference.
pub trait Narrow: Copy + bytemuck::Pod + PartialEq + std::fmt::Debug {
    /// The nearest value.
    fn narrow(value: f32) -> Self;
    /// The value, exactly.
    fn wide(self) -> f64;
    /// Relative error of one rounding to this type, times a margin for the arithmetic before it.
    const TOLERANCE: f64;
}

impl Narrow for f32 {
    fn narrow(value: f32) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self.into()
    }
    const TOLERANCE: f64 = 1e-5;
}

impl Narrow for f16 {
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn wide(self) -> f64 {
        self.into()
    }
    const TOLERANCE: f64 = 4e-3;
}

impl Narrow for bf16 {
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn wide(self) -> f64 {
        self.into()
    }
    const TOLERANCE: f64 = 2e-2;
}

/// Asserts that each value is near its reference: relative to the reference where it is large,
/// to `scale` where it is small; NaN where the reference is NaN, and only there.
#[track_caller]
pub fn assert_near(what: &str, got: &[f64], reference: &[f64], scale: f64, tolerance: f64) {
    assert_eq!(got.len(), reference.len(), "{what}");
    for (i, (&got, &reference)) in got.iter().zip(reference).enumerate() {
        if got.is_nan() && reference.is_nan() || got == reference {
            continue;
        }
        assert!(
            approx::relative_eq!(
                got,
                reference,
                max_relative = tolerance,
                epsilon = tolerance * scale
            ),
            "{what}[{i}]: {got} is not near {reference} (tolerance {tolerance}, scale {scale})"
        );
    }
}
