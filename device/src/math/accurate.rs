//! exp, log, tanh, the sigmoid, erf and erfc in f32, by range reduction and polynomials, the same code on every
//! device. Errors stated are the largest found against f64 by this crate's tests.

use super::fma;

const LOG2_E: f32 = core::f32::consts::LOG2_E;
/// ln 2 in two parts: the first has trailing zeros, so that n·LN2_HIGH is exact.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
fn exp2_integer(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// eˣ within 1.5 ulp; overflows to ∞ above 88.72, underflows gradually to 0.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // x = n·ln 2 + r, |r| ≤ ln 2 / 2. Clamping keeps n in range; NaN goes through the polynomial.
    let clamped = x.clamp(-104.0, 89.0);
    let n = round(clamped * LOG2_E);
    let r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, clamped));
    // Taylor to r⁷/7!, error below 2⁻²⁸ on the interval.
    let p = fma(r, 1.984_127e-4, 1.388_889e-3);
    let p = fma(p, r, 8.333_334e-3);
    let p = fma(p, r, 4.166_666_8e-2);
    let p = fma(p, r, 0.166_666_67);
    let p = fma(p, r, 0.5);
    let p = fma(p, r, 1.0);
    let p = fma(p, r, 1.0);
    // In two halves, because 2ⁿ alone may be outside the exponent's range.
    let n = n as i32;
    let half = n >> 1;
    p * exp2_integer(half) * exp2_integer(n - half)
}

/// ln x within 2 ulp; −∞ at 0, NaN below.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    // Subnormals are scaled up; x = m·2ᵉ with m in [2/3, 4/3).
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    let e = (bits.wrapping_sub(0x3f2a_aaab)) >> 23;
    let m = f32::from_bits((bits - (e << 23)) as u32);
    let e = (e - if subnormal { 23 } else { 0 }) as f32;
    // ln m = 2·atanh(s), s = (m−1)/(m+1), |s| ≤ 1/5.
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let p = fma(z, 0.153_138_37, 0.181_833_57);
    let p = fma(z, p, 0.222_222_2);
    let p = fma(z, p, 0.285_714_3);
    let p = fma(z, p, 0.4);
    let p = fma(z, p, 0.666_666_7);
    let half_square = 0.5 * f * f;
    // f − f²/2 + s·(f²/2 + z·p): the large terms are exact.
    let tail = fma(s, fma(z, p, half_square), e * LN2_LOW);
    let result = fma(e, LN2_HIGH, f - (half_square - tail));
    if x == f32::INFINITY {
        f32::INFINITY
    } else if x > 0.0 {
        result
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else {
        f32::NAN
    }
}

/// tanh x within 3 ulp.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let magnitude = if a < 0.55 {
        // Odd Taylor series; its first neglected term is below 2⁻²⁷ of the result.
        let z = x * x;
        let p = fma(z, 5.904_130_3e-4, -1.455_834_4e-3);
        let p = fma(z, p, 3.592_128e-3);
        let p = fma(z, p, -8.863_236e-3);
        let p = fma(z, p, 2.186_949e-2);
        let p = fma(z, p, -5.396_825_5e-2);
        let p = fma(z, p, 0.133_333_33);
        let p = fma(z, p, -0.333_333_34);
        fma(a * z, p, a)
    } else if a > 10.0 {
        1.0
    } else {
        // 1 − 2/(e²ᵃ + 1); NaN stays NaN.
        1.0 - 2.0 / (exp(2.0 * a) + 1.0)
    };
    if x < 0.0 { -magnitude } else { magnitude }
}

/// 1/(1 + e⁻ˣ) within 3 ulp.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// erf x within 2 ulp.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let magnitude = if a < 0.9 {
        // (erf(x)/x − 1) as a polynomial in x², by interpolation at Chebyshev's points: error 3e-10.
        let z = x * x;
        let p = fma(z, 8.529_401_4e-5, -8.179_632e-4);
        let p = fma(z, p, 5.204_227e-3);
        let p = fma(z, p, -2.686_066_5e-2);
        let p = fma(z, p, 0.112_837_18);
        let p = fma(z, p, -0.376_126_35);
        let p = fma(z, p, 0.128_379_17);
        fma(a, p, a)
    } else {
        // NaN stays NaN.
        1.0 - erfc_of_magnitude(a)
    };
    if x < 0.0 { -magnitude } else { magnitude }
}

/// erfc x = 1 − erf x within 8 ulp where it is not subnormal: its tail is not lost in a difference.
/// Most of the error is the rounding of t below, which the function magnifies.
#[inline(always)]
pub fn erfc(x: f32) -> f32 {
    let tail = erfc_of_magnitude(x.abs());
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// erfc a for a ≥ 0, as e^(−a²)·t·P(t) with t = 1/(1 + 0.3·a). P interpolates at Chebyshev's points of
/// a from 0 to 10.2: error 3e-8. Beyond, the factor e^(−a²) is below every f32.
#[inline(always)]
fn erfc_of_magnitude(a: f32) -> f32 {
    let a = if a > 10.2 { 10.2 } else { a };
    let t = 1.0 / fma(a, 0.3, 1.0);
    // About the middle of t's range the polynomial's roundings are small.
    let s = t - 0.625;
    let p = fma(s, -0.130_845_16, -0.161_939_3);
    let p = fma(s, p, 0.195_778_49);
    let p = fma(s, p, 0.838_964_9);
    let p = fma(s, p, 1.380_957_6);
    let p = fma(s, p, 1.517_934_9);
    let p = fma(s, p, 1.250_465);
    let p = fma(s, p, 0.804_314_55);
    let p = fma(s, p, 0.408_633_08);
    // The rounding of a² is made good: at a = 9 it would cost 40 ulp.
    let square = a * a;
    let low = fma(a, a, -square);
    let e = exp(-square);
    fma(-low, e, e) * (t * p)
}

/// To the nearest integer, for |x| < 2²²: adding 1.5·2²³ leaves no place for a fraction.
#[inline(always)]
fn round(x: f32) -> f32 {
    (x + 12_582_912.0) - 12_582_912.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error in units in the last place of the true value, over `samples` of [low, high].
    fn worst_ulp(low: f32, high: f32, f: fn(f32) -> f32, truth: fn(f64) -> f64) -> f64 {
        let samples = 400_000;
        (0..=samples).fold(0.0, |worst: f64, i| {
            let x = low + (high - low) * (i as f32 / samples as f32);
            let exact = truth(f64::from(x));
            let magnitude = (exact.abs() as f32).max(f32::MIN_POSITIVE);
            let ulp = f64::from(f32::from_bits(magnitude.to_bits() + 1)) - f64::from(magnitude);
            worst.max((f64::from(f(x)) - exact).abs() / ulp)
        })
    }

    #[test]
    fn exp_is_within_1_5_ulp() {
        assert!(worst_ulp(-87.0, 88.7, exp, f64::exp) <= 1.5);
        assert!(worst_ulp(-1.0, 1.0, exp, f64::exp) <= 1.5);
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.5), f32::INFINITY);
        assert_eq!(exp(-104.5), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0, "gradual underflow");
    }

    #[test]
    fn log_is_within_2_ulp() {
        assert!(worst_ulp(1e-3, 0.99, log, f64::ln) <= 2.0);
        assert!(worst_ulp(0.9, 1.1, log, f64::ln) <= 2.0);
        assert!(worst_ulp(1.01, 1e6, log, f64::ln) <= 2.0);
    }

    #[test]
    fn log_at_the_edges() {
        assert_eq!(log(1.0), 0.0);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert!(log(-1.0).is_nan());
        assert!(log(f32::NAN).is_nan());
        assert!((f64::from(log(1e-42)) - f64::from(1e-42_f32).ln()).abs() < 1e-5);
    }

    #[test]
    fn tanh_and_sigmoid_are_within_3_ulp() {
        assert!(worst_ulp(-12.0, 12.0, tanh, f64::tanh) <= 3.0);
        assert!(worst_ulp(-0.6, 0.6, tanh, f64::tanh) <= 3.0);
        assert!(worst_ulp(-20.0, 20.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp())) <= 3.0);
        assert!(tanh(f32::NAN).is_nan());
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
    }

    /// erfc by its continued fraction above 2, and by erf's series below: neither is this file's way.
    fn erfc_truth(x: f64) -> f64 {
        let a = x.abs();
        let tail = if a > 2.0 {
            let fraction = (1..=120).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (a + f));
            (-a * a).exp() / (a + fraction) / std::f64::consts::PI.sqrt()
        } else {
            1.0 - erf_series(a)
        };
        if x < 0.0 { 2.0 - tail } else { tail }
    }

    fn erf_truth(x: f64) -> f64 {
        if x.abs() > 2.0 { x.signum() * (1.0 - erfc_truth(x.abs())) } else { erf_series(x) }
    }

    /// 2/√π · e^(−x²) · Σ 2ⁿ·x²ⁿ⁺¹ / (1·3·…·(2n+1)): all terms of one sign.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn erf_is_within_2_ulp_and_erfc_within_8() {
        assert!((erfc_truth(2.0) - 4.677_734_981_047_266e-3).abs() < 1e-15);
        assert!((erf_truth(0.5) - 0.520_499_877_813_046_5).abs() < 1e-15);
        for (low, high) in [(-4.5, 4.5), (-1.0, 1.0), (-1e-3, 1e-3), (0.85, 0.95)] {
            let worst = worst_ulp(low, high, erf, erf_truth);
            assert!(worst <= 2.0, "erf in {low}..{high}: {worst}");
        }
        for (low, high) in [(-4.0, 1.0), (0.0, 0.2), (0.0, 2.5), (2.0, 9.0)] {
            let worst = worst_ulp(low, high, erfc, erfc_truth);
            assert!(worst <= 8.0, "erfc in {low}..{high}: {worst}");
        }
    }

    #[test]
    fn erf_and_erfc_at_the_edges() {
        assert_eq!((erf(0.0), erfc(0.0)), (0.0, 1.0));
        assert_eq!((erf(f32::INFINITY), erfc(f32::INFINITY)), (1.0, 0.0));
        assert_eq!((erf(f32::NEG_INFINITY), erfc(f32::NEG_INFINITY)), (-1.0, 2.0));
        assert_eq!((erf(20.0), erfc(20.0), erfc(1e30)), (1.0, 0.0, 0.0));
        assert!(erf(f32::NAN).is_nan() && erfc(f32::NAN).is_nan());
        assert!((f64::from(erf(1e-30)) / 1.128_379_167e-30 - 1.0).abs() < 1e-6);
    }
}
