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
    /// Values whose differences overflow, or vanish.
    #[error(
        "transfer entropy: the values of series `{series}` are too large or too small for differences in {}; \
         scale the series{}",
        if *.narrow { "f32" } else { "f64" },
        if *.narrow { ", or ask for f64" } else { "" }
    )]
    Range {
        /// Which one.
        series: String,
        /// Whether distances are f32.
        narrow: bool,
    },
    /// Values that f32 hardly tells apart.
    #[error(
        "transfer entropy: the values of series `{series}` differ by less than a thousand steps of f32 at their \
         size; subtract an offset, standardise, or ask for f64"
    )]
    Resolution {
        /// Which one.
        series: String,
    },
    /// Noise that is rounded away.
    #[error(
        "transfer entropy: noise of {got} standard deviations is lost in {} at the size of series `{series}`, \
         expected at least {least:.1e}{}",
        if *.narrow { "f32" } else { "f64" },
        if *.narrow { "; ask for f64" } else { "" }
    )]
    NoiseLost {
        /// Which one.
        series: String,
        /// The amplitude.
        got: f64,
        /// What may remain.
        least: f64,
        /// Whether distances are f32.
        narrow: bool,
    },
    /// Noise that is no scale.
    #[error("transfer entropy: `noise` is {got}, expected a finite number above 0, such as 1e-8")]
    Noise {
        /// The value.
        got: f64,
    },
    /// Blocks without rows, or so long that nothing is permuted.
    #[error(
        "transfer entropy: surrogate blocks of {got} rows of {points}, expected at least 1 and at most a third"
    )]
    Blocks {
        /// Rows of a block.
        got: u32,
        /// Points.
        points: usize,
    },
    /// More rotated surrogates than there are rotations.
    #[error(
        "transfer entropy: {got} rotated surrogates of {points} points, expected at most {most}, as many as there are \
         rotations; take fewer, or permute"
    )]
    Rotations {
        /// Surrogates.
        got: u32,
        /// Rotations that differ from the series.
        most: usize,
        /// Points.
        points: usize,
    },
    /// Results of what never ran.
    #[error("transfer entropy: nothing has run yet; call `run` before `results`")]
    NotRun,
    /// More than 32-bit numbers count.
    #[error("transfer entropy: {got} {what}, expected at most {most}; take fewer at a time")]
    TooMany {
        /// Values of all series, or estimates and their surrogates.
        what: &'static str,
        /// The most.
        most: usize,
        /// How many there are.
        got: usize,
    },
}

impl TransferEntropyError {
    /// What the series at fault is called, if it is one: `target`, `source`, `condition 0`, … of a pair, `row 0`, … of a
    /// matrix. Whoever knows it by another name may say so.
    pub fn series_mut(&mut self) -> Option<&mut String> {
        use reference::TransferEntropyError as Unfit;
        match self {
            Self::Unfit(
                Unfit::Length { series, .. }
                | Unfit::NonFinite { series, .. }
                | Unfit::Constant { series, .. },
            )
            | Self::Range { series, .. }
            | Self::Resolution { series }
            | Self::NoiseLost { series, .. } => Some(series),
            _ => None,
        }
    }
}
