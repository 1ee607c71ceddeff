//! Forward and backward.

use super::config::GradientClipping;
use super::error::LayerError;
use super::performance::Pass;
use super::ring::TelemetryRecord;
use super::{KasminaLayer, LayerElement, Training};
use crate::buffer::{Buffer, host};
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    ClipMode, ClipReport, ClipTargets, GradientBuffers, GradientClip, TelemetryBuffers,
    TelemetryValues,
};
use crate::profile;

const FORWARD: &str = "KasminaLayer::forward";
const BACKWARD: &str = "KasminaLayer::backward";

impl<T: LayerElement> KasminaLayer<T> {
    /// The layer's output for `x`, `[batch, hidden_dim]` row-major of any batch, in a buffer of the layer
    /// that the next pass of this batch size overwrites.
    ///
    /// Plan, scratch memory and output are made at the first pass of a batch size, and kept for the last
    /// eight sizes.
    ///
    /// # Errors
    /// An input of no rows, of a broken row or on another device; memory exhausted, or a failed call.
    pub fn forward(&mut self, x: &Buffer<T>) -> Result<&Buffer<T>, Error> {
        let batch = self.batch_of(FORWARD, x)?;
        self.plan(batch)?;
        let plan = self.plans.last().expect("just planned");
        let mut output = match plan.output.take() {
            Some(output) => output,
            None => Buffer::zeroed(&self.device, x.len())?,
        };
        let done = self.forward_into(x, &mut output);
        let output = self.plans.last().expect("just planned").output.insert(output);
        done.map(|()| &*output)
    }

    /// As [`Self::forward`], into a buffer of the caller.
    ///
    /// # Errors
    /// As [`Self::forward`]; an output of another length or device.
    pub fn forward_into(&mut self, x: &Buffer<T>, output: &mut Buffer<T>) -> Result<(), Error> {
        let done = self.forward_counted(x, output);
        self.performance.count(&done);
        done
    }

    /// The gradient at the layer's input, from the input and the gradient at the output, `[batch,
    /// hidden_dim]` each; it is in a buffer of the layer, which the next backward pass of this batch size
    /// overwrites. The parameters' gradients are in [`Self::gradients`], clipped as configured.
    ///
    /// # Errors
    /// Buffers of no rows, broken rows, different lengths or another device; memory exhausted, or a failed
    /// call.
    pub fn backward(
        &mut self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
    ) -> Result<&Buffer<T>, Error> {
        let batch = self.batch_of(BACKWARD, x)?;
        self.plan(batch)?;
        let plan = self.plans.last().expect("just planned");
        let mut grad_input = match plan.grad_input.take() {
            Some(grad_input) => grad_input,
            None => Buffer::zeroed(&self.device, x.len())?,
        };
        let done = self.backward_into(x, grad_output, &mut grad_input);
        let grad_input = self.plans.last().expect("just planned").grad_input.insert(grad_input);
        done.map(|()| &*grad_input)
    }

    /// As [`Self::backward`], into a buffer of the caller.
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_into(
        &mut self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
        grad_input: &mut Buffer<T>,
    ) -> Result<(), Error> {
        let done = self.backward_counted(x, grad_output, grad_input);
        self.performance.count(&done);
        done
    }

    /// The telemetry of the last forward pass, once it is done. It counts as read from now on.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`], or a failed call.
    pub fn telemetry(&self) -> Result<Option<TelemetryValues>, Error> {
        self.check_telemetry()?;
        let _scope = self.scope_of_reading(1);
        self.ring.latest()
    }

    /// The telemetry of the passes that the ring holds, oldest first. They count as read from now on.
    ///
    /// # Errors
    /// As [`Self::telemetry`].
    pub fn telemetry_history(&mut self) -> Result<Vec<TelemetryRecord>, Error> {
        self.check_telemetry()?;
        let _scope = self.scope_of_reading(self.ring.held());
        self.ring.history()
    }

    /// Says that graphs which were captured from this layer made `passes` forward passes since the last such call. They
    /// count as passes from now on, and the telemetry of the last of them is copied into the ring, on the device and in
    /// the order of its stream; those before it count as overruns.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`]; [`LayerError::NothingCaptured`]; a capture in progress, or a failed call.
    pub fn replayed(&mut self, passes: u64) -> Result<(), Error> {
        self.check_telemetry()?;
        self.device.refuse_capture("KasminaLayer::replayed")?;
        if self.ring.replayed(passes)? {
            return Ok(());
        }
        Err(LayerError::NothingCaptured { layer: self.config.name.clone() }.into())
    }

    /// Passes whose telemetry was overwritten before anyone read it.
    pub fn telemetry_overruns(&self) -> u64 {
        self.ring.overruns()
    }

    /// What the last clipping found and did; none before the first backward pass.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`] where gradients are not clipped, or a failed call.
    pub fn clip_report(&self) -> Result<Option<ClipReport>, Error> {
        if self.config.gradient_clip == GradientClipping::None {
            let (what, option) = ("a report of the clipping", "gradient_clip");
            return Err(LayerError::TurnedOff { what, option }.into());
        }
        self.training.as_ref().map(|training| training.clip.report()).transpose()
    }

    /// The forward pass again, with the flags of the adaptive mode as they were, for a layer stack. It
    /// leaves no telemetry and no flags.
    pub(crate) fn recompute(
        &mut self,
        x: &Buffer<T>,
        output: &mut Buffer<T>,
        flags: &mut Buffer<u8>,
        scratch: &mut TelemetryBuffers,
    ) -> Result<(), Error> {
        let batch = self.batch_of(FORWARD, x)?;
        self.plan(batch)?;
        // What this pass does to the flags is done to those that nobody needs any more.
        std::mem::swap(&mut self.state.unstable, flags);
        let scope = self.performance.scope(profile::RECOMPUTE, 2 * x.byte_len());
        let done = self.run_forward(batch, x, output, Some(scratch));
        drop(scope);
        std::mem::swap(&mut self.state.unstable, flags);
        done
    }

    /// The pass over the elements, and what seeds that hold a LINEAR blueprint add to it. Telemetry goes to `scratch`, or
    /// to the ring.
    fn run_forward(
        &mut self,
        batch: usize,
        x: &Buffer<T>,
        output: &mut Buffer<T>,
        scratch: Option<&mut TelemetryBuffers>,
    ) -> Result<(), Error> {
        self.plan_dense(batch, false)?;
        let plan = self.plans.last().expect("just planned");
        let (state, store, mode) = (&mut self.state, &self.dense, self.options.numerical);
        if let Some(dense) = &mut plan.dense {
            dense.keep_flags(state, mode)?;
        }
        let slot = match scratch {
            Some(scratch) => scratch,
            None => self.ring.begin(self.device.is_capturing()),
        };
        plan.forward.run(state, x, output, slot)?;
        match &mut plan.dense {
            Some(dense) => dense.forward(&self.device, state, store, mode, x, output),
            None => Ok(()),
        }
    }

    /// The flags of the adaptive mode, `[num_seeds]`.
    pub(crate) fn flags(&self) -> &Buffer<u8> {
        &self.state.unstable
    }

    pub(crate) fn batch_of(&self, op: &'static str, x: &Buffer<T>) -> Result<usize, Error> {
        let (hidden, got) = (self.config.hidden_dim, x.len());
        if got == 0 || !got.is_multiple_of(hidden) {
            let expected = format!("rows of {hidden}, at least one");
            return Err(Error::Length { op, buffer: "x", expected, got });
        }
        x.check_device(op, "x", &self.device)?;
        Ok(got / hidden)
    }

    pub(crate) fn prepare_training(&mut self) -> Result<(), Error> {
        if self.training.is_some() {
            return Ok(());
        }
        let (state, config) = (&self.state, &self.config);
        let mode = match config.gradient_clip {
            GradientClipping::None => ClipMode::None,
            GradientClipping::Value { limit } => ClipMode::ByValue(limit),
            GradientClipping::GlobalNorm { limit } => ClipMode::GlobalNorm(limit),
            GradientClipping::Adaptive { factor, decay } => ClipMode::Adaptive { factor, decay },
        };
        let (seeds, blueprints) = (state.num_seeds(), state.num_blueprints());
        let mut clip =
            GradientClip::new(&self.device, seeds, blueprints, state.chunk_size(), mode)?;
        if let Some(norms) = &self.carried.running_norms {
            clip.set_running_norms(norms)?;
        }
        let gradients = GradientBuffers::new(&self.device, state)?;
        self.training = Some(Training { gradients, clip });
        Ok(())
    }

    fn forward_counted(&mut self, x: &Buffer<T>, output: &mut Buffer<T>) -> Result<(), Error> {
        let batch = self.batch_of(FORWARD, x)?;
        self.check_room(2, x)?;
        self.assert_state()?;
        self.plan(batch)?;
        if self.config.compare_kernels {
            self.compare_and_keep(x)?;
        }
        let bytes = 2 * x.byte_len();
        self.plan_dense(batch, false)?;
        let timer = self.performance.start(Pass::Forward, bytes)?;
        let scope = self.performance.scope(profile::FORWARD, bytes);
        self.run_forward(batch, x, output, None)?;
        drop(scope);
        let plan = self.plans.last().expect("just planned");
        if let Some(reduce) = &mut plan.reduce {
            let _scope = self.performance.scope(profile::TELEMETRY_REDUCE, x.byte_len());
            reduce.run(x, self.ring.begin(self.device.is_capturing()))?;
        }
        self.ring.commit();
        self.performance.stop(timer)
    }

    fn backward_counted(
        &mut self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
        grad_input: &mut Buffer<T>,
    ) -> Result<(), Error> {
        let batch = self.batch_of(BACKWARD, x)?;
        self.check_room(3, x)?;
        self.assert_state()?;
        self.plan_backward(batch)?;
        self.plan_dense(batch, true)?;
        if self.config.compare_kernels {
            self.compare_gradients_and_keep(x, grad_output)?;
        }
        let bytes = 3 * x.byte_len();
        let timer = self.performance.start(Pass::Backward, bytes)?;
        let plan = self.plans.last().expect("just planned");
        let backward = plan.backward.as_mut().expect("just planned");
        let Training { gradients, clip } = self.training.as_mut().expect("just prepared");
        let scope = self.performance.scope(profile::BACKWARD, bytes);
        backward.run(&self.state, x, grad_output, grad_input, gradients)?;
        if let Some(dense) = &mut plan.dense {
            let (state, store, mode) = (&self.state, &mut self.dense, self.options.numerical);
            let operands = (x, grad_output);
            dense.backward(&self.device, state, store, mode, operands, grad_input, gradients)?;
        }
        drop(scope);
        let targets = ClipTargets {
            weights: &mut gradients.grad_weights,
            scales: &mut gradients.grad_scales,
            alpha: &mut gradients.grad_alpha,
            seed_norms: &gradients.gradient_norm,
        };
        let bytes = clipped_bytes(self.config.gradient_clip, &targets);
        let _scope = bytes.map(|bytes| self.performance.scope(profile::CLIP, bytes));
        clip.run(&self.state, targets)?;
        self.performance.stop(timer)
    }

    /// The scope of `passes`' telemetry on its way to the host.
    fn scope_of_reading(&self, passes: usize) -> profile::Scope {
        let figures = size_of::<[u32; 8]>();
        self.performance.scope(profile::TELEMETRY_READ, passes * self.config.num_seeds * figures)
    }

    /// On the CPU a pass is the reference's mathematics, which copies `tensors` operands and results of
    /// the size of `x` as f32, and cannot say that there is no memory for them.
    fn check_room(&self, tensors: usize, x: &Buffer<T>) -> Result<(), Error> {
        match self.device {
            Device::Cpu => host::check_room(x.len().saturating_mul(tensors * size_of::<f32>())),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_telemetry(&self) -> Result<(), LayerError> {
        if self.config.enable_telemetry {
            return Ok(());
        }
        Err(LayerError::TurnedOff { what: "telemetry", option: "enable_telemetry" })
    }
}

/// What clipping reads and writes, all of which is f32; none where it does nothing.
fn clipped_bytes(mode: GradientClipping, targets: &ClipTargets<'_>) -> Option<usize> {
    let ClipTargets { weights, scales, alpha, .. } = targets;
    let bytes = weights.byte_len() + scales.byte_len() + alpha.byte_len();
    match mode {
        GradientClipping::None => None,
        GradientClipping::Value { .. } => Some(2 * bytes),
        // Read for the norm, read again and written.
        GradientClipping::GlobalNorm { .. } | GradientClipping::Adaptive { .. } => Some(3 * bytes),
    }
}
