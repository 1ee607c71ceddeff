//! Gaussian active inference.

mod belief_step;
mod error;
mod expected_free_energy;
mod infer;

pub use belief_step::{
    Belief, FreeEnergy, GaussianModel, VARIANCE_FLOOR, accuracy_term, accuracy_terms, belief_step,
    belief_step_from, complexity, complexity_term, complexity_terms, free_energy, gradient,
    optimum_variance, residual, variance_correction,
};
pub use error::ActiveInferenceError;
pub use expected_free_energy::{ExpectedFreeEnergy, Preferences, expected_free_energy};
pub use infer::{
    CURVATURE_LEAST_STEPS, InferOptions, Inference, Posterior, TracePoint, curvature_start,
    default_kappa, distance_bound, infer, largest_curvature, posterior,
};
