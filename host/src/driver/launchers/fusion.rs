//! Launcher of the kernels of chains, fused ones and those of a stage alone.

use std::ptr::{null, null_mut};

use kasmina_device::Kernel;
use kasmina_types::dtype::Element;
use kasmina_types::fusion::{Declaration, FusionShape, MOST_OPERANDS};
use kasmina_types::{FusionArguments, In, Out};

use super::KernelDevice;
use super::gemv::Scratch;
use crate::buffer::{Buffer, check_length};
use crate::error::Error;

/// One launch: of all stages of a chain, or of one.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) declaration: &'a Declaration,
    pub(crate) shape: &'a FusionShape,
    /// In the declaration's order.
    pub(crate) operands: &'a [&'a Buffer<T>],
    /// The stage alone, and what the one before it left.
    pub(crate) stage: Option<(usize, Option<&'a Buffer<T>>)>,
    pub(crate) output: &'a mut Buffer<T>,
}

impl<T: Element> Arguments<'_, T> {
    /// The number of the stage that gives the output.
    fn last(&self) -> usize {
        self.stage.map_or(self.declaration.stages.len() - 1, |(number, _)| number)
    }

    /// Refuses operands of other lengths than their extents have.
    pub(crate) fn check_lengths(&self) -> Result<(), Error> {
        let (op, shape) = (self.declaration.name, self.shape);
        for (operand, buffer) in self.declaration.operands.iter().zip(self.operands) {
            check_length(op, operand.name, shape.elements(operand.extent), buffer.len())?;
        }
        if let Some((number @ 1.., Some(values))) = self.stage {
            let extent = self.declaration.extent_after(number - 1);
            check_length(op, "values", shape.elements(extent), values.len())?;
        }
        let extent = self.declaration.extent_after(self.last());
        check_length(op, "output", shape.elements(extent), self.output.len())
    }
}

/// Checks the contract of a chain's kernel and launches it. The kernel is the declaration's, `T` its element type, and the
/// scratch was made for the kernel and the shape: the plans in `crate::fusion` hold these.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    kernel: &'static Kernel<FusionArguments>,
    scratch: &mut Scratch,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    a.check_lengths()?;
    let mut operands = [In::new(null(), 0); MOST_OPERANDS];
    for (view, buffer) in operands.iter_mut().zip(a.operands) {
        *view = buffer.view().cast();
    }
    let before = a.stage.and_then(|(_, values)| values);
    let values = before.map_or(In::new(null(), 0), |values| values.view().cast());
    let output: Out<u8> =
        if a.output.is_empty() { Out::new(null_mut(), 0) } else { a.output.view_mut().cast() };
    scratch.launch(device, |cut, grid| {
        let buffers = a.operands.iter().copied().chain(before).chain([&*a.output]);
        let _accesses: Vec<_> = buffers.clone().map(Buffer::access).collect();
        if let KernelDevice::Cuda(gpu) = device {
            buffers.clone().try_for_each(|buffer| buffer.acquire(gpu.stream()))?;
        }
        let params = FusionArguments { operands, values, output, cut };
        // SAFETY: operands, values and output have the lengths checked above, which are those of the cut's shape; the
        // scratch is the cut's, its arrivals are zero; any grid covers the work; the output is borrowed mutably.
        let launched = unsafe { device.launch(kernel, grid, params) };
        if let KernelDevice::Cuda(gpu) = device {
            buffers.clone().try_for_each(|buffer| buffer.release(gpu.stream()))?;
        }
        launched
    })
}
