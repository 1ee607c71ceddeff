//! The parameters' gradients on a device, and their values; the backward pass' scratch memory.

use kasmina_kernels::instances;
use kasmina_types::blend_backward::{BatchSums, EXTRA_SUMS};
use kasmina_types::blend_forward::BlendGeometry;
use kasmina_types::parameter_gradients::LayerGradients;

use super::state::LayerState;
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::error::Error;

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident / $view:ident: |$state:ident| $length:expr),* $(,)?) => {
        /// The gradients of a layer's parameters, f32, and what they look like for each seed.
        #[derive(Debug)]
        pub struct GradientBuffers {
            $($(#[$doc])* pub $name: Buffer<f32>,)*
            pub(crate) parts: Option<PartBuffers>,
        }

        /// The values of [`GradientBuffers`].
        #[derive(Debug, Clone, PartialEq)]
        pub struct GradientValues {
            $($(#[$doc])* pub $name: Vec<f32>,)*
        }

        impl GradientBuffers {
            /// Arrays for the seeds and blueprints of `state`.
            ///
            /// # Errors
            /// Memory exhausted, or a failed call.
            pub fn new(device: &Device, state: &LayerState) -> Result<Self, Error> {
                Ok(Self {
                    $($name: { let $state = state; Buffer::zeroed(device, $length)? },)*
                    parts: PartBuffers::new(device, state)?,
                })
            }

            /// The values, once everything queued before is done.
            ///
            /// # Errors
            /// What the queued work ran into, or a failed call.
            pub fn read(&self) -> Result<GradientValues, Error> {
                Ok(GradientValues { $($name: self.$name.to_vec()?),* })
            }

            /// Overwrites the values.
            pub(crate) fn write(&mut self, values: &GradientValues) -> Result<(), Error> {
                $(self.$name.copy_from_slice(&values.$name)?;)*
                Ok(())
            }

            /// Fills every byte of every array.
            ///
            /// # Errors
            /// A failed call.
            pub fn fill_bytes(&mut self, byte: u8) -> Result<(), Error> {
                $(self.$name.fill_bytes(byte)?;)*
                Ok(())
            }

            /// Refuses arrays that are not of `state`'s sizes on `device`.
            pub(crate) fn check(
                &self,
                op: &'static str,
                state: &LayerState,
                device: &Device,
            ) -> Result<(), Error> {
                $(
                    let name = concat!("gradients.", stringify!($name));
                    let expected = { let $state = state; $length };
                    check_length(op, name, expected, self.$name.len())?;
                    self.$name.check_device(op, name, device)?;
                )*
                Ok(())
            }

            pub(crate) fn views_mut(&mut self) -> (LayerGradients, Option<&mut PartBuffers>) {
                let gradients = LayerGradients { $($view: self.$name.view_mut()),* };
                (gradients, self.parts.as_mut())
            }
        }

        impl GradientValues {
            /// The arrays by name.
            pub fn arrays(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
                [$((stringify!($name), self.$name.as_slice())),*].into_iter()
            }
        }
    };
}

figures! {
    /// ∂L/∂w, laid out as the state's weights are: `[num_blueprints, chunk_size]`. 0 for a blueprint that
    /// no seed trains.
    grad_weights / weights: |state| state.weights.len(),
    /// ∂L/∂s, `[num_blueprints]`.
    grad_scales / scales: |state| state.num_blueprints(),
    /// ∂L/∂α, `[num_seeds]`; 0 where α is clipped.
    grad_alpha / alpha: |state| state.num_seeds(),
    /// Norm of the seed's own part of ∂L/∂w, over its `chunk_size` weights, `[num_seeds]`; 0 for a seed
    /// whose blueprint does not train.
    gradient_norm / norm: |state| state.num_seeds(),
    /// Population variance of that part, `[num_seeds]`.
    gradient_variance / variance: |state| state.num_seeds(),
    /// Its largest magnitude, `[num_seeds]`.
    gradient_max / max: |state| state.num_seeds(),
}

/// Scratch memory of the last sums: what the parts of a blueprint's seeds add to its gradients.
#[derive(Debug)]
pub(crate) struct PartBuffers {
    pub(crate) weights: Buffer<f32>,
    pub(crate) scales: Buffer<f32>,
    pub(crate) arrivals: Buffer<u32>,
    /// Parts that a blueprint may have.
    pub(crate) max_parts: u32,
    /// Seeds of a part.
    pub(crate) part_seeds: u32,
    pub(crate) grid: u32,
}

impl PartBuffers {
    /// None on the CPU.
    fn new(device: &Device, state: &LayerState) -> Result<Option<Self>, Error> {
        let Some(kernels) = KernelDevice::of(device) else { return Ok(None) };
        let (chunk_size, blueprints) = (state.chunk_size(), state.num_blueprints());
        let instance = instances::parameter_gradients(chunk_size);
        let resident = kernels.resident_blocks(instance.kernel)? as usize;
        let part_seeds = instance.teams(chunk_size);
        // As many as the device has room for at once, if there are the seeds.
        let most = state.num_seeds().div_ceil(part_seeds);
        let parts = most.min(resident / blueprints.max(1)).max(1);
        Ok(Some(Self {
            weights: Buffer::zeroed(device, blueprints * parts * chunk_size)?,
            scales: Buffer::zeroed(device, blueprints * parts)?,
            arrivals: Buffer::zeroed(device, blueprints)?,
            max_parts: parts as u32,
            part_seeds: part_seeds as u32,
            // A layer without blueprints has seeds to write zeros for.
            grid: (blueprints * parts).clamp(1, resident) as u32,
        }))
    }

    /// Makes the counts zero again, which a launch that broke off leaves as they are.
    pub(crate) fn recover(&mut self, device: &Device) -> Result<(), Error> {
        self.arrivals = Buffer::zeroed(device, self.arrivals.len())?;
        Ok(())
    }
}

/// Scratch memory of the backward pass over the batch.
#[derive(Debug)]
pub(crate) struct SumBuffers {
    pub(crate) columns: Buffer<f32>,
    pub(crate) extras: Buffer<f32>,
}

impl SumBuffers {
    pub(crate) fn new(
        device: &Device,
        num_seeds: usize,
        chunk_size: usize,
        lanes: u32,
        geometry: BlendGeometry,
    ) -> Result<Self, Error> {
        let (hidden, slabs) = (num_seeds * chunk_size, geometry.slabs as usize);
        let vectors = hidden / lanes as usize;
        Ok(Self {
            columns: Buffer::zeroed(device, slabs * hidden)?,
            extras: Buffer::zeroed(device, slabs * vectors * EXTRA_SUMS)?,
        })
    }

    pub(crate) fn view_mut(&mut self) -> BatchSums {
        BatchSums { columns: self.columns.view_mut(), extras: self.extras.view_mut() }
    }
}
