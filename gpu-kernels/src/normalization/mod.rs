//! Activations fused with normalisations.

pub(crate) mod activation;
pub mod activation_norm;
pub mod activation_norm_backward;
pub(crate) mod team;
