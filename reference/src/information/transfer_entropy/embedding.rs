//! Points of the joint space from series.

use ndarray::{Array2, ArrayView1};

use super::error::TransferEntropyError;
use crate::Real;

/// How far back a series is looked at: `(s_{t−delay}, s_{t−delay−step}, …)`, `history` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Values.
    pub history: usize,
    /// Samples between two of them.
    pub step: usize,
    /// Samples from the newest of them to y_t.
    pub delay: usize,
}

impl Past {
    /// Samples from the oldest value to y_t; `usize::MAX` for more.
    pub fn reach(&self) -> usize {
        self.history.saturating_sub(1).saturating_mul(self.step).saturating_add(self.delay)
    }

    fn check(&self, names: [&'static str; 3]) -> Result<(), TransferEntropyError> {
        let values = [self.history, self.step, self.delay];
        match names.into_iter().zip(values).find(|&(_, value)| value == 0) {
            Some((option, _)) => Err(TransferEntropyError::Zero { option }),
            None => Ok(()),
        }
    }
}

/// The pasts of target and source. The target's has delay 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedding {
    /// y⁻ = (y_{t−1}, y_{t−1−step}, …).
    pub target: Past,
    /// x⁻ = (x_{t−delay}, x_{t−delay−step}, …).
    pub source: Past,
}

impl Embedding {
    /// History `k` of the target and `l` of the source, in steps of one sample, with `delay`.
    pub fn new(k: usize, l: usize, delay: usize) -> Self {
        Self {
            target: Past { history: k, step: 1, delay: 1 },
            source: Past { history: l, step: 1, delay },
        }
    }
}

/// A further series whose past the estimate is conditioned on.
#[derive(Debug, Clone, Copy)]
pub struct Condition<'a, T> {
    /// The series.
    pub series: ArrayView1<'a, T>,
    /// Which of its past.
    pub past: Past,
}

/// One point for each usable t, coordinate by coordinate.
#[derive(Debug, Clone)]
pub struct Points<T> {
    /// y⁻, then the conditions' pasts: `[coordinates, points]`.
    pub past: Array2<T>,
    /// y_t.
    pub next: Vec<T>,
    /// x⁻: `[coordinates, points]`.
    pub source: Array2<T>,
    /// The t of the first point.
    pub first: usize,
}

impl<T> Points<T> {
    /// How many points there are.
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// Whether there is none: [`embed`] makes one at least.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }
}

/// The points of a target, a source and conditions. The first t is the largest reach of a past,
/// max((k−1)·τ_y + 1, u + (l−1)·τ_x) and the like.
///
/// # Errors
/// A zero option, series of different lengths, too short or not finite.
pub fn embed<T: Real>(
    target: ArrayView1<'_, T>,
    source: ArrayView1<'_, T>,
    conditions: &[Condition<'_, T>],
    embedding: &Embedding,
) -> Result<Points<T>, TransferEntropyError> {
    embedding.target.check(["target_history", "target_step", "target_delay"])?;
    embedding.source.check(["source_history", "source_step", "delay"])?;
    for condition in conditions {
        condition.past.check(["condition history", "condition step", "condition delay"])?;
    }
    let named = |name: String, series: ArrayView1<'_, T>| {
        if series.len() != target.len() {
            let (expected, got) = (target.len(), series.len());
            return Err(TransferEntropyError::Length { series: name, expected, got });
        }
        match series.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(TransferEntropyError::NonFinite { series: name, index }),
            None => Ok(()),
        }
    };
    named("target".into(), target)?;
    named("source".into(), source)?;
    for (i, condition) in conditions.iter().enumerate() {
        named(format!("condition {i}"), condition.series)?;
    }
    let reaches = conditions.iter().map(|condition| condition.past.reach());
    let first = reaches.fold(embedding.target.reach().max(embedding.source.reach()), usize::max);
    let samples = target.len();
    if samples <= first {
        return Err(TransferEntropyError::Reach { reach: first, samples });
    }
    let points = samples - first;
    let rows = |pasts: &[(ArrayView1<'_, T>, Past)]| {
        let mut values = Vec::new();
        for (series, past) in pasts {
            for i in 0..past.history {
                let lag = past.delay + i * past.step;
                values.extend(series.iter().skip(first - lag).take(points).copied());
            }
        }
        Array2::from_shape_vec((values.len() / points, points), values)
            .expect("a row of `points` values for each coordinate")
    };
    let mut pasts = vec![(target, embedding.target)];
    pasts.extend(conditions.iter().map(|condition| (condition.series, condition.past)));
    Ok(Points {
        past: rows(&pasts),
        next: target.iter().skip(first).copied().collect(),
        source: rows(&[(source, embedding.source)]),
        first,
    })
}
