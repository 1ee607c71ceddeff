//! Activations fused with layer norm and RMS norm, forward and backward, on any device.

mod activation_norm;
mod activation_norm_backward;
mod buffers;
mod error;
mod plan;

pub use activation_norm::{ActivationNorm, ActivationNormOptions};
pub(crate) use activation_norm::{reference_activation, reference_options};
pub use buffers::{NormGradients, NormStatistics};
pub use error::NormalizationError;
pub use kasmina_types::{Activation, Norm, NormOrder};
