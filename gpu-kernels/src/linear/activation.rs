//! Activations and their derivatives in f64, to a few units of 10⁻¹⁵: for products that are pinned to f64.

use core::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LN_2, LOG2_E};

use kasmina_device::math::fma_f64;
use kasmina_types::Activation;

/// ln 2 without its last 21 bits, whose product with a whole number is exact, and the rest.
const LN_2_HIGH: f64 = f64::from_bits(LN_2.to_bits() & !0x1f_ffff);
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// 1.5·2⁵²: what is added to it is rounded to a whole number.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
const FRAC_1_SQRT_PI: f64 = 0.5 * FRAC_2_SQRT_PI;
const GELU_CUBIC: f64 = 0.044_715;
/// 2·√(2/π): ½·(1 + tanh z) is σ(2z).
const GELU_SLOPE: f64 = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
/// Where the series for erf hands over to the continued fraction for erfc.
const ERFC_SERIES: f64 = 2.0;
/// Terms of either that leave less than 10⁻¹⁷ there.
const ERFC_TERMS: u32 = 50;

/// The activation of code `kind`, and its derivative.
#[inline(always)]
pub(crate) fn differentiate_f64(kind: u32, x: f64) -> (f64, f64) {
    if kind == Activation::None as u32 {
        return (x, 1.0);
    }
    if kind == Activation::Relu as u32 {
        // NaN is not below 0, and stays.
        return (if x <= 0.0 { 0.0 } else { x }, if x > 0.0 { 1.0 } else { 0.0 });
    }
    if kind == Activation::GeluErf as u32 {
        let distribution = 0.5 * erfc(-FRAC_1_SQRT_2 * x);
        let density = FRAC_1_SQRT_PI * FRAC_1_SQRT_2 * exp(-0.5 * bounded_square(x));
        return (x * distribution, fma_f64(x, density, distribution));
    }
    if kind == Activation::GeluTanh as u32 {
        let square = bounded_square(x);
        let s = sigmoid(GELU_SLOPE * x * fma_f64(GELU_CUBIC, square, 1.0));
        let inner = GELU_SLOPE * fma_f64(3.0 * GELU_CUBIC, square, 1.0);
        return (x * s, fma_f64(x * s * (1.0 - s), inner, s));
    }
    if kind == Activation::Silu as u32 {
        let s = sigmoid(x);
        return (x * s, fma_f64(x * s, 1.0 - s, s));
    }
    if kind == Activation::Sigmoid as u32 {
        let s = sigmoid(x);
        return (s, s * (1.0 - s));
    }
    let t = tanh(x);
    (t, fma_f64(-t, t, 1.0))
}

/// x², no more than where every function of it here has come to its limit.
#[inline(always)]
fn bounded_square(x: f64) -> f64 {
    let square = x * x;
    if square > 1e4 { 1e4 } else { square }
}

/// eˣ = 2ⁿ·eʳ with |r| ≤ ½·ln 2, and eʳ by its series.
#[inline(always)]
fn exp(x: f64) -> f64 {
    let x = if x > 800.0 { 800.0 } else { x };
    let x = if x < -800.0 { -800.0 } else { x };
    let n = fma_f64(x, LOG2_E, ROUNDER) - ROUNDER;
    let r = fma_f64(-n, LN_2_LOW, fma_f64(-n, LN_2_HIGH, x));
    let mut sum = 1.0;
    let mut term = 14;
    while term > 0 {
        sum = fma_f64(sum * r, 1.0 / f64::from(term), 1.0);
        term -= 1;
    }
    // Two factors: one may not be a normal number.
    let n = n as i32;
    let half = n >> 1;
    let power = |n: i32| f64::from_bits(((n + 1023) as u64) << 52);
    sum * power(half) * power(n - half)
}

#[inline(always)]
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// 2·σ(2x) − 1, which cancels near 0, where a continued fraction takes its place.
#[inline(always)]
fn tanh(x: f64) -> f64 {
    if !(-0.35..=0.35).contains(&x) {
        return fma_f64(2.0, sigmoid(2.0 * x), -1.0);
    }
    let square = x * x;
    let mut fraction = 19.0;
    let mut odd = 17.0;
    while odd > 0.0 {
        fraction = odd + square / fraction;
        odd -= 2.0;
    }
    x / fraction
}

/// 1 − erf y.
#[inline(always)]
fn erfc(y: f64) -> f64 {
    let magnitude = if y < 0.0 { -y } else { y };
    // NaN takes the first way, and stays.
    let square = if magnitude > 28.0 { 784.0 } else { magnitude * magnitude };
    let gauss = exp(-square);
    let tail = if magnitude > ERFC_SERIES {
        let mut fraction = magnitude;
        let mut n = ERFC_TERMS;
        while n > 0 {
            fraction = magnitude + 0.5 * f64::from(n) / fraction;
            n -= 1;
        }
        FRAC_1_SQRT_PI * gauss / fraction
    } else {
        let (mut term, mut sum, mut n) = (magnitude, magnitude, 0);
        while n < ERFC_TERMS {
            term *= 2.0 * square / f64::from(2 * n + 3);
            sum += term;
            n += 1;
        }
        1.0 - FRAC_2_SQRT_PI * gauss * sum
    };
    if y < 0.0 { 2.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasmina_reference::normalization::Activation as Reference;

    #[test]
    fn values_and_derivatives_are_the_references() {
        for (kind, reference) in Activation::ALL.into_iter().zip(Reference::ALL) {
            for i in -30_000..=30_000 {
                let x = f64::from(i) * 1e-3;
                let (value, slope) = differentiate_f64(kind as u32, x);
                for (what, got, expected) in [
                    ("value", value, reference.value(x)),
                    ("derivative", slope, reference.derivative(x)),
                ] {
                    let error = (got - expected).abs() / expected.abs().max(1.0);
                    // 1 − σ is off by half a unit of 1, and may be multiplied by 40.
                    assert!(error < 1e-14, "{what} of {kind} at {x}: {got}, {expected}");
                }
            }
        }
    }

    #[test]
    fn extremes_are_finite_and_nan_stays() {
        for (kind, reference) in Activation::ALL.into_iter().zip(Reference::ALL) {
            for x in [1e200, -1e200, 1e5, -1e5, 800.0, -800.0, 1e-300, -1e-9] {
                let (value, slope) = differentiate_f64(kind as u32, x);
                let expected = reference.value(x);
                assert!(
                    (value - expected).abs() <= 1e-14 * expected.abs(),
                    "{kind} at {x}: {value}, {expected}"
                );
                assert!(slope.is_finite(), "{kind} at {x}");
            }
            assert!(differentiate_f64(kind as u32, f64::NAN).0.is_nan(), "{kind}");
        }
    }
}
