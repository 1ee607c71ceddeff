//! What an estimate refuses.

use thiserror::Error;

/// Series or options of which no estimate can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransferEntropyError {
    /// A history, step or delay of zero.
    #[error("`{option}`: expected at least 1, got 0")]
    Zero {
        /// The option.
        option: &'static str,
    },
    /// No series is so short.
    #[error("series: expected at least {expected} samples, got {got}")]
    TooShort {
        /// The fewest.
        expected: usize,
        /// Samples of the series.
        got: usize,
    },
    /// No point has a past that reaches back so far.
    #[error(
        "series of {samples} samples: histories, steps and delays reach back {reach} samples, expected at most {}; \
         shorten them, or use longer series",
        .samples.saturating_sub(1)
    )]
    Reach {
        /// Samples from the oldest value of a past to y_t; `usize::MAX` for more.
        reach: usize,
        /// Samples of the series.
        samples: usize,
    },
    /// Two series are not sampled together.
    #[error("series `{series}`: expected {expected} samples, as the target has, got {got}")]
    Length {
        /// Which one.
        series: String,
        /// Samples of the target.
        expected: usize,
        /// Samples of this one.
        got: usize,
    },
    /// NaN or an infinity.
    #[error(
        "series `{series}`: expected finite values, got one that is not at sample {index}; \
         remove or fill in the gaps"
    )]
    NonFinite {
        /// Which one.
        series: String,
        /// The first such sample.
        index: usize,
    },
    /// A constant tells nothing, and all its distances are 0.
    #[error(
        "series `{series}`: expected values that vary, got {got} equal ones; leave the series out"
    )]
    Constant {
        /// Which one.
        series: String,
        /// Samples.
        got: usize,
    },
    /// The K-th neighbour does not exist.
    #[error(
        "`k` is {got}, expected 1 to {most}{}",
        if got > most {
            ", as many other points as each point has outside its Theiler window; take longer series or fewer neighbours"
        } else {
            ""
        }
    )]
    Neighbours {
        /// Other points that the point with the fewest has, or as many as are kept at most, if that is less.
        most: usize,
        /// K.
        got: usize,
    },
    /// No K will do.
    #[error(
        "{points} points and a Theiler window of {theiler} samples: some point has no other outside its window; take \
         longer series or a shorter window"
    )]
    NoNeighbours {
        /// Points.
        points: usize,
        /// The window.
        theiler: usize,
    },
    /// A surrogate's row map of another length than the points.
    #[error(
        "`rows`: expected one row below {expected} for each of the {expected} points, got {got}"
    )]
    Rows {
        /// Points.
        expected: usize,
        /// Rows, or the first one that is too large.
        got: usize,
    },
}
