//! GELU of results in bf16, by the special-function unit's tanh: to 2⁻¹¹ of |x|, a quarter of bf16's half unit.

use kasmina_device::{math, unroll};
use kasmina_types::Activation;

/// √(2/π), and the same by the factor of the cube.
const LINEAR: f32 = 0.797_884_6;
const CUBIC: f32 = LINEAR * 0.044_715;

/// Applies the activation of code `kind` if it is a GELU, and says whether it is.
#[inline(always)]
pub(super) fn gelu_for_bf16<const L: usize>(kind: u32, x: &mut [f32; L]) -> bool {
    if kind == Activation::GeluTanh as u32 {
        unroll!(l in L => { x[l] = tanh_form(x[l]); });
        return true;
    }
    if kind == Activation::GeluErf as u32 {
        unroll!(l in L => { x[l] = erf_form(x[l]); });
        return true;
    }
    false
}

/// ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
#[inline(always)]
fn tanh_form(x: f32) -> f32 {
    half_of_one_and_tanh(x, math::fma(CUBIC, x * x, LINEAR))
}

/// x·Φ(x): erf is tanh of a polynomial, fitted to 2.5e-5.
#[inline(always)]
fn erf_form(x: f32) -> f32 {
    let square = math::min(x * x, 30.0);
    let p = math::fma(-3.515_233_7e-4, square, 3.700_567e-2);
    half_of_one_and_tanh(x, math::fma(p, square, 0.797_507_9))
}

/// ½·x·(1 + tanh(x·slope)).
#[inline(always)]
fn half_of_one_and_tanh(x: f32, slope: f32) -> f32 {
    let half = 0.5 * x;
    math::fma(half, math::tanh_approx(x * slope), half)
}

#[cfg(test)]
mod tests {
    use kasmina_reference::normalization::Activation as Reference;

    use super::*;

    #[test]
    fn both_are_within_a_quarter_of_half_a_unit() {
        for (kind, reference) in
            [(Activation::GeluTanh, Reference::GeluTanh), (Activation::GeluErf, Reference::GeluErf)]
        {
            for i in -40_000..=40_000 {
                let x = i as f32 * 5e-4;
                let mut got = [x];
                assert!(gelu_for_bf16(kind as u32, &mut got));
                let error = (f64::from(got[0]) - reference.value(f64::from(x))).abs();
                assert!(error <= f64::from(x.abs()) / 2048.0, "{kind} at {x}: {}", got[0]);
            }
        }
        assert!(!gelu_for_bf16(Activation::Silu as u32, &mut [1.0]));
    }
}
