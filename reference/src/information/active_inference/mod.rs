//! Gaussian active inference.

mod belief_step;
mod error;
mod infer;

pub use belief_step::{
    Belief, FreeEnergy, GaussianModel, VARIANCE_FLOOR, accuracy_terms, belief_step,
    belief_step_from, complexity, complexity_terms, free_energy, gradient, optimum_variance,
    residual, variance_correction,
};
pub use error::ActiveInferenceError;
pub use infer::{
    InferOptions, Inference, Posterior, TracePoint, default_kappa, distance_bound, infer,
    largest_curvature, posterior,
};
