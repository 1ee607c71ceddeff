//! The layer's forward pass with its telemetry.

use half::{bf16, f16};
use kasmina_kernels::instances;
use kasmina_reference::kasmina as reference;
use kasmina_types::blend_forward::BlendGeometry;
use kasmina_types::dtype::Element;
use kasmina_types::{Numerical, TelemetryPartial};
use ndarray::ArrayView2;

use super::geometry::{self, Reads};
use super::options::{BlendOptions, KernelInfo, Variant};
use super::state::LayerState;
use super::telemetry::{TelemetryBuffers, TelemetryValues};
use super::tuner::{self, Tuning};
use super::variant::{self, Facts};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::blend_forward::{
    self as launcher, Arguments, ForwardKernel, tma_shared_bytes,
};
use crate::driver::{TensorMapCache, TensorMapStatistics};
use crate::error::Error;

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
    kernel: ForwardKernel,
    geometry: BlendGeometry,
    grid: u32,
    partials: Buffer<TelemetryPartial>,
    arrivals: Buffer<u32>,
}

/// An element type of the layer.
pub trait LayerElement: Element {
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
            Variant::Tuned => Some(tuner::tune::<T>(device, shape, options)?),
            _ => None,
        };
        let asked = tuning.as_ref().map_or(options.variant, |tuning| tuning.chosen);
        let variant = choose_variant::<T>(device, num_seeds, chunk_size, asked)?;
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
        match self.plan.as_ref().map(|plan| &plan.kernel) {
            None | Some(ForwardKernel::Plain(_)) => Variant::Plain,
            Some(ForwardKernel::Tma { instance, .. }) if instance.bulk_stores => {
                Variant::TmaBulkStores
            }
            Some(ForwardKernel::Tma { .. }) => Variant::Tma,
        }
    }

    /// How [`Variant::Tuned`] chose; none for another.
    pub fn tuning(&self) -> Option<&Tuning> {
        self.tuning.as_ref()
    }

    /// What the cache of the inputs' tensor maps has done, where the variant has one.
    pub fn tensor_maps(&self) -> Option<TensorMapStatistics> {
        match &self.plan.as_ref()?.kernel {
            ForwardKernel::Plain(_) => None,
            ForwardKernel::Tma { maps, .. } => Some(maps.statistics()),
        }
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
                kernel: &mut plan.kernel,
                geometry: plan.geometry,
                grid: plan.grid,
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
        choose_variant::<T>(device, num_seeds, chunk_size, variant).is_ok()
    }

    /// What keeps a pass of this shape from running in a variant on a device.
    pub(crate) fn refusal(
        device: &Device,
        num_seeds: usize,
        chunk_size: usize,
        variant: Variant,
    ) -> Option<String> {
        choose_variant::<T>(device, num_seeds, chunk_size, variant).err().map(|why| why.to_string())
    }

    /// The kernel that the pass launches; none on the CPU.
    pub fn kernel(&self) -> Option<KernelInfo> {
        let plan = self.plan.as_ref()?;
        let (name, bounds, lanes) = match &plan.kernel {
            ForwardKernel::Plain(i) => (i.kernel.name(), i.kernel.bounds(), i.lanes),
            ForwardKernel::Tma { instance: i, .. } => (i.kernel.name(), i.kernel.bounds(), i.lanes),
        };
        let (block_threads, grid) = (bounds.block_threads, plan.grid);
        Some(KernelInfo { entry: name, block_threads, lanes, grid })
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
    num_seeds: usize,
    chunk_size: usize,
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
    };
    variant::choose(asked, facts)
}

/// Inputs whose tensor maps a plan keeps: more than anybody rotates.
pub(super) const MAPS: usize = 64;

impl Plan {
    fn new<T: Element>(
        device: &Device,
        kernels: KernelDevice<'_>,
        [batch, num_seeds, chunk_size]: [usize; 3],
        variant: Variant,
        options: &BlendOptions,
    ) -> Result<Self, Error> {
        let (rows, seeds) = (batch as u32, num_seeds as u32);
        let vectors = |lanes: u32| (chunk_size / lanes as usize) as u32;
        let bulk_stores = variant == Variant::TmaBulkStores;
        let tma = (variant != Variant::Plain)
            .then(|| instances::blend_forward_tma(T::DTYPE, bulk_stores))
            .flatten();
        let (kernel, geometry, resident) = match tma {
            Some(instance) => {
                let cut = |resident| {
                    let vector_bytes = instance.lanes * size_of::<T>() as u32;
                    let vectors = vectors(instance.lanes);
                    geometry::cut_into_boxes(
                        rows,
                        seeds,
                        vectors,
                        instance.rows,
                        resident,
                        vector_bytes,
                        Reads::Everything,
                    )
                };
                // A stage is as large however many blocks there are.
                let shared = tma_shared_bytes(&instance, &cut(1));
                let resident = kernels.resident_blocks_with_shared(instance.kernel, shared)?;
                let maps = Box::new(TensorMapCache::new(device, MAPS)?);
                (ForwardKernel::Tma { instance, maps }, cut(resident), resident)
            }
            None => {
                // The first of those that are equally near: the widest access.
                let instance = instances::blend_forward(T::DTYPE)
                    .filter(|instance| chunk_size.is_multiple_of(instance.lanes as usize))
                    .min_by_key(|instance| options.distance(instance.kernel.bounds().block_threads))
                    .expect("every dtype has an instance of one lane");
                let resident = kernels.resident_blocks(instance.kernel)?;
                let vectors = vectors(instance.lanes);
                let geometry = geometry::cut(rows, seeds, vectors, instance.rows, resident);
                (ForwardKernel::Plain(instance), geometry, resident)
            }
        };
        let tiles = u64::from(geometry.strips) * u64::from(geometry.slabs);
        let grid = options.grid(tiles, resident);
        let parts = num_seeds * geometry.parts() as usize;
        Ok(Self {
            kernel,
            geometry,
            grid,
            partials: Buffer::zeroed(device, parts)?,
            arrivals: Buffer::zeroed(device, geometry.groups() as usize)?,
        })
    }
}
