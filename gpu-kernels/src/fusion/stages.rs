//! The stages of chains that compute values one by one: the value of the stage before, if there is one, and then the
//! operands in their order.

use kasmina_device::math;
use kasmina_types::Activation;
use kasmina_types::active_inference::VARIANCE_FLOOR;

use crate::normalization::activation::{Precision, activate};

/// The complexity of a state: ½[s/v0 + (μ − m0)²/v0 − 1 − ln(s/v0)], s no less than [`VARIANCE_FLOOR`].
#[inline(always)]
pub fn complexity_term(mean: f64, variance: f64, prior_mean: f64, prior_var: f64) -> f64 {
    let d = mean - prior_mean;
    let floored = if variance < VARIANCE_FLOOR { VARIANCE_FLOOR } else { variance };
    let ratio = floored / prior_var;
    0.5 * (ratio + d * d / prior_var - 1.0 - math::log_f64(ratio))
}

/// o − p.
#[inline(always)]
pub fn prediction_error(observation: f64, prediction: f64) -> f64 {
    observation - prediction
}

/// The plug-in accuracy of an observation: −½[π·r² + ln(2π/π_i)].
#[inline(always)]
pub fn accuracy_term(error: f64, obs_precision: f64) -> f64 {
    let logs = math::log_f64(core::f64::consts::TAU / obs_precision);
    -0.5 * (obs_precision * error * error + logs)
}

/// π·(o − p).
#[inline(always)]
pub fn weighted_prediction_error(observation: f64, prediction: f64, obs_precision: f64) -> f64 {
    obs_precision * (observation - prediction)
}

/// μ + κ·(g − (μ − m0)/v0).
#[inline(always)]
pub fn belief_update(gradient: f64, mean: f64, prior_mean: f64, prior_var: f64, kappa: f64) -> f64 {
    math::fma_f64(kappa, gradient - (mean - prior_mean) / prior_var, mean)
}

/// A·Bᵀ + bias.
#[inline(always)]
pub fn bias(value: f32, bias: f32) -> f32 {
    value + bias
}

/// x·Φ(x).
#[inline(always)]
pub fn activation(value: f32) -> f32 {
    let mut lane = [value];
    activate(Precision::Full, Activation::GeluErf as u32, &mut lane);
    lane[0]
}
