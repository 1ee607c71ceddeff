//! Active inference of Gaussian models on any device.

use kasmina_kernels::instances::Infer;
use kasmina_reference::information::active_inference as reference;
use kasmina_reference::information::active_inference::{ActiveInferenceError, InferOptions};
use kasmina_types::active_inference::{STATE_ALIGN, TRACE_FIGURES};
use kasmina_types::{DType, InferenceFigures};

use super::error::InferenceError;
use super::model::{Belief, CURVATURE_STEPS, CURVATURE_TOLERANCE, FreeEnergy, GaussianModel};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::active_inference::{self as launcher, Models, Plan, Until};
use crate::error::Error;

const OP: &str = "active_inference";

/// How models are inferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferenceOptions {
    /// Step size κ of every model, 0 < κ < 2/λmax; without one each model has 1/λmax, with which no step raises F.
    pub kappa: Option<f64>,
    /// What J is stored in on the device: f64, or f32, which halves the memory to read. Vectors, arithmetic and sums
    /// are in f64 either way.
    pub jacobian: DType,
    /// Keeps the figures of the first so many μ of an inference, to see how it converged.
    pub trace_points: usize,
    /// Takes the kernels that bulk copies bring J to, where the device has one for the shape: the quicker ones.
    pub bulk_copies: bool,
}

impl Default for InferenceOptions {
    fn default() -> Self {
        Self { kappa: None, jacobian: DType::F64, trace_points: 0, bulk_copies: true }
    }
}

impl InferenceOptions {
    /// A model with J as the device stores it.
    pub(super) fn stored(&self, model: &GaussianModel) -> Result<GaussianModel, Error> {
        match self.jacobian {
            DType::F64 => Ok(model.clone()),
            DType::F32 => Ok(model.rounded()),
            other => {
                let got = other.size_bytes() as f64;
                let expected = "f64 or f32, of 8 or 4 bytes";
                Err(Error::Setting { op: OP, setting: "jacobian", got, expected })
            }
        }
    }
}

/// What the inference of a model came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The belief; its variances are those that it began with.
    pub belief: Belief,
    /// The free energy at it.
    pub free_energy: FreeEnergy,
    /// No less than ‖(μ − μ*)/√v0‖, the distance to the posterior mean μ* in standard deviations of the prior:
    /// √(Σ v0·g²), g the gradient of F.
    pub distance_bound: f64,
    /// Steps taken.
    pub steps: usize,
    /// Whether the tolerance was met.
    pub converged: bool,
    /// The figures on the way, as many as were asked for and there were.
    pub trace: Vec<TracePoint>,
}

/// One μ on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TracePoint {
    /// The free energy there.
    pub free_energy: FreeEnergy,
    /// As [`Inferred::distance_bound`], there.
    pub distance_bound: f64,
}

/// Models of one shape and the beliefs about their states, on a device.
///
/// Beliefs begin as the priors. [`Self::step`] allocates nothing and copies nothing between host and device, and can be
/// captured in a graph.
pub struct ActiveInference {
    device: Device,
    options: InferenceOptions,
    /// The models as the reference takes them, J as the device has it.
    models: Vec<GaussianModel>,
    kappas: Vec<f64>,
    curvatures: Vec<f64>,
    memory: Models,
    step: Option<Plan>,
    until: Option<Plan>,
    trace: Option<Buffer<f64>>,
}

impl ActiveInference {
    /// Puts models on a device, with their priors as beliefs, and finds their λmax there.
    ///
    /// # Errors
    /// No models, or of different shapes; a κ outside its range, or a type of J that is not f64 or f32; more elements
    /// than 32-bit counts hold; memory exhausted, or a failed call.
    pub fn new(
        device: &Device,
        models: &[GaussianModel],
        options: InferenceOptions,
    ) -> Result<Self, Error> {
        let first = models.first().ok_or(InferenceError::NoModels)?;
        let (observations, states) = (first.observations(), first.states());
        let expected = (observations, states);
        for (model, other) in models.iter().enumerate() {
            let got = (other.observations(), other.states());
            if got != expected {
                return Err(InferenceError::Shapes { model, expected, got }.into());
            }
        }
        let stride = states.next_multiple_of(STATE_ALIGN);
        let largest = models.len().saturating_mul(stride.max(observations)) as u64;
        // The kernel's row and model numbers pass the last by a grid.
        let limit = i32::MAX as u64;
        if largest > limit {
            let what = "models · observations or states";
            return Err(Error::TooLarge { op: OP, what, got: largest, limit });
        }
        device.refuse_capture(OP)?;
        let models =
            models.iter().map(|model| options.stored(model)).collect::<Result<Vec<_>, _>>()?;
        let memory = upload(device, &models, options.jacobian)?;
        let (count, kernels) = (models.len(), KernelDevice::of(device));
        let plan = |op| {
            kernels.map(|on| Plan::new(device, on, op, &memory, options.bulk_copies)).transpose()
        };
        let (step, until) = (plan(Infer::Step)?, plan(Infer::UntilConverged)?);
        let trace = match options.trace_points {
            0 => None,
            points => Some(Buffer::zeroed(device, count * points * TRACE_FIGURES)?),
        };
        let mut inference = Self {
            device: device.clone(),
            options,
            models,
            kappas: vec![0.0; count],
            curvatures: Vec::new(),
            memory,
            step,
            until,
            trace,
        };
        inference.curvatures = inference.find_curvatures()?;
        for model in 0..count {
            let curvature = inference.curvatures[model];
            let kappa = options.kappa.unwrap_or_else(|| reference::default_kappa(curvature));
            let limit = 2.0 / curvature;
            if !(kappa > 0.0 && kappa < limit) {
                let source = ActiveInferenceError::Kappa { got: kappa, limit };
                return Err(InferenceError::InBatch { model, source }.into());
            }
            inference.kappas[model] = kappa;
        }
        inference.memory.kappa.copy_from_slice(&inference.kappas)?;
        let priors: Vec<Belief> = inference.models.iter().map(GaussianModel::prior).collect();
        inference.set_beliefs(&priors)?;
        Ok(inference)
    }

    /// The models.
    pub fn models(&self) -> &[GaussianModel] {
        &self.models
    }

    /// The step size of each model.
    pub fn kappas(&self) -> &[f64] {
        &self.kappas
    }

    /// λmax of each model, by power iteration: from below.
    pub fn curvatures(&self) -> &[f64] {
        &self.curvatures
    }

    /// Blocks that share a model in [`Self::step`]; 1 on the CPU.
    pub fn blocks_per_model(&self) -> usize {
        self.step.as_ref().map_or(1, Plan::parts)
    }

    /// Replaces the beliefs.
    ///
    /// # Errors
    /// Beliefs that do not fit the models, or a failed call.
    pub fn set_beliefs(&mut self, beliefs: &[Belief]) -> Result<(), Error> {
        let (expected, got) = (self.models.len(), beliefs.len());
        if expected != got {
            return Err(InferenceError::Beliefs { expected, got }.into());
        }
        for (model, belief) in beliefs.iter().enumerate() {
            self.models[model]
                .reference()
                .check_belief(&belief.mean, &belief.variance)
                .map_err(|source| InferenceError::InBatch { model, source })?;
        }
        let stride = self.memory.stride();
        let means = padded(beliefs.iter().map(|belief| belief.mean.as_slice()), stride, 0.0);
        let variances =
            padded(beliefs.iter().map(|belief| belief.variance.as_slice()), stride, 1.0);
        self.memory.mean.copy_from_slice(&means)?;
        self.memory.variance.copy_from_slice(&variances)
    }

    /// The beliefs, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn beliefs(&self) -> Result<Vec<Belief>, Error> {
        let (means, variances) = (self.memory.mean.to_vec()?, self.memory.variance.to_vec()?);
        let (stride, states) = (self.memory.stride(), self.memory.states);
        let own = |values: &[f64]| values[..states].to_vec();
        Ok(means
            .chunks(stride)
            .zip(variances.chunks(stride))
            .map(|(mean, variance)| Belief { mean: own(mean), variance: own(variance) })
            .collect())
    }

    /// Queues one belief step of each model, with the free energy before it: one launch.
    ///
    /// # Errors
    /// A failed call.
    pub fn step(&mut self) -> Result<(), Error> {
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return self.on_cpu(None, 1, true);
        };
        let plan = self.step.as_mut().expect("devices that run kernels have plans");
        let until = Until { tolerance: -1.0, max_steps: 1, trace: None, trace_points: 0 };
        let launched = launcher::launch(kernels, &mut self.memory, plan, until);
        if launched.is_err() {
            plan.reset()?;
        }
        launched
    }

    /// The free energy of each model before the last step, or at the end of the last inference; once everything queued
    /// before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn last_free_energies(&self) -> Result<Vec<FreeEnergy>, Error> {
        Ok(self.memory.figures.to_vec()?.iter().map(free_energy_of).collect())
    }

    /// The free energy of each belief.
    ///
    /// # Errors
    /// A failed call.
    pub fn free_energies(&mut self) -> Result<Vec<FreeEnergy>, Error> {
        self.queue_inference(None, 0)?;
        self.last_free_energies()
    }

    /// Takes `steps` belief steps of each model in one launch; fewer only where a belief is no longer finite.
    ///
    /// # Errors
    /// More steps than 32 bits count, or a failed call.
    pub fn infer(&mut self, steps: usize) -> Result<Vec<Inferred>, Error> {
        self.queue_inference(None, steps)?;
        self.inferred()
    }

    /// Takes belief steps of each model, in one launch, until [`Inferred::distance_bound`] is at most `tolerance`, or
    /// `max_steps` are taken: the posterior mean is then within `tolerance` prior standard deviations.
    ///
    /// # Errors
    /// A tolerance that is not above 0, more steps than 32 bits count, or a failed call.
    pub fn infer_until_converged(
        &mut self,
        tolerance: f64,
        max_steps: usize,
    ) -> Result<Vec<Inferred>, Error> {
        if !(tolerance > 0.0 && tolerance.is_finite()) {
            let refused = ActiveInferenceError::Tolerance { got: tolerance };
            return Err(InferenceError::Model(refused).into());
        }
        self.queue_inference(Some(tolerance), max_steps)?;
        self.inferred()
    }

    /// Queues an inference of each model: of [`Self::infer_until_converged`] with a tolerance, else of
    /// [`Self::infer`]. It allocates nothing; [`Self::inferred`] reads what came of it.
    ///
    /// # Errors
    /// More steps than 32 bits count, or a failed call.
    pub fn queue_inference(
        &mut self,
        tolerance: Option<f64>,
        max_steps: usize,
    ) -> Result<(), Error> {
        let limit = u64::from(u32::MAX - 1);
        if max_steps as u64 > limit {
            let (what, got) = ("max_steps", max_steps as u64);
            return Err(Error::TooLarge { op: OP, what, got, limit });
        }
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return self.on_cpu(tolerance, max_steps, false);
        };
        let plan = self.until.as_mut().expect("devices that run kernels have plans");
        let until = Until {
            tolerance: tolerance.unwrap_or(-1.0),
            max_steps: max_steps as u32,
            trace: self.trace.as_mut(),
            trace_points: self.options.trace_points,
        };
        let launched = launcher::launch(kernels, &mut self.memory, plan, until);
        if launched.is_err() {
            plan.reset()?;
        }
        launched
    }

    /// What the last inference came to, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn inferred(&self) -> Result<Vec<Inferred>, Error> {
        let figures = self.memory.figures.to_vec()?;
        let trace = self.trace.as_ref().map_or_else(|| Ok(Vec::new()), Buffer::to_vec)?;
        let per_model = self.options.trace_points * TRACE_FIGURES;
        let beliefs = self.beliefs()?;
        Ok(beliefs
            .into_iter()
            .zip(&figures)
            .enumerate()
            .map(|(model, (belief, figures))| {
                let steps = figures.steps as usize;
                let points = (steps + 1).min(self.options.trace_points);
                let trace = trace[model * per_model..][..points * TRACE_FIGURES]
                    .chunks(TRACE_FIGURES)
                    .map(|point| TracePoint {
                        free_energy: FreeEnergy {
                            complexity: point[0],
                            accuracy_plugin: point[1],
                            accuracy_expected: point[2],
                        },
                        distance_bound: point[3],
                    })
                    .collect();
                Inferred {
                    belief,
                    free_energy: free_energy_of(figures),
                    distance_bound: figures.distance_bound,
                    steps,
                    converged: figures.converged != 0,
                    trace,
                }
            })
            .collect())
    }

    /// λmax of each model, on the device. The means are scratch for it.
    fn find_curvatures(&mut self) -> Result<Vec<f64>, Error> {
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return Ok(self.models.iter().map(GaussianModel::largest_curvature).collect());
        };
        let start = reference::curvature_start(self.memory.states);
        let all = padded((0..self.models.len()).map(|_| &start[..]), self.memory.stride(), 0.0);
        self.memory.mean.copy_from_slice(&all)?;
        let bulk = self.options.bulk_copies;
        let mut plan = Plan::new(&self.device, kernels, Infer::Curvature, &self.memory, bulk)?;
        let until = Until {
            tolerance: CURVATURE_TOLERANCE,
            max_steps: CURVATURE_STEPS,
            trace: None,
            trace_points: 0,
        };
        launcher::launch(kernels, &mut self.memory, &mut plan, until)?;
        Ok(self.memory.figures.to_vec()?.iter().map(|figures| figures.curvature).collect())
    }

    /// The reference's mathematics in the host's memory.
    fn on_cpu(
        &mut self,
        tolerance: Option<f64>,
        max_steps: usize,
        before: bool,
    ) -> Result<(), Error> {
        let (beliefs, stride) = (self.beliefs()?, self.memory.stride());
        let points = self.options.trace_points;
        for (index, belief) in beliefs.iter().enumerate() {
            let model = self.models[index].reference();
            let (kappa, trace_points) = (self.kappas[index], if before { 1 } else { points });
            let options = InferOptions { kappa, max_steps, tolerance, trace_points };
            let found = reference::infer(&model, belief, options);
            let at = if before { found.trace[0].free_energy } else { found.free_energy };
            let figures = InferenceFigures {
                complexity: at.complexity,
                accuracy_plugin: at.accuracy_plugin,
                accuracy_expected: at.accuracy_expected,
                distance_bound: if before { 0.0 } else { found.distance_bound },
                steps: found.steps as u32,
                converged: found.converged.into(),
                curvature: 0.0,
            };
            self.memory.figures.copy_range_from_slice(index, &[figures])?;
            self.memory.mean.copy_range_from_slice(index * stride, &found.mean)?;
            if let (Some(trace), false) = (&mut self.trace, before) {
                let flat: Vec<f64> = found
                    .trace
                    .iter()
                    .flat_map(|point| {
                        let f = point.free_energy;
                        let bound = point.distance_bound;
                        [f.complexity, f.accuracy_plugin, f.accuracy_expected, bound]
                    })
                    .collect();
                trace.copy_range_from_slice(index * points * TRACE_FIGURES, &flat)?;
            }
        }
        Ok(())
    }
}

fn free_energy_of(figures: &InferenceFigures) -> FreeEnergy {
    FreeEnergy {
        complexity: figures.complexity,
        accuracy_plugin: figures.accuracy_plugin,
        accuracy_expected: figures.accuracy_expected,
    }
}

/// Rows one after the other, each filled up to `stride`.
fn padded<'a>(rows: impl Iterator<Item = &'a [f64]>, stride: usize, fill: f64) -> Vec<f64> {
    let mut all = Vec::new();
    for row in rows {
        all.extend_from_slice(row);
        all.extend(std::iter::repeat_n(fill, stride - row.len()));
    }
    all
}

/// The models in a device's memory; κ, beliefs and figures are zeros.
pub(super) fn upload(
    device: &Device,
    models: &[GaussianModel],
    dtype: DType,
) -> Result<Models, Error> {
    let (observations, states) = (models[0].observations(), models[0].states());
    let stride = states.next_multiple_of(STATE_ALIGN);
    let references: Vec<_> = models.iter().map(GaussianModel::reference).collect();
    let rows = || references.iter().flat_map(|model| model.jacobian.into_outer_iter());
    let jacobian = match dtype {
        DType::F32 => {
            let mut values = Vec::with_capacity(models.len() * observations * stride);
            for row in rows() {
                values.extend(row.iter().map(|&j| j as f32));
                values.resize(values.len() + stride - states, 0.0);
            }
            Buffer::from_slice(device, bytemuck::cast_slice::<f32, u8>(&values))?
        }
        _ => {
            let mut values = Vec::with_capacity(models.len() * observations * stride);
            for row in rows() {
                values.extend(row.iter());
                values.resize(values.len() + stride - states, 0.0);
            }
            Buffer::from_slice(device, bytemuck::cast_slice::<f64, u8>(&values))?
        }
    };
    let target: Vec<f64> = references
        .iter()
        .flat_map(|model| model.observation.iter().zip(model.offset).map(|(o, b)| o - b))
        .collect();
    let precision: Vec<f64> =
        references.iter().flat_map(|model| model.obs_precision).copied().collect();
    let means = padded(references.iter().map(|model| model.prior_mean), stride, 0.0);
    let variances = padded(references.iter().map(|model| model.prior_var), stride, 1.0);
    Ok(Models {
        dtype,
        models: models.len(),
        observations,
        states,
        jacobian,
        target: Buffer::from_slice(device, &target)?,
        obs_precision: Buffer::from_slice(device, &precision)?,
        prior_mean: Buffer::from_slice(device, &means)?,
        prior_var: Buffer::from_slice(device, &variances)?,
        variance: Buffer::from_slice(device, &variances)?,
        kappa: Buffer::zeroed(device, models.len())?,
        mean: Buffer::from_slice(device, &means)?,
        figures: Buffer::zeroed(device, models.len())?,
    })
}
