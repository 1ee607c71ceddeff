//! What surrogates say of an estimate.

use rayon::prelude::*;

use super::embedding::Points;
use super::error::TransferEntropyError;
use super::fused_distance_kth::Search;
use super::fused_te_reduction::estimate;
use super::surrogate_rows::{SurrogateKind, surrogate_rows};
use crate::Real;

/// An estimate beside those of its surrogates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Significance {
    /// (number of surrogates with at least the estimate + 1) / (surrogates + 1).
    pub p_value: f64,
    /// The surrogates' mean, in nats.
    pub mean: f64,
    /// Their standard deviation, with n − 1; NaN for one surrogate.
    pub std: f64,
    /// The estimate less the mean.
    pub effective_te_nats: f64,
}

/// The figures of an estimate and its surrogates, of which there is one at least; else `None`.
pub fn significance(te_nats: f64, surrogates: &[f64]) -> Option<Significance> {
    let count = surrogates.len() as f64;
    if surrogates.is_empty() {
        return None;
    }
    let mean = surrogates.iter().sum::<f64>() / count;
    let squares: f64 = surrogates.iter().map(|te| (te - mean).powi(2)).sum();
    let at_least = surrogates.iter().filter(|&&te| te >= te_nats).count() as f64;
    Some(Significance {
        p_value: (at_least + 1.0) / (count + 1.0),
        mean,
        std: (squares / (count - 1.0)).sqrt(),
        effective_te_nats: te_nats - mean,
    })
}

/// The estimates of the first `count` surrogates of a seed.
///
/// # Errors
/// K that the points do not have.
pub fn surrogates<T: Real>(
    points: &Points<T>,
    search: &Search,
    kind: SurrogateKind,
    count: u32,
    seed: u64,
    stream: u32,
) -> Result<Vec<f64>, TransferEntropyError> {
    (0..count)
        .into_par_iter()
        .map(|surrogate| {
            let rows = surrogate_rows(kind, points.len(), seed, stream, surrogate);
            estimate(points, Some(&rows), search).map(|estimate| estimate.te_nats)
        })
        .collect()
}
