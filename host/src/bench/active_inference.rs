//! Free energy and one belief step, and whole inferences, as cases.

use kasmina_reference::information::active_inference as reference;
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::DType;
use ndarray::{Array1, Array2};

use super::data;
use super::{BenchError, Prepared, timer, within};
use crate::device::Device;
use crate::error::Error;
use crate::information::active_inference::{ActiveInference, GaussianModel, InferenceOptions};

/// What is computed of models of which shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) models: usize,
    pub(super) observations: usize,
    pub(super) states: usize,
    /// Steps of a whole inference in one launch; none: a single step.
    pub(super) steps: Option<usize>,
}

impl Work {
    pub(super) fn kernel(self) -> &'static str {
        if self.steps.is_some() { "infer_until_converged" } else { "belief_step" }
    }

    pub(super) fn variant(self) -> &'static str {
        if self.steps.is_some() { "100_steps" } else { "one_step" }
    }

    /// J, once for each step, and the vectors: o − b and π, m0, v0, s, μ before and after.
    pub(super) fn bytes(self, dtype: DType) -> u64 {
        let Self { models, observations: m, states: n, steps } = self;
        let matrix = steps.unwrap_or(1) * m * n * dtype.size_bytes();
        (models * (matrix + 8 * (2 * m + 5 * n))) as u64
    }

    pub(super) fn shape(self) -> Vec<usize> {
        let Self { models, observations, states, .. } = self;
        if models == 1 { vec![observations, states] } else { vec![models, observations, states] }
    }
}

/// A model with random numbers, whose curvature does not grow with its size.
fn model(seed: u64, m: usize, n: usize) -> GaussianModel {
    let size = 1.0 / ((m + n) as f64).sqrt();
    let draw = |number: u64, len: usize| data::draw::<f64>(10 * seed + number, len);
    let jacobian: Vec<f64> = draw(0, m * n).iter().map(|j| size * (j - 0.5)).collect();
    let positive = |number: u64, len: usize| -> Array1<f64> {
        draw(number, len).iter().map(|v| v + 1.0).collect()
    };
    GaussianModel::builder(Array2::from_shape_vec((m, n), jacobian).expect("m · n"))
        .obs_precision(positive(1, m))
        .observation(Array1::from(draw(2, m)))
        .prior_mean(Array1::from(draw(3, n)))
        .prior_var(positive(4, n))
        .build()
        .expect("values in range")
}

/// Puts the models on the device and checks one step.
pub(super) fn prepare(
    device: &Device,
    dtype: DType,
    work: Work,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    let Work { models, observations, states, steps } = work;
    // Whole inferences read the same J many times.
    let sets = if steps.is_some() { 1 } else { timer::buffer_sets(device, bytes) };
    let options = InferenceOptions { jacobian: dtype, ..InferenceOptions::default() };
    let mut all = Vec::new();
    for set in 0..sets as u64 {
        let of_set: Vec<GaussianModel> = (0..models as u64)
            .map(|number| model(1 + set * models as u64 + number, observations, states))
            .collect();
        all.push(ActiveInference::new(device, &of_set, options)?);
    }

    let first = &mut all[0];
    let before = first.beliefs()?;
    first.step()?;
    let (after, energies) = (first.beliefs()?, first.last_free_energies()?);
    let tolerance = Tolerance::for_dtype(Dtype::F64, observations.max(states));
    let stored = first.models()[0].reference();
    let expected = reference::belief_step(&stored, &before[0].mean, first.kappas()[0]);
    let mut max_rel_error = within("the mean", &after[0].mean, &expected, tolerance)?;
    let energy = reference::free_energy(&stored, &before[0]);
    let parts = [energies[0].plugin(), energies[0].exact()];
    let error = within("free energy", &parts, &[energy.plugin(), energy.exact()], tolerance)?;
    max_rel_error = max_rel_error.max(error);

    let call = move |set: usize| -> Result<(), Error> {
        let inference = &mut all[set % sets];
        match steps {
            None => inference.step(),
            Some(steps) => inference.queue_inference(None, steps),
        }
    };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}
