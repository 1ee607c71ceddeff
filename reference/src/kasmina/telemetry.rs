//! What a seed's input looks like: statistics over the batch and the columns of its chunk.
//!
//! Two passes in f64 along a fixed summation tree (the mean, then the squared deviations from it), so a
//! large offset costs no accuracy and the bits are the same on every run.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::{LayerError, state::non_zero};
use crate::{Real, summation::pairwise_sum};

/// A value is dead when its magnitude is below 1e-8, rounded to f32: every dtype draws the same line.
pub const DEAD_BELOW: f64 = 1e-8_f32 as f64;

/// Keeps the signal-to-noise ratio of a constant chunk finite.
const SNR_VARIANCE_FLOOR: f64 = 1e-8;

/// Statistics `[S]`, one value for each seed.
///
/// Mean, variance, minimum, maximum and signal-to-noise ratio are those of the finite values, and NaN where
/// there are none.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedTelemetry {
    /// Values seen, batch · C, finite or not.
    pub count: Vec<u64>,
    /// Values that are NaN or infinite.
    pub nonfinite: Vec<u64>,
    /// Mean.
    pub mean: Vec<f64>,
    /// Population variance, Σ(x−mean)² / n.
    pub variance: Vec<f64>,
    /// Smallest value.
    pub min: Vec<f64>,
    /// Largest value.
    pub max: Vec<f64>,
    /// Share of `count` with a magnitude below [`DEAD_BELOW`]; NaN for an empty batch.
    pub dead_ratio: Vec<f64>,
    /// |mean| / √(variance + 1e-8).
    pub snr: Vec<f64>,
}

/// Telemetry of `num_seeds` seeds over the input `x` `[batch, num_seeds · C]`.
///
/// # Errors
/// No seeds, no columns, or a width that `num_seeds` does not divide.
pub fn telemetry<T: Real>(
    x: ArrayView2<'_, T>,
    num_seeds: usize,
) -> Result<SeedTelemetry, LayerError> {
    non_zero("seeds", num_seeds)?;
    non_zero("chunk_size", x.ncols())?;
    if !x.ncols().is_multiple_of(num_seeds) {
        let expected = x.ncols().next_multiple_of(num_seeds);
        return Err(LayerError::InputWidth { seeds: num_seeds, expected, got: x.ncols() });
    }

    let rows = x.as_standard_layout();
    let values = rows.as_slice().expect("standard layout is contiguous");
    let chunk = x.ncols() / num_seeds;
    let seeds: Vec<Statistics> = (0..num_seeds)
        .into_par_iter()
        .map(|seed| {
            let parts: Vec<&[T]> =
                values.chunks_exact(chunk).skip(seed).step_by(num_seeds).collect();
            Statistics::of(&parts)
        })
        .collect();
    Ok(SeedTelemetry {
        count: seeds.iter().map(|s| s.count).collect(),
        nonfinite: seeds.iter().map(|s| s.nonfinite).collect(),
        mean: seeds.iter().map(|s| s.mean).collect(),
        variance: seeds.iter().map(|s| s.variance).collect(),
        min: seeds.iter().map(|s| s.min).collect(),
        max: seeds.iter().map(|s| s.max).collect(),
        dead_ratio: seeds.iter().map(|s| s.dead as f64 / s.count as f64).collect(),
        snr: seeds.iter().map(Statistics::snr).collect(),
    })
}

/// One seed's figures.
struct Statistics {
    count: u64,
    nonfinite: u64,
    dead: u64,
    mean: f64,
    variance: f64,
    min: f64,
    max: f64,
}

impl Statistics {
    /// Over the rows of one chunk.
    fn of<T: Real>(rows: &[&[T]]) -> Self {
        let (mut count, mut nonfinite, mut dead) = (0, 0, 0);
        let (mut min, mut max) = (f64::NAN, f64::NAN);
        for value in rows.iter().flat_map(|row| row.iter()).map(|v| v.as_f64()) {
            count += 1;
            if value.is_finite() {
                dead += u64::from(value.abs() < DEAD_BELOW);
                // `f64::min` and `max` drop the NaN that they start with.
                (min, max) = (min.min(value), max.max(value));
            } else {
                nonfinite += 1;
            }
        }

        let finite = (count - nonfinite) as f64;
        let sum = |term: &(dyn Fn(f64) -> f64 + Sync)| {
            pairwise_sum(rows, |row| {
                pairwise_sum(row, |v| if v.is_finite() { term(v.as_f64()) } else { 0.0 })
            })
        };
        let mean = sum(&|v| v) / finite;
        let deviation = sum(&|v| v - mean);
        let squares = sum(&|v| (v - mean) * (v - mean));
        // The second term is what the rounding of the mean put into the first.
        let variance = (squares - deviation * deviation / finite) / finite;
        Self { count, nonfinite, dead, mean, variance: clamp_negative(variance), min, max }
    }

    fn snr(&self) -> f64 {
        self.mean.abs() / (self.variance + SNR_VARIANCE_FLOOR).sqrt()
    }
}

/// Rounding may leave a variance a little below zero; NaN stays.
fn clamp_negative(variance: f64) -> f64 {
    if variance < 0.0 { 0.0 } else { variance }
}
