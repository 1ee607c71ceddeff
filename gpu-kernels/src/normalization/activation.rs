//! Activations and their derivatives on registers, chosen by a code that is the same for all threads.
//!
//! For f32 elements they come from `math`'s accurate functions, a few ulp each. For f16 and bf16 they
//! are made of the special-function unit's approximations, whose relative error, 1e-5 or less of the
//! sigmoid, the tanh and Φ, is far below those types' rounding.

use kasmina_device::{math, unroll};
use kasmina_types::Activation;

const LOG2_E: f32 = core::f32::consts::LOG2_E;
const FRAC_1_SQRT_2: f32 = core::f32::consts::FRAC_1_SQRT_2;
/// 1/√(2π).
const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;
/// 2·√(2/π): ½·(1 + tanh z) is σ(2z).
const GELU_SLOPE: f32 = 1.595_769;
const GELU_CUBIC: f32 = 0.044_715;

/// How an element type's activations are computed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Precision {
    /// To a few ulp of f32.
    Full,
    /// For 16-bit elements.
    Half,
}

impl Precision {
    /// That of elements of `T`.
    #[inline(always)]
    pub(crate) const fn of<T>() -> Self {
        if size_of::<T>() == 4 { Self::Full } else { Self::Half }
    }
}

/// Applies the activation of code `kind` to each lane.
#[inline(always)]
pub(crate) fn activate<const L: usize>(precision: Precision, kind: u32, x: &mut [f32; L]) {
    // What the derivative alone needs is dropped by the compiler.
    differentiate(precision, kind, x, &mut [0.0; L]);
}

/// The activation's value, in place of x, and its derivative, for each lane.
///
/// The code is looked at once for a vector, not for each lane, and the functions that are made of the
/// sigmoid share it: they differ in its argument and in what becomes of it.
#[inline(always)]
pub(crate) fn differentiate<const L: usize>(
    precision: Precision,
    kind: u32,
    x: &mut [f32; L],
    derivative: &mut [f32; L],
) {
    if kind == Activation::None as u32 {
        *derivative = [1.0; L];
        return;
    }
    if kind == Activation::Relu as u32 {
        unroll!(l in L => {
            derivative[l] = if x[l] > 0.0 { 1.0 } else { 0.0 };
            // NaN is not below 0, and stays.
            x[l] = if x[l] <= 0.0 { 0.0 } else { x[l] };
        });
        return;
    }
    if kind == Activation::GeluErf as u32 {
        unroll!(l in L => {
            let (distribution, density) = normal(precision, x[l]);
            derivative[l] = math::fma(x[l], density, distribution);
            x[l] *= distribution;
        });
        return;
    }
    // The sigmoid's argument.
    let mut s = *x;
    if kind == Activation::GeluTanh as u32 {
        unroll!(l in L => {
            s[l] = GELU_SLOPE * x[l] * math::fma(GELU_CUBIC, x[l] * x[l], 1.0);
        });
    } else if kind == Activation::Tanh as u32 {
        unroll!(l in L => { s[l] = 2.0 * x[l]; });
    }
    unroll!(l in L => { s[l] = sigmoid(precision, s[l]); });
    if kind == Activation::GeluTanh as u32 {
        unroll!(l in L => {
            // Beyond, s is 0 or 1, and the square may be infinite.
            let square = x[l] * x[l];
            let square = if square > 1e4 { 1e4 } else { square };
            let inner = GELU_SLOPE * math::fma(3.0 * GELU_CUBIC, square, 1.0);
            let value = x[l] * s[l];
            derivative[l] = math::fma(value * (1.0 - s[l]), inner, s[l]);
            x[l] = value;
        });
    } else if kind == Activation::Silu as u32 {
        unroll!(l in L => {
            let value = x[l] * s[l];
            derivative[l] = math::fma(value, 1.0 - s[l], s[l]);
            x[l] = value;
        });
    } else if kind == Activation::Sigmoid as u32 {
        unroll!(l in L => {
            derivative[l] = s[l] * (1.0 - s[l]);
            x[l] = s[l];
        });
    } else {
        unroll!(l in L => {
            x[l] = tanh(precision, x[l], s[l]);
            derivative[l] = math::fma(-x[l], x[l], 1.0);
        });
    }
}

#[inline(always)]
fn sigmoid(precision: Precision, x: f32) -> f32 {
    match precision {
        Precision::Full => math::sigmoid(x),
        Precision::Half => math::rcp(1.0 + math::exp2_approx(-LOG2_E * x)),
    }
}

/// tanh x from s = σ(2x): 2s − 1, which cancels near 0, where a series takes its place.
#[inline(always)]
fn tanh(precision: Precision, x: f32, s: f32) -> f32 {
    let (z, wide) = (x * x, math::fma(2.0, s, -1.0));
    let (near, limit) = match precision {
        Precision::Full => {
            // Its first neglected term is below 2⁻²⁶ of the result.
            let p = math::fma(z, -8.863_236e-3, 2.186_949e-2);
            let p = math::fma(z, p, -5.396_825_5e-2);
            let p = math::fma(z, p, 0.133_333_33);
            let p = math::fma(z, p, -0.333_333_34);
            (math::fma(x * z, p, x), 0.35)
        }
        Precision::Half => (math::fma(x * z, -0.333_333_34, x), 0.0625),
    };
    if x.abs() < limit { near } else { wide }
}

/// Φ(x) and φ(x) of the standard normal distribution.
#[inline(always)]
fn normal(precision: Precision, x: f32) -> (f32, f32) {
    match precision {
        Precision::Full => {
            let distribution = 0.5 * math::erfc(-FRAC_1_SQRT_2 * x);
            // No power of x times e^(−x²/2) is more than 0 there, and the square may be infinite.
            let square = if x.abs() > 20.0 { 400.0 } else { x * x };
            (distribution, FRAC_1_SQRT_2_PI * math::exp(-0.5 * square))
        }
        Precision::Half => {
            // The tail as ½·e^(−x²/2)·t·P(t), t = 1/(1 + 0.45·a) with a = |x|/√2: error 1.1e-5.
            let magnitude = if x.abs() > 20.0 { 20.0 } else { x.abs() };
            let t = math::rcp(math::fma(0.45 * FRAC_1_SQRT_2, magnitude, 1.0));
            let p = math::fma(t, -0.136_039_02, 0.292_874_8);
            let p = math::fma(t, p, 0.088_672_04);
            let p = math::fma(t, p, 0.248_895_5);
            let p = math::fma(t, p, 0.251_615_32);
            let p = math::fma(t, p, 0.253_972_47);
            let e = math::exp2_approx(-0.5 * LOG2_E * magnitude * magnitude);
            let tail = 0.5 * e * (t * p);
            (if x < 0.0 { tail } else { 1.0 - tail }, FRAC_1_SQRT_2_PI * e)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasmina_reference::normalization::Activation as Reference;

    /// Both precisions against f64, relative to max(|value|, 1), and the tails of both relative to
    /// themselves.
    #[test]
    fn values_and_derivatives_are_near_the_reference() {
        for (precision, tolerance) in [(Precision::Full, 2e-6), (Precision::Half, 2e-5)] {
            for (kind, reference) in Activation::ALL.into_iter().zip(Reference::ALL) {
                for i in 0..=40_000 {
                    let x = (i - 20_000) as f32 * 1e-3;
                    let (mut value, mut derivative) = ([x], [0.0]);
                    differentiate(precision, kind as u32, &mut value, &mut derivative);
                    let mut alone = [x];
                    activate(precision, kind as u32, &mut alone);
                    assert_eq!(alone, value, "{kind} at {x}");
                    for (what, got, expected) in [
                        ("value", value[0], reference.value(x.into())),
                        ("derivative", derivative[0], reference.derivative(x.into())),
                    ] {
                        let error = (f64::from(got) - expected).abs() / expected.abs().max(1.0);
                        assert!(error <= tolerance, "{what} of {kind} at {x}: {got}, {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn small_values_keep_their_relative_accuracy() {
        for (precision, tolerance) in [(Precision::Full, 2e-6), (Precision::Half, 3e-5)] {
            for (kind, reference) in Activation::ALL.into_iter().zip(Reference::ALL) {
                for x in [1e-30_f32, 1e-6, 1e-3, 0.0624, 0.0626, 0.34, 0.36, -1e-6, -3.0, -4.0] {
                    let mut value = [x];
                    activate(precision, kind as u32, &mut value);
                    let expected = reference.value(x.into());
                    let error = (f64::from(value[0]) - expected).abs();
                    assert!(error <= tolerance * expected.abs(), "{kind} at {x}: {value:?}");
                }
            }
        }
    }

    #[test]
    fn extremes_are_finite_and_nan_stays() {
        for precision in [Precision::Full, Precision::Half] {
            for (kind, reference) in Activation::ALL.into_iter().zip(Reference::ALL) {
                for x in [1e30_f32, -1e30, 3e38, -3e38, 88.0, -88.0, -104.0] {
                    let (mut value, mut derivative) = ([x], [0.0]);
                    differentiate(precision, kind as u32, &mut value, &mut derivative);
                    let expected = reference.value(x.into());
                    assert!(
                        (f64::from(value[0]) - expected).abs() <= 1e-6 * expected.abs().max(1e-30),
                        "{kind} at {x}: {value:?}, {expected}"
                    );
                    assert!(derivative[0].is_finite(), "{kind} at {x}: {derivative:?}");
                }
                let mut value = [f32::NAN];
                activate(precision, kind as u32, &mut value);
                assert!(value[0].is_nan(), "{kind}");
            }
        }
    }
}
