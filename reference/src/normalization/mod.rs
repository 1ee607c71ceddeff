//! Activations fused with normalisations of rows.

mod activation;
mod activation_norm;
mod activation_norm_backward;
mod error;

pub use activation::Activation;
pub use activation_norm::{Norm, NormOptions, NormOrder, Normalized, activation_norm};
pub use activation_norm_backward::{NormGradients, activation_norm_backward};
pub use error::NormError;
