//! Active inference against the reference: one step, whole inferences, batches, refusals.

use kasmina::information::active_inference::{
    ActiveInference, Belief, FreeEnergy, GaussianModel, InferenceError, InferenceOptions, Inferred,
};
use kasmina::types::DType;
use kasmina::{Device, Error};
use kasmina_reference::information::active_inference::{self as reference, InferOptions};
use ndarray::{Array1, Array2};

use crate::{Numbers, assert_near};

pub mod stages;

/// Shapes of models, and the seed of their values.
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
    /// Seed of the values.
    pub seed: u64,
}

/// Errors of f64 arithmetic in sums of this many terms of one size, with a margin.
const TOLERANCE: f64 = 1e-11;

/// A model whose curvature does not grow with its size, with a belief to begin with. With J in f32 its elements are
/// values of f32, so that the reference has the same model.
pub fn model(case: &Case, number: u64) -> (GaussianModel, Belief) {
    let mut numbers = Numbers::new(case.seed.wrapping_add(number << 32));
    let (m, n) = (case.observations, case.states);
    let size = 1.0 / ((m + n) as f32).sqrt();
    let jacobian = Array2::from_shape_fn((m, n), |_| {
        let j = size * numbers.in_range(-1.0, 1.0);
        if case.jacobian == DType::F32 { f64::from(j) } else { f64::from(j) * 1.000_000_1 }
    });
    let mut values = |len: usize, low: f32, high: f32| -> Array1<f64> {
        (0..len).map(|_| f64::from(numbers.in_range(low, high)) * 1.000_000_1).collect()
    };
    let model = GaussianModel::builder(jacobian)
        .offset(values(m, -1.0, 1.0))
        .obs_precision(values(m, 0.2, 4.0))
        .observation(values(m, -2.0, 2.0))
        .prior_mean(values(n, -1.0, 1.0))
        .prior_var(values(n, 0.3, 2.0))
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

fn inference(device: &Device, case: &Case, options: InferenceOptions) -> ActiveInference {
    let (models, beliefs) = models(case);
    let options = InferenceOptions { jacobian: case.jacobian, ..options };
    let mut inference =
        ActiveInference::new(device, &models, options).unwrap_or_else(|why| panic!("{why}"));
    inference.set_beliefs(&beliefs).expect("beliefs that fit");
    inference
}

/// Steps one by one, each compared with the reference; two runs give the same bits.
#[track_caller]
pub fn check_steps(device: &Device, case: Case) {
    let (models, beliefs) = models(&case);
    let mut one = inference(device, &case, InferenceOptions::default());
    let mut twin = inference(device, &case, InferenceOptions::default());
    let mut now = beliefs;
    for step in 0..3 {
        one.step().unwrap_or_else(|why| panic!("{case:?}: {why}"));
        twin.step().unwrap_or_else(|why| panic!("{case:?}: {why}"));
        let (got, energies) =
            (one.beliefs().expect("beliefs"), one.last_free_energies().expect("energies"));
        assert!(
            bits(&got) == bits(&twin.beliefs().expect("beliefs"))
                && format!("{energies:?}")
                    == format!("{:?}", twin.last_free_energies().expect("energies")),
            "{case:?}: two runs, two results"
        );
        for (i, model) in models.iter().enumerate() {
            let what = format!("model {i}, step {step} of {case:?}");
            let arrays = ReferenceArrays::of(model);
            with_reference(model, &arrays, |model| {
                let before = reference::free_energy(model, &now[i]);
                compare_energies(&what, &case, &energies[i], &before);
                now[i].mean = reference::belief_step(model, &now[i].mean, one.kappas()[i]);
            });
            assert_near(&what, &got[i].mean, &now[i].mean, 1.0, TOLERANCE);
            assert_eq!(got[i].variance, now[i].variance, "{what}");
        }
    }
}

fn bits(beliefs: &[Belief]) -> Vec<u64> {
    beliefs.iter().flat_map(|belief| belief.mean.iter().map(|m| m.to_bits())).collect()
}

/// Whole inferences, with their traces, by number of steps and until they are within `tolerance`.
#[track_caller]
pub fn check_inferences(device: &Device, case: Case, tolerance: f64) {
    let (models, beliefs) = models(&case);
    let runs = [(0, None), (1, None), (4, None), (7, None), (4000, Some(tolerance))];
    let options = InferenceOptions { trace_points: 5, ..InferenceOptions::default() };
    let (mut one, mut twin) =
        (inference(device, &case, options), inference(device, &case, options));
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
        let (got, again) = (from_start(&mut one), from_start(&mut twin));
        assert!(got == again, "{case:?}: two runs, two results");
        for (i, (model, got)) in models.iter().zip(&got).enumerate() {
            let what = format!("model {i}, {max_steps} steps of {case:?}");
            let arrays = ReferenceArrays::of(model);
            let kappa = one.kappas()[i];
            let expected = with_reference(model, &arrays, |model| {
                reference::infer(model, &beliefs[i], InferOptions { kappa, max_steps, tolerance })
            });
            compare(&what, &case, got, &expected);
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
                    let more = run(&mut one);
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
    assert_eq!(got.trace.len(), (got.steps + 1).min(5), "{what}");
    for (got, expected) in got.trace.iter().zip(&expected.trace) {
        compare_energies(what, case, &got.free_energy, &expected.free_energy);
        let bound = [expected.distance_bound];
        assert_near(what, &[got.distance_bound], &bound, case.states as f64, TOLERANCE);
    }
}

/// λmax on the device is that of the reference's power iteration, and the default step is its inverse.
#[track_caller]
pub fn check_curvature(device: &Device, case: Case) {
    let (models, _) = models(&case);
    let one = inference(device, &case, InferenceOptions::default());
    for (i, model) in models.iter().enumerate() {
        let found = one.curvatures()[i];
        let arrays = ReferenceArrays::of(model);
        let exact = with_reference(model, &arrays, |model| {
            reference::largest_curvature(model, 1e-13, 100_000)
        });
        // From below, and close enough for a step size.
        assert!(found <= exact * (1.0 + 1e-9) && found > 0.98 * exact, "{found} is not {exact}");
        assert_near("κ", &[one.kappas()[i]], &[1.0 / found], 0.0, 1e-15);
    }
}

/// What means nothing is refused.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let case = Case { models: 1, observations: 4, states: 3, jacobian: DType::F64, seed: 1 };
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

/// The published cases: each μ and free energy on the way up to `most_steps`, and the fixed point where the way is not
/// cut off.
#[track_caller]
pub fn check_published(device: &Device, most_steps: usize) {
    let text = include_str!("../../../../reference/tests/cases/active_inference_case.json");
    let all: serde_json::Value = serde_json::from_str(text).expect("JSON");
    for case in all["cases"].as_array().expect("cases") {
        let numbers = |value: &serde_json::Value| -> Array1<f64> {
            let values = value.as_array().expect("an array");
            values.iter().map(|v| v.as_f64().expect("a number")).collect()
        };
        let name = case["name"].as_str().expect("a name");
        let rows: Vec<_> = case["J"].as_array().expect("rows").iter().map(numbers).collect();
        let jacobian = Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j]);
        let model = GaussianModel::builder(jacobian)
            .offset(numbers(&case["offset"]))
            .obs_precision(numbers(&case["obs_precision"]))
            .observation(numbers(&case["observation"]))
            .prior_mean(numbers(&case["prior_mean"]))
            .prior_var(numbers(&case["prior_var"]))
            .build()
            .expect("a valid case");
        let start = Belief {
            mean: numbers(&case["init"]["mu"]).to_vec(),
            variance: numbers(&case["init"]["var"]).to_vec(),
        };
        let options =
            InferenceOptions { kappa: case["kappa"].as_f64(), ..InferenceOptions::default() };
        let mut inference =
            ActiveInference::new(device, &[model], options).expect("a stable step size");
        for point in case["trace"].as_array().expect("points") {
            let steps = point["iteration"].as_u64().expect("a count") as usize;
            if steps > most_steps {
                break;
            }
            inference.set_beliefs(std::slice::from_ref(&start)).expect("a belief that fits");
            let got = &inference.infer(steps).expect("steps")[0];
            assert_near(name, &got.belief.mean, &numbers(&point["mu"]).to_vec(), 1.0, 1e-10);
            let keys =
                ["complexity", "accuracy_plugin", "accuracy_expected", "F_plugin", "F_exact"];
            let want = keys.map(|key| point[key].as_f64().expect("a number"));
            assert_near(name, &parts(&got.free_energy), &want, 1.0, 1e-10);
        }
        if most_steps < usize::MAX {
            continue;
        }
        let got = &inference.infer_until_converged(1e-10, 100_000).expect("steps")[0];
        let fixed = numbers(&case["fixed_point"]["mu"]).to_vec();
        assert!(got.converged, "{name}");
        assert_near(name, &got.belief.mean, &fixed, 1.0, 1e-8);
    }
}
