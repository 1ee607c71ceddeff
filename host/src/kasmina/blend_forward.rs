//! The layer's forward pass with its telemetry.

use half::{bf16, f16};
use kasmina_kernels::instances;
use kasmina_reference::kasmina as reference;
use kasmina_types::dtype::Element;
use kasmina_types::{Numerical, TelemetryPartial};
use ndarray::ArrayView2;

use super::geometry::{Batches, Reads};
use super::options::{BlendOptions, KernelInfo, Variant};
use super::pass::{BySeed, Pass};
use super::state::LayerState;
use super::telemetry::{TelemetryBuffers, TelemetryValues};
use super::tuner::{self, Tuning};
use super::variant::{self, Facts};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::TensorMapStatistics;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::blend_forward::{self as launcher, Arguments, ForwardPass};
use crate::error::Error;
use crate::linear::LinearElement;

const OP: &str = "blend_forward";

/// The forward pass of a layer of one shape and element type on one device: for an active seed
/// `y = (1−a)·x + a·T(x)`, for every other the identity, bit for bit; and the telemetry of x.
///
/// Plan and scratch memory are made once; [`Self::run`] allocates nothing, and copies nothing between host and device
/// for buffers that it has seen before.
pub struct BlendForward<T: Element> {
    device: Device,
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
    options: BlendOptions,
    numerical: Numerical,
    plan: Option<Plan>,
    tuning: Option<Tuning>,
    _element: std::marker::PhantomData<T>,
}

struct Plan {
    pass: ForwardPass,
    partials: Buffer<TelemetryPartial>,
    arrivals: Buffer<u32>,
}

/// An element type of the layer.
pub trait LayerElement: LinearElement {
    #[doc(hidden)]
    fn to_f32(self) -> f32;
    #[doc(hidden)]
    fn from_f32(value: f32) -> Self;
}

macro_rules! element {
    ($type:ty, |$x:ident| $to:expr, |$y:ident| $from:expr) => {
        impl LayerElement for $type {
            fn to_f32(self) -> f32 {
                let $x = self;
                $to
            }
            fn from_f32($y: f32) -> Self {
                $from
            }
        }
    };
}

element!(f32, |x| x, |y| y);
element!(f16, |x| f16::to_f32(x), |y| f16::from_f32(y));
element!(bf16, |x| bf16::to_f32(x), |y| bf16::from_f32(y));

impl<T: LayerElement> BlendForward<T> {
    /// Plans the pass for `batch` rows of `num_seeds · chunk_size` columns, with the default options.
    ///
    /// # Errors
    /// A shape without elements or beyond 32-bit counts, memory exhausted, or a failed call.
    pub fn new(
        device: &Device,
        batch: usize,
        num_seeds: usize,
        chunk_size: usize,
    ) -> Result<Self, Error> {
        Self::with_options(device, batch, num_seeds, chunk_size, BlendOptions::default())
    }

    /// As [`Self::new`], with options.
    ///
    /// # Errors
    /// As [`Self::new`]; bounds of the numerical mode that hold nothing; a variant that cannot run here.
    pub fn with_options(
        device: &Device,
        batch: usize,
        num_seeds: usize,
        chunk_size: usize,
        options: BlendOptions,
    ) -> Result<Self, Error> {
        check_shape(OP, batch, num_seeds, chunk_size)?;
        let numerical = options.numerical.parameters(OP)?;
        device.refuse_capture(OP)?;
        let shape = [batch, num_seeds, chunk_size];
        let tuning = match options.variant {
            Variant::Tuned => Some(tuner::tune_forward::<T>(device, shape, options)?),
            _ => None,
        };
        let asked = tuning.as_ref().map_or(options.variant, |tuning| tuning.chosen);
        let variant = choose_variant::<T>(device, [batch, num_seeds, chunk_size], asked)?;
        let plan = match KernelDevice::of(device) {
            Some(kernels) => Some(Plan::new::<T>(device, kernels, shape, variant, &options)?),
            None => None,
        };
        let device = device.clone();
        let _element = std::marker::PhantomData;
        Ok(Self {
            device,
            batch,
            num_seeds,
            chunk_size,
            options,
            numerical,
            plan,
            tuning,
            _element,
        })
    }

    /// The variant that runs; the CPU has the plain one only.
    pub fn variant(&self) -> Variant {
        self.plan.as_ref().map_or(Variant::Plain, |plan| plan.pass.variant())
    }

    /// How [`Variant::Tuned`] chose; none for another.
    pub fn tuning(&self) -> Option<&Tuning> {
        self.tuning.as_ref()
    }

    /// What the cache of the inputs' tensor maps has done, where the variant has one.
    pub fn tensor_maps(&self) -> Option<TensorMapStatistics> {
        self.plan.as_ref()?.pass.tensor_maps()
    }

    /// Computes `output` and `telemetry` from `input`, `[batch, num_seeds · chunk_size]` row-major. Of the
    /// state it writes the flags of the adaptive numerical mode, and nothing else.
    ///
    /// # Errors
    /// A state or a buffer that does not fit the plan, memory exhausted, or a failed call.
    pub fn run(
        &mut self,
        state: &mut LayerState,
        input: &Buffer<T>,
        output: &mut Buffer<T>,
        telemetry: &mut TelemetryBuffers,
    ) -> Result<(), Error> {
        let elements = self.batch * self.num_seeds * self.chunk_size;
        check_length(OP, "input", elements, input.len())?;
        check_length(OP, "output", elements, output.len())?;
        check_length(OP, "state", self.num_seeds, state.num_seeds())?;
        check_length(OP, "blueprint_weights (chunk_size)", self.chunk_size, state.chunk_size())?;
        input.check_device(OP, "input", &self.device)?;
        output.check_device(OP, "output", &self.device)?;
        state.alpha.check_device(OP, "state", &self.device)?;
        telemetry.check(OP, self.num_seeds, &self.device)?;
        let (Some(kernels), Some(plan)) = (KernelDevice::of(&self.device), &mut self.plan) else {
            return self.run_on_cpu(state, input, output, telemetry);
        };
        let launched = launcher::launch(
            kernels,
            Arguments {
                pass: &mut plan.pass,
                batch: self.batch as u32,
                numerical: self.numerical,
                gathers: self.options.telemetry,
                state,
                input,
                output,
                telemetry,
                partials: &mut plan.partials,
                arrivals: &mut plan.arrivals,
            },
        );
        if launched.is_err() {
            // A launch that broke off leaves arrivals that are not zero.
            plan.arrivals = Buffer::zeroed(&self.device, plan.arrivals.len())?;
        }
        launched
    }

    /// Whether a pass of this shape can run in a variant on a device.
    pub fn has_variant(
        device: &Device,
        num_seeds: usize,
        chunk_size: usize,
        variant: Variant,
    ) -> bool {
        choose_variant::<T>(device, [1, num_seeds, chunk_size], variant).is_ok()
    }

    /// What keeps a pass of this shape from running in a variant on a device.
    pub(crate) fn refusal(
        device: &Device,
        num_seeds: usize,
        chunk_size: usize,
        variant: Variant,
    ) -> Option<String> {
        choose_variant::<T>(device, [1, num_seeds, chunk_size], variant)
            .err()
            .map(|why| why.to_string())
    }

    /// The kernel that the pass launches; none on the CPU.
    pub fn kernel(&self) -> Option<KernelInfo> {
        Some(self.plan.as_ref()?.pass.info())
    }

    fn run_on_cpu(
        &self,
        state: &mut LayerState,
        input: &Buffer<T>,
        output: &mut Buffer<T>,
        telemetry: &mut TelemetryBuffers,
    ) -> Result<(), Error> {
        let host = "the CPU's buffers are in the host's memory";
        let raw = input.as_host_slice().expect(host);
        let x: Vec<f32> = raw.iter().map(|&x| x.to_f32()).collect();
        let shape = (self.batch, self.num_seeds * self.chunk_size);
        let x = ArrayView2::from_shape(shape, &x).expect("the lengths were checked");
        let checked = "the state was checked when it was made";
        let (states, unstable) = state.read_for_reference()?;
        let mode = self.options.numerical.of_reference(&unstable);
        let y = reference::blend_forward_in_mode(x, &states.of_reference(), mode).expect(checked);

        let active: Vec<bool> = (0..self.num_seeds)
            .map(|s| reference::is_active(states.lifecycle[s]) && states.blueprint_id[s] != 0)
            .collect();
        let out = output.as_host_slice_mut().expect(host);
        for ((column, y), (out, &raw)) in
            (0..shape.1).cycle().zip(y.iter()).zip(out.iter_mut().zip(raw))
        {
            // The identity keeps every bit, those of a NaN too.
            *out = if active[column / self.chunk_size] { T::from_f32(*y) } else { raw };
        }
        if !self.options.telemetry {
            return Ok(());
        }
        let seen = reference::telemetry(x, self.num_seeds).expect("the lengths were checked");
        if self.numerical.mode == Numerical::ADAPTIVE {
            state.unstable.copy_from_slice(&reference::unstable_seeds(&seen))?;
        }
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        let counts = |values: &[u64]| values.iter().map(|&value| value as u32).collect();
        telemetry.write(&TelemetryValues {
            count: counts(&seen.count),
            mean: narrow(&seen.mean),
            variance: narrow(&seen.variance),
            min: narrow(&seen.min),
            max: narrow(&seen.max),
            dead_ratio: narrow(&seen.dead_ratio),
            snr: narrow(&seen.snr),
            nonfinite: counts(&seen.nonfinite),
        })
    }
}

/// Refuses shapes that the passes have no kernel for.
pub(super) fn check_shape(
    op: &'static str,
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
) -> Result<(), Error> {
    for (buffer, got) in [("batch", batch), ("num_seeds", num_seeds), ("chunk_size", chunk_size)] {
        if got == 0 {
            return Err(Error::Length { op, buffer, expected: "at least 1".into(), got });
        }
    }
    let hidden = num_seeds.saturating_mul(chunk_size);
    let values = batch.saturating_mul(chunk_size);
    for (what, got, limit) in [
        ("num_seeds · chunk_size", hidden, u32::MAX),
        ("batch · chunk_size, the values of a seed", values, u32::MAX),
        // The kernel's row numbers pass the last by a step.
        ("batch", batch, i32::MAX as u32),
    ] {
        let (got, limit) = (got as u64, u64::from(limit));
        if got > limit {
            return Err(Error::TooLarge { op, what, got, limit });
        }
    }
    Ok(())
}

/// The variant that runs on `device`.
fn choose_variant<T: Element>(
    device: &Device,
    [batch, num_seeds, chunk_size]: [usize; 3],
    asked: Variant,
) -> Result<Variant, Error> {
    let instance = instances::blend_forward_tma(T::DTYPE, asked == Variant::TmaBulkStores);
    let kernels = KernelDevice::of(device);
    let chunk_bytes = chunk_size * size_of::<T>();
    let facts = Facts {
        op: OP,
        device,
        supported: kernels.zip(instance).is_some_and(|(device, i)| device.supports(i.kernel)),
        chunk_bytes,
        row_bytes: num_seeds * chunk_bytes,
        elements: batch * num_seeds * chunk_size,
        tma_pays_from: None,
    };
    variant::choose(asked, facts)
}

impl Plan {
    fn new<T: Element>(
        device: &Device,
        kernels: KernelDevice<'_>,
        shape: [usize; 3],
        variant: Variant,
        options: &BlendOptions,
    ) -> Result<Self, Error> {
        let plain = instances::blend_forward(T::DTYPE);
        let instance = instances::blend_forward_seed(T::DTYPE);
        let by_seed = BySeed { instance, batches: Batches::Short };
        let tma = match variant {
            Variant::Plain => None,
            _ => instances::blend_forward_tma(T::DTYPE, variant == Variant::TmaBulkStores),
        };
        let tma = tma.map(|instance| (instance, Reads::Everything));
        let pass = Pass::new(device, kernels, shape, plain, by_seed, tma, options)?;
        let [_, num_seeds, _] = shape;
        let parts = num_seeds * pass.geometry.parts() as usize;
        Ok(Self {
            partials: Buffer::zeroed(device, parts)?,
            arrivals: Buffer::zeroed(device, pass.geometry.groups() as usize)?,
            pass,
        })
    }
}
