//! Whole inferences: belief steps until they converge, the step size, and the posterior that they converge to.

use ndarray::Array2;
use rayon::prelude::*;

use super::belief_step::{
    Belief, FreeEnergy, GaussianModel, accuracy_terms, complexity, gradient_from, residual,
    variance_correction,
};
use super::error::ActiveInferenceError;
use crate::summation::pairwise_sum;

/// Products with the matrix that [`largest_curvature`] takes at least.
///
/// λ = vᵀH·v is quadratic in how much of the leading eigenvector v has: where that is little, λ stands still at a
/// smaller eigenvalue, and its change says nothing. After k products it is no less than λmax·c^(2/(2k−1)), c the
/// cosine of the leading eigenvector and the start: with 24 of them above λmax/2 for every c above 10⁻⁷.
pub const CURVATURE_LEAST_STEPS: usize = 24;

/// How an inference runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferOptions {
    /// Step size κ.
    pub kappa: f64,
    /// Steps at most.
    pub max_steps: usize,
    /// Stops where [`distance_bound`] is at most this; `None` takes every step.
    pub tolerance: Option<f64>,
    /// Keeps the first so many μ's figures in [`Inference::trace`].
    pub trace_points: usize,
}

/// What an inference came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference {
    /// μ.
    pub mean: Vec<f64>,
    /// The free energy at μ.
    pub free_energy: FreeEnergy,
    /// [`distance_bound`] at μ.
    pub distance_bound: f64,
    /// Steps taken.
    pub steps: usize,
    /// Whether the tolerance was met.
    pub converged: bool,
    /// The way: one point for each μ, the first included, up to [`InferOptions::trace_points`].
    pub trace: Vec<TracePoint>,
}

/// One μ on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TracePoint {
    /// The free energy there.
    pub free_energy: FreeEnergy,
    /// [`distance_bound`] there.
    pub distance_bound: f64,
}

/// √(Σ_j v0_j g_j²), g = −∂F/∂μ: no less than the distance from μ to the posterior mean, counted in standard
/// deviations of the prior.
///
/// With D = diag √v0 the curvature of F in units of the prior's deviations is D·(JᵀΠJ + V0⁻¹)·D ≥ 1, so that
/// ‖D⁻¹(μ − μ*)‖ ≤ ‖D·g‖.
pub fn distance_bound(gradient: &[f64], prior_var: &[f64]) -> f64 {
    let terms: Vec<f64> = gradient.iter().zip(prior_var).map(|(&g, &v0)| v0 * g * g).collect();
    pairwise_sum(&terms, |&term| term).sqrt()
}

/// Belief steps from `belief`: at each μ the free energy and the bound, then a step, until the bound is within the
/// tolerance, is not finite, or `max_steps` are taken. The variances stay.
pub fn infer(model: &GaussianModel<'_>, belief: &Belief, options: InferOptions) -> Inference {
    let Belief { mut mean, variance } = belief.clone();
    // The same at every μ.
    let correction = variance_correction(model, &variance);
    let mut trace = Vec::new();
    for steps in 0.. {
        let residual = residual(model, &mean);
        let direction = gradient_from(model, &mean, &residual);
        let terms = accuracy_terms(&residual, model.obs_precision);
        let accuracy_plugin = pairwise_sum(&terms, |&term| term);
        let free_energy = FreeEnergy {
            complexity: complexity(&mean, &variance, model.prior_mean, model.prior_var),
            accuracy_plugin,
            accuracy_expected: accuracy_plugin - correction,
        };
        let distance_bound = distance_bound(&direction, model.prior_var);
        let point = TracePoint { free_energy, distance_bound };
        if steps < options.trace_points {
            trace.push(point);
        }
        let bound = point.distance_bound;
        let converged = options.tolerance.is_some_and(|tolerance| bound <= tolerance);
        if converged || steps == options.max_steps || !bound.is_finite() {
            return Inference { mean, free_energy, distance_bound, steps, converged, trace };
        }
        for (m, g) in mean.iter_mut().zip(direction) {
            *m += options.kappa * g;
        }
    }
    unreachable!("the steps are bounded")
}

/// The vector that power iteration starts from: of no symmetry that an eigenvector might have, and of no element near
/// 0, for a state that is coupled to no other is an eigenvector.
pub fn curvature_start(states: usize) -> Vec<f64> {
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let element = |j: usize| {
        let spread = ((j + 1) as f64 * golden).fract() - 0.25;
        spread + 0.125_f64.copysign(spread)
    };
    (0..states).map(element).collect()
}

/// λmax of JᵀΠJ + V0⁻¹ by power iteration from [`curvature_start`]: until the Rayleigh quotient changes by no more
/// than `tolerance` of itself, after [`CURVATURE_LEAST_STEPS`] at the earliest, or `max_steps` times.
///
/// Never above the true λmax but for rounding, and below it where eigenvalues lie close together or the start is all
/// but orthogonal to the leading eigenvector. Steps converge for 0 < κ < 2/λmax.
pub fn largest_curvature(model: &GaussianModel<'_>, tolerance: f64, max_steps: usize) -> f64 {
    let mut v = curvature_start(model.states());
    let mut last = 0.0_f64;
    for step in 1..=max_steps.max(1) {
        let norm = pairwise_sum(&v, |v| v * v).sqrt();
        v.iter_mut().for_each(|v| *v /= norm);
        let mut weighted = model.product(&v);
        weighted.iter_mut().zip(model.obs_precision).for_each(|(w, p)| *w *= p);
        let mut next = model.columns(&weighted, |j| j);
        for ((next, v), v0) in next.iter_mut().zip(&v).zip(model.prior_var) {
            *next += v / v0;
        }
        let products: Vec<f64> = next.iter().zip(&v).map(|(n, v)| n * v).collect();
        let quotient = pairwise_sum(&products, |&p| p);
        let change = (quotient - last).abs();
        let settled = step >= CURVATURE_LEAST_STEPS && change <= tolerance * quotient;
        (v, last) = (next, quotient);
        if settled {
            break;
        }
    }
    last
}

/// The default step size for a λmax of [`largest_curvature`]: 1/λ. Steps converge as long as λ is more than half of
/// the true λmax, and none raises F.
pub fn default_kappa(largest_curvature: f64) -> f64 {
    1.0 / largest_curvature
}

/// The exact posterior of a model, and how likely its observation is.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// (JᵀΠJ + V0⁻¹)⁻¹·(JᵀΠ(o − b) + V0⁻¹·m0).
    pub mean: Vec<f64>,
    /// (JᵀΠJ + V0⁻¹)⁻¹, `[states, states]`.
    pub covariance: Array2<f64>,
    /// −ln p(o), in nats: no free energy is less.
    pub neg_log_evidence: f64,
    /// ½ ln(det V0 / det covariance): what an observation says of the states, in nats, whatever it is.
    pub information_gain: f64,
}

/// The posterior by Cholesky's factorisation of JᵀΠJ + V0⁻¹.
///
/// # Errors
/// A matrix that is not positive definite in f64.
pub fn posterior(model: &GaussianModel<'_>) -> Result<Posterior, ActiveInferenceError> {
    let n = model.states();
    let factor = factorise(normal_matrix(model))?;
    let weighted: Vec<f64> = (0..model.observations())
        .map(|i| model.obs_precision[i] * (model.observation[i] - model.offset[i]))
        .collect();
    let mut mean = model.columns(&weighted, |j| j);
    for (j, m) in mean.iter_mut().enumerate() {
        *m += model.prior_mean[j] / model.prior_var[j];
    }
    solve(&factor, &mut mean);
    let columns: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|j| {
            let mut unit = vec![0.0; n];
            unit[j] = 1.0;
            solve(&factor, &mut unit);
            unit
        })
        .collect();
    let covariance = Array2::from_shape_fn((n, n), |(i, j)| columns[j][i]);

    let misfit: f64 = accuracy_terms(&residual(model, &mean), model.obs_precision).iter().sum();
    let prior: f64 = (0..n)
        .map(|j| {
            let (d, v0) = (mean[j] - model.prior_mean[j], model.prior_var[j]);
            0.5 * (d * d / v0 + v0.ln())
        })
        .sum();
    let half_log_determinant: f64 = (0..n).map(|j| factor[j][j].ln()).sum();
    let half_log_prior: f64 = model.prior_var.iter().map(|v0| 0.5 * v0.ln()).sum();
    Ok(Posterior {
        mean,
        covariance,
        neg_log_evidence: prior + half_log_determinant - misfit,
        information_gain: half_log_prior + half_log_determinant,
    })
}

/// The lower triangle of JᵀΠJ + V0⁻¹, row by row.
fn normal_matrix(model: &GaussianModel<'_>) -> Vec<Vec<f64>> {
    let columns = model.jacobian.t();
    (0..model.states())
        .into_par_iter()
        .map(|a| {
            let weighted: Vec<f64> =
                columns.row(a).iter().zip(model.obs_precision).map(|(j, p)| j * p).collect();
            let mut row: Vec<f64> = (0..=a)
                .map(|b| columns.row(b).iter().zip(&weighted).map(|(j, w)| j * w).sum())
                .collect();
            row[a] += 1.0 / model.prior_var[a];
            row
        })
        .collect()
}

/// L of L·Lᵀ, in the place of a lower triangle.
fn factorise(mut matrix: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>, ActiveInferenceError> {
    for a in 0..matrix.len() {
        for b in 0..=a {
            let sum: f64 = (0..b).map(|k| matrix[a][k] * matrix[b][k]).sum();
            let rest = matrix[a][b] - sum;
            if a == b && !(rest > 0.0 && rest.is_finite()) {
                return Err(ActiveInferenceError::NotDefinite { state: a });
            }
            matrix[a][b] = if a == b { rest.sqrt() } else { rest / matrix[b][b] };
        }
    }
    Ok(matrix)
}

/// x of L·Lᵀ·x = `right`, in its place.
fn solve(factor: &[Vec<f64>], right: &mut [f64]) {
    for a in 0..right.len() {
        let sum: f64 = (0..a).map(|k| factor[a][k] * right[k]).sum();
        right[a] = (right[a] - sum) / factor[a][a];
    }
    for a in (0..right.len()).rev() {
        let sum: f64 = (a + 1..right.len()).map(|k| factor[k][a] * right[k]).sum();
        right[a] = (right[a] - sum) / factor[a][a];
    }
}
