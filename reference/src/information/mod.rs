//! Measures of information between time series, Gaussian active inference, and the linear algebra that it is made of.

pub mod active_inference;
mod axpby;
mod gemv;
pub mod transfer_entropy;

pub use axpby::{axpby, tile_projection, velocity};
pub use gemv::{gemv, gemv_transposed};
