//! Gaussian active inference: free energy and one belief step.
//!
//! The model is x ~ N(m0, diag v0), o = J·x + b + e with e ~ N(0, diag 1/π); the belief is q = N(μ, diag s).
//! The residual is r = o − J·μ − b, not weighted by the precision.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::error::ActiveInferenceError;
use crate::summation::pairwise_sum;

/// Variances of the belief count as this at least, so that their logarithm is finite.
pub const VARIANCE_FLOOR: f64 = 1e-10;

/// Rows whose contributions to a column are added up one after the other: the order of the sums is fixed.
const ROW_GROUP: usize = 64;

/// A linear Gaussian model with one observation.
#[derive(Debug, Clone, Copy)]
pub struct GaussianModel<'a> {
    /// J, `[observations, states]`.
    pub jacobian: ArrayView2<'a, f64>,
    /// b, `[observations]`.
    pub offset: &'a [f64],
    /// π, `[observations]`.
    pub obs_precision: &'a [f64],
    /// o, `[observations]`.
    pub observation: &'a [f64],
    /// m0, `[states]`.
    pub prior_mean: &'a [f64],
    /// v0, `[states]`.
    pub prior_var: &'a [f64],
}

/// A Gaussian belief with a diagonal covariance.
#[derive(Debug, Clone, PartialEq)]
pub struct Belief {
    /// μ.
    pub mean: Vec<f64>,
    /// s.
    pub variance: Vec<f64>,
}

/// The parts of the free energy, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FreeEnergy {
    /// KL(q ‖ prior).
    pub complexity: f64,
    /// ln p(o | x = μ).
    pub accuracy_plugin: f64,
    /// E_q[ln p(o | x)].
    pub accuracy_expected: f64,
}

impl FreeEnergy {
    /// Complexity minus the plug-in accuracy.
    pub fn plugin(&self) -> f64 {
        self.complexity - self.accuracy_plugin
    }

    /// Complexity minus the expected accuracy: the variational free energy, ≥ −ln p(o).
    pub fn exact(&self) -> f64 {
        self.complexity - self.accuracy_expected
    }
}

impl<'a> GaussianModel<'a> {
    /// Observations.
    pub fn observations(&self) -> usize {
        self.jacobian.nrows()
    }

    /// States.
    pub fn states(&self) -> usize {
        self.jacobian.ncols()
    }

    /// Checks shapes and values.
    ///
    /// # Errors
    /// No states or observations, arrays that do not fit, numbers that are not finite, precisions and variances that
    /// are not positive.
    pub fn check(&self) -> Result<(), ActiveInferenceError> {
        let (rows, columns) = self.jacobian.dim();
        if rows == 0 || columns == 0 {
            return Err(ActiveInferenceError::Empty { rows, columns });
        }
        for (array, values) in [
            ("offset", self.offset),
            ("obs_precision", self.obs_precision),
            ("observation", self.observation),
        ] {
            check_array(array, values, "row", rows)?;
        }
        for (array, values) in [("prior_mean", self.prior_mean), ("prior_var", self.prior_var)] {
            check_array(array, values, "column", columns)?;
        }
        if let Some((index, &got)) = self.jacobian.iter().enumerate().find(|(_, v)| !v.is_finite())
        {
            return Err(ActiveInferenceError::NotFinite { array: "J", index, got });
        }
        check_positive("obs_precision", self.obs_precision)?;
        check_positive("prior_var", self.prior_var)
    }

    /// Checks a belief against the model: finite, of the model's length, with positive variances.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_belief(&self, mean: &[f64], variance: &[f64]) -> Result<(), ActiveInferenceError> {
        check_array("mu", mean, "column", self.states())?;
        check_array("var", variance, "column", self.states())?;
        check_positive("var", variance)
    }

    /// Checks preferences for observations: finite, one for each, with positive variances.
    pub(super) fn check_preferences(
        &self,
        mean: &[f64],
        variance: &[f64],
    ) -> Result<(), ActiveInferenceError> {
        check_array("preferred_mean", mean, "row", self.observations())?;
        check_array("preferred_var", variance, "row", self.observations())?;
        check_positive("preferred_var", variance)
    }

    /// Σ_j J_ij² s_j for each row, s clamped to [`VARIANCE_FLOOR`].
    pub(super) fn predicted_variance(&self, variance: &[f64]) -> Vec<f64> {
        let s: Vec<f64> = variance.iter().map(|v| v.max(VARIANCE_FLOOR)).collect();
        self.rows(|_, row| row.iter().zip(&s).map(|(&j, &s)| j * j * s).sum())
    }

    /// Σ_j J_ij x_j for each row.
    pub(crate) fn product(&self, x: &[f64]) -> Vec<f64> {
        self.rows(|_, row| row.iter().zip(x).map(|(&j, &x)| j * x).sum())
    }

    /// Σ_i f(J_ij) w_i for each column, groups of rows in parallel and added in their order.
    pub(crate) fn columns(&self, w: &[f64], f: impl Fn(f64) -> f64 + Sync) -> Vec<f64> {
        let rows: Vec<usize> = (0..self.observations()).collect();
        let groups: Vec<Vec<f64>> = rows
            .par_chunks(ROW_GROUP)
            .map(|group| {
                let mut sums = vec![0.0; self.states()];
                for &i in group {
                    for (sum, &j) in sums.iter_mut().zip(self.jacobian.row(i)) {
                        *sum += f(j) * w[i];
                    }
                }
                sums
            })
            .collect();
        let mut total = vec![0.0; self.states()];
        for group in groups {
            for (total, sum) in total.iter_mut().zip(group) {
                *total += sum;
            }
        }
        total
    }

    fn rows(&self, value: impl Fn(usize, ndarray::ArrayView1<'_, f64>) -> f64 + Sync) -> Vec<f64> {
        (0..self.observations()).into_par_iter().map(|i| value(i, self.jacobian.row(i))).collect()
    }
}

/// r = o − J·μ − b.
pub fn residual(model: &GaussianModel<'_>, mean: &[f64]) -> Vec<f64> {
    let predicted = model.product(mean);
    let terms = model.observation.iter().zip(model.offset).zip(predicted);
    terms.map(|((&o, &b), p)| o - p - b).collect()
}

/// The complexity of a state: ½[s/v0 + (μ − m0)²/v0 − 1 − ln(s/v0)], s clamped to [`VARIANCE_FLOOR`].
pub fn complexity_term(mean: f64, variance: f64, prior_mean: f64, prior_var: f64) -> f64 {
    divergence(mean, variance.max(VARIANCE_FLOOR), prior_mean, prior_var)
}

/// KL(N(`mean`, `variance`) ‖ N(`from`, `spread`)), of one dimension.
pub(super) fn divergence(mean: f64, variance: f64, from: f64, spread: f64) -> f64 {
    let d = mean - from;
    0.5 * (variance / spread + d * d / spread - 1.0 - (variance / spread).ln())
}

/// [`complexity_term`] of each state.
pub fn complexity_terms(
    mean: &[f64],
    variance: &[f64],
    prior_mean: &[f64],
    prior_var: &[f64],
) -> Vec<f64> {
    (0..mean.len())
        .map(|j| complexity_term(mean[j], variance[j], prior_mean[j], prior_var[j]))
        .collect()
}

/// KL(q ‖ prior): the sum of [`complexity_terms`].
pub fn complexity(mean: &[f64], variance: &[f64], prior_mean: &[f64], prior_var: &[f64]) -> f64 {
    pairwise_sum(&complexity_terms(mean, variance, prior_mean, prior_var), |&term| term)
}

/// The plug-in accuracy of an observation: −½[π·r² + ln(2π/π_i)].
pub fn accuracy_term(residual: f64, obs_precision: f64) -> f64 {
    -0.5 * (obs_precision * residual * residual + (std::f64::consts::TAU / obs_precision).ln())
}

/// [`accuracy_term`] of each observation.
pub fn accuracy_terms(residual: &[f64], obs_precision: &[f64]) -> Vec<f64> {
    residual.iter().zip(obs_precision).map(|(&r, &p)| accuracy_term(r, p)).collect()
}

/// ½ Σ_i π_i Σ_j J_ij² s_j: what the expected accuracy is below the plug-in one.
pub fn variance_correction(model: &GaussianModel<'_>, variance: &[f64]) -> f64 {
    let predicted = model.predicted_variance(variance);
    let terms: Vec<f64> = predicted
        .iter()
        .zip(model.obs_precision)
        .map(|(v, precision)| 0.5 * precision * v)
        .collect();
    pairwise_sum(&terms, |&term| term)
}

/// Complexity and both accuracies of a belief.
pub fn free_energy(model: &GaussianModel<'_>, belief: &Belief) -> FreeEnergy {
    let Belief { mean, variance } = belief;
    let terms = accuracy_terms(&residual(model, mean), model.obs_precision);
    let accuracy_plugin = pairwise_sum(&terms, |&term| term);
    FreeEnergy {
        complexity: complexity(mean, variance, model.prior_mean, model.prior_var),
        accuracy_plugin,
        accuracy_expected: accuracy_plugin - variance_correction(model, variance),
    }
}

/// −∂F/∂μ = Jᵀ(π·r) − (μ − m0)/v0: where the belief goes.
pub fn gradient(model: &GaussianModel<'_>, mean: &[f64]) -> Vec<f64> {
    gradient_from(model, mean, &residual(model, mean))
}

/// μ + κ·(Jᵀ(π·r) − (μ − m0)/v0).
pub fn belief_step(model: &GaussianModel<'_>, mean: &[f64], kappa: f64) -> Vec<f64> {
    belief_step_from(model, mean, &residual(model, mean), kappa)
}

/// [`belief_step`] with the residual given.
pub fn belief_step_from(
    model: &GaussianModel<'_>,
    mean: &[f64],
    residual: &[f64],
    kappa: f64,
) -> Vec<f64> {
    let direction = gradient_from(model, mean, residual);
    direction.iter().zip(mean).map(|(&g, &m)| m + kappa * g).collect()
}

/// [`gradient`] with the residual given.
pub(crate) fn gradient_from(model: &GaussianModel<'_>, mean: &[f64], residual: &[f64]) -> Vec<f64> {
    let weighted: Vec<f64> =
        residual.iter().zip(model.obs_precision).map(|(&r, &precision)| precision * r).collect();
    let likelihood = model.columns(&weighted, |j| j);
    let prior = |j: usize| (mean[j] - model.prior_mean[j]) / model.prior_var[j];
    likelihood.into_iter().enumerate().map(|(j, sum)| sum - prior(j)).collect()
}

/// The diagonal variances of least free energy, whatever μ: 1/(1/v0 + Σ_i π_i J_ij²).
pub fn optimum_variance(model: &GaussianModel<'_>) -> Vec<f64> {
    let sums = model.columns(model.obs_precision, |j| j * j);
    sums.into_iter().zip(model.prior_var).map(|(sum, &v0)| 1.0 / (1.0 / v0 + sum)).collect()
}

fn check_array(
    array: &'static str,
    values: &[f64],
    what: &'static str,
    expected: usize,
) -> Result<(), ActiveInferenceError> {
    if values.len() != expected {
        let got = values.len();
        return Err(ActiveInferenceError::Length { array, what, expected, got });
    }
    match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        Some((index, &got)) => Err(ActiveInferenceError::NotFinite { array, index, got }),
        None => Ok(()),
    }
}

fn check_positive(array: &'static str, values: &[f64]) -> Result<(), ActiveInferenceError> {
    match values.iter().enumerate().find(|&(_, &v)| v <= 0.0) {
        Some((index, &got)) => Err(ActiveInferenceError::NotPositive { array, index, got }),
        None => Ok(()),
    }
}
