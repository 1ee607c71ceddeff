//! Measures of information between time series, Gaussian active inference, and the vector operations beside it.

pub mod active_inference;
pub mod axpby;
pub mod scalar;
pub mod transfer_entropy;
