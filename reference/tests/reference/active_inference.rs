//! Gaussian active inference: published values, the posterior, differences of the free energy, scalar Kalman
//! filtering.

use approx::assert_relative_eq;
use kasmina_reference::information::active_inference::{
    ActiveInferenceError, Belief, GaussianModel, InferOptions, Preferences, accuracy_terms,
    belief_step, complexity_terms, curvature_start, default_kappa, distance_bound,
    expected_free_energy, free_energy, gradient, infer, largest_curvature, optimum_variance,
    posterior, residual,
};
use kasmina_reference::information::{axpby, tile_projection, velocity};
use kasmina_reference::linear::gemv_transposed;
use ndarray::Array2;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
    scalar_kalman: Kalman,
}

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the case's own names")]
struct Case {
    name: String,
    J: Vec<Vec<f64>>,
    offset: Vec<f64>,
    obs_precision: Vec<f64>,
    observation: Vec<f64>,
    prior_mean: Vec<f64>,
    prior_var: Vec<f64>,
    init: Init,
    kappa: f64,
    max_stable_kappa: f64,
    kernels_at_init: AtInit,
    trace: Vec<Point>,
    trace_likelihood_only: Vec<Means>,
    mu_after_steps: AfterSteps,
    fixed_point: FixedPoint,
    likelihood_only_limit_mu: Vec<f64>,
    expected_free_energy: Option<Expected>,
}

#[derive(Deserialize)]
struct Init {
    mu: Vec<f64>,
    var: Vec<f64>,
}

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the case's own names")]
struct AtInit {
    prediction: Vec<f64>,
    residual: Vec<f64>,
    weighted_error: Vec<f64>,
    JT_weighted_error: Vec<f64>,
    prior_error: Vec<f64>,
    kl_components: Vec<f64>,
    complexity: f64,
    accuracy_plugin_components: Vec<f64>,
    accuracy_plugin: f64,
    accuracy_expected: f64,
    F_plugin: f64,
    F_exact: f64,
    surprise_plugin: f64,
    mu_after_one_step: Vec<f64>,
    mu_after_one_step_likelihood_only: Vec<f64>,
}

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the case's own names")]
struct Point {
    iteration: usize,
    mu: Vec<f64>,
    residual: Vec<f64>,
    complexity: f64,
    accuracy_plugin: f64,
    accuracy_expected: f64,
    F_plugin: f64,
    F_exact: f64,
}

#[derive(Deserialize)]
struct Means {
    iteration: usize,
    mu: Vec<f64>,
}

#[derive(Deserialize)]
struct AfterSteps {
    steps: usize,
    mu: Vec<f64>,
}

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the case's own names")]
struct FixedPoint {
    mu: Vec<f64>,
    posterior_cov: Vec<Vec<f64>>,
    posterior_var_marginal: Vec<f64>,
    meanfield_var: Vec<f64>,
    kalman_gain: Vec<Vec<f64>>,
    F_at_optimum: f64,
    neg_log_evidence: f64,
    gap_meanfield: f64,
    F_plugin_at_mu_star_init_var: f64,
}

/// At the fixed point with the variances of least free energy.
#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the case's own names")]
struct Expected {
    preferred_mean: Vec<f64>,
    preferred_var: Vec<f64>,
    predicted_obs_mean: Vec<f64>,
    predicted_obs_var_diag: Vec<f64>,
    prism_risk: f64,
    prism_ambiguity: f64,
    prism_novelty: f64,
    prism_G: f64,
    gaussian_risk_kl_diag: f64,
    gaussian_ambiguity: f64,
    info_gain_full: f64,
}

#[derive(Deserialize)]
#[expect(non_snake_case, reason = "the case's own names")]
struct Kalman {
    A: f64,
    Q: f64,
    C: f64,
    R: f64,
    kappa: f64,
    iterations: usize,
    steps: Vec<KalmanStep>,
}

#[derive(Deserialize)]
struct KalmanStep {
    obs: f64,
    pred_mean: f64,
    pred_var: f64,
    gain: f64,
    post_mean: f64,
    post_var: f64,
    belief_update_mean: f64,
    belief_var: f64,
    neg_log_pred: f64,
}

fn cases() -> Cases {
    serde_json::from_str(include_str!("../cases/active_inference_case.json"))
        .expect("the cases are JSON")
}

fn matrix(rows: &[Vec<f64>]) -> Array2<f64> {
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j])
}

/// Numbers of order 1: within 1e-10 of their size, or of 1 where they are smaller.
#[track_caller]
fn near(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= 1e-10 * w.abs().max(1.0), "{what}[{i}]: {g} is not {w}");
    }
}

impl Case {
    fn with<R>(&self, use_model: impl FnOnce(&GaussianModel<'_>, &Belief) -> R) -> R {
        let jacobian = matrix(&self.J);
        let model = GaussianModel {
            jacobian: jacobian.view(),
            offset: &self.offset,
            obs_precision: &self.obs_precision,
            observation: &self.observation,
            prior_mean: &self.prior_mean,
            prior_var: &self.prior_var,
        };
        model.check().expect("a valid case");
        let belief = Belief { mean: self.init.mu.clone(), variance: self.init.var.clone() };
        use_model(&model, &belief)
    }
}

#[test]
fn the_published_values_at_the_start() {
    for case in cases().cases {
        let at = &case.kernels_at_init;
        case.with(|model, belief| {
            let name = &case.name;
            let r = residual(model, &belief.mean);
            near(name, &r, &at.residual);
            let predicted: Vec<f64> = r.iter().zip(model.observation).map(|(r, o)| o - r).collect();
            near(name, &predicted, &at.prediction);
            let weighted: Vec<f64> =
                r.iter().zip(model.obs_precision).map(|(r, p)| r * p).collect();
            near(name, &weighted, &at.weighted_error);
            let back = gemv_transposed(1.0, model.jacobian, &weighted, 0.0, model.prior_mean);
            near(name, &back, &at.JT_weighted_error);
            let prior = axpby(1.0, &gradient(model, &belief.mean), -1.0, &back);
            near(name, &prior, &at.prior_error);
            let kl =
                complexity_terms(&belief.mean, &belief.variance, model.prior_mean, model.prior_var);
            near(name, &kl, &at.kl_components);
            near(name, &accuracy_terms(&r, model.obs_precision), &at.accuracy_plugin_components);
            let f = free_energy(model, belief);
            let got = [f.complexity, f.accuracy_plugin, f.accuracy_expected, f.plugin(), f.exact()];
            let want =
                [at.complexity, at.accuracy_plugin, at.accuracy_expected, at.F_plugin, at.F_exact];
            near(name, &got, &want);
            near(name, &[-f.accuracy_plugin], &[at.surprise_plugin]);
            near(name, &belief_step(model, &belief.mean, case.kappa), &at.mu_after_one_step);
            let limit = 2.0 / largest_curvature(model, 1e-15, 100_000);
            assert_relative_eq!(limit, case.max_stable_kappa, max_relative = 1e-10);
        });
    }
}

#[test]
fn the_published_traces() {
    for case in cases().cases {
        case.with(|model, belief| {
            let run = |model: &GaussianModel<'_>, max_steps| {
                let trace_points = max_steps + 1;
                let kappa = case.kappa;
                let options = InferOptions { kappa, max_steps, tolerance: None, trace_points };
                infer(model, belief, options)
            };
            for point in &case.trace {
                let got = run(model, point.iteration);
                assert_eq!((got.steps, got.trace.len()), (point.iteration, point.iteration + 1));
                near(&case.name, &got.mean, &point.mu);
                near(&case.name, &residual(model, &got.mean), &point.residual);
                let f = got.free_energy;
                let parts =
                    [f.complexity, f.accuracy_plugin, f.accuracy_expected, f.plugin(), f.exact()];
                let want = [
                    point.complexity,
                    point.accuracy_plugin,
                    point.accuracy_expected,
                    point.F_plugin,
                    point.F_exact,
                ];
                near(&case.name, &parts, &want);
            }
            let after = &case.mu_after_steps;
            // Taken after the step from the last point as well.
            near(&case.name, &run(model, after.steps + 1).mean, &after.mu);
            // Without a prior: one that is infinitely wide.
            let wide = vec![f64::INFINITY; model.states()];
            let flat = GaussianModel { prior_var: &wide, ..*model };
            let step = belief_step(&flat, &belief.mean, case.kappa);
            near(&case.name, &step, &case.kernels_at_init.mu_after_one_step_likelihood_only);
            for point in &case.trace_likelihood_only {
                let mut mean = belief.mean.clone();
                for _ in 0..point.iteration {
                    mean = belief_step(&flat, &mean, case.kappa);
                }
                near(&case.name, &mean, &point.mu);
            }
            let mut mean = belief.mean.clone();
            for _ in 0..40_000 {
                mean = belief_step(&flat, &mean, case.kappa);
            }
            near(&case.name, &mean, &case.likelihood_only_limit_mu);
        });
    }
}

#[test]
fn the_published_fixed_points() {
    for case in cases().cases {
        let want = &case.fixed_point;
        case.with(|model, belief| {
            let exact = posterior(model).expect("a definite matrix");
            near(&case.name, &exact.mean, &want.mu);
            near(
                &case.name,
                exact.covariance.as_slice().expect("row-major"),
                &want.posterior_cov.concat(),
            );
            near(&case.name, &exact.covariance.diag().to_vec(), &want.posterior_var_marginal);
            near(&case.name, &[exact.neg_log_evidence], &[want.neg_log_evidence]);
            let variance = optimum_variance(model);
            near(&case.name, &variance, &want.meanfield_var);
            let gain = exact.covariance.dot(&model.jacobian.t())
                * ndarray::ArrayView1::from(model.obs_precision);
            near(&case.name, &gain.iter().copied().collect::<Vec<_>>(), &want.kalman_gain.concat());
            let best = Belief { mean: exact.mean.clone(), variance };
            let least = free_energy(model, &best).exact();
            near(&case.name, &[least], &[want.F_at_optimum]);
            near(&case.name, &[least - exact.neg_log_evidence], &[want.gap_meanfield]);
            let start = Belief { mean: exact.mean.clone(), variance: belief.variance.clone() };
            let plugin = free_energy(model, &start).plugin();
            near(&case.name, &[plugin], &[want.F_plugin_at_mu_star_init_var]);

            for kappa in [case.kappa, default_kappa(largest_curvature(model, 1e-6, 1000))] {
                let (max_steps, tolerance) = (100_000, Some(1e-10));
                let options = InferOptions { kappa, max_steps, tolerance, trace_points: 3 };
                let got = infer(model, belief, options);
                assert_eq!(got.trace.len(), 3, "{}", case.name);
                assert!(got.converged && got.distance_bound <= 1e-10, "{}: {got:?}", case.name);
                for (g, w) in got.mean.iter().zip(&exact.mean) {
                    assert!((g - w).abs() <= 1e-8, "{}: {g} is not {w}", case.name);
                }
            }
        });
    }
}

#[test]
fn the_published_expected_free_energies() {
    let mut checked = 0;
    for case in cases().cases {
        let Some(want) = &case.expected_free_energy else { continue };
        case.with(|model, _| {
            let exact = posterior(model).expect("a definite matrix");
            let belief = Belief { mean: exact.mean, variance: optimum_variance(model) };
            let (mean, variance) = (want.preferred_mean.clone(), want.preferred_var.clone());
            let preferences = Preferences { mean, variance };
            let got = expected_free_energy(model, &belief, &preferences).expect("what fits");
            near(&case.name, &got.predicted_mean, &want.predicted_obs_mean);
            near(&case.name, &got.predicted_variance, &want.predicted_obs_var_diag);
            let parts = [got.risk, got.ambiguity, got.novelty, exact.information_gain];
            let expected = [
                want.gaussian_risk_kl_diag,
                want.gaussian_ambiguity,
                want.prism_novelty,
                want.info_gain_full,
            ];
            near(&case.name, &parts, &expected);
            near(&case.name, &[got.total()], &[expected[0] + expected[1]]);
            let squared = [got.squared_error, got.predicted_spread(), got.squared_total()];
            near(&case.name, &squared, &[want.prism_risk, want.prism_ambiguity, want.prism_G]);
        });
        checked += 1;
    }
    assert_eq!(checked, 2);
}

/// Preferences of other variances than the cases' 1, by hand: one observation of one state.
#[test]
fn expected_free_energy_weighs_by_the_preferred_variance() {
    let jacobian = Array2::from_elem((1, 1), 2.0);
    let model = GaussianModel {
        jacobian: jacobian.view(),
        offset: &[0.5],
        // Narrower than what variances of beliefs are clamped at.
        obs_precision: &[1e12],
        observation: &[0.0],
        prior_mean: &[0.0],
        prior_var: &[1.0],
    };
    let of = |variance, preferred: f64| {
        let belief = Belief { mean: vec![1.0], variance: vec![variance] };
        let preferences = Preferences { mean: vec![4.5], variance: vec![preferred] };
        expected_free_energy(&model, &belief, &preferences).expect("what fits")
    };
    // N(2.5, 4·0.25) from N(4.5, 4): ½(1/4 + 4/4 − 1 − ln(1/4)).
    let got = of(0.25, 4.0);
    assert_relative_eq!(got.risk, 0.125 + 2.0_f64.ln(), max_relative = 1e-10);
    assert_relative_eq!(got.squared_error, 1.0);
    assert_relative_eq!(got.novelty, 2.0_f64.ln());
    // What is preferred is what is predicted: there is no risk, and ambiguity may be below 0.
    let belief = Belief { mean: vec![2.0], variance: vec![1e-10] };
    let predicted = Preferences { mean: vec![4.5], variance: vec![4e-10 + 1e-12] };
    let got = expected_free_energy(&model, &belief, &predicted).expect("what fits");
    assert!(got.risk.abs() < 1e-12, "{}", got.risk);
    let entropy = 0.5 * (std::f64::consts::TAU * std::f64::consts::E * 1e-12).ln();
    assert_relative_eq!(got.total(), entropy, max_relative = 1e-10);
    for (mean, variance) in
        [(vec![], vec![1.0]), (vec![f64::NAN], vec![1.0]), (vec![0.0], vec![0.0])]
    {
        let preferences = Preferences { mean, variance };
        expected_free_energy(&model, &belief, &preferences).expect_err("refused");
    }
}

#[test]
fn a_scalar_kalman_filter() {
    let Kalman { A, Q, C, R, kappa, iterations, steps } = cases().scalar_kalman;
    let jacobian = Array2::from_elem((1, 1), C);
    // What the first prediction comes from.
    let (mut mean, mut variance) = (0.0, (steps[0].pred_var - Q) / (A * A));
    for step in steps {
        let (prior_mean, prior_var) = ([A * mean], [A * A * variance + Q]);
        near("prediction", &[prior_mean[0], prior_var[0]], &[step.pred_mean, step.pred_var]);
        let model = GaussianModel {
            jacobian: jacobian.view(),
            offset: &[0.0],
            obs_precision: &[1.0 / R],
            observation: &[step.obs],
            prior_mean: &prior_mean,
            prior_var: &prior_var,
        };
        let start = Belief { mean: prior_mean.to_vec(), variance: prior_var.to_vec() };
        let options =
            InferOptions { kappa, max_steps: iterations, tolerance: None, trace_points: 0 };
        mean = infer(&model, &start, options).mean[0];
        variance = optimum_variance(&model)[0];
        near("belief", &[mean, variance], &[step.belief_update_mean, step.belief_var]);
        near("Kalman's update", &[mean, variance], &[step.post_mean, step.post_var]);
        near("gain", &[variance * C / R], &[step.gain]);
        let evidence = posterior(&model).expect("a definite matrix").neg_log_evidence;
        near("evidence", &[evidence], &[step.neg_log_pred]);
    }
}

/// A state of a larger curvature that is coupled to no other: an eigenvector with one element.
#[test]
fn one_large_curvature_is_found_wherever_it_is() {
    let states = 150;
    let jacobian = Array2::eye(states);
    let (zeros, ones) = (vec![0.0; states], vec![1.0; states]);
    for at in 0..states {
        for ratio in [2.1, 2.5, 10.0] {
            // Curvatures of 2, and one of 2·ratio.
            let mut obs_precision = ones.clone();
            obs_precision[at] = 2.0 * ratio - 1.0;
            let model = GaussianModel {
                jacobian: jacobian.view(),
                offset: &zeros,
                obs_precision: &obs_precision,
                observation: &ones,
                prior_mean: &zeros,
                prior_var: &ones,
            };
            let found = largest_curvature(&model, 1e-5, 300);
            assert_relative_eq!(found, 2.0 * ratio, max_relative = 1e-9);
        }
    }
}

/// What the least number of steps rests on: no element is much below the others, so that none needs more.
#[test]
fn the_start_of_the_power_iteration_has_no_small_element() {
    let start = curvature_start(100_000);
    assert!(start.iter().all(|v| (0.125..=0.875).contains(&v.abs())));
    let norm = start.iter().map(|v| v * v).sum::<f64>().sqrt();
    // λ is no less than λmax·c^(2/47) after 24 steps.
    assert!((0.125 / norm).powf(2.0 / 47.0) > 0.5);
}

#[test]
fn what_means_nothing_is_refused() {
    let case = &cases().cases[0];
    case.with(|model, _| {
        let n = model.states();
        let short = vec![1.0; n - 1];
        let zero = vec![0.0; n];
        let nan = vec![f64::NAN; n];
        let refused = |model: GaussianModel<'_>| model.check().expect_err("refused");
        assert!(matches!(
            refused(GaussianModel { prior_mean: &short, ..*model }),
            ActiveInferenceError::Length { array: "prior_mean", expected: 3, got: 2, .. }
        ));
        assert!(matches!(
            refused(GaussianModel { prior_var: &zero, ..*model }),
            ActiveInferenceError::NotPositive { array: "prior_var", index: 0, .. }
        ));
        assert!(matches!(
            refused(GaussianModel { prior_mean: &nan, ..*model }),
            ActiveInferenceError::NotFinite { array: "prior_mean", index: 0, .. }
        ));
        let empty = Array2::zeros((0, 3));
        assert!(matches!(
            refused(GaussianModel { jacobian: empty.view(), ..*model }),
            ActiveInferenceError::Empty { rows: 0, columns: 3 }
        ));
        assert!(model.check_belief(&zero, &zero).is_err());
        assert!(model.check_belief(&zero, &[0.5; 3]).is_ok());
    });
}

#[test]
fn vectors() {
    assert_eq!(axpby(2.0, &[1.0, 3.0], -1.0, &[0.5, 4.0]), [1.5, 2.0]);
    assert_eq!(velocity(&[1.0, 3.0], &[0.5, 4.0], 0.25), [2.0, -4.0]);
    assert_eq!(tile_projection(&[1.0, 2.0, 3.0], 7), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
    assert_eq!(tile_projection(&[], 0), Vec::<f64>::new());
}

prop_compose! {
    fn any_model()(m in 1usize..9, n in 1usize..9)(
        j in prop::collection::vec(-2.0..2.0, m * n),
        rows in prop::collection::vec((-1.0..1.0, 0.1..5.0, -2.0..2.0), m),
        columns in prop::collection::vec((-1.0..1.0, 0.2..3.0, -1.0..1.0, 0.1..2.0), n),
    ) -> (Array2<f64>, Vec<(f64, f64, f64)>, Vec<(f64, f64, f64, f64)>) {
        (Array2::from_shape_vec((rows.len(), columns.len()), j).expect("m · n"), rows, columns)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The gradient is that of both free energies, and the bound bounds.
    #[test]
    fn differences_and_the_bound((jacobian, rows, columns) in any_model()) {
        let offset: Vec<f64> = rows.iter().map(|r| r.0).collect();
        let precision: Vec<f64> = rows.iter().map(|r| r.1).collect();
        let observation: Vec<f64> = rows.iter().map(|r| r.2).collect();
        let prior_mean: Vec<f64> = columns.iter().map(|c| c.0).collect();
        let prior_var: Vec<f64> = columns.iter().map(|c| c.1).collect();
        let mean: Vec<f64> = columns.iter().map(|c| c.2).collect();
        let variance: Vec<f64> = columns.iter().map(|c| c.3).collect();
        let model = GaussianModel {
            jacobian: jacobian.view(),
            offset: &offset,
            obs_precision: &precision,
            observation: &observation,
            prior_mean: &prior_mean,
            prior_var: &prior_var,
        };
        let direction = gradient(&model, &mean);
        for j in 0..mean.len() {
            let at = |h: f64| {
                let mut moved = mean.clone();
                moved[j] += h;
                free_energy(&model, &Belief { mean: moved, variance: variance.clone() })
            };
            // F is a quadratic of μ: the central difference is exact but for rounding.
            let (up, down) = (at(1e-3), at(-1e-3));
            for (up, down) in [(up.plugin(), down.plugin()), (up.exact(), down.exact())] {
                let slope = (up - down) / 2e-3;
                prop_assert!((slope + direction[j]).abs() < 1e-8 * (1.0 + slope.abs()));
            }
        }
        let exact = posterior(&model).expect("a definite matrix");
        let distance: f64 = mean
            .iter()
            .zip(&exact.mean)
            .zip(&prior_var)
            .map(|((m, e), v0)| (m - e).powi(2) / v0)
            .sum::<f64>()
            .sqrt();
        prop_assert!(distance <= distance_bound(&direction, &prior_var) * (1.0 + 1e-9) + 1e-12);
        // The variance of least free energy: moving any raises it.
        let best = optimum_variance(&model);
        let least = free_energy(&model, &Belief { mean: mean.clone(), variance: best.clone() });
        for j in 0..mean.len() {
            for factor in [0.99, 1.01] {
                let mut moved = best.clone();
                moved[j] *= factor;
                let f = free_energy(&model, &Belief { mean: mean.clone(), variance: moved });
                prop_assert!(f.exact() > least.exact());
            }
        }
        prop_assert!(least.exact() >= exact.neg_log_evidence - 1e-10);
    }
}
