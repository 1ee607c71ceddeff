//! Measures of information between time series, Gaussian active inference, and the vector operations beside it.

pub mod active_inference;
mod axpby;
pub mod transfer_entropy;

pub use axpby::{axpby, tile_projection, velocity};
