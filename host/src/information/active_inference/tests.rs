//! What is refused, and what CPU and executor must agree on; the mathematics are tested against the reference elsewhere.

use kasmina_types::DType;
use ndarray::{Array2, array};

use super::{
    ActiveInference, Belief, GaussianModel, InferenceError, InferenceOptions, InferenceStages,
    Preferences,
};
use crate::device::Device;
use crate::error::Error;

fn devices() -> [Device; 2] {
    [Device::Cpu, Device::simt()]
}

fn model(scale: f64) -> GaussianModel {
    GaussianModel::builder(array![[1.0, 0.5], [0.0, 1.0], [0.25, -1.0]] * scale)
        .observation(array![1.8, 0.2, 0.75])
        .obs_precision(array![4.0, 2.0, 1.0])
        .prior_var(array![1.0, 0.5])
        .build()
        .unwrap()
}

fn new(device: &Device, options: InferenceOptions) -> Result<ActiveInference, Error> {
    ActiveInference::new(device, &[model(1.0), model(0.5)], options)
}

#[track_caller]
fn refusal<T>(result: Result<T, Error>) -> InferenceError {
    match result.err().expect("refused") {
        Error::Inference(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn there_is_no_result_of_what_did_not_run() {
    for device in devices() {
        let mut inference = new(&device, InferenceOptions::default()).unwrap();
        let not_run = |error| matches!(error, InferenceError::NotRun { .. });
        assert!(not_run(refusal(inference.inferred())));
        assert!(not_run(refusal(inference.last_free_energies())));
        inference.step().unwrap();
        inference.last_free_energies().unwrap();
        let why = refusal(inference.inferred());
        assert!(why.to_string().contains("a single step ran last"), "{why}");
        inference.queue_inference(None, 2).unwrap();
        assert!(inference.inferred().unwrap().iter().all(|found| found.steps == 2));
        inference.last_free_energies().unwrap();
    }
}

#[test]
fn every_way_to_an_inference_checks_its_tolerance() {
    for device in devices() {
        let mut inference = new(&device, InferenceOptions::default()).unwrap();
        for tolerance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            refusal(inference.queue_inference(Some(tolerance), 10));
            refusal(inference.infer_until_converged(tolerance, 10));
        }
        let beyond = inference.infer(u32::MAX as usize);
        assert!(matches!(beyond, Err(Error::TooLarge { what: "max_steps", .. })));
        // A refusal leaves what there was: nothing.
        refusal(inference.inferred());
    }
}

#[test]
fn traces_have_an_end() {
    for trace_points in [u32::MAX as usize / 8 + 1, usize::MAX / 4, usize::MAX] {
        let options = InferenceOptions { trace_points, ..InferenceOptions::default() };
        let refused = new(&Device::Cpu, options).err().expect("refused");
        assert!(matches!(refused, Error::TooLarge { limit, .. } if limit == u64::from(u32::MAX)));
    }
    let options = InferenceOptions { trace_points: 3, ..InferenceOptions::default() };
    for device in devices() {
        let found = new(&device, options).unwrap().infer(1).unwrap();
        assert!(found.iter().all(|found| found.trace.len() == 2));
        let found = new(&device, options).unwrap().infer(5).unwrap();
        assert!(found.iter().all(|found| found.trace.len() == 3));
    }
}

#[test]
fn elements_that_f32_does_not_hold_are_named() {
    let mut jacobian = Array2::from_elem((3, 2), 1.0);
    jacobian[[2, 1]] = 1e39;
    let models = [Array2::ones((3, 2)), jacobian].map(|jacobian| {
        GaussianModel::builder(jacobian).observation(array![1.0, 2.0, 3.0]).build().unwrap()
    });
    let options = InferenceOptions { jacobian: DType::F32, ..InferenceOptions::default() };
    let expected = InferenceError::NotFiniteInF32 { model: 1, row: 2, column: 1, got: 1e39 };
    for device in devices() {
        assert_eq!(refusal(ActiveInference::new(&device, &models, options)), expected);
        assert_eq!(refusal(InferenceStages::new(&device, &models, options)), expected);
    }
    assert!(expected.to_string().contains("`J[2][1]`") && expected.to_string().contains("f32"));
}

#[test]
fn stages_and_whole_inferences_refuse_the_same() {
    let good = [model(1.0)];
    let extreme = GaussianModel::builder(array![[1e100]]).observation(array![1.0]).build().unwrap();
    let extreme = [extreme];
    let kappa = |kappa| InferenceOptions { kappa: Some(kappa), ..InferenceOptions::default() };
    for device in devices() {
        let both = |models: &[GaussianModel], options| {
            let whole = refusal(ActiveInference::new(&device, models, options)).to_string();
            let stages = refusal(InferenceStages::new(&device, models, options)).to_string();
            (whole, stages)
        };
        for (models, options, why) in [
            (&[][..], kappa(0.1), "no models"),
            (&[model(1.0), extreme[0].clone()], kappa(0.1), "model 1 has"),
            (&good, kappa(0.0), "`kappa` is 0"),
            (&good, kappa(f64::NAN), "`kappa` is NaN"),
            (&good, kappa(10.0), "`kappa` is 10"),
            (&extreme, kappa(1e-201), "λmax"),
            (&extreme, InferenceOptions::default(), "λmax"),
        ] {
            let (whole, stages) = both(models, options);
            assert!(whole.contains(why) && stages.contains(why), "{whole}; {stages}");
        }
    }
}

#[test]
fn a_step_that_overflows_is_taken_on_every_device() {
    let model = GaussianModel::builder(array![[1.0]]).observation(array![1e200]).build().unwrap();
    for device in devices() {
        let models = std::slice::from_ref(&model);
        let mut inference =
            ActiveInference::new(&device, models, InferenceOptions::default()).unwrap();
        inference.step().unwrap();
        let mean = inference.beliefs().unwrap()[0].mean[0];
        assert!((mean / 5e199 - 1.0).abs() < 1e-9, "{mean}");
        assert_eq!(inference.last_free_energies().unwrap()[0].accuracy_plugin, f64::NEG_INFINITY);
    }
}

/// The bound's squares overflow while the belief is far from that.
#[test]
fn an_inference_whose_bound_overflows_ends() {
    for device in devices() {
        let model = GaussianModel::builder(array![[1.0, 0.5], [0.0, 1.0]])
            .observation(array![1.8, 2e307])
            .build()
            .unwrap();
        let mut inference =
            ActiveInference::new(&device, &[model], InferenceOptions::default()).unwrap();
        let found = inference.infer(3).unwrap().remove(0);
        assert_eq!((found.steps, found.converged), (0, false), "{device}");
        assert!(found.distance_bound.is_infinite());
        assert_eq!(found.belief.mean, [0.0; 2]);
    }
}

#[test]
fn stages_of_a_batch_are_those_of_a_step() {
    let models = [model(1.0), model(0.5), model(0.25)];
    let beliefs: Vec<Belief> = (0..3)
        .map(|i| Belief { mean: vec![0.5, f64::from(i)], variance: vec![0.25, 1.0] })
        .collect();
    for device in devices() {
        let options = InferenceOptions { kappa: Some(0.05), ..InferenceOptions::default() };
        let mut stages = InferenceStages::new(&device, &models, options).unwrap();
        let mut whole = ActiveInference::new(&device, &models, options).unwrap();
        stages.set_beliefs(&beliefs).unwrap();
        whole.set_beliefs(&beliefs).unwrap();
        assert!(matches!(refusal(stages.update()), InferenceError::NotRun { .. }));
        assert!(matches!(refusal(stages.residuals()), InferenceError::NotRun { .. }));
        let (complexity, accuracy) = (stages.complexity().unwrap(), stages.accuracy().unwrap());
        let residuals = stages.residuals().unwrap();
        assert_eq!(residuals.dim(), (3, 3));
        stages.update().unwrap();
        whole.step().unwrap();
        let energies = whole.last_free_energies().unwrap();
        let (moved, expected) = (stages.beliefs().unwrap(), whole.beliefs().unwrap());
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} is not {want}");
        for (i, model) in models.iter().enumerate() {
            near(complexity[i], energies[i].complexity);
            near(accuracy[i].0, energies[i].accuracy_plugin);
            near(accuracy[i].1, energies[i].accuracy_expected);
            for j in 0..2 {
                near(moved[i].mean[j], expected[i].mean[j]);
            }
            let mean = ndarray::ArrayView1::from(&beliefs[i].mean);
            let residual = &model.observation() - &model.jacobian().dot(&mean);
            residuals.row(i).iter().zip(&residual).for_each(|(&got, &want)| near(got, want));
        }
    }
}

#[test]
fn beliefs_go_in_and_come_out_as_arrays() {
    let means = array![[1.0, 3.0], [2.0, 4.0]];
    let variances = array![[0.5, 0.25], [1.0, 2.0]];
    for device in devices() {
        let mut inference = new(&device, InferenceOptions::default()).unwrap();
        // Transposed: a view that is not row-major.
        inference.set_belief_arrays(means.t(), variances.view()).unwrap();
        let (got, spread) = inference.belief_arrays().unwrap();
        assert_eq!((got.view(), spread), (means.t(), variances.clone()));
        let found = inference.infer(0).unwrap();
        assert_eq!(found[1].mean_view(), means.t().row(1));
        assert_eq!(found[1].variance_view(), variances.row(1));
        let one = means.slice(ndarray::s![..1, ..]);
        refusal(inference.set_belief_arrays(one, variances.view()));
        refusal(inference.set_belief_arrays(one, one));
        let wide = Array2::ones((2, 3));
        refusal(inference.set_belief_arrays(wide.view(), wide.view()));
    }
}

/// The case of an identity map: the numbers of `active_inference_case.json`.
#[test]
fn expected_free_energies_are_the_published_ones() {
    let model = GaussianModel::builder(array![[1.0, 0.0], [0.0, 1.0]])
        .observation(array![1.0, -2.0])
        .obs_precision(array![4.0, 0.25])
        .prior_var(array![1.0, 4.0])
        .build()
        .unwrap();
    let belief = Belief { mean: vec![0.8, -1.0], variance: model.optimum_variance() };
    let preferences = Preferences { mean: vec![0.0; 2], variance: vec![1.0; 2] };
    let got = model.expected_free_energy(&belief, &preferences).unwrap();
    let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-10, "{got} is not {want}");
    near(got.risk, 2.548_374_113_494_858_8);
    near(got.ambiguity, 2.837_877_066_409_345_3);
    near(got.squared_total(), 6.938_707_453_502_976_5);
    near(model.posterior().unwrap().information_gain, 1.151_292_546_497_022_7);
    let short = Preferences { mean: vec![0.0], ..preferences };
    let refused = model.expected_free_energy(&belief, &short).unwrap_err().to_string();
    assert!(refused.contains("`preferred_mean` has 1 elements, expected 2"), "{refused}");
}
