//! Numerical modes: what happens to the values that active seeds write.

use super::{LayerError, SeedTelemetry};
use crate::Real;

/// A magnitude below 1e-8, rounded to f32, is flushed to zero.
const FLUSH_BELOW: f64 = 1e-8_f32 as f64;

/// Standard deviations from the mean beyond which a value is an outlier.
const OUTLIER_DEVIATIONS: f64 = 10.0;

/// What happens to each value that an active seed writes, forward and backward alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NumericalMode<'a> {
    /// Nothing.
    Fast,
    /// [`sanitise`] with these bounds.
    Strict {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// As `Strict`, for the seeds whose flag is set.
    Adaptive {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
        /// `[S]`, 0 or 1.
        unstable: &'a [u8],
    },
}

impl NumericalMode<'_> {
    /// Checks that an adaptive mode has a flag for the seed.
    pub(super) fn validate(&self, seed: usize) -> Result<(), LayerError> {
        match self {
            Self::Adaptive { unstable, .. } if unstable.len() <= seed => {
                let (tensor, per, expected, got) = ("unstable", "seed", seed + 1, unstable.len());
                Err(LayerError::Length { tensor, per, expected, got })
            }
            _ => Ok(()),
        }
    }

    /// `value` as active seed `seed` writes it.
    pub(super) fn apply<T: Real>(&self, seed: usize, value: T) -> T {
        match *self {
            Self::Fast => value,
            Self::Strict { low, high } => sanitise(value, low, high),
            Self::Adaptive { low, high, unstable } => {
                if unstable[seed] != 0 {
                    sanitise(value, low, high)
                } else {
                    value
                }
            }
        }
    }
}

/// 0 for NaN and for |v| < 1e-8, else v clamped to `[low, high]`.
pub fn sanitise<T: Real>(value: T, low: f64, high: f64) -> T {
    if value.is_nan() || value.abs().as_f64() < FLUSH_BELOW {
        T::zero()
    } else {
        value.max(T::from_f64(low)).min(T::from_f64(high))
    }
}

/// The flags `[S]` that a step's telemetry sets: 1 where a value was not finite, or one lay more than ten
/// standard deviations from the mean.
pub fn unstable_seeds(telemetry: &SeedTelemetry) -> Vec<u8> {
    (0..telemetry.count.len())
        .map(|seed| {
            let mean = telemetry.mean[seed];
            let furthest = (telemetry.max[seed] - mean).max(mean - telemetry.min[seed]);
            let outlier = furthest > OUTLIER_DEVIATIONS * telemetry.variance[seed].sqrt();
            u8::from(telemetry.nonfinite[seed] > 0 || outlier)
        })
        .collect()
}
