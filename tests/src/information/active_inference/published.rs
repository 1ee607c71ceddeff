//! The published cases on a device.

use kasmina::Device;
use kasmina::information::active_inference::{
    ActiveInference, Belief, GaussianModel, InferenceOptions, InferenceStages,
};
use ndarray::{Array1, Array2, arr1, arr2};
use serde_json::Value;

use super::parts;
use crate::assert_near;

/// Numbers of order 1, in f64.
const TOLERANCE: f64 = 1e-10;

fn published() -> Value {
    let text = include_str!("../../../../reference/tests/cases/active_inference_case.json");
    serde_json::from_str(text).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn count(value: &Value) -> usize {
    value.as_u64().expect("a count") as usize
}

fn items(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn numbers(value: &Value) -> Array1<f64> {
    items(value).iter().map(number).collect()
}

/// Free energies and their parts, in the order of [`parts`].
fn energies(value: &Value) -> [f64; 5] {
    ["complexity", "accuracy_plugin", "accuracy_expected", "F_plugin", "F_exact"]
        .map(|key| number(&value[key]))
}

/// Each μ and free energy on the way up to `most_steps`, the stages at the start, and the fixed point where the way is
/// not cut off.
#[track_caller]
pub fn check_cases(device: &Device, most_steps: usize) {
    for case in items(&published()["cases"]) {
        let name = case["name"].as_str().expect("a name");
        let rows: Vec<_> = items(&case["J"]).iter().map(numbers).collect();
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
        let kappa = Some(number(&case["kappa"]));
        let options = InferenceOptions { kappa, ..InferenceOptions::default() };
        let mut inference = ActiveInference::new(device, std::slice::from_ref(&model), options)
            .expect("a stable step size");
        check_start(&mut inference, case, &start);
        check_stages(device, case, &model, &start, options);
        let limit = 2.0 / inference.curvatures()[0];
        assert_near(name, &[limit], &[number(&case["max_stable_kappa"])], 0.0, 1e-3);
        let mut infer = |steps: usize| {
            inference.set_beliefs(std::slice::from_ref(&start)).expect("a belief that fits");
            inference.infer(steps).expect("steps").remove(0)
        };
        for point in items(&case["trace"]) {
            let steps = count(&point["iteration"]);
            if steps <= most_steps {
                let got = infer(steps);
                let mean = numbers(&point["mu"]).to_vec();
                assert_near(name, &got.belief.mean, &mean, 1.0, TOLERANCE);
                assert_near(name, &parts(&got.free_energy), &energies(point), 1.0, TOLERANCE);
            }
        }
        // Taken after the step from the last point as well.
        let steps = count(&case["mu_after_steps"]["steps"]) + 1;
        if steps <= most_steps {
            let mean = numbers(&case["mu_after_steps"]["mu"]).to_vec();
            assert_near(name, &infer(steps).belief.mean, &mean, 1.0, TOLERANCE);
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

/// The free energy at the start and one step from there, in one launch.
#[track_caller]
fn check_start(inference: &mut ActiveInference, case: &Value, start: &Belief) {
    let (name, want) = (case["name"].as_str().expect("a name"), &case["kernels_at_init"]);
    inference.set_beliefs(std::slice::from_ref(start)).expect("a belief that fits");
    inference.step().expect("a step");
    let energy = inference.last_free_energies().expect("energies")[0];
    assert_near(name, &parts(&energy), &energies(want), 1.0, TOLERANCE);
    let moved = numbers(&want["mu_after_one_step"]).to_vec();
    assert_near(name, &inference.beliefs().expect("beliefs")[0].mean, &moved, 1.0, TOLERANCE);
}

/// The same, stage by stage.
#[track_caller]
fn check_stages(
    device: &Device,
    case: &Value,
    model: &GaussianModel,
    start: &Belief,
    options: InferenceOptions,
) {
    let (name, want) = (case["name"].as_str().expect("a name"), &case["kernels_at_init"]);
    let moved = numbers(&want["mu_after_one_step"]).to_vec();
    let mut stages =
        InferenceStages::new(device, std::slice::from_ref(model), options).expect("a model");
    stages.set_beliefs(std::slice::from_ref(start)).expect("a belief that fits");
    let complexity = stages.complexity().expect("a result")[0];
    let (plugin, expected) = stages.accuracy().expect("a result")[0];
    assert_near(name, &[complexity, plugin, expected], &energies(want)[..3], 1.0, TOLERANCE);
    let residuals = stages.residuals().expect("a result").row(0).to_vec();
    assert_near(name, &residuals, &numbers(&want["residual"]).to_vec(), 1.0, TOLERANCE);
    stages.update().expect("a step");
    assert_near(name, &stages.beliefs().expect("a result")[0].mean, &moved, 1.0, TOLERANCE);
}

/// The first `updates` of a scalar Kalman filter, each an inference, of `most_steps` at most: 100 come near enough.
#[track_caller]
pub fn check_scalar_kalman(device: &Device, updates: usize, most_steps: usize) {
    let all = published();
    let filter = &all["scalar_kalman"];
    let [a, q, c, r, kappa] = ["A", "Q", "C", "R", "kappa"].map(|key| number(&filter[key]));
    let steps = items(&filter["steps"]);
    // What the first prediction comes from.
    let (mut mean, mut variance) = (0.0, (number(&steps[0]["pred_var"]) - q) / (a * a));
    for step in steps.iter().take(updates) {
        let model = GaussianModel::builder(arr2(&[[c]]))
            .obs_precision(arr1(&[1.0 / r]))
            .observation(arr1(&[number(&step["obs"])]))
            .prior_mean(arr1(&[a * mean]))
            .prior_var(arr1(&[a * a * variance + q]))
            .build()
            .expect("a valid model");
        variance = model.optimum_variance()[0];
        let options = InferenceOptions { kappa: Some(kappa), ..InferenceOptions::default() };
        let mut inference =
            ActiveInference::new(device, &[model], options).expect("a stable step size");
        let found = inference.infer(count(&filter["iterations"]).min(most_steps)).expect("steps");
        mean = found[0].belief.mean[0];
        let want = ["post_mean", "post_var"].map(|key| number(&step[key]));
        assert_near("filter", &[mean, variance], &want, 1.0, TOLERANCE);
    }
}
