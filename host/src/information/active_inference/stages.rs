//! The stages of a belief step by themselves: complexity, accuracy, update.

use kasmina_kernels::instances::Stage;
use kasmina_reference::information::active_inference as reference;
use ndarray::Array2;

use super::error::InferenceError;
use super::memory;
use super::model::{Belief, GaussianModel};
use super::options::InferenceOptions;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::active_inference::{self as launcher, Models, StageBuffers};
use crate::error::Error;

/// Models of one shape and the beliefs about their states on a device, whose stages are run one by one: each is a
/// launch for all models. To have all of them in one, take [`super::ActiveInference`].
pub struct InferenceStages {
    device: Device,
    models: Vec<GaussianModel>,
    kappas: Vec<f64>,
    memory: Models,
    buffers: StageBuffers,
    /// Whether there are residuals.
    has_residuals: bool,
}

impl InferenceStages {
    /// Puts models on a device, with their priors as beliefs. λmax, which bounds κ, is found on the host.
    ///
    /// # Errors
    /// As [`super::ActiveInference::new`].
    pub fn new(
        device: &Device,
        models: &[GaussianModel],
        options: InferenceOptions,
    ) -> Result<Self, Error> {
        let (models, mut memory) = memory::place(device, models, &options)?;
        let curvatures: Vec<f64> = models.iter().map(GaussianModel::largest_curvature).collect();
        let kappas = options.kappas(&curvatures)?;
        memory.kappa.copy_from_slice(&kappas)?;
        let buffers = StageBuffers::new(device, models.len(), memory.observations)?;
        Ok(Self { device: device.clone(), models, kappas, memory, buffers, has_residuals: false })
    }

    /// The models, J as the device has it.
    pub fn models(&self) -> &[GaussianModel] {
        &self.models
    }

    /// The step size of each model.
    pub fn kappas(&self) -> &[f64] {
        &self.kappas
    }

    /// Replaces the beliefs.
    ///
    /// # Errors
    /// Beliefs that do not fit the models, or a failed call.
    pub fn set_beliefs(&mut self, beliefs: &[Belief]) -> Result<(), Error> {
        memory::set_beliefs(&mut self.memory, &self.models, beliefs)
    }

    /// The beliefs, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn beliefs(&self) -> Result<Vec<Belief>, Error> {
        memory::beliefs(&self.memory)
    }

    /// KL(q ‖ prior) of each model, in nats: `fused_kl_complexity`.
    ///
    /// # Errors
    /// A failed call.
    pub fn complexity(&mut self) -> Result<Vec<f64>, Error> {
        if self.launch(Stage::Complexity)? {
            return self.buffers.complexity.to_vec();
        }
        let complexity = |(model, belief): (&GaussianModel, Belief)| {
            let (model, Belief { mean, variance }) = (model.reference(), belief);
            reference::complexity(&mean, &variance, model.prior_mean, model.prior_var)
        };
        Ok(self.models.iter().zip(self.beliefs()?).map(complexity).collect())
    }

    /// Plug-in and expected accuracy of each model, in nats: `fused_accuracy_pipeline`. It leaves the residuals for
    /// [`Self::update`].
    ///
    /// # Errors
    /// A failed call.
    pub fn accuracy(&mut self) -> Result<Vec<(f64, f64)>, Error> {
        self.has_residuals = false;
        let found = if self.launch(Stage::Accuracy)? {
            let flat = self.buffers.accuracy.to_vec()?;
            flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
        } else {
            let (mut found, mut residuals) = (Vec::new(), Vec::new());
            for (model, belief) in self.models.iter().zip(self.beliefs()?) {
                let model = model.reference();
                residuals.extend(reference::residual(&model, &belief.mean));
                let energy = reference::free_energy(&model, &belief);
                found.push((energy.accuracy_plugin, energy.accuracy_expected));
            }
            self.buffers.residual.copy_from_slice(&residuals)?;
            found
        };
        self.has_residuals = true;
        Ok(found)
    }

    /// r = o − b − J·μ of the last [`Self::accuracy`], `[models, observations]`.
    ///
    /// # Errors
    /// [`InferenceError::NotRun`] before an accuracy, or a failed call.
    pub fn residuals(&self) -> Result<Array2<f64>, Error> {
        self.check_residuals("residuals")?;
        let (flat, columns) = (self.buffers.residual.to_vec()?, self.memory.observations);
        let shape = (self.models.len(), columns);
        Ok(Array2::from_shape_fn(shape, |(model, i)| flat[model * columns + i]))
    }

    /// Queues μ ← μ + κ·(Jᵀ(π·r) − (μ − m0)/v0) with the residuals of the last [`Self::accuracy`]:
    /// `fused_belief_update`.
    ///
    /// # Errors
    /// [`InferenceError::NotRun`] before an accuracy, or a failed call.
    pub fn update(&mut self) -> Result<(), Error> {
        self.check_residuals("update")?;
        if self.launch(Stage::Update)? {
            return Ok(());
        }
        let (beliefs, residuals) = (self.beliefs()?, self.buffers.residual.to_vec()?);
        let rows = residuals.chunks(self.memory.observations);
        let stride = self.memory.stride();
        for (number, (belief, residual)) in beliefs.iter().zip(rows).enumerate() {
            let (model, kappa) = (self.models[number].reference(), self.kappas[number]);
            let moved = reference::belief_step_from(&model, &belief.mean, residual, kappa);
            self.memory.mean.copy_range_from_slice(number * stride, &moved)?;
        }
        Ok(())
    }

    fn check_residuals(&self, asked: &'static str) -> Result<(), Error> {
        if self.has_residuals {
            return Ok(());
        }
        let (last, needed) = ("there are no residuals yet", "`accuracy`");
        Err(InferenceError::NotRun { asked, last, needed }.into())
    }

    /// Launches a stage where the device runs kernels, and says whether it does.
    fn launch(&mut self, stage: Stage) -> Result<bool, Error> {
        let Some(kernels) = KernelDevice::of(&self.device) else { return Ok(false) };
        launcher::launch_stage(kernels, stage, &mut self.memory, &mut self.buffers)?;
        Ok(true)
    }
}
