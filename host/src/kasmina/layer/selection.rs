//! Which kernels a layer uses, and how two of them compare.

use kasmina_types::DType;
use serde::Serialize;

use super::config::{KernelChoice, LayerConfig, StabilityMode, TelemetryReduction};
use super::error::{ConfigError, LayerError};
use super::{KasminaLayer, LayerElement};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    BlendForward, BlendOptions, LayerState, NumericalMode, TelemetryBuffers, TelemetryValues,
    Variant,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

/// How the results of two kernels for the same input differ, over all comparisons so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelComparison {
    /// The first kernel.
    pub first: String,
    /// The second, which relative differences are relative to.
    pub second: String,
    /// Comparisons.
    pub runs: u64,
    /// Elements of all outputs.
    pub elements: u64,
    /// Elements whose bits differ.
    pub differing: u64,
    /// Elements of which one is finite and the other is not.
    pub nonfinite_differing: u64,
    /// The largest difference of two finite elements.
    pub max_absolute: f64,
    /// The largest difference as a share of the second's magnitude, of 1 where that is less.
    pub max_relative: f64,
    /// The telemetry's figures.
    pub telemetry: Vec<TelemetryDifference>,
}

/// How far one figure of the telemetry differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TelemetryDifference {
    /// The figure.
    pub figure: &'static str,
    /// Seeds in which the bits differ, over all comparisons.
    pub differing: u64,
    /// The largest difference as a share of the second's magnitude, of 1 where that is less.
    pub max_relative: f64,
}

impl<T: LayerElement> KasminaLayer<T> {
    /// Runs the forward pass of `x` by two kernels from the same state, and says how the results differ.
    /// Ring, flags and state stay as they are.
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

    /// What `compare_kernels` has found in all passes so far: the layer's kernel against the reference.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`].
    pub fn comparison(&self) -> Result<Option<&KernelComparison>, LayerError> {
        if self.config.compare_kernels {
            return Ok(self.comparison.as_ref());
        }
        Err(LayerError::TurnedOff { what: "the comparison of kernels", option: "compare_kernels" })
    }

    pub(crate) fn compare_and_keep(&mut self, x: &Buffer<T>) -> Result<(), Error> {
        let found = self.compare_kernels(x, ComparedKernel::Own, ComparedKernel::Reference)?;
        match &mut self.comparison {
            Some(kept) => kept.merge(&found),
            None => self.comparison = Some(found),
        }
        Ok(())
    }

    fn result_of(
        &mut self,
        kernel: ComparedKernel,
        batch: usize,
        x: &Buffer<T>,
    ) -> Result<Outcome<T>, Error> {
        let (device, mut copy) = match kernel {
            ComparedKernel::Reference => (Device::Cpu, Some(self.copy_on_cpu()?)),
            _ => (self.device.clone(), None),
        };
        let (seeds, chunk_size) = (self.config.num_seeds, self.state.chunk_size());
        let variant = match kernel {
            ComparedKernel::Own => self.options.variant,
            ComparedKernel::Plain => Variant::Plain,
            ComparedKernel::Tma => Variant::Tma,
            ComparedKernel::Reference => Variant::Auto,
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

    fn copy_on_cpu(&self) -> Result<LayerState, Error> {
        let mut copy = LayerState::with_graft(
            &Device::Cpu,
            self.state.read_loaded()?.0,
            self.state.read_graft()?,
        )?;
        copy.unstable.copy_from_slice(&self.state.unstable.to_vec()?)?;
        Ok(copy)
    }
}

struct Outcome<T> {
    kernel: String,
    output: Vec<T>,
    telemetry: TelemetryValues,
}

impl KernelComparison {
    fn of<T: LayerElement>(first: &Outcome<T>, second: &Outcome<T>) -> Self {
        let mut comparison = Self {
            first: first.kernel.clone(),
            second: second.kernel.clone(),
            runs: 1,
            elements: first.output.len() as u64,
            differing: 0,
            nonfinite_differing: 0,
            max_absolute: 0.0,
            max_relative: 0.0,
            telemetry: telemetry_differences(&first.telemetry, &second.telemetry),
        };
        for (a, b) in first.output.iter().zip(&second.output) {
            comparison.differing += u64::from(bytemuck::bytes_of(a) != bytemuck::bytes_of(b));
            let (a, b) = (f64::from(a.to_f32()), f64::from(b.to_f32()));
            comparison.nonfinite_differing += u64::from(a.is_finite() != b.is_finite());
            if a.is_finite() && b.is_finite() {
                comparison.max_absolute = comparison.max_absolute.max((a - b).abs());
                comparison.max_relative = comparison.max_relative.max(relative(a, b));
            }
        }
        comparison
    }

    fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.elements += other.elements;
        self.differing += other.differing;
        self.nonfinite_differing += other.nonfinite_differing;
        self.max_absolute = self.max_absolute.max(other.max_absolute);
        self.max_relative = self.max_relative.max(other.max_relative);
        for (kept, found) in self.telemetry.iter_mut().zip(&other.telemetry) {
            kept.differing += found.differing;
            kept.max_relative = kept.max_relative.max(found.max_relative);
        }
    }
}

fn telemetry_differences(a: &TelemetryValues, b: &TelemetryValues) -> Vec<TelemetryDifference> {
    let wide = |counts: &[u32]| counts.iter().map(|&count| f64::from(count)).collect::<Vec<_>>();
    let figure = |figure, a: Vec<f64>, b: Vec<f64>| {
        let pairs = a.iter().zip(&b);
        let differs = |&(a, b): &(&f64, &f64)| a.to_bits() != b.to_bits();
        let finite = |(a, b): (&f64, &f64)| (a.is_finite() && b.is_finite()).then_some((*a, *b));
        TelemetryDifference {
            figure,
            differing: pairs.clone().filter(differs).count() as u64,
            max_relative: pairs.filter_map(finite).map(|(a, b)| relative(a, b)).fold(0.0, f64::max),
        }
    };
    let floats = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    vec![
        figure("count", wide(&a.count), wide(&b.count)),
        figure("mean", floats(&a.mean), floats(&b.mean)),
        figure("variance", floats(&a.variance), floats(&b.variance)),
        figure("min", floats(&a.min), floats(&b.min)),
        figure("max", floats(&a.max), floats(&b.max)),
        figure("dead_ratio", floats(&a.dead_ratio), floats(&b.dead_ratio)),
        figure("snr", floats(&a.snr), floats(&b.snr)),
        figure("nonfinite", wide(&a.nonfinite), wide(&b.nonfinite)),
    ]
}

fn relative(a: f64, b: f64) -> f64 {
    (a - b).abs() / b.abs().max(1.0)
}

/// The variant of the passes that a configuration asks for on a device.
fn variant<T: LayerElement>(device: &Device, config: &LayerConfig) -> Variant {
    if !(config.enable_tma && config.enable_warp_specialization) {
        return Variant::Plain;
    }
    match config.kernel {
        KernelChoice::Auto => Variant::Auto,
        KernelChoice::Plain => Variant::Plain,
        KernelChoice::Tma => Variant::Tma,
        KernelChoice::Rollout => {
            let new = Variant::Tma;
            let chosen = in_rollout(&config.name, config.layer_id, config.rollout_percent);
            let can =
                BlendForward::<T>::has_variant(device, config.num_seeds, config.chunk_size(), new);
            if chosen && can { new } else { Variant::Plain }
        }
    }
}

/// The options of the passes that a configuration asks for.
///
/// # Errors
/// [`ConfigError::Refused`]: a variant is forced that the device or the shape does not allow.
pub(crate) fn options<T: LayerElement>(
    device: &Device,
    config: &LayerConfig,
) -> Result<BlendOptions, ConfigError> {
    let variant = variant::<T>(device, config);
    let (seeds, chunk) = (config.num_seeds, config.chunk_size());
    if let Some(why) = BlendForward::<T>::refusal(device, seeds, chunk, variant) {
        return Err(ConfigError::Refused { option: "kernel", why });
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
    Ok(BlendOptions {
        telemetry: config.enable_telemetry && own,
        numerical,
        persistent: config.enable_persistent_kernels,
        block_threads: config.preferred_block_size,
        variant,
    })
}
