//! Which kernels a layer uses, and how two of them compare.

use kasmina_types::DType;
use serde::{Deserialize, Serialize};

use super::comparison::{GradientComparison, GradientOutcome, KernelComparison, Outcome};
use super::config::{KernelChoice, LayerConfig, StabilityMode, TelemetryReduction};
use super::error::{ConfigError, LayerError};
use super::{KasminaLayer, LayerElement};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    BlendBackward, BlendForward, BlendOptions, GradientBuffers, LayerState, NumericalMode,
    TelemetryBuffers, Variant,
};

/// Whether a layer is among the `percent` of the layers that use the new kernels. It depends on name and
/// number alone: the same layers on every machine, and a layer that is in stays in when the share grows.
///
/// ```
/// use kasmina::kasmina::in_rollout;
///
/// let layers: Vec<u32> = (0..1000).filter(|&id| in_rollout("block", id, 30)).collect();
/// assert!((250..350).contains(&layers.len()));
/// assert!(layers.iter().all(|&id| in_rollout("block", id, 31)));
/// ```
pub fn in_rollout(name: &str, layer_id: u32, percent: u8) -> bool {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(name.as_bytes());
    hasher.update(&layer_id.to_le_bytes());
    hasher.finalize() % 100 < u32::from(percent)
}

/// A kernel that another is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedKernel {
    /// The one that the layer uses.
    Own,
    /// The plain ones.
    Plain,
    /// Those that load by tensor maps.
    Tma,
    /// The reference mathematics on the CPU.
    Reference,
}

impl<T: LayerElement> KasminaLayer<T> {
    /// Runs the forward pass of `x` by two kernels from the same state, and says how the results differ.
    /// Ring, flags and state stay as they are. It is the passes over the elements that are compared: to them a seed that
    /// holds a LINEAR blueprint is the identity.
    ///
    /// # Errors
    /// An input that does not fit, a kernel that the device does not have, memory exhausted, or a failed
    /// call.
    pub fn compare_kernels(
        &mut self,
        x: &Buffer<T>,
        first: ComparedKernel,
        second: ComparedKernel,
    ) -> Result<KernelComparison, Error> {
        let batch = self.batch_of("compare_kernels", x)?;
        let flags = self.state.unstable.to_vec()?;
        let one = self.result_of(first, batch, x);
        self.state.unstable.copy_from_slice(&flags)?;
        let other = self.result_of(second, batch, x);
        self.state.unstable.copy_from_slice(&flags)?;
        Ok(KernelComparison::of(&one?, &other?))
    }

    /// Runs the backward pass of `x` and the gradient at the output by two kernels from the same state, and says how
    /// the gradients differ, before clipping. The layer's own gradients and its state stay as they are.
    ///
    /// A variant that only the forward pass has is [`Tma`](Variant::Tma) here, and one that the device lacks the plain one;
    /// the kernels' names say what ran.
    ///
    /// # Errors
    /// Operands that do not fit, memory exhausted, or a failed call.
    pub fn compare_backward_kernels(
        &mut self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
        first: ComparedKernel,
        second: ComparedKernel,
    ) -> Result<GradientComparison, Error> {
        let batch = self.batch_of("compare_backward_kernels", x)?;
        let one = self.gradients_of(first, batch, x, grad_output)?;
        let other = self.gradients_of(second, batch, x, grad_output)?;
        Ok(GradientComparison::of(&one, &other))
    }

    /// What `compare_kernels` has found in all forward passes so far: the layer's kernel against that of `compare_with`.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`].
    pub fn comparison(&self) -> Result<Option<&KernelComparison>, LayerError> {
        self.check_comparison()?;
        Ok(self.comparison.as_ref())
    }

    /// What `compare_kernels` has found in all backward passes so far.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`].
    pub fn gradient_comparison(&self) -> Result<Option<&GradientComparison>, LayerError> {
        self.check_comparison()?;
        Ok(self.gradient_comparison.as_ref())
    }

    pub(crate) fn compare_and_keep(&mut self, x: &Buffer<T>) -> Result<(), Error> {
        let found = self.compare_kernels(x, ComparedKernel::Own, self.config.compare_with)?;
        match &mut self.comparison {
            Some(kept) => kept.merge(&found),
            None => self.comparison = Some(found),
        }
        Ok(())
    }

    pub(crate) fn compare_gradients_and_keep(
        &mut self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
    ) -> Result<(), Error> {
        let with = self.config.compare_with;
        let found = self.compare_backward_kernels(x, grad_output, ComparedKernel::Own, with)?;
        match &mut self.gradient_comparison {
            Some(kept) => kept.merge(&found),
            None => self.gradient_comparison = Some(found),
        }
        Ok(())
    }

    fn check_comparison(&self) -> Result<(), LayerError> {
        if self.config.compare_kernels {
            return Ok(());
        }
        Err(LayerError::TurnedOff { what: "the comparison of kernels", option: "compare_kernels" })
    }

    fn result_of(
        &mut self,
        kernel: ComparedKernel,
        batch: usize,
        x: &Buffer<T>,
    ) -> Result<Outcome<T>, Error> {
        let (device, mut copy) = self.place_of(kernel)?;
        let (seeds, chunk_size) = (self.config.num_seeds, self.state.chunk_size());
        let variant = match kernel.variant(self.options.variant) {
            // As it was tuned for the layer, whose passes may leave out the telemetry that these have.
            Variant::Tuned => self.plan_forward(batch)?.0.variant(),
            variant => variant,
        };
        let options = BlendOptions { telemetry: true, variant, ..self.options };
        let mut forward = BlendForward::with_options(&device, batch, seeds, chunk_size, options)?;
        let mut output = Buffer::zeroed(&device, x.len())?;
        let mut telemetry = TelemetryBuffers::new(&device, seeds)?;
        match &mut copy {
            Some(state) => {
                let x = Buffer::from_slice(&device, &x.to_vec()?)?;
                forward.run(state, &x, &mut output, &mut telemetry)?;
            }
            None => forward.run(&mut self.state, x, &mut output, &mut telemetry)?,
        }
        let kernel = forward.kernel().map_or("reference", |kernel| kernel.entry).to_owned();
        Ok(Outcome { kernel, output: output.to_vec()?, telemetry: telemetry.read()? })
    }

    fn gradients_of(
        &self,
        kernel: ComparedKernel,
        batch: usize,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
    ) -> Result<GradientOutcome<T>, Error> {
        let (device, copy) = self.place_of(kernel)?;
        let state = copy.as_ref().unwrap_or(&self.state);
        let (seeds, chunk_size) = (self.config.num_seeds, self.state.chunk_size());
        let own = self.options;
        let planned = |variant| {
            let options = of_backward(BlendOptions { variant, ..own });
            BlendBackward::<T>::with_options(&device, batch, seeds, chunk_size, options)
        };
        let mut backward = match planned(kernel.variant(own.variant)) {
            Err(Error::Variant { .. }) => planned(Variant::Plain)?,
            planned => planned?,
        };
        let mut grad_input = Buffer::zeroed(&device, x.len())?;
        let mut gradients = GradientBuffers::new(&device, state)?;
        if copy.is_some() {
            let x = Buffer::from_slice(&device, &x.to_vec()?)?;
            let grad_output = Buffer::from_slice(&device, &grad_output.to_vec()?)?;
            backward.run(state, &x, &grad_output, &mut grad_input, &mut gradients)?;
        } else {
            backward.run(state, x, grad_output, &mut grad_input, &mut gradients)?;
        }
        let kernel = backward.kernel().map_or("reference", |kernel| kernel.entry).to_owned();
        let parameters = by_blueprint(state, &gradients)?;
        Ok(GradientOutcome { kernel, grad_input: grad_input.to_vec()?, parameters })
    }

    /// Where a kernel runs, and the state there if it is not the layer's own.
    fn place_of(&self, kernel: ComparedKernel) -> Result<(Device, Option<LayerState>), Error> {
        Ok(match kernel {
            ComparedKernel::Reference => (Device::Cpu, Some(self.copy_on_cpu()?)),
            _ => (self.device.clone(), None),
        })
    }

    fn copy_on_cpu(&self) -> Result<LayerState, Error> {
        let mut copy = LayerState::with_graft(
            &Device::Cpu,
            self.state.read_loaded()?.0.without_linear(),
            self.state.read_graft()?,
        )?;
        copy.unstable.copy_from_slice(&self.state.unstable.to_vec()?)?;
        Ok(copy)
    }
}

impl ComparedKernel {
    /// The variant that it is, where the layer's own is `own`.
    fn variant(self, own: Variant) -> Variant {
        match self {
            Self::Own => own,
            Self::Plain => Variant::Plain,
            Self::Tma => Variant::Tma,
            Self::Reference => Variant::Auto,
        }
    }
}

/// The parameters' gradients by name. Weights and scales are those of the blueprints that a seed has, in their order,
/// wherever the state keeps them.
fn by_blueprint(
    state: &LayerState,
    gradients: &GradientBuffers,
) -> Result<Vec<(&'static str, Vec<f32>)>, Error> {
    let mut held = state.blueprint_id.to_vec()?;
    held.sort_unstable();
    held.dedup();
    held.retain(|&id| id != 0);
    let (offsets, chunk_size) = (state.blueprint_offset.to_vec()?, state.chunk_size());
    let values = gradients.read()?;
    let of_held = |name: &str, values: &[f32]| -> Vec<f32> {
        let held = held.iter().map(|&id| usize::from(id));
        match name {
            "grad_weights" => {
                held.flat_map(|id| &values[offsets[id] as usize..][..chunk_size]).copied().collect()
            }
            "grad_scales" => held.map(|id| values[id]).collect(),
            _ => values.to_vec(),
        }
    };
    Ok(values.arrays().map(|(name, values)| (name, of_held(name, values))).collect())
}

/// The variant of the passes that a configuration asks for on a device; and why it is the plain one where a rollout
/// asks for the new one.
fn variant<T: LayerElement>(device: &Device, config: &LayerConfig) -> (Variant, Option<String>) {
    let allowed = config.enable_tma && config.enable_warp_specialization;
    match config.kernel {
        KernelChoice::Rollout => {
            if !in_rollout(&config.name, config.layer_id, config.rollout_percent) {
                return (Variant::Plain, None);
            }
            let (new, seeds, chunk) = (Variant::Tma, config.num_seeds, config.chunk_size());
            let refusal = if allowed {
                BlendForward::<T>::refusal(device, seeds, chunk, new)
            } else {
                Some("`enable_tma` or `enable_warp_specialization` is off".into())
            };
            (if refusal.is_none() { new } else { Variant::Plain }, refusal)
        }
        _ if !allowed => (Variant::Plain, None),
        KernelChoice::Auto => (Variant::Auto, None),
        KernelChoice::Plain => (Variant::Plain, None),
        KernelChoice::Tma => (Variant::Tma, None),
        KernelChoice::TmaBulkStores => (Variant::TmaBulkStores, None),
        KernelChoice::Tuned => (Variant::Tuned, None),
    }
}

/// The options of the backward pass, which has no bulk stores, where those of the forward pass are `options`.
pub(super) fn of_backward(options: BlendOptions) -> BlendOptions {
    let variant = match options.variant {
        Variant::TmaBulkStores => Variant::Tma,
        variant => variant,
    };
    BlendOptions { variant, ..options }
}

/// The options of the passes that a configuration asks for; and why a layer that is in the rollout runs the plain
/// kernels, where it does, which is said in the log too.
///
/// # Errors
/// [`ConfigError::Refused`]: a variant is forced that the device or the shape does not allow, or one is to be compared
/// with.
pub(crate) fn options<T: LayerElement>(
    device: &Device,
    config: &LayerConfig,
) -> Result<(BlendOptions, Option<String>), ConfigError> {
    let (variant, fallback) = variant::<T>(device, config);
    let (seeds, chunk) = (config.num_seeds, config.chunk_size());
    let compared = config.compare_kernels.then(|| config.compare_with.variant(variant));
    for (option, variant) in [("kernel", Some(variant)), ("compare_with", compared)] {
        let Some(variant) = variant else { continue };
        if let Some(why) = BlendForward::<T>::refusal(device, seeds, chunk, variant) {
            return Err(ConfigError::Refused { option, why });
        }
    }
    if let Some(why) = &fallback {
        let (layer, id) = (&config.name, config.layer_id);
        tracing::warn!(%layer, id, %why, "in the rollout of new kernels, but runs the plain ones");
    }
    // The largest finite values of the element type.
    let bound = match T::DTYPE {
        DType::F16 => half::f16::MAX.to_f32(),
        DType::Bf16 => half::bf16::MAX.to_f32(),
        _ => f32::MAX,
    };
    let low = config.stability_lower_bound.unwrap_or(-bound);
    let high = config.stability_upper_bound.unwrap_or(bound);
    let numerical = match config.numerical_stability_mode {
        StabilityMode::Fast => NumericalMode::Fast,
        StabilityMode::Strict => NumericalMode::Strict { low, high },
        StabilityMode::Adaptive => NumericalMode::Adaptive { low, high },
    };
    // Of another strategy the forward pass's own figures are needed for the flags alone.
    let own = config.telemetry_reduction_strategy == TelemetryReduction::Hierarchical
        || config.numerical_stability_mode == StabilityMode::Adaptive;
    let options = BlendOptions {
        telemetry: config.enable_telemetry && own,
        numerical,
        persistent: config.enable_persistent_kernels,
        block_threads: config.preferred_block_size,
        variant,
    };
    Ok((options, fallback))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The CPU has no new kernels.
    #[test]
    fn a_rollout_that_cannot_be_had_is_said_once() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let layer = |percent| {
                KasminaLayer::<f32>::builder(2, 8)
                    .name("encoder.3")
                    .kernel(KernelChoice::Rollout)
                    .rollout_percent(percent)
                    .build(&Device::Cpu)
                    .expect("a layer")
            };
            let mut chosen = layer(100);
            let x = Buffer::from_slice(&Device::Cpu, &[1.0; 8]).expect("memory");
            for _ in 0..3 {
                chosen.forward(&x).expect("a pass");
            }
            let report = chosen.report().expect("a report");
            let why = report.rollout_fallback.clone().expect("the CPU cannot");
            assert!(why.contains("compute capability 9.0"), "{why}");
            assert!(report.to_string().contains("in the rollout, but plain: "), "{report}");
            assert_eq!(layer(0).report().expect("a report").rollout_fallback, None);
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let said = log.lines().filter(|line| line.contains("rollout"));
        assert_eq!(said.clone().count(), 1, "{log}");
        assert!(said.clone().all(|line| line.contains("WARN") && line.contains("encoder.3")));
    }
}
