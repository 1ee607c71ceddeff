//! The operation and its forward pass.

use std::sync::{Mutex, PoisonError};

use kasmina_types::{Activation, DType, Scaling};

use super::adaptive::{self, Adapted, Adaptive};
use super::convert::Converted;
use super::cpu;
use super::element::LinearResult;
use super::operands::Operands;
use super::precision::Precision;
use super::shape::LinearShape;
use super::vector::VectorProduct;
use super::{LinearElement, LinearError};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::TensorMapCache;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::gemv;
use crate::driver::launchers::linear::{self as launcher, Arguments, Factors};
use crate::driver::launchers::linear_hopper as hopper;
use crate::driver::launchers::linear_repack::{converted, converts};
use crate::error::Error;

pub(super) const OP: &str = "linear";

/// What is computed of A·B, and how exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearOptions {
    /// α.
    pub alpha: f64,
    /// β; where it is 0 there is no C.
    pub beta: f64,
    /// The activation.
    pub activation: Activation,
    /// The precision.
    pub precision: Precision,
    /// The relative error, in the norm, that [`Precision::Auto`] may bring in.
    pub tolerance: f64,
    /// Whether `Auto` follows the data, of f32 on devices that run kernels; off by default.
    pub adaptive: Option<Adaptive>,
}

impl Default for LinearOptions {
    /// A·B alone; f32 stays f32, and products of fp8 are added in f32, without tensor cores.
    fn default() -> Self {
        Self {
            alpha: 1.0,
            beta: 0.0,
            activation: Activation::None,
            precision: Precision::Auto,
            tolerance: 1e-5,
            adaptive: None,
        }
    }
}

/// How a product was computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// The precision, never `Auto`. The CPU computes in f64 whatever was asked for.
    pub precision: Precision,
    /// The kernel's name in the PTX; `reference` on the CPU.
    pub kernel: &'static str,
    /// Blocks that shared the k of an output tile.
    pub parts: u32,
    /// What adaptive precision had found before this call; none where it is off.
    pub adapted: Option<Adapted>,
}

impl Chosen {
    pub(super) fn new(precision: Precision, kernel: &'static str, parts: u32) -> Self {
        Self { precision, kernel, parts, adapted: None }
    }
}

/// Products of matrices on one device: D = act(α·op(A)·op(B) + bias + β·C) + R, and their gradients.
///
/// A and B are f64, f32, f16, bf16 or fp8 e4m3 ([`LinearElement`]), the other operands and D of a type of their own
/// ([`LinearResult`]); sums are f32, or f64 by [`Precision::F64`]. For narrower precisions f32 is converted on the device
/// ([`Precision`]). Scratch memory is kept between calls; calls on one
/// object wait for each other on the host only while they are queued.
///
/// ```
/// use kasmina::linear::{Activation, Layout, Linear, LinearOptions, LinearShape, Operands};
/// use kasmina::{Buffer, Device};
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let device = Device::Cpu;
/// let linear =
///     Linear::new(&device, LinearOptions { activation: Activation::Relu, ..Default::default() })?;
/// // A layer of two outputs with weights [outputs, inputs].
/// let shape = LinearShape::new(Layout::NT, 1, 2, 3);
/// let x = Buffer::from_slice(&device, &[1.0_f32, 2.0, 3.0])?;
/// let weights = Buffer::from_slice(&device, &[1.0_f32, 0.0, 1.0, 0.0, -1.0, 0.0])?;
/// let bias = Buffer::from_slice(&device, &[0.5_f32, 1.0])?;
/// let mut d = Buffer::zeroed(&device, 2)?;
/// let operands = Operands { bias: Some(&bias), ..Operands::new(&x, &weights) };
/// linear.forward(&shape, &operands, &mut d, None)?;
/// assert_eq!(d.to_vec()?, [4.5, 0.0]);
/// # Ok(())
/// # }
/// ```
pub struct Linear {
    pub(super) device: Device,
    pub(super) options: LinearOptions,
    pub(super) scratch: Mutex<Scratch>,
    /// Locked before the scratch, where both are.
    pub(super) converted: Mutex<Converted>,
    adaptive: Option<Mutex<adaptive::State>>,
}

/// How one product is computed: the options may say otherwise.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) precision: Precision,
    pub(super) factors: &'a Factors,
    /// Whether f32 may be converted to a narrower type.
    pub(super) converts: bool,
}

#[derive(Default)]
pub(super) struct Scratch {
    pub(super) partials: Option<Buffer<u8>>,
    pub(super) arrivals: Option<Buffer<u32>>,
    /// Of the products with a vector, and these products where more follows.
    pub(super) vector: Option<gemv::Scratch>,
    pub(super) products: Option<Buffer<f32>>,
    repacked: [Option<Buffer<u8>>; 2],
    maps: Option<TensorMapCache>,
}

/// What the kernels on warpgroups need beside the operands.
struct Hopper<'a> {
    partials: &'a mut Buffer<u8>,
    arrivals: &'a mut Buffer<u32>,
    repacked: [&'a mut Buffer<u8>; 2],
    maps: &'a mut TensorMapCache,
}

/// Tensor maps that are kept, three for each set of operands: in 128 KiB. A captured graph keeps its own for good.
const TENSOR_MAPS: usize = 1024;

impl Scratch {
    /// At least so many bytes and counts, of zeros where they are made anew.
    pub(super) fn grown(
        &mut self,
        device: &Device,
        bytes: usize,
        counts: usize,
    ) -> Result<(&mut Buffer<u8>, &mut Buffer<u32>), Error> {
        Ok((grown(device, &mut self.partials, bytes)?, grown(device, &mut self.arrivals, counts)?))
    }

    /// As much as the plan asks for.
    fn hopper(&mut self, device: &Device, plan: &hopper::Plan) -> Result<Hopper<'_>, Error> {
        if self.maps.is_none() {
            device.refuse_capture(OP)?;
            self.maps = Some(TensorMapCache::new(device, TENSOR_MAPS)?);
        }
        let [a, b] = &mut self.repacked;
        let [a_bytes, b_bytes] = plan.repacked_bytes();
        Ok(Hopper {
            partials: grown(device, &mut self.partials, plan.partial_bytes())?,
            arrivals: grown(device, &mut self.arrivals, plan.arrivals())?,
            repacked: [grown(device, a, a_bytes)?, grown(device, b, b_bytes)?],
            maps: self.maps.as_mut().expect("made above"),
        })
    }
}

pub(super) fn grown<'a, T: bytemuck::Pod>(
    device: &Device,
    buffer: &'a mut Option<Buffer<T>>,
    len: usize,
) -> Result<&'a mut Buffer<T>, Error> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < len) {
        device.refuse_capture(OP)?;
        *buffer = Some(Buffer::zeroed(device, len.next_power_of_two())?);
    }
    Ok(buffer.as_mut().expect("made above"))
}

impl Linear {
    /// Products on `device`.
    ///
    /// # Errors
    /// A tolerance that is not above 0, or options of adaptive precision that mean nothing.
    pub fn new(device: &Device, options: LinearOptions) -> Result<Self, Error> {
        let got = options.tolerance;
        if got.is_nan() || got <= 0.0 {
            return Err(LinearError::Tolerance { got }.into());
        }
        let adaptive = options
            .adaptive
            .map(|adaptive| adaptive::State::new(adaptive, options.precision, got))
            .transpose()?
            .map(Mutex::new);
        let (scratch, converted) = (Mutex::default(), Mutex::default());
        Ok(Self { device: device.clone(), options, scratch, converted, adaptive })
    }

    /// What was asked for.
    pub fn options(&self) -> &LinearOptions {
        &self.options
    }

    /// Computes D, and into `z` what the activation was applied to, which the gradients need.
    ///
    /// # Errors
    /// A shape whose rows or results overlap or that is beyond 31-bit counts, a buffer too short or on another device, a
    /// β without C, element types or a precision that do not go together, memory exhausted, or a failed call.
    pub fn forward<T: LinearElement, O: LinearResult>(
        &self,
        shape: &LinearShape,
        operands: &Operands<'_, T, O>,
        d: &mut Buffer<O>,
        z: Option<&mut Buffer<O>>,
    ) -> Result<Chosen, Error> {
        let LinearOptions { alpha, beta, activation, precision, .. } = self.options;
        let factors = Factors { alpha, beta, activation };
        let how = How { precision, factors: &factors, converts: true };
        // The estimates are those of f32, and the CPU computes in f64.
        let adapts = T::DTYPE == DType::F32 && KernelDevice::of(&self.device).is_some();
        let Some(state) = self.adaptive.as_ref().filter(|_| adapts) else {
            return self.run(shape, how, operands, d, z);
        };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let level = state.precision(&self.device, shape, O::DTYPE)?;
        // As by the rule: tensor cores do not pay for what memory bounds.
        let by_vector = level == Precision::Tf32 && VectorProduct::of(shape, operands).is_some();
        let precision = if by_vector { Precision::F32 } else { level };
        let chosen = self.run(shape, How { precision, ..how }, operands, d, z)?;
        let adapted = Some(state.called(&self.device, shape, (operands.a, operands.b))?);
        Ok(Chosen { adapted, ..chosen })
    }

    /// As [`Self::forward`], in a way that may not be the options'.
    pub(super) fn run<T: LinearElement, O: LinearResult>(
        &self,
        shape: &LinearShape,
        how: How<'_>,
        operands: &Operands<'_, T, O>,
        d: &mut Buffer<O>,
        mut z: Option<&mut Buffer<O>>,
    ) -> Result<Chosen, Error> {
        let How { precision, factors, .. } = how;
        shape.check()?;
        operands.check(shape, factors.beta, &self.device)?;
        d.check_device(OP, "d", &self.device)?;
        shape.d().check(shape.batch, d.len())?;
        if let Some(z) = z.as_deref_mut() {
            z.check_device(OP, "z", &self.device)?;
            shape.z().check(shape.batch, z.len())?;
        }
        let kernels = KernelDevice::of(&self.device);
        let vector = kernels.and_then(|_| VectorProduct::of(shape, operands));
        // Tensor cores do not pay for what memory bounds.
        let by_rule = precision == Precision::Auto && vector.is_some();
        let precision = match self.resolved::<T>(how, shape, kernels.filter(|_| !by_rule))? {
            Precision::Fp8Fast if operands.scales.scaling() == Scaling::Block => Precision::Fp8,
            resolved => resolved,
        };
        check_output(T::DTYPE, O::DTYPE, precision)?;
        let Some(kernels) = kernels else {
            cpu::forward(shape, factors, operands, d, z)?;
            return Ok(Chosen::new(Precision::F64, "reference", 1));
        };
        if let Some(operands) = operands.in_f32().filter(|_| converted(precision).is_some()) {
            let how = How { precision, ..how };
            return self.forward_converted((kernels, shape, how), &operands, d, z);
        }
        if let (Precision::F32, Some(vector)) = (precision, vector) {
            let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
            let on = (&self.device, kernels);
            return vector.run(on, &mut scratch, (shape, factors), operands, (d, z));
        }
        let alignment = hopper::Alignment::of(shape, operands, d, z.is_some());
        if let Some(plan) = hopper::plan(kernels, T::DTYPE, precision, shape, &alignment)? {
            let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
            let launched = scratch.hopper(&self.device, &plan).and_then(|scratch| {
                let Hopper { partials, arrivals, repacked, maps } = scratch;
                let arguments = Arguments { shape, factors, operands, d, z, partials, arrivals };
                hopper::launch(kernels, &plan, arguments, repacked, maps)
            });
            if launched.is_err() {
                *scratch = Scratch::default();
            }
            launched?;
            return Ok(Chosen::new(precision, plan.kernel_name(), plan.sharers()));
        }
        let Some(cut) = launcher::cut(kernels, T::DTYPE, precision, shape)? else {
            return Ok(Chosen::new(precision, "none: nothing to do", 1));
        };
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let (partials, arrivals) =
            scratch.grown(&self.device, cut.partial_bytes(), cut.arrivals())?;
        let arguments = Arguments { shape, factors, operands, d, z, partials, arrivals };
        let launched = launcher::launch(kernels, cut, arguments);
        if launched.is_err() {
            // A launch that broke off leaves arrivals that are not zero.
            *scratch = Scratch::default();
        }
        launched?;
        Ok(Chosen::new(precision, cut.instance.kernel.name(), cut.parts))
    }
}

impl Linear {
    /// The precision of a product, where `kernels` is the device whose tensor cores it may take.
    fn resolved<T: LinearElement>(
        &self,
        how: How<'_>,
        shape: &LinearShape,
        kernels: Option<KernelDevice<'_>>,
    ) -> Result<Precision, LinearError> {
        let tolerance = self.options.tolerance;
        let tf32 = || kernels.is_some_and(launcher::multiplies_tf32);
        if !how.converts {
            return how.precision.resolved(T::DTYPE, tolerance, shape, tf32());
        }
        // Of nothing there is nothing to convert.
        let is_empty = [shape.m, shape.n, shape.k, shape.batch].contains(&0);
        let has = |precision| match precision {
            Precision::Tf32 => tf32(),
            narrow => !is_empty && kernels.is_some_and(|kernels| converts(kernels, narrow)),
        };
        how.precision.resolved_converting(T::DTYPE, tolerance, shape, has)
    }
}

/// Refuses results that the sums do not go to.
pub(super) fn check_output(
    dtype: DType,
    got: DType,
    precision: Precision,
) -> Result<(), LinearError> {
    let expected = match (dtype, precision) {
        (DType::F64, _) => "f64",
        (DType::F32, Precision::F64) => "f32 or f64",
        _ => "f32, f16 or bf16",
    };
    if expected.split([' ', ',']).any(|name| name == got.name()) {
        return Ok(());
    }
    Err(LinearError::Output { dtype, got, expected })
}
