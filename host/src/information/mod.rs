//! Measures of information between time series, Gaussian active inference, and the vector operations beside it, on any
//! device.

pub mod active_inference;
mod axpby;
mod gemv;
pub mod transfer_entropy;

pub use active_inference::{ActiveInference, InferenceError};
pub use axpby::{axpby, tile_projection, velocity};
pub use gemv::{gemv, gemv_transposed};
pub use transfer_entropy::{TransferEntropy, TransferEntropyError};
