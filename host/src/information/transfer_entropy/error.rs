//! What an estimate refuses.

use kasmina_reference::information::transfer_entropy as reference;
use kasmina_types::transfer_entropy::{TE_MAX_DIMS, TE_MAX_K};

/// Series or options of which no estimate can be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferEntropyError {
    /// Series or options that do not fit each other.
    #[error("transfer entropy: {0}")]
    Unfit(#[from] reference::TransferEntropyError),
    /// More coordinates than a point may have.
    #[error(
        "transfer entropy: the joint space has {got} dimensions (y_t, and all histories), expected at most {}; \
         shorten the histories or leave conditions out",
        TE_MAX_DIMS
    )]
    Dimensions {
        /// The dimensions.
        got: usize,
    },
    /// More neighbours than the kernels keep.
    #[error("transfer entropy: `k` is {got}, expected at most {}", TE_MAX_K)]
    TooManyNeighbours {
        /// K.
        got: usize,
    },
    /// Conditions that the options say nothing of, or the other way round.
    #[error(
        "transfer entropy: got {got} condition series, expected {expected}, one for each `condition` of the \
         options"
    )]
    Conditions {
        /// Conditions of the options.
        expected: usize,
        /// Series.
        got: usize,
    },
    /// Nothing to compare.
    #[error("transfer entropy: expected at least {expected} {what}, got {got}")]
    TooFew {
        /// Series, or delays.
        what: &'static str,
        /// The least number.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A value that f32 cannot hold.
    #[error(
        "transfer entropy: series `{series}` has a value beyond f32 at sample {index}; scale the series, or ask \
         for f64"
    )]
    BeyondF32 {
        /// Which one.
        series: String,
        /// The first such sample.
        index: usize,
    },
    /// Noise that is no scale.
    #[error("transfer entropy: `noise` is {got}, expected a finite number above 0, such as 1e-8")]
    Noise {
        /// The value.
        got: f64,
    },
    /// Blocks without rows.
    #[error("transfer entropy: surrogate blocks of 0 rows, expected at least 1")]
    EmptyBlocks,
}
