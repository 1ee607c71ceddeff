//! Information and inference.

pub mod active_inference;
pub mod active_inference_bulk;
pub mod active_inference_infer;
pub mod active_inference_sums;
pub mod active_inference_sweep;
pub mod active_inference_wide;
pub mod axpby;
pub mod gemv;
pub mod scalar;
