//! The comparisons of information and inference.

pub mod active_inference;
pub mod transfer_entropy;
pub mod vectors;
