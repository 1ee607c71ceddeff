//! The stages of a belief step against the reference.

use kasmina::Device;
use kasmina::information::active_inference::{InferenceOptions, InferenceStages};

use super::{Case, model};
use crate::assert_near;

/// Complexity, accuracy and update, one after the other.
#[track_caller]
pub fn check_stages(device: &Device, case: Case) {
    let (model, belief) = model(&case, 0);
    let options = InferenceOptions {
        kappa: Some(0.1),
        jacobian: case.jacobian,
        ..InferenceOptions::default()
    };
    let mut stages =
        InferenceStages::new(device, std::slice::from_ref(&model), options).expect("a model");
    stages.set_beliefs(std::slice::from_ref(&belief)).expect("a belief that fits");
    let expected = model.free_energy(&belief).expect("a belief that fits");
    let scale = (case.observations + case.states) as f64;
    let complexity = stages.complexity().expect("a result")[0];
    assert_near("complexity", &[complexity], &[expected.complexity], scale, 1e-11);
    let (plugin, exact) = stages.accuracy().expect("a result")[0];
    let want = [expected.accuracy_plugin, expected.accuracy_expected];
    assert_near("accuracy", &[plugin, exact], &want, scale, 1e-11);
    assert_eq!(stages.accuracy().expect("a result")[0], (plugin, exact), "two runs, two results");

    let (jacobian, target) = (model.jacobian(), &model.observation() - &model.offset());
    let mean = ndarray::ArrayView1::from(&belief.mean);
    let residual = &target - &jacobian.dot(&mean);
    let got = stages.residuals().expect("a result");
    assert_near("residual", &got.into_raw_vec_and_offset().0, &residual.to_vec(), 1.0, 1e-11);
    let direction = jacobian.t().dot(&(&residual * &model.obs_precision()))
        - (&mean - &model.prior_mean()) / model.prior_var();
    let moved = &mean + &(direction * 0.1);
    stages.update().expect("a step");
    let got = stages.beliefs().expect("a result").remove(0);
    assert_near("mean", &got.mean, &moved.to_vec(), 1.0, 1e-11);
    assert_eq!(got.variance, belief.variance);
}
