//! Measures of information between time series, Gaussian active inference, and the vector operations beside it, on any
//! device.

pub mod active_inference;
mod axpby;
pub mod transfer_entropy;

pub use active_inference::{ActiveInference, InferenceError};
pub use axpby::{axpby, tile_projection, velocity};
pub use transfer_entropy::{TransferEntropy, TransferEntropyError};
