//! Expected free energy: how far the observations that a belief predicts are from those that are preferred.
//!
//! With the belief q = N(μ, diag s) the model predicts o ~ N(J·μ + b, J·diag(s)·Jᵀ + diag 1/π). Of that covariance
//! only the diagonal counts here, w_i = Σ_j J_ij² s_j + 1/π_i. Preferences are N(c, diag d).
//!
//! - risk = KL(N(J·μ + b, diag w) ‖ N(c, diag d)) = Σ ½[w/d + (J·μ + b − c)²/d − 1 − ln(w/d)]
//! - ambiguity = E_q[H(o | x)] = Σ ½ ln(2πe/π_i): of a linear map the noise is the same at every state
//! - G = risk + ambiguity
//! - novelty = Σ ½ ln(v0/s): by how much the belief is narrower than the prior
//!
//! Published programs report Σ (J·μ + b − c)²/d + Σ w − novelty instead, which is no divergence: its parts are
//! `squared_error` and `predicted_spread`.

use super::belief_step::{Belief, GaussianModel, VARIANCE_FLOOR, divergence};
use super::error::ActiveInferenceError;
use crate::summation::pairwise_sum;

/// Which observations are preferred: N(c, diag d).
#[derive(Debug, Clone, PartialEq)]
pub struct Preferences {
    /// c, `[observations]`.
    pub mean: Vec<f64>,
    /// d, `[observations]`.
    pub variance: Vec<f64>,
}

/// The observations that a belief predicts, and what is expected of them, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectedFreeEnergy {
    /// J·μ + b.
    pub predicted_mean: Vec<f64>,
    /// w: the diagonal of J·diag(s)·Jᵀ + diag 1/π.
    pub predicted_variance: Vec<f64>,
    /// KL(predicted ‖ preferred), correlations between observations left out.
    pub risk: f64,
    /// The entropy of an observation where the state is known.
    pub ambiguity: f64,
    /// Σ ½ ln(v0/s): by how much the belief is narrower than the prior.
    pub novelty: f64,
    /// Σ (J·μ + b − c)²/d.
    pub squared_error: f64,
}

impl ExpectedFreeEnergy {
    /// G = risk + ambiguity, the expected free energy.
    pub fn total(&self) -> f64 {
        self.risk + self.ambiguity
    }

    /// Σ w.
    pub fn predicted_spread(&self) -> f64 {
        pairwise_sum(&self.predicted_variance, |&w| w)
    }

    /// What published programs report in place of [`Self::total`]: squared error + spread − novelty.
    pub fn squared_total(&self) -> f64 {
        self.squared_error + self.predicted_spread() - self.novelty
    }
}

/// The expected free energy of a belief. The model's observation does not count.
///
/// # Errors
/// A belief or preferences that do not fit the model, are not finite, or have variances that are not positive.
pub fn expected_free_energy(
    model: &GaussianModel<'_>,
    belief: &Belief,
    preferences: &Preferences,
) -> Result<ExpectedFreeEnergy, ActiveInferenceError> {
    model.check_belief(&belief.mean, &belief.variance)?;
    model.check_preferences(&preferences.mean, &preferences.variance)?;
    let product = model.product(&belief.mean);
    let predicted_mean: Vec<f64> = product.iter().zip(model.offset).map(|(p, b)| p + b).collect();
    let of_belief = model.predicted_variance(&belief.variance);
    let predicted_variance: Vec<f64> = of_belief
        .iter()
        .zip(model.obs_precision)
        .map(|(v, precision)| v + 1.0 / precision)
        .collect();
    let Preferences { mean, variance } = preferences;
    let of_each = |term: &dyn Fn(usize) -> f64| {
        let terms: Vec<f64> = (0..model.observations()).map(term).collect();
        pairwise_sum(&terms, |&term| term)
    };
    let apart = |i| divergence(predicted_mean[i], predicted_variance[i], mean[i], variance[i]);
    let squared = |i: usize| (predicted_mean[i] - mean[i]).powi(2) / variance[i];
    let entropy =
        |precision: &f64| 0.5 * (std::f64::consts::TAU * std::f64::consts::E / precision).ln();
    let narrower: Vec<f64> = model
        .prior_var
        .iter()
        .zip(&belief.variance)
        .map(|(v0, s)| 0.5 * (v0 / s.max(VARIANCE_FLOOR)).ln())
        .collect();
    Ok(ExpectedFreeEnergy {
        risk: of_each(&apart),
        ambiguity: pairwise_sum(model.obs_precision, entropy),
        novelty: pairwise_sum(&narrower, |&term| term),
        squared_error: of_each(&squared),
        predicted_mean,
        predicted_variance,
    })
}
