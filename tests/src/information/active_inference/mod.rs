//! Active inference against the reference: one step, whole inferences, batches, refusals.

use approx::assert_relative_eq;
use kasmina::information::active_inference::{
    ActiveInference, Belief, FreeEnergy, GaussianModel, InferenceError, InferenceOptions, Inferred,
};
use kasmina::types::DType;
use kasmina::{BufferStatistics, Device, Error};
use kasmina_reference::information::active_inference::{self as reference, InferOptions};
use ndarray::{Array1, Array2};

use crate::{Numbers, assert_near};

pub mod published;
pub mod stages;

/// Shapes of models, what runs them, and the seed of their values.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Models.
    pub models: usize,
    /// Observations of each.
    pub observations: usize,
    /// States of each.
    pub states: usize,
    /// What J is stored in.
    pub jacobian: DType,
    /// The models' curvatures.
    pub spectrum: Spectrum,
    /// As [`InferenceOptions::bulk_copies`].
    pub bulk_copies: bool,
    /// Seed of the values.
    pub seed: u64,
}

/// How a model's curvatures lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spectrum {
    /// As they come.
    Close,
    /// One of about 3.5 and the others below 2: power iteration and belief steps end early, for wide models under the
    /// executor.
    Apart,
}

impl Case {
    /// Models of a shape, J in f64.
    pub const fn new(models: usize, observations: usize, states: usize) -> Self {
        let (jacobian, spectrum) = (DType::F64, Spectrum::Close);
        Self { models, observations, states, jacobian, spectrum, bulk_copies: true, seed: 7 }
    }
}

/// Errors of f64 arithmetic in sums of this many terms of one size, with a margin.
const TOLERANCE: f64 = 1e-11;

/// A model whose curvature does not grow with its size, with a belief to begin with. With J in f32 its elements are
/// values of f32, so that the reference has the same model.
pub fn model(case: &Case, number: u64) -> (GaussianModel, Belief) {
    let mut numbers = Numbers::new(case.seed.wrapping_add(number << 32));
    let (m, n) = (case.observations, case.states);
    let apart = case.spectrum == Spectrum::Apart;
    let size = 1.0 / ((m + n) as f32).sqrt();
    let first_row = if apart { (7.5 / n as f32).sqrt() } else { size };
    let jacobian = Array2::from_shape_fn((m, n), |(i, _)| {
        let j = if i == 0 { first_row } else { size } * numbers.in_range(-1.0, 1.0);
        if case.jacobian == DType::F32 { f64::from(j) } else { f64::from(j) * 1.000_000_1 }
    });
    let mut values = |len: usize, low: f32, high: f32| -> Array1<f64> {
        (0..len).map(|_| f64::from(numbers.in_range(low, high)) * 1.000_000_1).collect()
    };
    let (precisions, variances) =
        if apart { ([0.8, 1.2], [0.9, 1.1]) } else { ([0.2, 4.0], [0.3, 2.0]) };
    let model = GaussianModel::builder(jacobian)
        .offset(values(m, -1.0, 1.0))
        .obs_precision(values(m, precisions[0], precisions[1]))
        .observation(values(m, -2.0, 2.0))
        .prior_mean(values(n, -1.0, 1.0))
        .prior_var(values(n, variances[0], variances[1]))
        .build()
        .expect("a valid model");
    let mut variance = values(n, 0.05, 1.0).to_vec();
    // Below the floor of variances, where it counts as the floor.
    variance[n / 2] = 1e-12;
    (model, Belief { mean: values(n, -1.0, 1.0).to_vec(), variance })
}

fn models(case: &Case) -> (Vec<GaussianModel>, Vec<Belief>) {
    (0..case.models as u64).map(|number| model(case, number)).unzip()
}

fn with_reference<R>(
    model: &GaussianModel,
    arrays: &ReferenceArrays,
    use_model: impl FnOnce(&reference::GaussianModel<'_>) -> R,
) -> R {
    use_model(&reference::GaussianModel {
        jacobian: model.jacobian(),
        offset: &arrays.offset,
        obs_precision: &arrays.obs_precision,
        observation: &arrays.observation,
        prior_mean: &arrays.prior_mean,
        prior_var: &arrays.prior_var,
    })
}

struct ReferenceArrays {
    offset: Vec<f64>,
    obs_precision: Vec<f64>,
    observation: Vec<f64>,
    prior_mean: Vec<f64>,
    prior_var: Vec<f64>,
}

impl ReferenceArrays {
    fn of(model: &GaussianModel) -> Self {
        Self {
            offset: model.offset().to_vec(),
            obs_precision: model.obs_precision().to_vec(),
            observation: model.observation().to_vec(),
            prior_mean: model.prior_mean().to_vec(),
            prior_var: model.prior_var().to_vec(),
        }
    }
}

fn parts(f: &FreeEnergy) -> [f64; 5] {
    [f.complexity, f.accuracy_plugin, f.accuracy_expected, f.plugin(), f.exact()]
}

/// Sums of a term for each state or observation: rounding errors are proportional to their number.
#[track_caller]
fn compare_energies(what: &str, case: &Case, got: &FreeEnergy, expected: &FreeEnergy) {
    let scale = (case.states + case.observations) as f64;
    assert_near(what, &parts(got), &parts(expected), scale, TOLERANCE);
}

fn inference(device: &Device, case: &Case) -> ActiveInference {
    let (models, beliefs) = models(case);
    let Case { jacobian, bulk_copies, .. } = *case;
    let trace_points = TRACE_POINTS;
    let options = InferenceOptions { kappa: None, jacobian, trace_points, bulk_copies };
    let mut inference =
        ActiveInference::new(device, &models, options).unwrap_or_else(|why| panic!("{why}"));
    inference.set_beliefs(&beliefs).expect("beliefs that fit");
    inference
}

/// Figures of so many μ are kept.
const TRACE_POINTS: usize = 3;

/// [`check_steps`], [`check_inferences`] and [`check_curvature`] of the same models on the device.
#[track_caller]
pub fn check_all(device: &Device, case: Case, tolerance: f64) {
    let mut one = inference(device, &case);
    curvature_of(&one, &case);
    steps_of(&mut one, &case);
    inferences_of(&mut one, &case, tolerance);
}

/// Steps one by one, each compared with the reference; two runs give the same bits.
#[track_caller]
pub fn check_steps(device: &Device, case: Case) {
    steps_of(&mut inference(device, &case), &case);
}

/// As [`check_steps`], and the curvatures, where the reference finds them soon.
#[track_caller]
pub fn check_steps_and_curvature(device: &Device, case: Case) {
    let mut one = inference(device, &case);
    curvature_of(&one, &case);
    steps_of(&mut one, &case);
}

/// Whole inferences, with their traces, by number of steps and until they are within `tolerance`.
#[track_caller]
pub fn check_inferences(device: &Device, case: Case, tolerance: f64) {
    inferences_of(&mut inference(device, &case), &case, tolerance);
}

/// λmax on the device is that of the reference's power iteration, and the default step is its inverse.
#[track_caller]
pub fn check_curvature(device: &Device, case: Case) {
    curvature_of(&inference(device, &case), &case);
}

#[track_caller]
fn steps_of(one: &mut ActiveInference, case: &Case) {
    let (models, beliefs) = models(case);
    let mut run = || -> Vec<_> {
        one.set_beliefs(&beliefs).expect("beliefs that fit");
        let mut step = || {
            one.step().unwrap_or_else(|why| panic!("{case:?}: {why}"));
            (one.beliefs().expect("beliefs"), one.last_free_energies().expect("energies"))
        };
        (0..2).map(|_| step()).collect()
    };
    let (steps, again) = (run(), run());
    assert!(steps == again, "{case:?}: two runs, two results");
    let mut now = beliefs.clone();
    for (step, (got, energies)) in steps.into_iter().enumerate() {
        for (i, model) in models.iter().enumerate() {
            let what = format!("model {i}, step {step} of {case:?}");
            let arrays = ReferenceArrays::of(model);
            with_reference(model, &arrays, |model| {
                let before = reference::free_energy(model, &now[i]);
                compare_energies(&what, case, &energies[i], &before);
                now[i].mean = reference::belief_step(model, &now[i].mean, one.kappas()[i]);
            });
            assert_near(&what, &got[i].mean, &now[i].mean, 1.0, TOLERANCE);
            assert_eq!(got[i].variance, now[i].variance, "{what}");
        }
    }
}

#[track_caller]
fn inferences_of(one: &mut ActiveInference, case: &Case, tolerance: f64) {
    let (models, beliefs) = models(case);
    // None, an odd and an even number: μ ends in either of two places.
    let runs = [(0, None), (1, None), (4, None), (4000, Some(tolerance))];
    for (max_steps, tolerance) in runs {
        let run = |inference: &mut ActiveInference| {
            match tolerance {
                None => inference.infer(max_steps),
                Some(tolerance) => inference.infer_until_converged(tolerance, max_steps),
            }
            .unwrap_or_else(|why| panic!("{case:?}: {why}"))
        };
        let from_start = |inference: &mut ActiveInference| {
            inference.set_beliefs(&beliefs).expect("beliefs that fit");
            run(inference)
        };
        let got = from_start(one);
        if tolerance.is_some() {
            assert!(got == from_start(one), "{case:?}: two runs, two results");
        }
        for (i, (model, got)) in models.iter().zip(&got).enumerate() {
            let what = format!("model {i}, {max_steps} steps of {case:?}");
            let arrays = ReferenceArrays::of(model);
            let kappa = one.kappas()[i];
            let expected = with_reference(model, &arrays, |model| {
                let options =
                    InferOptions { kappa, max_steps, tolerance, trace_points: TRACE_POINTS };
                reference::infer(model, &beliefs[i], options)
            });
            compare(&what, case, got, &expected);
            if let Some(tolerance) = tolerance {
                assert!(got.converged, "{what}: {} steps", got.steps);
                // The posterior of large models takes the reference long.
                if case.states <= 300 {
                    let exact = model.posterior().expect("a definite matrix");
                    let distance: f64 = got
                        .belief
                        .mean
                        .iter()
                        .zip(&exact.mean)
                        .zip(model.prior_var())
                        .map(|((m, e), v0)| (m - e).powi(2) / v0)
                        .sum();
                    assert!(distance.sqrt() <= tolerance + 1e-11, "{what}: {}", distance.sqrt());
                }
                // It goes on where it ended, and has nothing to do.
                if i == 0 {
                    let more = run(one);
                    assert!(more.iter().all(|found| found.steps <= 1 && found.converged));
                }
            } else {
                assert_eq!((got.steps, got.converged), (max_steps, false), "{what}");
            }
        }
    }
}

#[track_caller]
fn compare(what: &str, case: &Case, got: &Inferred, expected: &reference::Inference) {
    // Where the bound crosses the tolerance rounding may decide.
    assert!(got.steps.abs_diff(expected.steps) <= 1, "{what}: {} steps", got.steps);
    assert_near(what, &got.belief.mean, &expected.mean, 1.0, 10.0 * TOLERANCE);
    compare_energies(what, case, &got.free_energy, &expected.free_energy);
    assert_eq!(got.trace.len(), (got.steps + 1).min(TRACE_POINTS), "{what}");
    assert_eq!(expected.trace.len(), (expected.steps + 1).min(TRACE_POINTS), "{what}");
    for (got, expected) in got.trace.iter().zip(&expected.trace) {
        compare_energies(what, case, &got.free_energy, &expected.free_energy);
        let bound = [expected.distance_bound];
        assert_near(what, &[got.distance_bound], &bound, case.states as f64, TOLERANCE);
    }
}

#[track_caller]
fn curvature_of(one: &ActiveInference, case: &Case) {
    let (models, _) = models(case);
    for (i, model) in models.iter().enumerate() {
        let found = one.curvatures()[i];
        let arrays = ReferenceArrays::of(model);
        let exact = with_reference(model, &arrays, |model| {
            reference::largest_curvature(model, 1e-13, 100_000)
        });
        // From below, and close enough for a step size, which takes more than half. Where many eigenvalues lie close
        // below the largest, the iteration settles among them; so does the reference's by the same rule, in which the
        // last step may be another one.
        assert!(found <= exact * (1.0 + 1e-9) && found > 0.9 * exact, "{found} is not {exact}");
        assert_relative_eq!(found, model.largest_curvature(), max_relative = 1e-3);
        assert_near("κ", &[one.kappas()[i]], &[1.0 / found], 0.0, 1e-15);
    }
}

/// One state of a larger curvature, coupled to no other, at each of `positions` below 36: the default step size is
/// 1/λmax, and the steps converge.
#[track_caller]
pub fn check_outliers(device: &Device, positions: &[usize], tolerance: f64) {
    let states = 36;
    let cases: Vec<(usize, f64)> =
        positions.iter().flat_map(|&at| [2.1, 2.5, 10.0].map(|ratio| (at, ratio))).collect();
    let models: Vec<GaussianModel> = cases
        .iter()
        .map(|&(at, ratio)| {
            // Curvatures of 2, and one of 2·ratio.
            let mut precision = Array1::ones(states);
            precision[at] = 2.0 * ratio - 1.0;
            GaussianModel::builder(Array2::eye(states))
                .observation(Array1::linspace(-1.0, 2.0, states))
                .obs_precision(precision)
                .build()
                .expect("a valid model")
        })
        .collect();
    let mut one =
        ActiveInference::new(device, &models, InferenceOptions::default()).expect("models");
    let found = one.infer_until_converged(tolerance, 1000).expect("steps");
    for (i, &(at, ratio)) in cases.iter().enumerate() {
        let what = format!("state {at}, {ratio} times the others");
        assert_near(&what, &[one.curvatures()[i]], &[2.0 * ratio], 0.0, 1e-9);
        assert!(found[i].converged, "{what}: {} steps", found[i].steps);
        let exact = models[i].posterior().expect("a definite matrix");
        // The prior's deviations are 1.
        assert_near(&what, &found[i].belief.mean, &exact.mean, 1.0, 1.01 * tolerance);
    }
}

/// The free energies of beliefs, which stay; an inference of no steps.
#[track_caller]
pub fn check_no_steps(device: &Device, case: Case) {
    let (models, beliefs) = models(&case);
    let mut one = inference(device, &case);
    let energies = one.free_energies().expect("energies");
    assert_eq!(one.last_free_energies().expect("energies"), energies);
    assert_eq!(one.beliefs().expect("beliefs"), beliefs, "{case:?}");
    for (i, (model, got)) in models.iter().zip(&energies).enumerate() {
        let expected = model.free_energy(&beliefs[i]).expect("a belief that fits");
        compare_energies(&format!("model {i} of {case:?}"), &case, got, &expected);
    }
    let far = one.infer_until_converged(1e-3, 0).expect("no steps");
    for ((found, belief), energy) in far.iter().zip(&beliefs).zip(&energies) {
        assert_eq!((found.steps, found.converged), (0, false), "{case:?}");
        assert_eq!((&found.belief, &found.free_energy), (belief, energy), "{case:?}");
    }
    one.infer_until_converged(1e-3, 4000).expect("steps");
    let near = one.infer_until_converged(1e-3, 0).expect("no steps");
    assert!(near.iter().all(|found| found.steps == 0 && found.converged), "{case:?}");
}

/// A belief whose free energy is not finite ends its own inference and no other.
#[track_caller]
pub fn check_not_finite(device: &Device, case: Case) {
    let (models, mut beliefs) = models(&case);
    let mut one = inference(device, &case);
    beliefs[0].mean[0] = 1e200;
    const STEPS: usize = 4;
    for tolerance in [None, Some(1e-6)] {
        one.set_beliefs(&beliefs).expect("beliefs that fit");
        one.queue_inference(tolerance, STEPS).expect("steps");
        let found = one.inferred().expect("a result");
        let lost = &found[0];
        assert_eq!((lost.steps, lost.converged, lost.distance_bound), (0, false, f64::INFINITY));
        assert_eq!(lost.belief, beliefs[0]);
        let f = lost.free_energy;
        let expected = [f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
        assert_eq!([f.complexity, f.accuracy_plugin, f.accuracy_expected], expected);
        for (i, found) in found.iter().enumerate().skip(1) {
            let arrays = ReferenceArrays::of(&models[i]);
            let (kappa, max_steps) = (one.kappas()[i], STEPS);
            let expected = with_reference(&models[i], &arrays, |model| {
                let options = InferOptions { kappa, max_steps, tolerance, trace_points: 0 };
                reference::infer(model, &beliefs[i], options)
            });
            assert_eq!(found.steps, expected.steps, "model {i}");
            assert_near("mean", &found.belief.mean, &expected.mean, 1.0, TOLERANCE);
        }
    }
}

/// A step makes no buffer and copies nothing between host and device, nor does an inference that is only queued; on a
/// GPU the pool and the stream say so too.
#[track_caller]
pub fn check_steady_steps(device: &Device, case: Case) {
    let mut one = inference(device, &case);
    let step = |one: &mut ActiveInference| {
        one.step().expect("a step");
        one.queue_inference(Some(0.5), 2).expect("steps");
    };
    step(&mut one);
    let counts = || {
        let gpu = match device {
            Device::Cuda(gpu) => {
                Some((gpu.pool().statistics().allocations, gpu.stream().transfers()))
            }
            _ => None,
        };
        (BufferStatistics::of_this_thread(), gpu)
    };
    let before = counts();
    for _ in 0..3 {
        step(&mut one);
    }
    assert_eq!(counts(), before, "a step allocated or copied");
    // The counters do count.
    one.beliefs().expect("a read");
    assert!(counts().0.copies_out > before.0.copies_out);
}

/// What means nothing is refused.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let case = Case { seed: 1, ..Case::new(1, 4, 3) };
    let (good, belief) = model(&case, 0);
    let new = |models: &[GaussianModel], options| {
        ActiveInference::new(device, models, options).err().expect("refused")
    };
    let options = InferenceOptions::default();
    assert!(matches!(new(&[], options), Error::Inference(InferenceError::NoModels)));
    let (other, _) = model(&Case { states: 2, ..case }, 0);
    assert!(matches!(
        new(&[good.clone(), other], options),
        Error::Inference(InferenceError::Shapes { model: 1, .. })
    ));
    for kappa in [0.0, -0.1, f64::NAN, f64::INFINITY, 1e3] {
        let refused =
            new(std::slice::from_ref(&good), InferenceOptions { kappa: Some(kappa), ..options });
        assert!(
            matches!(&refused, Error::Inference(InferenceError::InBatch { model: 0, .. })),
            "{refused:?}"
        );
    }
    let f16 = InferenceOptions { jacobian: DType::F16, ..options };
    assert!(matches!(
        new(std::slice::from_ref(&good), f16),
        Error::Setting { setting: "jacobian", .. }
    ));

    let mut inference = ActiveInference::new(device, &[good], options).expect("a model");
    let before = inference.beliefs().expect("beliefs");
    let short = Belief { mean: vec![0.0; 2], ..belief.clone() };
    let nan = Belief { mean: vec![f64::NAN; 3], ..belief.clone() };
    let flat = Belief { variance: vec![0.0; 3], ..belief.clone() };
    for broken in [short, nan, flat] {
        inference.set_beliefs(&[broken]).expect_err("refused");
    }
    assert!(matches!(
        inference.set_beliefs(&[belief.clone(), belief]),
        Err(Error::Inference(InferenceError::Beliefs { expected: 1, got: 2 }))
    ));
    for tolerance in [0.0, -1.0, f64::NAN] {
        inference.infer_until_converged(tolerance, 10).expect_err("refused");
    }
    assert_eq!(inference.beliefs().expect("beliefs"), before, "a refusal changes nothing");
}
