//! Sum, maximum, minimum, mean and population variance of f32, f64 and i32.
//!
//! Floating-point sums run in f64 along a fixed tree; integers are summed exactly. NaN propagates, through
//! maximum and minimum too. Signed zeros are equal: of two, the first is kept.

use rayon::prelude::*;
use thiserror::Error;

use crate::summation::pairwise_sum;

/// What a reduction refuses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReduceError {
    /// Nothing has no largest or smallest value.
    #[error("`{op}`: expected at least 1 value, got 0; skip the reduction of an empty input")]
    Empty {
        /// `max` or `min`.
        op: &'static str,
    },
    /// One segment of a segmented reduction was refused.
    #[error("segment {segment}: {source}")]
    Segment {
        /// Index of the segment.
        segment: usize,
        /// Why.
        source: Box<ReduceError>,
    },
    /// The offsets do not cut the values into consecutive segments.
    #[error(
        "`offsets[{index}]`: expected {expected}, got {got}; \
         offsets start at 0, never fall and end at the number of values"
    )]
    Offset {
        /// Index of the first offset that is wrong.
        index: usize,
        /// The value, or the least value, that it must have.
        expected: usize,
        /// The value that it has.
        got: usize,
    },
    /// Not even the first offset is there.
    #[error("`offsets`: expected segments + 1 elements, got 0; give at least the offset 0")]
    NoOffsets,
}

/// A type that can be reduced.
pub trait Element: Copy + PartialOrd + Send + Sync + 'static {
    /// The type of a sum: f64, or i64 for integers, where it is exact up to 2³² values.
    type Sum: Copy + Send;

    /// Σ v, zero for none.
    fn sum(values: &[Self]) -> Self::Sum;

    /// A sum as f64, rounded to nearest.
    fn sum_as_f64(sum: Self::Sum) -> f64;

    /// Converts exactly.
    fn as_f64(self) -> f64;
}

macro_rules! impl_float_element {
    ($($float:ty),+) => {$(
        impl Element for $float {
            type Sum = f64;

            fn sum(values: &[Self]) -> f64 {
                pairwise_sum(values, |&v| f64::from(v))
            }

            fn sum_as_f64(sum: f64) -> f64 {
                sum
            }

            fn as_f64(self) -> f64 {
                f64::from(self)
            }
        }
    )+};
}

impl_float_element!(f32, f64);

impl Element for i32 {
    type Sum = i64;

    fn sum(values: &[Self]) -> i64 {
        values.par_iter().map(|&v| i64::from(v)).sum()
    }

    fn sum_as_f64(sum: i64) -> f64 {
        sum as f64
    }

    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

/// Σ v; zero for an empty input.
pub fn sum<T: Element>(values: &[T]) -> T::Sum {
    T::sum(values)
}

/// The largest value, NaN if any is.
///
/// # Errors
/// An empty input.
pub fn max<T: Element>(values: &[T]) -> Result<T, ReduceError> {
    extreme(values, |candidate, best| candidate > best).ok_or(ReduceError::Empty { op: "max" })
}

/// The smallest value, NaN if any is.
///
/// # Errors
/// An empty input.
pub fn min<T: Element>(values: &[T]) -> Result<T, ReduceError> {
    extreme(values, |candidate, best| candidate < best).ok_or(ReduceError::Empty { op: "min" })
}

/// Σ v / n; NaN for an empty input.
pub fn mean<T: Element>(values: &[T]) -> f64 {
    T::sum_as_f64(T::sum(values)) / values.len() as f64
}

/// Population variance Σ (v − mean)² / n in two passes; NaN for an empty input.
pub fn variance<T: Element>(values: &[T]) -> f64 {
    let n = values.len() as f64;
    let mean = mean(values);
    let deviation = pairwise_sum(values, |v| v.as_f64() - mean);
    let squares = pairwise_sum(values, |v| (v.as_f64() - mean).powi(2));
    // The second term is what the rounding of the mean put into the first.
    // What rounding leaves below zero is zero; NaN stays.
    let variance = (squares - deviation * deviation / n) / n;
    if variance < 0.0 { 0.0 } else { variance }
}

/// `reduce` of each segment `values[offsets[i]..offsets[i + 1]]`, as `segmented(v, o, sum)`.
///
/// # Errors
/// Offsets that are empty, do not start at 0, fall, or do not end at the number of values.
pub fn segmented<T: Element, R: Send>(
    values: &[T],
    offsets: &[usize],
    reduce: impl Fn(&[T]) -> R + Sync,
) -> Result<Vec<R>, ReduceError> {
    check_offsets(values.len(), offsets)?;
    Ok(offsets.par_windows(2).map(|bounds| reduce(&values[bounds[0]..bounds[1]])).collect())
}

/// [`segmented`] for a reduction that can refuse a segment, as `try_segmented(v, o, max)`.
///
/// # Errors
/// Those of [`segmented`]; the first segment that is refused.
pub fn try_segmented<T: Element, R: Send>(
    values: &[T],
    offsets: &[usize],
    reduce: impl Fn(&[T]) -> Result<R, ReduceError> + Sync,
) -> Result<Vec<R>, ReduceError> {
    let segments = segmented(values, offsets, reduce)?;
    let name = |(segment, result): (usize, Result<R, ReduceError>)| {
        result.map_err(|source| ReduceError::Segment { segment, source: Box::new(source) })
    };
    segments.into_iter().enumerate().map(name).collect()
}

/// The first value that no other `beats`; any NaN wins.
fn extreme<T: Element>(values: &[T], beats: impl Fn(T, T) -> bool + Sync) -> Option<T> {
    let is_nan = |v: T| v.partial_cmp(&v).is_none();
    values.par_iter().copied().reduce_with(|best, candidate| {
        if is_nan(best) || !(is_nan(candidate) || beats(candidate, best)) {
            best
        } else {
            candidate
        }
    })
}

fn check_offsets(len: usize, offsets: &[usize]) -> Result<(), ReduceError> {
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err(ReduceError::NoOffsets);
    };
    let wrong = |index, expected, got| Err(ReduceError::Offset { index, expected, got });
    if first != 0 {
        return wrong(0, 0, first);
    }
    if let Some(i) = offsets.windows(2).position(|bounds| bounds[1] < bounds[0]) {
        return wrong(i + 1, offsets[i], offsets[i + 1]);
    }
    if last != len {
        return wrong(offsets.len() - 1, len, last);
    }
    Ok(())
}
