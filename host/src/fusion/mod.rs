//! Chains of stages in one kernel, and the same stages with a kernel each.
//!
//! A chain is declared once, in [`kasmina_types::fusion::chains`](crate::types::fusion::chains); kernels, operands and
//! reference are generated from the declaration. [`Fused`] launches the fused kernel, [`Unfused`] those of the stages.
//!
//! ```
//! use kasmina::types::fusion::FusionShape;
//! use kasmina::types::fusion::chains::{KlSum, KlSumInputs};
//! use kasmina::{Buffer, Device, fusion::Fused};
//!
//! # fn main() -> Result<(), kasmina::Error> {
//! let device = Device::auto();
//! let of = |values: &[f64]| Buffer::from_slice(&device, values);
//! let shape = FusionShape { batch: 1, inner: 2, outer: 1 };
//! let mut kl = Buffer::zeroed(&device, 1)?;
//! Fused::<KlSum>::new(&device, shape)?.run(
//!     KlSumInputs {
//!         mean: &of(&[1.0, 2.0])?,
//!         variance: &of(&[2.0, 3.0])?,
//!         prior_mean: &of(&[0.0, 2.0])?,
//!         prior_var: &of(&[2.0, 3.0])?,
//!     },
//!     &mut kl,
//! )?;
//! assert_eq!(kl.to_vec()?, [0.25]);
//! # Ok(())
//! # }
//! ```

pub mod compose;
mod step;

use std::marker::PhantomData;

use kasmina_kernels::fusion::chain::Kernels;
use kasmina_reference::fusion as stages;
use kasmina_types::fusion::chains::{
    ErrorAccuracySum, ErrorGemvUpdate, KlSum, MatmulBiasActivation,
};
use kasmina_types::fusion::{Declaration, Fusion, FusionShape, StageKind, fusion_composition};

use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::fusion::Arguments;
use crate::error::Error;
use crate::linear::{Chosen, GemvElement, GemvShape, LinearResult};
use compose::Reference;
use step::Step;

kasmina_types::kl_sum_fusion!(fusion_composition);
kasmina_types::error_accuracy_sum_fusion!(fusion_composition);
kasmina_types::error_gemv_update_fusion!(fusion_composition);
kasmina_types::matmul_bias_activation_fusion!(fusion_composition);

/// A declared chain with its kernels and its reference.
pub trait Chain: Kernels + Reference + Fusion<Element: GemvElement + LinearResult> {}

impl<F: Kernels + Reference + Fusion<Element: GemvElement + LinearResult>> Chain for F {}

/// The operands of a chain: a buffer under each name.
pub type Inputs<'a, F> = <F as Fusion>::Inputs<&'a Buffer<<F as Fusion>::Element>>;

/// A chain in one launch, for one shape on one device. A run allocates nothing, but for the first of a product of matrices,
/// which is a launch of [`Linear`](crate::linear::Linear) and keeps its scratch; where it has a single row or column of
/// results, that may be two: `gemv`'s, and one for what follows.
pub struct Fused<F> {
    device: Device,
    shape: FusionShape,
    /// None where the device runs no kernels.
    step: Option<Step>,
    chosen: Option<Chosen>,
    chain: PhantomData<F>,
}

/// A chain with a launch for each stage, whose values go through memory: what [`Fused`] is compared with.
pub struct Unfused<F: Fusion> {
    device: Device,
    shape: FusionShape,
    /// None where the device runs no kernels.
    steps: Vec<Step>,
    /// What each stage but the last leaves.
    between: Vec<Buffer<F::Element>>,
}

impl<F: Chain> Fused<F> {
    /// A chain for a shape.
    ///
    /// # Errors
    /// A shape that the chain does not have, an extreme of segments without values, or of more than 2³¹ − 1 segments or values of one; a chain of a product of
    /// matrices with stages that are no epilogue of its kernel, on a device that runs kernels; memory exhausted; a failed
    /// call.
    pub fn new(device: &Device, shape: FusionShape) -> Result<Self, Error> {
        let declaration = F::DECLARATION;
        check(&declaration, &shape)?;
        let step = if KernelDevice::of(device).is_some() {
            Some(Step::fused::<F>(device, &shape)?)
        } else {
            None
        };
        Ok(Self { device: device.clone(), shape, step, chosen: None, chain: PhantomData })
    }

    /// How the last run computed the product of matrices; none of a chain without one, or where the reference runs.
    pub fn chosen(&self) -> Option<Chosen> {
        self.chosen
    }

    /// Queues the chain.
    ///
    /// # Errors
    /// A buffer of another length or on another device, or a failed call.
    pub fn run(
        &mut self,
        inputs: Inputs<'_, F>,
        output: &mut Buffer<F::Element>,
    ) -> Result<(), Error> {
        let operands: Vec<&Buffer<F::Element>> = inputs.into_iter().collect();
        let (declaration, shape, stage) = (&F::DECLARATION, &self.shape, None);
        check_devices(declaration, &self.device, &operands, output)?;
        let arguments = Arguments { declaration, shape, operands: &operands, stage, output };
        match (KernelDevice::of(&self.device), &mut self.step) {
            (Some(kernels), Some(step)) => {
                self.chosen = step.launch(kernels, arguments)?;
                Ok(())
            }
            _ => on_cpu::<F>(arguments),
        }
    }
}

impl<F: Chain> Unfused<F> {
    /// As [`Fused::new`].
    ///
    /// # Errors
    /// As [`Fused::new`]; a product of matrices may have any stages after it.
    pub fn new(device: &Device, shape: FusionShape) -> Result<Self, Error> {
        let declaration = F::DECLARATION;
        check(&declaration, &shape)?;
        let (mut steps, mut between) = (Vec::new(), Vec::new());
        if KernelDevice::of(device).is_some() {
            for (number, kernel) in F::stages().into_iter().enumerate() {
                steps.push(Step::alone::<F>(device, number, kernel, &shape)?);
                if number < declaration.launches_saved() {
                    let extent = declaration.extent_after(number);
                    between.push(Buffer::zeroed(device, shape.elements(extent))?);
                }
            }
        }
        Ok(Self { device: device.clone(), shape, steps, between })
    }

    /// As [`Fused::run`].
    ///
    /// # Errors
    /// As [`Fused::run`].
    pub fn run(
        &mut self,
        inputs: Inputs<'_, F>,
        output: &mut Buffer<F::Element>,
    ) -> Result<(), Error> {
        let operands: Vec<&Buffer<F::Element>> = inputs.into_iter().collect();
        let (declaration, shape, operands) = (&F::DECLARATION, &self.shape, &operands[..]);
        check_devices(declaration, &self.device, operands, output)?;
        let Some(kernels) = KernelDevice::of(&self.device) else {
            let stage = None;
            return on_cpu::<F>(Arguments { declaration, shape, operands, stage, output });
        };
        for (number, step) in self.steps.iter_mut().enumerate() {
            let (before, after) = self.between.split_at_mut(number);
            let stage = Some((number, before.last()));
            let output = after.first_mut().unwrap_or(output);
            let arguments = Arguments { declaration, shape, operands, stage, output };
            step.launch(kernels, arguments)?;
        }
        Ok(())
    }
}

/// Refuses a shape that the chain does not have.
fn check(declaration: &Declaration, shape: &FusionShape) -> Result<(), Error> {
    let op = declaration.name;
    let (outer, expected) = match declaration.contracts() {
        Some(kind) if kind.reduces() => (1, "1, for each segment comes to one value"),
        None => (shape.inner, "`inner`, for no stage contracts"),
        Some(_) => (shape.outer, ""),
    };
    if shape.outer != outer {
        return Err(Error::Setting { op, setting: "outer", got: shape.outer as f64, expected });
    }
    let &FusionShape { batch, inner, outer } = shape;
    let extreme = matches!(declaration.contracts(), Some(StageKind::Max | StageKind::Min));
    if extreme && inner == 0 && batch > 0 {
        return Err(Error::EmptySegment { op, segment: 0 });
    }
    GemvShape { batch, ..GemvShape::new(outer, inner) }.check(op)
}

fn check_devices<T: GemvElement>(
    declaration: &Declaration,
    device: &Device,
    operands: &[&Buffer<T>],
    output: &Buffer<T>,
) -> Result<(), Error> {
    for (operand, buffer) in declaration.operands.iter().zip(operands) {
        buffer.check_device(declaration.name, operand.name, device)?;
    }
    output.check_device(declaration.name, "output", device)
}

fn on_cpu<F: Chain>(a: Arguments<'_, F::Element>) -> Result<(), Error> {
    a.check_lengths()?;
    let operands =
        a.operands.iter().map(|operand| operand.to_f64()).collect::<Result<Vec<_>, Error>>()?;
    let results = F::reference(a.shape, &operands);
    a.output.copy_from_f64(a.declaration.name, &results)
}
