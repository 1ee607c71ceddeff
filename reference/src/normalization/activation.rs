//! Activations and their derivatives, in f64 from their definitions.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// The cubic term's factor in GELU's tanh form.
const GELU_CUBIC: f64 = 0.044715;

/// A function of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x.
    None,
    /// max(x, 0).
    Relu,
    /// x·Φ(x).
    GeluErf,
    /// x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    GeluTanh,
    /// x·σ(x).
    Silu,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// tanh x.
    Tanh,
}

impl Activation {
    /// Every function.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Relu,
        Self::GeluErf,
        Self::GeluTanh,
        Self::Silu,
        Self::Sigmoid,
        Self::Tanh,
    ];

    /// The function's value.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::None => x,
            // NaN stays NaN.
            Self::Relu if x <= 0.0 => 0.0,
            Self::Relu => x,
            Self::GeluErf => x * normal_distribution(x),
            Self::GeluTanh => x * 0.5 * (1.0 + gelu_argument(x).tanh()),
            Self::Silu => x * sigmoid(x),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
        }
    }

    /// Its derivative; ReLU's at 0 is 0.
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Relu => f64::from(x > 0.0),
            Self::GeluErf => normal_distribution(x) + x * normal_density(x),
            Self::GeluTanh => {
                let t = gelu_argument(x).tanh();
                let slope = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (1.0 + 3.0 * GELU_CUBIC * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
            }
            Self::Silu => sigmoid(x) * (1.0 + x * sigmoid(-x)),
            Self::Sigmoid => sigmoid(x) * sigmoid(-x),
            Self::Tanh => 1.0 - x.tanh().powi(2),
        }
    }
}

/// √(2/π)·(x + 0.044715·x³).
fn gelu_argument(x: f64) -> f64 {
    FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + GELU_CUBIC * x.powi(3))
}

/// Φ(x) = ½·erfc(−x/√2).
fn normal_distribution(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// e^(−x²/2)/√(2π).
fn normal_density(x: f64) -> f64 {
    0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (-0.5 * x * x).exp()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
