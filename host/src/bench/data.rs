//! Inputs: random, the same in every run.

use half::{bf16, f16};
use kasmina_types::dtype::Element;
use rayon::prelude::*;

use crate::buffer::host;
use crate::error::Error;

/// An element type that inputs are drawn of.
pub(crate) trait Draw: Element {
    /// A value from 64 random bits: of −0.5 to 1.5, so that sums do not cancel and errors can be
    /// relative to them; for integers any.
    fn from_random(bits: u64) -> Self;
}

impl Draw for f32 {
    fn from_random(bits: u64) -> Self {
        (bits >> 40) as f32 / (1 << 23) as f32 - 0.5
    }
}

impl Draw for f64 {
    fn from_random(bits: u64) -> Self {
        (bits >> 11) as f64 / (1_u64 << 52) as f64 - 0.5
    }
}

impl Draw for f16 {
    fn from_random(bits: u64) -> Self {
        f16::from_f32(f32::from_random(bits))
    }
}

impl Draw for bf16 {
    fn from_random(bits: u64) -> Self {
        bf16::from_f32(f32::from_random(bits))
    }
}

impl Draw for i32 {
    fn from_random(bits: u64) -> Self {
        (bits >> 32) as i32
    }
}

/// `len` values; another `seed` draws others.
pub(crate) fn draw<T: Draw>(seed: u64, len: usize) -> Vec<T> {
    (0..len as u64).into_par_iter().map(|i| T::from_random(bits(seed, i))).collect()
}

/// As [`draw`], for a length that is a caller's.
///
/// # Errors
/// The host's memory exhausted.
pub(crate) fn try_draw<T: Draw>(seed: u64, len: usize) -> Result<Vec<T>, Error> {
    host::collect((0..len).into_par_iter().map(|i| T::from_random(bits(seed, i as u64))))
}

/// `len` values of the standard normal distribution, as the peers draw the operands of their products: what a multiplication
/// draws in power depends on its operands.
pub(crate) fn normal(seed: u64, len: usize) -> Vec<f64> {
    let of = |i| {
        let bits = bits(seed, i);
        let unit = |bits: u64| ((bits & 0xFFFF_FFFF) as f64 + 0.5) / (1_u64 << 32) as f64;
        // By Box and Muller.
        (-2.0 * unit(bits >> 32).ln()).sqrt() * (std::f64::consts::TAU * unit(bits)).cos()
    };
    (0..len as u64).into_par_iter().map(of).collect()
}

/// 64 random bits for a position of a sequence: splitmix64.
pub(crate) fn bits(seed: u64, position: u64) -> u64 {
    let step = (seed << 40).wrapping_add(position).wrapping_add(1);
    let z = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spread_over_their_range_and_differ_by_seed() {
        let values: Vec<f32> = draw(1, 100_000);
        assert!(values.iter().all(|value| (-0.5..=1.5).contains(value)));
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert_ne!(values, draw::<f32>(2, 100_000));
        assert_eq!(values, draw::<f32>(1, 100_000));
        assert_eq!(values, try_draw::<f32>(1, 100_000).unwrap());
        let normal = normal(3, 100_000);
        let moment = |power| normal.iter().map(|v| v.powi(power)).sum::<f64>() / 1e5;
        let expected = [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)];
        assert!(
            expected
                .iter()
                .all(|&(p, moment_of_normal)| (moment(p) - moment_of_normal).abs() < 0.1)
        );
        let integers: Vec<i32> = draw(1, 1000);
        assert!(integers.iter().any(|&v| v < 0) && integers.iter().any(|&v| v > 0));
    }
}
