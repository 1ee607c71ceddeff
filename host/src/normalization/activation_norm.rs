//! The operation and its forward pass.

use kasmina_kernels::instances::{self, NormInstance};
use kasmina_reference::normalization as reference;
use kasmina_types::{Activation, ActivationNorm as ForwardParameters, Norm, NormOrder, NormPlan};
use ndarray::ArrayView2;

use super::activation_norm_backward::BackwardPlan;
use super::buffers::{NormStatistics, check_parameter};
use super::error::NormalizationError;
use super::plan;
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::activation_norm::{self as launcher, Arguments};
use crate::error::Error;
use crate::kasmina::LayerElement;

const OP: &str = "activation_norm";

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationNormOptions {
    /// The activation.
    pub activation: Activation,
    /// The normalisation of each row.
    pub norm: Norm,
    /// Which of them comes first.
    pub order: NormOrder,
    /// ε, above 0.
    pub epsilon: f32,
}

impl Default for ActivationNormOptions {
    /// No activation, layer norm, ε = 1e-5.
    fn default() -> Self {
        Self {
            activation: Activation::None,
            norm: Norm::LayerNorm,
            order: NormOrder::ActivationThenNorm,
            epsilon: 1e-5,
        }
    }
}

/// An activation with the layer norm or RMS norm of each row of `[rows, cols]`, forward and backward,
/// for one shape and element type on one device: `y = norm(act(x))·γ + β`, or `y = act(norm(x)·γ + β)`.
///
/// Plans and scratch memory are made once; [`Self::forward`] and [`Self::backward`] allocate nothing on
/// a device that runs kernels.
///
/// ```
/// use kasmina::normalization::{Activation, ActivationNorm, ActivationNormOptions, NormStatistics};
/// use kasmina::{Buffer, Device};
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let device = Device::Cpu;
/// let options = ActivationNormOptions { activation: Activation::Relu, ..Default::default() };
/// let mut norm = ActivationNorm::<f32>::new(&device, 1, 4, options)?;
/// let x = Buffer::from_slice(&device, &[-1.0, 2.0, 0.0, 2.0])?;
/// let mut y = Buffer::zeroed(&device, 4)?;
/// let mut statistics = NormStatistics::new(&device, 1)?;
/// norm.forward(&x, None, None, &mut y, &mut statistics)?;
/// assert_eq!(statistics.mean.to_vec()?, [1.0]);
/// assert!((y.to_vec()?[1] - 0.999995).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
pub struct ActivationNorm<T: LayerElement> {
    pub(super) device: Device,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) options: ActivationNormOptions,
    pub(super) plans: Option<Plans>,
    _element: std::marker::PhantomData<T>,
}

pub(super) struct Plans {
    forward: ForwardPlan,
    pub(super) backward: BackwardPlan,
}

struct ForwardPlan {
    instance: NormInstance<ForwardParameters>,
    plan: NormPlan,
    grid: u32,
}

impl<T: LayerElement> ActivationNorm<T> {
    /// Plans both passes for `rows` rows of `cols` columns.
    ///
    /// # Errors
    /// A shape without elements or beyond 31-bit counts, an ε that is not above 0, memory exhausted, a
    /// stream that is being captured, or a failed call.
    pub fn new(
        device: &Device,
        rows: usize,
        cols: usize,
        options: ActivationNormOptions,
    ) -> Result<Self, Error> {
        if !(options.epsilon > 0.0 && options.epsilon.is_finite()) {
            return Err(NormalizationError::Epsilon { got: options.epsilon }.into());
        }
        for (what, got) in [("rows", rows), ("cols", cols)] {
            if got == 0 {
                let expected = "at least 1".into();
                return Err(Error::Length { op: OP, buffer: what, expected, got });
            }
            // The kernels' row and column numbers pass the last by a step.
            let (got, limit) = (got as u64, i32::MAX as u64);
            if got > limit {
                return Err(Error::TooLarge { op: OP, what, got, limit });
            }
        }
        device.refuse_capture(OP)?;
        let plans = match KernelDevice::of(device) {
            Some(kernels) => Some(Plans {
                forward: ForwardPlan::new::<T>(kernels, rows, cols, &options)?,
                backward: BackwardPlan::new::<T>(device, kernels, rows, cols, &options)?,
            }),
            None => None,
        };
        let device = device.clone();
        Ok(Self { device, rows, cols, options, plans, _element: std::marker::PhantomData })
    }

    /// Computes y and the rows' statistics from x, both `[rows, cols]` row-major; γ and β `[cols]`, 1 and
    /// 0 where they are `None`.
    ///
    /// # Errors
    /// A buffer of another length or on another device, a β for RMS norm, or a failed call.
    pub fn forward(
        &mut self,
        x: &Buffer<T>,
        gamma: Option<&Buffer<f32>>,
        beta: Option<&Buffer<f32>>,
        y: &mut Buffer<T>,
        statistics: &mut NormStatistics,
    ) -> Result<(), Error> {
        self.check_tensor(OP, "x", x)?;
        self.check_tensor(OP, "y", y)?;
        self.check_parameters(OP, gamma, beta)?;
        statistics.check(OP, self.rows, &self.device)?;
        let (Some(kernels), Some(plans)) = (KernelDevice::of(&self.device), &self.plans) else {
            return self.forward_on_cpu(x, gamma, beta, y, statistics);
        };
        let &ForwardPlan { instance, plan, grid } = &plans.forward;
        launcher::launch(
            kernels,
            Arguments { instance, plan, grid, input: x, gamma, beta, output: y, statistics },
        )
    }

    fn forward_on_cpu(
        &self,
        x: &Buffer<T>,
        gamma: Option<&Buffer<f32>>,
        beta: Option<&Buffer<f32>>,
        y: &mut Buffer<T>,
        statistics: &mut NormStatistics,
    ) -> Result<(), Error> {
        let input = self.on_host(x);
        let got = reference::activation_norm(
            self.as_rows(&input),
            host_parameter(gamma),
            host_parameter(beta),
            self.reference_options(),
        )
        .expect("shapes and options were checked");
        let output: Vec<T> = got.output.iter().map(|&y| T::from_f32(y)).collect();
        y.copy_from_slice(&output)?;
        let narrow = |values: &[f64]| -> Vec<f32> { values.iter().map(|&v| v as f32).collect() };
        statistics.mean.copy_from_slice(&narrow(&got.mean))?;
        statistics.rstd.copy_from_slice(&narrow(&got.rstd))
    }

    pub(super) fn check_tensor(
        &self,
        op: &'static str,
        name: &'static str,
        buffer: &Buffer<T>,
    ) -> Result<(), Error> {
        check_length(op, name, self.rows * self.cols, buffer.len())?;
        buffer.check_device(op, name, &self.device)
    }

    pub(super) fn check_parameters(
        &self,
        op: &'static str,
        gamma: Option<&Buffer<f32>>,
        beta: Option<&Buffer<f32>>,
    ) -> Result<(), Error> {
        if self.options.norm == Norm::RmsNorm && beta.is_some() {
            return Err(NormalizationError::BetaOfRmsNorm { operand: "beta" }.into());
        }
        check_parameter(op, "gamma", self.cols, gamma, &self.device)?;
        check_parameter(op, "beta", self.cols, beta, &self.device)
    }

    /// The values of a buffer of the CPU's.
    pub(super) fn on_host(&self, buffer: &Buffer<T>) -> Vec<f32> {
        let values = buffer.as_host_slice().expect("the CPU's buffers are in the host's memory");
        values.iter().map(|&value| value.to_f32()).collect()
    }

    pub(super) fn as_rows<'a>(&self, values: &'a [f32]) -> ArrayView2<'a, f32> {
        ArrayView2::from_shape((self.rows, self.cols), values).expect("the length was checked")
    }

    pub(super) fn reference_options(&self) -> reference::NormOptions {
        reference_options(&self.options)
    }
}

/// γ or β of the CPU's.
pub(super) fn host_parameter(buffer: Option<&Buffer<f32>>) -> Option<&[f32]> {
    buffer.map(|b| b.as_host_slice().expect("the CPU's buffers are in the host's memory"))
}

/// The activation in the reference's own type.
pub(crate) fn reference_activation(activation: Activation) -> reference::Activation {
    match activation {
        Activation::None => reference::Activation::None,
        Activation::Relu => reference::Activation::Relu,
        Activation::GeluErf => reference::Activation::GeluErf,
        Activation::GeluTanh => reference::Activation::GeluTanh,
        Activation::Silu => reference::Activation::Silu,
        Activation::Sigmoid => reference::Activation::Sigmoid,
        Activation::Tanh => reference::Activation::Tanh,
    }
}

/// The options in the reference's own types.
pub(crate) fn reference_options(options: &ActivationNormOptions) -> reference::NormOptions {
    reference::NormOptions {
        activation: reference_activation(options.activation),
        norm: match options.norm {
            Norm::LayerNorm => reference::Norm::LayerNorm,
            Norm::RmsNorm => reference::Norm::RmsNorm,
        },
        order: match options.order {
            NormOrder::ActivationThenNorm => reference::NormOrder::ActivationThenNorm,
            NormOrder::NormThenActivation => reference::NormOrder::NormThenActivation,
        },
        epsilon: options.epsilon.into(),
    }
}

impl ForwardPlan {
    fn new<T: LayerElement>(
        kernels: KernelDevice<'_>,
        rows: usize,
        cols: usize,
        options: &ActivationNormOptions,
    ) -> Result<Self, Error> {
        let instance = instances::activation_norm(T::DTYPE)
            .find(|instance| cols.is_multiple_of(instance.lanes as usize))
            .expect("every dtype has an instance of one lane");
        let vectors = (cols / instance.lanes as usize) as u32;
        let plan = plan::plan(rows as u32, vectors, instance.vectors, options);
        let grid = plan::blocks(&plan, kernels.resident_blocks(instance.kernel)?);
        Ok(Self { instance, plan, grid })
    }
}
