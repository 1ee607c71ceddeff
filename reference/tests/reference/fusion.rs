//! The stages of chains, composed, are the operations that they are fused from.

use approx::assert_relative_eq;
use kasmina_reference::fusion::{
    accuracy_term, belief_update, complexity_term, prediction_error, weighted_prediction_error,
};
use kasmina_reference::information::active_inference::{
    Belief, GaussianModel, belief_step, free_energy,
};
use kasmina_reference::linear::{gemv, gemv_transposed};
use ndarray::array;

#[test]
fn composed_stages_are_free_energy_and_belief_step() {
    let jacobian = array![[1.0, 0.5], [0.0, 1.0], [0.25, -1.0]];
    let (offset, obs_precision) = ([1.0, 1.0, 0.0], [4.0, 2.0, 1.0]);
    let (observation, prior_mean, prior_var) = ([1.8, 0.2, 0.75], [0.5, -0.5], [2.0, 0.5]);
    let model = GaussianModel {
        jacobian: jacobian.view(),
        offset: &offset,
        obs_precision: &obs_precision,
        observation: &observation,
        prior_mean: &prior_mean,
        prior_var: &prior_var,
    };
    let belief = Belief { mean: vec![0.3, -0.7], variance: vec![0.4, 1e-12] };
    let energy = free_energy(&model, &belief);
    let (mean, variance) = (&belief.mean, &belief.variance);

    let complexity: f64 =
        (0..2).map(|j| complexity_term(mean[j], variance[j], prior_mean[j], prior_var[j])).sum();
    assert_relative_eq!(complexity, energy.complexity, max_relative = 1e-14);

    let prediction = gemv(1.0, jacobian.view(), mean, 1.0, &offset);
    let accuracy: f64 = (0..3)
        .map(|i| accuracy_term(prediction_error(observation[i], prediction[i]), obs_precision[i]))
        .sum();
    assert_relative_eq!(accuracy, energy.accuracy_plugin, max_relative = 1e-14);

    let weighted: Vec<f64> = (0..3)
        .map(|i| weighted_prediction_error(observation[i], prediction[i], obs_precision[i]))
        .collect();
    let gradient = gemv_transposed(1.0, jacobian.view(), &weighted, 0.0, &[0.0; 2]);
    for (j, expected) in belief_step(&model, mean, 0.1).into_iter().enumerate() {
        let moved = belief_update(gradient[j], mean[j], prior_mean[j], prior_var[j], 0.1);
        assert_relative_eq!(moved, expected, max_relative = 1e-14);
    }
}
