//! Telemetry by a strategy: of all values together, or of each row and then over the rows.

use ndarray::{ArrayView2, Axis};

use super::{LayerError, SeedTelemetry, telemetry};
use crate::Real;

/// How rows become one figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStrategy {
    /// All values together.
    Hierarchical,
    /// The mean of the rows' figures.
    Mean,
    /// The largest of the rows' figures.
    Max,
}

/// Rows whose figures are held at a time.
const ROWS: usize = 64;

/// Telemetry of `num_seeds` seeds over the input `x` `[batch, num_seeds · C]`.
///
/// By rows, mean, variance, minimum, maximum, dead ratio and signal-to-noise ratio of each row's chunk are
/// averaged, or the largest is taken; rows without a finite value are left out, and where none is left all
/// six are NaN. `count` and `nonfinite` are totals.
///
/// # Errors
/// No seeds, no columns, or a width that `num_seeds` does not divide.
pub fn telemetry_by<T: Real>(
    x: ArrayView2<'_, T>,
    num_seeds: usize,
    strategy: RowStrategy,
) -> Result<SeedTelemetry, LayerError> {
    if strategy == RowStrategy::Hierarchical {
        return telemetry(x, num_seeds);
    }
    // The checks, and figures of the right lengths.
    let mut result = telemetry(x.slice_axis(Axis(0), (0..0).into()), num_seeds)?;
    let start = if strategy == RowStrategy::Max { f64::NEG_INFINITY } else { 0.0 };
    for figure in figures(&mut result) {
        figure.fill(start);
    }
    let mut rows = vec![0_u64; num_seeds];
    let largest = strategy == RowStrategy::Max;
    for block in x.axis_chunks_iter(Axis(0), ROWS) {
        // Each row of each seed as a seed of its own.
        let values: Vec<T> = block.iter().copied().collect();
        let apart = ArrayView2::from_shape((1, values.len()), &values).expect("as many values");
        let mut each = telemetry(apart, block.nrows() * num_seeds)?;
        for i in 0..block.nrows() * num_seeds {
            let seed = i % num_seeds;
            result.count[seed] += each.count[i];
            result.nonfinite[seed] += each.nonfinite[i];
            if each.nonfinite[i] < each.count[i] {
                rows[seed] += 1;
                for (to, from) in figures(&mut result).into_iter().zip(figures(&mut each)) {
                    to[seed] = if largest { to[seed].max(from[i]) } else { to[seed] + from[i] };
                }
            }
        }
    }
    for figure in figures(&mut result) {
        for (value, &rows) in figure.iter_mut().zip(&rows) {
            *value = match (rows, largest) {
                (0, _) => f64::NAN,
                (_, true) => *value,
                (_, false) => *value / rows as f64,
            };
        }
    }
    Ok(result)
}

fn figures(telemetry: &mut SeedTelemetry) -> [&mut Vec<f64>; 6] {
    let SeedTelemetry { mean, variance, min, max, dead_ratio, snr, .. } = telemetry;
    [mean, variance, min, max, dead_ratio, snr]
}
