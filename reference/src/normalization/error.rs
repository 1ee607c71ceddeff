//! What a normalisation refuses.

use thiserror::Error;

/// An input or an option that a normalisation cannot run with.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum NormError {
    /// Rows without columns have no mean.
    #[error("`input`: expected at least 1 column, got 0")]
    NoColumns,
    /// ε must keep the root positive.
    #[error("`epsilon`: expected a finite number above 0, got {got}")]
    Epsilon {
        /// The value.
        got: f64,
    },
    /// γ or β of another length.
    #[error("`{tensor}`: expected {expected} elements, one for each column, got {got}")]
    Length {
        /// `gamma` or `beta`.
        tensor: &'static str,
        /// Columns.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// RMS norm has no offset.
    #[error("`beta`: RMS norm has no offset; use layer norm, or leave it out")]
    BetaOfRmsNorm,
    /// The gradient has another shape than the input.
    #[error("`grad_output`: expected the input's shape {expected:?}, got {got:?}")]
    Shape {
        /// Rows and columns of the input.
        expected: (usize, usize),
        /// Rows and columns of the gradient.
        got: (usize, usize),
    },
}
