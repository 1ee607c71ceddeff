//! What a normalisation refuses.

/// Options or operands that mean nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NormalizationError {
    /// ε must keep the root positive.
    #[error("activation_norm: `epsilon` is {got}, expected a finite number above 0, such as 1e-5")]
    Epsilon {
        /// The value.
        got: f32,
    },
    /// RMS norm has no offset.
    #[error("activation_norm: RMS norm has no `{operand}`; use layer norm, or leave it out")]
    BetaOfRmsNorm {
        /// `beta` or `gradients.beta`.
        operand: &'static str,
    },
}
