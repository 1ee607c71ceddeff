//! The stages of a belief step by themselves: complexity, accuracy, update.

use kasmina_kernels::instances::Stage;
use kasmina_reference::information::active_inference as reference;

use super::error::InferenceError;
use super::inference::{InferenceOptions, upload};
use super::model::{Belief, GaussianModel};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::active_inference::{self as launcher, Models, StageBuffers};
use crate::error::Error;

/// A model and a belief about its states on a device, whose stages are run one by one: each is a launch. To have all
/// of them in one, take [`super::ActiveInference`].
pub struct InferenceStages {
    device: Device,
    model: GaussianModel,
    kappa: f64,
    memory: Models,
    buffers: StageBuffers,
}

impl InferenceStages {
    /// Puts a model on a device, with its prior as the belief. Without a κ among the options it is 1/λmax, found on
    /// the host.
    ///
    /// # Errors
    /// A type of J that is not f64 or f32, a capture of the device's stream, memory exhausted, or a failed call.
    pub fn new(
        device: &Device,
        model: &GaussianModel,
        options: InferenceOptions,
    ) -> Result<Self, Error> {
        const OP: &str = "active_inference";
        device.refuse_capture(OP)?;
        let model = options.stored(model)?;
        let mut memory = upload(device, std::slice::from_ref(&model), options.jacobian)?;
        let kappa =
            options.kappa.unwrap_or_else(|| reference::default_kappa(model.largest_curvature()));
        memory.kappa.copy_from_slice(&[kappa])?;
        let tiles = launcher::accuracy_tiles(model.observations());
        let buffers = StageBuffers {
            residual: Buffer::zeroed(device, model.observations())?,
            partials: Buffer::zeroed(device, 2 * tiles)?,
            arrivals: Buffer::zeroed(device, 1)?,
            complexity: Buffer::zeroed(device, 1)?,
            accuracy: Buffer::zeroed(device, 2)?,
        };
        Ok(Self { device: device.clone(), model, kappa, memory, buffers })
    }

    /// The model, J as the device has it.
    pub fn model(&self) -> &GaussianModel {
        &self.model
    }

    /// The step size.
    pub fn kappa(&self) -> f64 {
        self.kappa
    }

    /// Replaces the belief.
    ///
    /// # Errors
    /// A belief that does not fit the model, or a failed call.
    pub fn set_belief(&mut self, belief: &Belief) -> Result<(), Error> {
        let model = self.model.reference();
        model.check_belief(&belief.mean, &belief.variance).map_err(InferenceError::Model)?;
        self.memory.mean.copy_range_from_slice(0, &belief.mean)?;
        self.memory.variance.copy_range_from_slice(0, &belief.variance)
    }

    /// The belief, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn belief(&self) -> Result<Belief, Error> {
        let states = self.memory.states;
        Ok(Belief {
            mean: self.memory.mean.range_to_vec(0, states)?,
            variance: self.memory.variance.range_to_vec(0, states)?,
        })
    }

    /// KL(q ‖ prior), in nats: `fused_kl_complexity`.
    ///
    /// # Errors
    /// A failed call.
    pub fn complexity(&mut self) -> Result<f64, Error> {
        if !self.launch(Stage::Complexity)? {
            let (belief, model) = (self.belief()?, self.model.reference());
            let Belief { mean, variance } = &belief;
            return Ok(reference::complexity(mean, variance, model.prior_mean, model.prior_var));
        }
        Ok(self.buffers.complexity.to_vec()?[0])
    }

    /// Plug-in and expected accuracy, in nats: `fused_accuracy_pipeline`. It leaves the residuals for
    /// [`Self::update`].
    ///
    /// # Errors
    /// A failed call.
    pub fn accuracy(&mut self) -> Result<(f64, f64), Error> {
        if !self.launch(Stage::Accuracy)? {
            let (belief, model) = (self.belief()?, self.model.reference());
            self.buffers.residual.copy_from_slice(&reference::residual(&model, &belief.mean))?;
            let found = reference::free_energy(&model, &belief);
            return Ok((found.accuracy_plugin, found.accuracy_expected));
        }
        let accuracy = self.buffers.accuracy.to_vec()?;
        Ok((accuracy[0], accuracy[1]))
    }

    /// r = o − b − J·μ of the last [`Self::accuracy`].
    ///
    /// # Errors
    /// A failed call.
    pub fn residuals(&self) -> Result<Vec<f64>, Error> {
        self.buffers.residual.to_vec()
    }

    /// Queues μ ← μ + κ·(Jᵀ(π·r) − (μ − m0)/v0) with the residuals of the last [`Self::accuracy`]:
    /// `fused_belief_update`.
    ///
    /// # Errors
    /// A failed call.
    pub fn update(&mut self) -> Result<(), Error> {
        if !self.launch(Stage::Update)? {
            let (belief, residuals) = (self.belief()?, self.residuals()?);
            let model = self.model.reference();
            let moved = reference::belief_step_from(&model, &belief.mean, &residuals, self.kappa);
            return self.memory.mean.copy_range_from_slice(0, &moved);
        }
        Ok(())
    }

    /// Launches a stage where the device runs kernels, and says whether it does.
    fn launch(&mut self, stage: Stage) -> Result<bool, Error> {
        let Some(kernels) = KernelDevice::of(&self.device) else { return Ok(false) };
        let launched = launcher::launch_stage(kernels, stage, &mut self.memory, &mut self.buffers);
        if launched.is_err() {
            // A launch that broke off leaves arrivals that are not zero.
            self.buffers.arrivals.copy_from_slice(&[0])?;
        }
        launched.map(|()| true)
    }
}
