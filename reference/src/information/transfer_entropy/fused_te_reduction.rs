//! The counts in the three subspaces, ψ of them, and the mean.

use rayon::prelude::*;

use super::digamma::digamma;
use super::embedding::Points;
use super::error::TransferEntropyError;
use super::fused_distance_kth::{Algorithm, Distances, Search, neighbourhood, source_rows};
use crate::Real;
use crate::summation::pairwise_sum;

/// An estimate and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The transfer entropy, in nats.
    pub te_nats: f64,
    /// Each point's part: the estimate is their mean.
    pub local: Vec<f64>,
    /// The points counted in (y⁻), in (y_t, y⁻) and in (x⁻, y⁻).
    pub counts: Vec<[u32; 3]>,
    /// Points whose K-th neighbour is as far as another point that is not among the K.
    pub ties: usize,
}

/// The estimate. With `rows`, point i has the x⁻ of point `rows[i]`, as in a surrogate.
///
/// # Errors
/// K that the points do not have, or rows that do not fit them.
pub fn estimate<T: Real>(
    points: &Points<T>,
    rows: Option<&[u32]>,
    search: &Search,
) -> Result<Estimate, TransferEntropyError> {
    search.check(points.len())?;
    let source = source_rows(points, rows)?;
    let parts: Vec<([u32; 3], f64, bool)> = (0..points.len())
        .into_par_iter()
        .map_init(
            || Distances::new(points.len()),
            |distances, i| {
                distances.measure(points, &source, i, search.theiler);
                let (epsilon, largest, tied) = neighbourhood(distances, search.k);
                let counts = match search.algorithm {
                    Algorithm::One => {
                        count(distances, |[z, y, x]| [z < epsilon, y < epsilon, x < epsilon])
                    }
                    Algorithm::Two => count(distances, |[z, y, x]| {
                        [z <= largest[0], y <= largest[1], x <= largest[2]]
                    }),
                };
                (counts, local(search, counts), tied)
            },
        )
        .collect();
    Ok(Estimate {
        te_nats: pairwise_sum(&parts, |part| part.1) / parts.len() as f64,
        local: parts.iter().map(|part| part.1).collect(),
        counts: parts.iter().map(|part| part.0).collect(),
        ties: parts.iter().filter(|part| part.2).count(),
    })
}

/// The points near enough in (y⁻), in (y_t, y⁻) and in (x⁻, y⁻).
fn count<T: Real>(distances: &Distances<T>, near: impl Fn([T; 3]) -> [bool; 3]) -> [u32; 3] {
    let mut counts = [0; 3];
    let (past, next, source) = (&distances.past, &distances.next, &distances.source);
    for ((&past, &next), &source) in past.iter().zip(next).zip(source) {
        let [past, next, source] = near([past, next, source]);
        counts[0] += u32::from(past);
        counts[1] += u32::from(past & next);
        counts[2] += u32::from(past & source);
    }
    counts
}

/// A point's part of the estimate: with ψ(K) in it, so that the parts' mean is the whole.
fn local(search: &Search, [past, next, source]: [u32; 3]) -> f64 {
    let k = digamma(search.k as u32);
    match search.algorithm {
        Algorithm::One => k + digamma(past + 1) - digamma(next + 1) - digamma(source + 1),
        Algorithm::Two => {
            let inverse = |count: u32| 1.0 / f64::from(count);
            k - 2.0 / search.k as f64 + digamma(past) - digamma(next) + inverse(next)
                - digamma(source)
                + inverse(source)
        }
    }
}
