//! GELU of results of 16 bits, by the special-function unit's tanh: to 2⁻¹¹ of |x|, a quarter of half a unit of bf16, half a
//! unit of f16.

use kasmina_device::{math, unroll};
use kasmina_types::{Activation, LinearOutput};

/// 2·√(2/π), and 8 · 0.044715 · √(2/π): the form's factors for half of x.
const LINEAR: f32 = 1.595_769;
const CUBIC: f32 = 0.285_419_27;

/// Whether results of code `output` go through [`gelu_of_halves`] where the activation has code `kind`.
#[inline(always)]
pub(super) fn takes_halves(kind: u32, output: u32) -> bool {
    let short = output == LinearOutput::Bf16 as u32 || output == LinearOutput::F16 as u32;
    short && (kind == Activation::GeluTanh as u32 || kind == Activation::GeluErf as u32)
}

/// The GELU of code `kind` of the doubles of `x`: whoever scales x anyway scales it to half.
#[inline(always)]
pub(super) fn gelu_of_halves<const L: usize>(kind: u32, x: &mut [f32; L]) {
    if kind == Activation::GeluTanh as u32 {
        unroll!(l in L => { x[l] = tanh_form(x[l]); });
    } else {
        unroll!(l in L => { x[l] = erf_form(x[l]); });
    }
}

/// As [`gelu_of_halves`], of four sets: the code is looked up once.
#[inline(always)]
pub(super) fn gelu_of_four<const L: usize>(kind: u32, x: &mut [[f32; L]; 4]) {
    if kind == Activation::GeluTanh as u32 {
        unroll!(j in 4, at most 4 => { unroll!(l in L => { x[j][l] = tanh_form(x[j][l]); }); });
    } else {
        unroll!(j in 4, at most 4 => { unroll!(l in L => { x[j][l] = erf_form(x[j][l]); }); });
    }
}

/// ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), x twice `half`.
#[inline(always)]
fn tanh_form(half: f32) -> f32 {
    one_and_tanh(half, math::fma(CUBIC, half * half, LINEAR))
}

/// x·Φ(x), x twice `half`: erf is tanh of a polynomial, fitted to 2.5e-5.
#[inline(always)]
fn erf_form(half: f32) -> f32 {
    let square = math::min(half * half, 7.5);
    let p = math::fma(-1.124_874_8e-2, square, 2.960_453_6e-1);
    one_and_tanh(half, math::fma(p, square, 1.595_015_8))
}

/// half·(1 + tanh(half·slope)).
#[inline(always)]
fn one_and_tanh(half: f32, slope: f32) -> f32 {
    math::fma(half, math::tanh_approx(half * slope), half)
}

#[cfg(test)]
mod tests {
    use kasmina_reference::normalization::Activation as Reference;

    use super::*;

    /// The relative error of the special-function unit's tanh.
    const TANH_ERROR: f64 = 1.0 / 2048.0;

    #[test]
    fn both_are_within_the_bound() {
        for (kind, reference) in
            [(Activation::GeluTanh, Reference::GeluTanh), (Activation::GeluErf, Reference::GeluErf)]
        {
            for i in -40_000..=40_000 {
                let x = i as f32 * 5e-4;
                let mut got = [0.5 * x];
                gelu_of_halves(kind as u32, &mut got);
                let error = (f64::from(got[0]) - reference.value(f64::from(x))).abs();
                // The executor's tanh is exact; the unit's adds its error to half of x.
                let half = 0.5 * f64::from(x.abs());
                let error = error + half * TANH_ERROR;
                assert!(error <= f64::from(x.abs()) / 2048.0, "{kind} at {x}: {}", got[0]);
            }
        }
    }

    #[test]
    fn only_gelu_of_short_results_takes_halves() {
        for kind in Activation::ALL {
            let gelu = matches!(kind, Activation::GeluTanh | Activation::GeluErf);
            for output in [LinearOutput::Bf16, LinearOutput::F16] {
                assert_eq!(takes_halves(kind as u32, output as u32), gelu, "{kind}");
            }
            assert!(!takes_halves(kind as u32, LinearOutput::F32 as u32), "{kind}");
        }
    }
}
