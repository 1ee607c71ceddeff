//! The layer's backward pass.

use kasmina_kernels::instances;
use kasmina_reference::kasmina as reference;
use kasmina_types::Numerical;
use kasmina_types::dtype::Element;
use ndarray::ArrayView2;

use super::blend_forward::{LayerElement, check_shape};
use super::geometry::{Batches, Reads};
use super::gradients::{GradientBuffers, GradientValues, SumBuffers};
use super::options::{BlendOptions, KernelInfo, Variant};
use super::pass::{BySeed, Pass};
use super::state::LayerState;
use super::tuner::{self, Tuning};
use super::variant::{self, Facts};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::TensorMapStatistics;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::blend_backward::{self as batch_launcher, BackwardPass};
use crate::driver::launchers::parameter_gradients as parameters_launcher;
use crate::error::Error;

const OP: &str = "blend_backward";

/// Elements of x from which on the copy engine was faster in f32; at half as many it was not: `docs/performance.md`.
const TMA_PAYS_FROM: usize = 16_000_000;

/// The same in 16 bits where a block takes a seed, which at 33 million was faster. In f32 it always was.
const TMA_PAYS_FROM_BY_SEED: usize = 128_000_000;

/// The instance of which a block takes a seed.
fn by_seed<T: Element>() -> BySeed<kasmina_types::BlendBackward> {
    let instance = instances::blend_backward_seed(T::DTYPE);
    BySeed { instance, batches: Batches::Filling }
}

/// The backward pass of a layer of one shape and element type on one device: from the gradient at the output
/// those of the input, of the blueprints and of the blend factors, as far as each seed's state lets them
/// through.
///
/// Plan and scratch memory are made once; [`Self::run`] allocates nothing, and copies nothing between host and device
/// for buffers that it has seen before.
pub struct BlendBackward<T: LayerElement> {
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
    pass: BackwardPass,
    sums: SumBuffers,
}

impl<T: LayerElement> BlendBackward<T> {
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

    /// As [`Self::new`], with options; telemetry is not this pass' concern.
    ///
    /// # Errors
    /// As [`Self::new`]; bounds of the numerical mode that hold nothing; a variant that cannot run here, as
    /// [`Variant::TmaBulkStores`] can nowhere.
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
            Variant::Tuned => Some(tuner::tune_backward::<T>(device, shape, options)?),
            _ => None,
        };
        let asked = tuning.as_ref().map_or(options.variant, |tuning| tuning.chosen);
        let variant = choose_variant::<T>(device, shape, asked, &options)?;
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

    /// What the cache of the tensor maps of inputs and gradients has done, where the variant has one.
    pub fn tensor_maps(&self) -> Option<TensorMapStatistics> {
        self.plan.as_ref()?.pass.tensor_maps()
    }

    /// Whether a pass of this shape can run in a variant on a device.
    pub fn has_variant(
        device: &Device,
        num_seeds: usize,
        chunk_size: usize,
        variant: Variant,
    ) -> bool {
        choose_variant::<T>(device, [1, num_seeds, chunk_size], variant, &BlendOptions::default())
            .is_ok()
    }

    /// Computes `grad_input` and `gradients` from the forward pass' `input` and the gradient at its output,
    /// `[batch, num_seeds · chunk_size]` row-major each. Every element of the gradients is overwritten.
    ///
    /// # Errors
    /// A state or a buffer that does not fit the plan, memory exhausted, or a failed call.
    pub fn run(
        &mut self,
        state: &LayerState,
        input: &Buffer<T>,
        grad_output: &Buffer<T>,
        grad_input: &mut Buffer<T>,
        gradients: &mut GradientBuffers,
    ) -> Result<(), Error> {
        let elements = self.batch * self.num_seeds * self.chunk_size;
        for (name, buffer) in
            [("input", input), ("grad_output", grad_output), ("grad_input", &*grad_input)]
        {
            check_length(OP, name, elements, buffer.len())?;
            buffer.check_device(OP, name, &self.device)?;
        }
        check_length(OP, "state", self.num_seeds, state.num_seeds())?;
        check_length(OP, "blueprint_weights (chunk_size)", self.chunk_size, state.chunk_size())?;
        state.alpha.check_device(OP, "state", &self.device)?;
        gradients.check(OP, state, &self.device)?;
        let (Some(kernels), Some(plan)) = (KernelDevice::of(&self.device), &mut self.plan) else {
            return self.run_on_cpu(state, input, grad_output, grad_input, gradients);
        };
        batch_launcher::launch(
            kernels,
            batch_launcher::Arguments {
                pass: &mut plan.pass,
                batch: self.batch as u32,
                numerical: self.numerical,
                state,
                input,
                grad_output,
                grad_input,
                sums: &mut plan.sums,
                gradients,
            },
        )?;
        let launched = parameters_launcher::launch(
            kernels,
            parameters_launcher::Arguments {
                geometry: plan.pass.geometry,
                lanes: plan.pass.kernel.lanes(),
                state,
                sums: &mut plan.sums,
                gradients,
            },
        );
        if let (Err(_), Some(parts)) = (&launched, &mut gradients.parts) {
            parts.recover(&self.device)?;
        }
        launched
    }

    /// The kernel that the pass launches; none on the CPU.
    pub fn kernel(&self) -> Option<KernelInfo> {
        Some(self.plan.as_ref()?.pass.info())
    }

    fn run_on_cpu(
        &self,
        state: &LayerState,
        input: &Buffer<T>,
        grad_output: &Buffer<T>,
        grad_input: &mut Buffer<T>,
        gradients: &mut GradientBuffers,
    ) -> Result<(), Error> {
        let host = "the CPU's buffers are in the host's memory";
        let checked = "lengths and state were checked";
        let widen = |buffer: &Buffer<T>| -> Vec<f32> {
            buffer.as_host_slice().expect(host).iter().map(|&value| value.to_f32()).collect()
        };
        let shape = (self.batch, self.num_seeds * self.chunk_size);
        let (x, g) = (widen(input), widen(grad_output));
        let (states, unstable) = state.read_for_reference()?;
        let result = reference::blend_backward(
            ArrayView2::from_shape(shape, &x).expect(checked),
            ArrayView2::from_shape(shape, &g).expect(checked),
            &states.of_reference(),
            self.options.numerical.of_reference(&unstable),
        )
        .expect(checked);

        let active: Vec<bool> = (0..self.num_seeds)
            .map(|s| reference::is_active(states.lifecycle[s]) && states.blueprint_id[s] != 0)
            .collect();
        let raw = grad_output.as_host_slice().expect(host);
        let out = grad_input.as_host_slice_mut().expect(host);
        for ((column, dx), (out, &raw)) in
            (0..shape.1).cycle().zip(result.grad_input.iter()).zip(out.iter_mut().zip(raw))
        {
            // The identity keeps every bit, those of a NaN too.
            *out = if active[column / self.chunk_size] { T::from_f32(*dx) } else { raw };
        }
        let narrow = |values: &[f64]| -> Vec<f32> { values.iter().map(|&v| v as f32).collect() };
        let mut grad_weights = gradients.grad_weights.to_vec()?;
        for (row, offset) in
            result.grad_weights.rows().into_iter().zip(state.blueprint_offset.to_vec()?)
        {
            for (to, from) in grad_weights[offset as usize..].iter_mut().zip(row) {
                *to = *from as f32;
            }
        }
        gradients.write(&GradientValues {
            grad_weights,
            grad_scales: narrow(&result.grad_scales),
            grad_alpha: narrow(&result.grad_alpha),
            gradient_norm: narrow(&result.gradient_norm),
            gradient_variance: narrow(&result.gradient_variance),
            gradient_max: narrow(&result.gradient_max),
        })
    }
}

/// The variant that runs on `device`.
fn choose_variant<T: Element>(
    device: &Device,
    shape: [usize; 3],
    asked: Variant,
    options: &BlendOptions,
) -> Result<Variant, Error> {
    let [batch, num_seeds, chunk_size] = shape;
    if asked == Variant::TmaBulkStores {
        let (needs, got) = ("kernels that this pass does not have", device.to_string());
        return Err(Error::Variant { op: OP, variant: asked, needs, got });
    }
    let instance = instances::blend_backward_tma(T::DTYPE);
    let kernels = KernelDevice::of(device);
    let chunk_bytes = chunk_size * size_of::<T>();
    let takes_seeds = match kernels {
        Some(kernels) => by_seed::<T>().geometry(kernels, shape, options)?.is_some(),
        None => false,
    };
    let tma_pays_from = match (takes_seeds, size_of::<T>()) {
        (false, _) => Some(TMA_PAYS_FROM),
        (true, 2) => Some(TMA_PAYS_FROM_BY_SEED),
        (true, _) => None,
    };
    let facts = Facts {
        op: OP,
        device,
        supported: kernels.zip(instance).is_some_and(|(device, i)| device.supports(i.kernel)),
        chunk_bytes,
        row_bytes: num_seeds * chunk_bytes,
        elements: batch * num_seeds * chunk_size,
        tma_pays_from,
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
        let plain = instances::blend_backward(T::DTYPE);
        let by_seed = by_seed::<T>();
        let tma = match variant {
            Variant::Plain => None,
            _ => instances::blend_backward_tma(T::DTYPE),
        };
        let tma = tma.map(|instance| (instance, Reads::BySeed));
        let pass = Pass::new(device, kernels, shape, plain, by_seed, tma, options)?;
        let [_, num_seeds, chunk_size] = shape;
        let lanes = pass.kernel.lanes();
        let sums = SumBuffers::new(device, num_seeds, chunk_size, lanes, pass.geometry)?;
        Ok(Self { pass, sums })
    }
}
