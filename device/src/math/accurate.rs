//! exp, log, tanh and the sigmoid in f32, by range reduction and polynomials, the same code on every
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
}
