//! Information and inference: Gaussian active inference and the linear algebra that it is made of.

mod active_inference;
mod active_inference_error;
mod active_inference_infer;
mod axpby;
mod gemv;

pub use active_inference::{
    Belief, FreeEnergy, GaussianModel, VARIANCE_FLOOR, accuracy_terms, belief_step,
    belief_step_from, complexity, complexity_terms, free_energy, gradient, optimum_variance,
    residual, variance_correction,
};
pub use active_inference_error::ActiveInferenceError;
pub use active_inference_infer::{
    InferOptions, Inference, Posterior, TracePoint, default_kappa, distance_bound, infer,
    largest_curvature, posterior,
};
pub use axpby::{axpby, tile_projection, velocity};
pub use gemv::{gemv, gemv_transposed};
