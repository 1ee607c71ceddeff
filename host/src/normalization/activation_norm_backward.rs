//! The backward pass.

use kasmina_device::Kernel;
use kasmina_kernels::instances::{self, NormInstance};
use kasmina_reference::normalization as reference;
use kasmina_types::normalization::NormStage;
use kasmina_types::{ActivationNormBackward, Norm, NormGradientMerge, NormPlan};

use super::activation_norm::{ActivationNorm, ActivationNormOptions, host_parameter};
use super::buffers::{NormGradients, NormStatistics};
use super::error::NormalizationError;
use super::plan;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::activation_norm_backward::{self as launcher, Arguments};
use crate::error::Error;
use crate::kasmina::LayerElement;

const OP: &str = "activation_norm_backward";

pub(super) struct BackwardPlan {
    instance: NormInstance<ActivationNormBackward>,
    merge: &'static Kernel<NormGradientMerge>,
    plan: NormPlan,
    slabs: u32,
    /// Blocks of the launch for the rows' sums.
    sum_blocks: u32,
    partials: Buffer<f32>,
    sums: Buffer<f32>,
}

impl<T: LayerElement> ActivationNorm<T> {
    /// Computes ∂L/∂x, and of γ and β the gradients that `gradients` has room for, from `grad_output` =
    /// ∂L/∂y and what the forward pass had: x, γ, β and its statistics. `grad_input` and `grad_output`
    /// are `[rows, cols]`. β is read where the activation comes last. The parameters' gradients are sums
    /// over the rows in f32, in a fixed order; they replace what was there.
    ///
    /// On [`Device::Cpu`] the statistics are computed again from x, in f64.
    ///
    /// # Errors
    /// A buffer of another length or on another device, a β or its gradient for RMS norm, or a failed
    /// call.
    #[expect(clippy::too_many_arguments, reason = "the tensors of a backward pass")]
    pub fn backward(
        &mut self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
        gamma: Option<&Buffer<f32>>,
        beta: Option<&Buffer<f32>>,
        statistics: &NormStatistics,
        grad_input: &mut Buffer<T>,
        gradients: &mut NormGradients,
    ) -> Result<(), Error> {
        self.check_tensor(OP, "x", x)?;
        self.check_tensor(OP, "grad_output", grad_output)?;
        self.check_tensor(OP, "grad_input", grad_input)?;
        self.check_parameters(OP, gamma, beta)?;
        statistics.check(OP, self.rows, &self.device)?;
        gradients.check(OP, self.cols, &self.device)?;
        if self.options.norm == Norm::RmsNorm && gradients.beta.is_some() {
            let operand = "gradients.beta";
            return Err(NormalizationError::BetaOfRmsNorm { operand }.into());
        }
        let (Some(kernels), Some(plans)) = (KernelDevice::of(&self.device), &mut self.plans) else {
            return self.backward_on_cpu(x, grad_output, gamma, beta, grad_input, gradients);
        };
        let BackwardPlan { instance, merge, plan, slabs, sum_blocks, partials, sums } =
            &mut plans.backward;
        let accumulates = gradients.gamma.is_some() || gradients.beta.is_some();
        let stages: &[(NormStage, u32)] = if plan.chunks == 1 {
            &[(NormStage::Whole, *slabs)]
        } else {
            // Each chunk needs its row's sums, over all chunks.
            &[(NormStage::Sums, *sum_blocks), (NormStage::Apply, *slabs)]
        };
        for &(stage, slabs) in stages {
            launcher::launch(
                kernels,
                Arguments {
                    instance: *instance,
                    plan: *plan,
                    stage,
                    slabs,
                    input: x,
                    grad_output,
                    gamma,
                    beta,
                    statistics,
                    grad_input,
                    accumulates,
                    partials,
                    sums,
                },
            )?;
        }
        if accumulates {
            launcher::merge(kernels, merge, *slabs, self.cols as u32, partials, gradients)?;
        }
        Ok(())
    }

    fn backward_on_cpu(
        &self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
        gamma: Option<&Buffer<f32>>,
        beta: Option<&Buffer<f32>>,
        grad_input: &mut Buffer<T>,
        gradients: &mut NormGradients,
    ) -> Result<(), Error> {
        let (x, g) = (self.on_host(x), self.on_host(grad_output));
        let got = reference::activation_norm_backward(
            self.as_rows(&x),
            self.as_rows(&g),
            host_parameter(gamma),
            host_parameter(beta),
            self.reference_options(),
        )
        .expect("shapes and options were checked");
        let input: Vec<T> = got.input.iter().map(|&v| T::from_f32(v)).collect();
        grad_input.copy_from_slice(&input)?;
        for (buffer, values) in
            [(&mut gradients.gamma, &got.gamma), (&mut gradients.beta, &got.beta)]
        {
            if let Some(buffer) = buffer {
                let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                buffer.copy_from_slice(&values)?;
            }
        }
        Ok(())
    }
}

impl BackwardPlan {
    pub(super) fn new<T: LayerElement>(
        device: &Device,
        kernels: KernelDevice<'_>,
        rows: usize,
        cols: usize,
        options: &ActivationNormOptions,
    ) -> Result<Self, Error> {
        let instance = instances::activation_norm_backward(T::DTYPE)
            .find(|instance| cols.is_multiple_of(instance.lanes as usize))
            .expect("every dtype has an instance of one lane");
        let vectors = (cols / instance.lanes as usize) as u32;
        let plan = plan::plan(rows as u32, vectors, instance.vectors, options);
        let resident = kernels.resident_blocks(instance.kernel)?;
        let slabs = plan::slabs(&plan, resident);
        Ok(Self {
            instance,
            merge: instances::activation_norm_backward_merge(),
            plan,
            slabs,
            sum_blocks: plan::blocks(&plan, resident),
            partials: Buffer::zeroed(device, slabs as usize * 2 * cols)?,
            // One unused element where a row is one chunk: a buffer of none has no address.
            sums: Buffer::zeroed(device, if plan.chunks > 1 { 2 * rows } else { 1 })?,
        })
    }
}
