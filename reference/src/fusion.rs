//! The stages of fused chains, each a function of one value and the operands at its place.

use crate::information::active_inference;
use crate::normalization::Activation;

pub use active_inference::{accuracy_term, complexity_term};

/// o − p.
pub fn prediction_error(observation: f64, prediction: f64) -> f64 {
    observation - prediction
}

/// π·(o − p).
pub fn weighted_prediction_error(observation: f64, prediction: f64, obs_precision: f64) -> f64 {
    prediction_error(observation, prediction) * obs_precision
}

/// μ + κ·(g − (μ − m0)/v0).
pub fn belief_update(gradient: f64, mean: f64, prior_mean: f64, prior_var: f64, kappa: f64) -> f64 {
    mean + kappa * (gradient - (mean - prior_mean) / prior_var)
}

/// v + bias.
pub fn bias(value: f64, bias: f64) -> f64 {
    value + bias
}

/// x·Φ(x).
pub fn activation(value: f64) -> f64 {
    Activation::GeluErf.value(value)
}
