//! `activation_norm` and `activation_norm_backward` as cases.

use half::{bf16, f16};
use kasmina_reference::normalization as reference;
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::DType;
use ndarray::Array2;
use rayon::prelude::*;

use super::data::{self, Draw};
use super::{BenchError, Prepared, spread, timer, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::LayerElement;
use crate::normalization::{
    Activation, ActivationNorm, ActivationNormOptions, Norm, NormGradients, NormStatistics,
    reference_options,
};

/// What is computed of which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) activation: Activation,
    pub(super) norm: Norm,
    pub(super) backward: bool,
}

impl Work {
    pub(super) fn kernel(self) -> &'static str {
        if self.backward { "activation_norm_backward" } else { "activation_norm" }
    }

    pub(super) fn name(self) -> &'static str {
        match (self.activation, self.norm) {
            (Activation::GeluErf, Norm::LayerNorm) => "gelu_layer",
            (Activation::Silu, Norm::RmsNorm) => "silu_rms",
            (Activation::None, Norm::LayerNorm) => "layer",
            (Activation::None, Norm::RmsNorm) => "rms",
            _ => "other",
        }
    }

    /// Of x and y, or of x, g and ∂x, each once: the floor.
    pub(super) fn bytes(self, dtype: DType) -> u64 {
        let tensors = if self.backward { 3 } else { 2 };
        (tensors * self.rows * self.cols * dtype.size_bytes()) as u64
    }

    fn options(self) -> ActivationNormOptions {
        let (activation, norm) = (self.activation, self.norm);
        ActivationNormOptions { activation, norm, ..Default::default() }
    }
}

/// Makes the buffers and checks one result.
pub(super) fn prepare(
    device: &Device,
    dtype: DType,
    work: Work,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    match dtype {
        DType::F32 => of::<f32>(device, Dtype::F32, work, bytes),
        DType::F16 => of::<f16>(device, Dtype::F16, work, bytes),
        DType::Bf16 => of::<bf16>(device, Dtype::Bf16, work, bytes),
        DType::F64 | DType::I32 | DType::E4m3 => {
            unreachable!("the cases have the kernels' element types")
        }
    }
}

/// One set of tensors; forward cases need the first two alone.
struct Tensors<T: LayerElement> {
    x: Buffer<T>,
    y: Buffer<T>,
    backward: Option<[Buffer<T>; 2]>,
}

fn of<T: LayerElement + Draw>(
    device: &Device,
    dtype: Dtype,
    work: Work,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    let Work { rows, cols, .. } = work;
    let layer = work.norm == Norm::LayerNorm;
    let parameters = [data::draw::<f32>(100, cols), data::draw::<f32>(101, cols)];
    let gamma = Buffer::from_slice(device, &parameters[0])?;
    let beta = layer.then(|| Buffer::from_slice(device, &parameters[1])).transpose()?;
    let mut norm = ActivationNorm::<T>::new(device, rows, cols, work.options())?;
    let mut statistics = NormStatistics::new(device, rows)?;
    let mut gradients = NormGradients::new(device, cols, true, layer)?;
    let sets = timer::buffer_sets(device, bytes);
    let mut tensors = Vec::new();
    for set in 0..sets as u64 {
        let draw = |seed| Buffer::from_slice(device, &data::draw::<T>(seed + set, rows * cols));
        let empty = || Buffer::<T>::zeroed(device, rows * cols);
        // A backward pass does not need y, but its x needs statistics, which come with one.
        let y = if work.backward && set > 0 { Buffer::zeroed(device, 1)? } else { empty()? };
        let backward = if work.backward { Some([draw(50)?, empty()?]) } else { None };
        tensors.push(Tensors { x: draw(1)?, y, backward });
    }

    let Tensors { x, y, backward } = &mut tensors[0];
    y.fill_bytes(0xFF)?;
    norm.forward(x, Some(&gamma), beta.as_ref(), y, &mut statistics)?;
    let checked = Checked { work, parameters: &parameters, x: x.to_vec()? };
    let tolerance = Tolerance::for_dtype(dtype, 1);
    let max_rel_error = match backward {
        None => checked.forward(&y.to_vec()?, tolerance)?,
        Some([g, grad_input]) => {
            grad_input.fill_bytes(0xFF)?;
            let (gamma, beta) = (Some(&gamma), beta.as_ref());
            norm.backward(x, g, gamma, beta, &statistics, grad_input, &mut gradients)?;
            checked.backward(&g.to_vec()?, &grad_input.to_vec()?, &gradients, tolerance)?
        }
    };

    let call = move |set: usize| -> Result<(), Error> {
        let Tensors { x, y, backward } = &mut tensors[set % sets];
        let (gamma, beta) = (Some(&gamma), beta.as_ref());
        match backward {
            None => norm.forward(x, gamma, beta, y, &mut statistics),
            // The statistics are another set's: as many bytes, and no matter for the time.
            Some([g, grad_input]) => {
                norm.backward(x, g, gamma, beta, &statistics, grad_input, &mut gradients)
            }
        }
    };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}

/// A result's inputs, on the host.
struct Checked<'a, T> {
    work: Work,
    /// γ and β.
    parameters: &'a [Vec<f32>; 2],
    x: Vec<T>,
}

/// Rows of which y or ∂x is compared.
const CHECKED_ROWS: usize = 32;

/// Elements of a shape whose parameter gradients are compared, which takes every row.
const CHECKED_ELEMENTS: usize = 1 << 23;

impl<T: LayerElement> Checked<'_, T> {
    /// The largest error of some rows of y; every element is written.
    fn forward(&self, y: &[T], tolerance: Tolerance) -> Result<f64, BenchError> {
        written(y)?;
        let rows = self.checked_rows();
        let (gamma, beta) = self.parameters();
        let options = reference_options(&self.work.options());
        let expected =
            reference::activation_norm(self.take(&self.x, &rows).view(), gamma, beta, options)
                .expect("the case has the shape that it says");
        within("y", &flat(&self.take(y, &rows)), &flat(&expected.output), tolerance)
    }

    /// The largest error of some rows of ∂x; the parameters' gradients where that is not too much work.
    fn backward(
        &self,
        g: &[T],
        grad_input: &[T],
        gradients: &NormGradients,
        tolerance: Tolerance,
    ) -> Result<f64, BenchError> {
        written(grad_input)?;
        let all = self.work.rows * self.work.cols <= CHECKED_ELEMENTS;
        let rows = if all { (0..self.work.rows).collect() } else { self.checked_rows() };
        let (gamma, beta) = self.parameters();
        let expected = reference::activation_norm_backward(
            self.take(&self.x, &rows).view(),
            self.take(g, &rows).view(),
            gamma,
            beta,
            reference_options(&self.work.options()),
        )
        .expect("the case has the shape that it says");
        if all {
            let summed = Tolerance::for_dtype(Dtype::F32, self.work.rows);
            // Narrow elements' activations are not as precise as f32.
            let summed = if size_of::<T>() == 4 { summed } else { tolerance };
            for (what, got, expected) in
                [("∂γ", &gradients.gamma, &expected.gamma), ("∂β", &gradients.beta, &expected.beta)]
            {
                if let Some(got) = got {
                    let got: Vec<f64> = got.to_vec()?.into_iter().map(f64::from).collect();
                    within(what, &got, expected, summed)?;
                }
            }
        }
        within("∂x", &flat(&self.take(grad_input, &rows)), &flat(&expected.input), tolerance)
    }

    fn checked_rows(&self) -> Vec<usize> {
        spread(self.work.rows, CHECKED_ROWS)
    }

    fn parameters(&self) -> (Option<&[f32]>, Option<&[f32]>) {
        let [gamma, beta] = self.parameters;
        (Some(gamma), (self.work.norm == Norm::LayerNorm).then_some(beta))
    }

    fn take(&self, values: &[T], rows: &[usize]) -> Array2<f64> {
        let cols = self.work.cols;
        let row = |&row: &usize| values[row * cols..][..cols].iter().map(|v| v.to_f32().into());
        Array2::from_shape_vec((rows.len(), cols), rows.iter().flat_map(row).collect())
            .expect("whole rows")
    }
}

fn flat(values: &Array2<f64>) -> Vec<f64> {
    values.iter().copied().collect()
}

fn written<T: LayerElement>(values: &[T]) -> Result<(), BenchError> {
    if values.par_iter().all(|value| value.to_f32().is_finite()) {
        return Ok(());
    }
    let what = "the output (an element is not written, or not a number)";
    Err(BenchError::WrongResult { what, error: f64::INFINITY, tolerance: 0.0 })
}
