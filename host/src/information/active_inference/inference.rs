//! Active inference of Gaussian models on any device.

use kasmina_kernels::instances::Infer;
use kasmina_reference::information::active_inference as reference;
use kasmina_reference::information::active_inference::ActiveInferenceError;
use kasmina_types::active_inference::TRACE_FIGURES;
use ndarray::{Array2, ArrayView2};

use super::error::InferenceError;
use super::model::{Belief, CURVATURE_STEPS, CURVATURE_TOLERANCE, FreeEnergy, GaussianModel};
use super::options::InferenceOptions;
use super::results::{Inferred, free_energy_of};
use super::{cpu, memory};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::active_inference::{self as launcher, Models, OP, Plan, Until};
use crate::error::Error;

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
    last: Last,
}

/// What the figures in memory are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Step,
    Inference,
}

impl Last {
    /// The error of asking for what it does not have.
    fn refuse(self, asked: &'static str, needed: &'static str) -> Error {
        let last = match self {
            Self::Nothing => "nothing has run yet",
            Self::Step => "a single step ran last",
            Self::Inference => "an inference ran last",
        };
        InferenceError::NotRun { asked, last, needed }.into()
    }
}

impl ActiveInference {
    /// Puts models on a device, with their priors as beliefs, and finds their λmax there.
    ///
    /// # Errors
    /// No models, or of different shapes; a κ outside its range, or a λmax that leaves f64 when it is squared; a type of
    /// J that is not f64 or f32, or elements that f32 does not hold; more elements or trace points than 32-bit counts
    /// hold; memory exhausted, or a failed call.
    pub fn new(
        device: &Device,
        models: &[GaussianModel],
        options: InferenceOptions,
    ) -> Result<Self, Error> {
        let trace_len = launcher::trace_len(models.len(), options.trace_points)?;
        let (models, memory) = memory::place(device, models, &options)?;
        let kernels = KernelDevice::of(device);
        let bulk = options.bulk_copies;
        let plan = |op| kernels.map(|on| Plan::new(device, on, op, &memory, bulk)).transpose();
        let (step, until) = (plan(Infer::Step)?, plan(Infer::UntilConverged)?);
        let trace = (trace_len > 0).then(|| Buffer::zeroed(device, trace_len)).transpose()?;
        let mut inference = Self {
            device: device.clone(),
            options,
            models,
            kappas: Vec::new(),
            curvatures: Vec::new(),
            memory,
            step,
            until,
            trace,
            last: Last::Nothing,
        };
        inference.curvatures = inference.find_curvatures()?;
        inference.kappas = options.kappas(&inference.curvatures)?;
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
        memory::set_beliefs(&mut self.memory, &self.models, beliefs)
    }

    /// Replaces the beliefs by the rows of two arrays, `[models, states]`: views of any layout.
    ///
    /// # Errors
    /// As [`Self::set_beliefs`].
    pub fn set_belief_arrays(
        &mut self,
        means: ArrayView2<'_, f64>,
        variances: ArrayView2<'_, f64>,
    ) -> Result<(), Error> {
        self.set_beliefs(&memory::beliefs_of_rows(means, variances)?)
    }

    /// The beliefs, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn beliefs(&self) -> Result<Vec<Belief>, Error> {
        memory::beliefs(&self.memory)
    }

    /// μ and s of all models, each `[models, states]`, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn belief_arrays(&self) -> Result<(Array2<f64>, Array2<f64>), Error> {
        let beliefs = self.beliefs()?;
        let shape = (beliefs.len(), self.memory.states);
        let means = Array2::from_shape_fn(shape, |(model, j)| beliefs[model].mean[j]);
        let variances = Array2::from_shape_fn(shape, |(model, j)| beliefs[model].variance[j]);
        Ok((means, variances))
    }

    /// Queues one belief step of each model, with the free energy before it: one launch.
    ///
    /// # Errors
    /// A failed call.
    pub fn step(&mut self) -> Result<(), Error> {
        self.last = Last::Nothing;
        match KernelDevice::of(&self.device).zip(self.step.as_mut()) {
            Some((kernels, plan)) => {
                let until = Until { tolerance: -1.0, max_steps: 1, trace: None, trace_points: 0 };
                launcher::launch(kernels, &mut self.memory, plan, until)?;
            }
            None => cpu::step(&mut self.memory, &self.models, &self.kappas)?,
        }
        self.last = Last::Step;
        Ok(())
    }

    /// The free energy of each model before the last step, or at the end of the last inference; once everything queued
    /// before is done.
    ///
    /// # Errors
    /// [`InferenceError::NotRun`] before a step or an inference, what the queued work ran into, or a failed call.
    pub fn last_free_energies(&self) -> Result<Vec<FreeEnergy>, Error> {
        if self.last == Last::Nothing {
            return Err(self.last.refuse("last_free_energies", "`step` or an inference"));
        }
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

    /// Takes `steps` belief steps of each model in one launch; fewer only where [`Inferred::distance_bound`] is not finite.
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
        self.queue_inference(Some(tolerance), max_steps)?;
        self.inferred()
    }

    /// Queues an inference of each model: of [`Self::infer_until_converged`] with a tolerance, else of
    /// [`Self::infer`]. It allocates nothing; [`Self::inferred`] reads what came of it.
    ///
    /// # Errors
    /// A tolerance that is not above 0, more steps than 32 bits count, or a failed call.
    pub fn queue_inference(
        &mut self,
        tolerance: Option<f64>,
        max_steps: usize,
    ) -> Result<(), Error> {
        if let Some(got) = tolerance.filter(|t| !(*t > 0.0 && t.is_finite())) {
            return Err(InferenceError::Model(ActiveInferenceError::Tolerance { got }).into());
        }
        let limit = u64::from(u32::MAX - 1);
        if max_steps as u64 > limit {
            let (what, got) = ("max_steps", max_steps as u64);
            return Err(Error::TooLarge { op: OP, what, got, limit });
        }
        self.last = Last::Nothing;
        let until = Until {
            tolerance: tolerance.unwrap_or(-1.0),
            max_steps: max_steps as u32,
            trace: self.trace.as_mut(),
            trace_points: self.options.trace_points,
        };
        match KernelDevice::of(&self.device).zip(self.until.as_mut()) {
            Some((kernels, plan)) => launcher::launch(kernels, &mut self.memory, plan, until)?,
            None => cpu::infer(&mut self.memory, &self.models, &self.kappas, until)?,
        }
        self.last = Last::Inference;
        Ok(())
    }

    /// What the last inference came to, once everything queued before is done.
    ///
    /// # Errors
    /// [`InferenceError::NotRun`] where no inference ran, or a step after it; what the queued work ran into, or a failed
    /// call.
    pub fn inferred(&self) -> Result<Vec<Inferred>, Error> {
        if self.last != Last::Inference {
            return Err(self
                .last
                .refuse("inferred", "`infer`, `infer_until_converged` or `queue_inference`"));
        }
        let figures = self.memory.figures.to_vec()?;
        let trace = self.trace.as_ref().map_or_else(|| Ok(Vec::new()), Buffer::to_vec)?;
        let per_model = self.options.trace_points * TRACE_FIGURES;
        let beliefs = self.beliefs()?.into_iter().zip(&figures).enumerate();
        Ok(beliefs
            .map(|(model, (belief, figures))| {
                let trace = &trace[model * per_model..][..per_model];
                Inferred::read(belief, figures, trace)
            })
            .collect())
    }

    /// λmax of each model, on the device. The means are scratch for it.
    fn find_curvatures(&mut self) -> Result<Vec<f64>, Error> {
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return Ok(self.models.iter().map(GaussianModel::largest_curvature).collect());
        };
        let start = reference::curvature_start(self.memory.states);
        let all =
            memory::padded((0..self.models.len()).map(|_| &start[..]), self.memory.stride(), 0.0);
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
}
