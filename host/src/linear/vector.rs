//! Products of a matrix and a vector in f32, by the kernels of `gemv`: memory bounds them, so that sums in f64 cost nothing.

use std::any::Any;

use kasmina_types::{Activation, DType};

use super::forward::{Chosen, Scratch, grown};
use super::operands::Operands;
use super::precision::Precision;
use super::shape::LinearShape;
use super::{GemvElement, GemvShape, LinearElement, LinearResult};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::gemv::{self as launcher, Work};
use crate::driver::launchers::linear::{self as linear_launcher, Factors};
use crate::error::Error;

/// Elements of the matrices from which on it pays: below, a launch is most of the time, and an epilogue takes two.
const LEAST_WORK: u128 = 1 << 16;

/// op(A)·op(B) of a row or a column, without gaps between what is read and written.
pub(super) struct VectorProduct<'a> {
    shape: GemvShape,
    matrix: &'a Buffer<f32>,
    x: &'a Buffer<f32>,
}

impl<'a> VectorProduct<'a> {
    /// The product, if it is one.
    pub(super) fn of<T: LinearElement, O: LinearResult>(
        shape: &LinearShape,
        operands: &Operands<'a, T, O>,
    ) -> Option<Self> {
        let &LinearShape { m, n, batch, layout, .. } = shape;
        let rows_of_results = m.min(n) == 1 && operands.c.is_none() && O::DTYPE == DType::F32;
        if !rows_of_results || shape.work() * (batch as u128) < LEAST_WORK {
            return None;
        }
        let (a, b) = (as_f32(operands.a)?, as_f32(operands.b)?);
        // A row of results is op(B)ᵀ times op(A)'s row.
        let (matrix, x, of_matrix, of_x, transposed) = if m == 1 {
            (b, a, shape.b(), shape.a(), !layout.transposed_b())
        } else {
            (a, b, shape.a(), shape.b(), layout.transposed_a())
        };
        let whole = [of_matrix, of_x, shape.d()].iter().all(|extent| {
            let elements = (extent.rows * extent.columns) as u64;
            let rows_follow = extent.rows == 1 || extent.ld == extent.columns;
            rows_follow && (batch == 1 || extent.stride == elements)
        });
        let (rows, columns) = (of_matrix.rows, of_matrix.columns);
        let shape = GemvShape { batch, rows, columns, transposed };
        whole.then_some(Self { shape, matrix, x })
    }

    /// Queues D, and Z: by one launch where nothing but α goes with the product, else by another of `linear` that adds
    /// nothing to C, which the product is.
    pub(super) fn run<T: LinearElement, O: LinearResult>(
        &self,
        (device, kernels): (&Device, KernelDevice<'_>),
        scratch: &mut Scratch,
        (shape, factors): (&LinearShape, &Factors),
        operands: &Operands<'_, T, O>,
        (d, z): (&mut Buffer<O>, Option<&mut Buffer<O>>),
    ) -> Result<Chosen, Error> {
        let instance = launcher::instance(self.shape.transposed, DType::F32, self.shape.columns)?;
        let work = Work::Products(self.shape, instance.lanes as usize);
        let Scratch { vector, products, partials, arrivals, .. } = scratch;
        let vector = match vector {
            Some(vector) => {
                vector.fit(device, instance.kernel, work, f32::SUM_BYTES)?;
                vector
            }
            None => vector.insert(launcher::Scratch::new(
                device,
                instance.kernel,
                work,
                f32::SUM_BYTES,
            )?),
        };
        let chosen = Chosen::new(Precision::F32, instance.kernel.name(), vector.parts() as u32);
        let d = as_f32_mut(d).expect("the results are f32");
        let alone = operands.bias.is_none()
            && operands.residual.is_none()
            && z.is_none()
            && factors.activation == Activation::None;
        let outputs = self.shape.batch * self.shape.outputs();
        let y = if alone { &mut *d } else { grown(device, products, outputs)? };
        let (alpha, beta) = (factors.alpha, 0.0);
        let &Self { matrix, x, .. } = self;
        let arguments = launcher::Arguments { kernel: instance.kernel, alpha, matrix, x, beta, y };
        launcher::launch(kernels, vector, arguments)?;
        if alone {
            return Ok(chosen);
        }
        let (ldc, mut strides) = (shape.n, shape.strides);
        strides.c = (shape.m * shape.n) as u64;
        let shape = LinearShape { k: 0, ldc, strides, ..*shape };
        let operands = Operands {
            bias: operands.bias.and_then(as_f32),
            c: products.as_ref(),
            residual: operands.residual.and_then(as_f32),
            ..Operands::new(matrix, x)
        };
        let factors = Factors { alpha: 1.0, beta: 1.0, ..*factors };
        let Some(cut) = linear_launcher::cut(kernels, DType::F32, Precision::F32, &shape)? else {
            return Ok(chosen);
        };
        let arguments = linear_launcher::Arguments {
            shape: &shape,
            factors: &factors,
            operands: &operands,
            d,
            z: z.and_then(as_f32_mut),
            partials: grown(device, partials, cut.partial_bytes())?,
            arrivals: grown(device, arrivals, cut.arrivals())?,
        };
        linear_launcher::launch(kernels, cut, arguments)?;
        Ok(chosen)
    }
}

pub(super) fn as_f32<T: LinearElement>(buffer: &Buffer<T>) -> Option<&Buffer<f32>> {
    (buffer as &dyn Any).downcast_ref()
}

fn as_f32_mut<T: LinearElement>(buffer: &mut Buffer<T>) -> Option<&mut Buffer<f32>> {
    (buffer as &mut dyn Any).downcast_mut()
}
