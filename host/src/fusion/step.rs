//! One launch of a chain: of all stages, or of one.

use kasmina_device::Kernel;
use kasmina_types::FusionArguments;
use kasmina_types::fusion::{Extent, FusionShape, Stage, StageKind};

use super::Chain;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::fusion::{self as launcher, Arguments};
use crate::driver::launchers::gemv::{Scratch, Work};
use crate::error::Error;
use crate::linear::{
    Activation, Chosen, GemvElement, GemvShape, Layout, Linear, LinearOptions, LinearResult,
    LinearShape, Operands, Precision,
};

/// What is launched.
pub(super) enum Step {
    /// A kernel made from the declaration, and how its work is cut.
    Kernel { kernel: &'static Kernel<FusionArguments>, scratch: Scratch },
    /// A product of matrices; with its epilogue where the options and the number of the bias's operand say so.
    Product { linear: Box<Linear>, bias: Option<usize> },
}

impl Step {
    /// For all stages.
    pub(super) fn fused<F: Chain>(device: &Device, shape: &FusionShape) -> Result<Self, Error> {
        let declaration = F::DECLARATION;
        let stage = declaration.contraction().map(|at| &declaration.stages[at]);
        match (stage, declaration.epilogue()) {
            (Some(stage), Some(epilogue)) => product(device, stage, epilogue),
            _ => kernel::<F>(device, F::fused(), stage, shape, shape.inner),
        }
    }

    /// For stage `number` alone.
    pub(super) fn alone<F: Chain>(
        device: &Device,
        number: usize,
        of_stage: Option<&'static Kernel<FusionArguments>>,
        shape: &FusionShape,
    ) -> Result<Self, Error> {
        let declaration = F::DECLARATION;
        let stage = &declaration.stages[number];
        if stage.kind == StageKind::Matmul {
            return product(device, stage, (None, Activation::None));
        }
        let outer = declaration.extent_after(number) == Extent::Outer;
        let length = if outer { shape.outer } else { shape.inner };
        kernel::<F>(device, of_stage, Some(stage), shape, length)
    }

    /// Queues it; of a product, how it was computed.
    pub(super) fn launch<T: GemvElement + LinearResult>(
        &mut self,
        kernels: KernelDevice<'_>,
        a: Arguments<'_, T>,
    ) -> Result<Option<Chosen>, Error> {
        match self {
            Self::Kernel { kernel, scratch } => {
                launcher::launch(kernels, kernel, scratch, a).map(|()| None)
            }
            Self::Product { linear, bias } => {
                a.check_lengths()?;
                let &FusionShape { batch, inner, outer } = a.shape;
                let shape = LinearShape::new(Layout::NT, batch, outer, inner);
                // A product is the first stage: A and B are the first operands.
                let bias = bias.map(|number| a.operands[number]);
                let operands = Operands { bias, ..Operands::new(a.operands[0], a.operands[1]) };
                linear.forward(&shape, &operands, a.output, None).map(Some)
            }
        }
    }
}

/// A product as exact as the chain's type; where tensor cores may compute it, as exact as theirs.
fn product(
    device: &Device,
    stage: &Stage,
    (bias, activation): (Option<usize>, Activation),
) -> Result<Step, Error> {
    let precision = if stage.tensor_eligible { Precision::Tf32 } else { Precision::F32 };
    let tolerance = precision.error_bound();
    let options = LinearOptions { activation, tolerance, ..Default::default() };
    Ok(Step::Product { linear: Box::new(Linear::new(device, options)?), bias })
}

/// A kernel whose contraction, or only stage, is `stage`; `length` values of a segment.
fn kernel<F: Chain>(
    device: &Device,
    kernel: Option<&'static Kernel<FusionArguments>>,
    stage: Option<&Stage>,
    shape: &FusionShape,
    length: usize,
) -> Result<Step, Error> {
    let no_kernel =
        || Error::NoKernel { op: F::DECLARATION.name, stage: stage.map_or("", |stage| stage.name) };
    let kernel = kernel.ok_or_else(no_kernel)?;
    let work = work(stage.map_or(StageKind::Map, |stage| stage.kind), shape, length);
    let scratch = Scratch::new(device, kernel, work, F::Element::SUM_BYTES)?;
    Ok(Step::Kernel { kernel, scratch })
}

/// What a kernel whose contraction, or only stage, is of a kind has to do; `length` values of a segment.
fn work(kind: StageKind, shape: &FusionShape, length: usize) -> Work {
    let &FusionShape { batch, inner, outer } = shape;
    match kind {
        StageKind::Map => Work::Values(batch, length),
        StageKind::Sum | StageKind::Mean | StageKind::Max | StageKind::Min => {
            Work::Sums(batch, inner)
        }
        // Of a product of matrices no kernel is generated here.
        StageKind::Gemv | StageKind::Matmul => {
            Work::Products(GemvShape { batch, ..GemvShape::new(outer, inner) }, 1)
        }
        StageKind::GemvTransposed => {
            Work::Products(GemvShape { batch, ..GemvShape::new(inner, outer) }.transposed(), 1)
        }
    }
}
