//! Free energy and one belief step, and whole inferences, as cases.

use kasmina_reference::information::active_inference::{self as reference, InferOptions};
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::DType;

use super::data;
use super::{BenchError, Prepared, timer, within};
use crate::device::Device;
use crate::error::Error;
use crate::information::active_inference::{ActiveInference, GaussianModel, InferenceOptions};
use crate::verify::active_inference::{Spectrum, random_model};

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

/// A random model.
pub(super) fn model(seed: u64, m: usize, n: usize) -> GaussianModel {
    let mut array = 10 * seed;
    // Drawn of [−0.5, 1.5).
    random_model(m, n, Spectrum::Close, &mut |len, low, high| {
        array += 1;
        let scale = (high - low) / 2.0;
        data::draw::<f64>(array, len).iter().map(|v| low + scale * (v + 0.5)).collect()
    })
}

/// Steps of the inference that is checked: the reference takes each on the host.
const CHECKED_STEPS: usize = 10;

/// Puts the models on the device and checks what is timed: one step, or an inference of a few.
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
    let checked = steps.map(|steps| steps.min(CHECKED_STEPS));
    match checked {
        None => first.step()?,
        Some(steps) => first.queue_inference(None, steps)?,
    }
    let (after, energies) = (first.beliefs()?, first.last_free_energies()?);
    let tolerance = Tolerance::for_dtype(Dtype::F64, observations.max(states));
    let (stored, kappa) = (first.models()[0].reference(), first.kappas()[0]);
    let (expected, energy) = match checked {
        None => {
            let moved = reference::belief_step(&stored, &before[0].mean, kappa);
            (moved, reference::free_energy(&stored, &before[0]))
        }
        Some(max_steps) => {
            let options = InferOptions { kappa, max_steps, tolerance: None, trace_points: 0 };
            let found = reference::infer(&stored, &before[0], options);
            (found.mean, found.free_energy)
        }
    };
    let mut max_rel_error = within("the mean", &after[0].mean, &expected, tolerance)?;
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
