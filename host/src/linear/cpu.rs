//! Products on the CPU: the reference's mathematics, in f64.

use kasmina_reference::linear as reference;
use kasmina_types::Scaling;
use kasmina_types::linear::{SCALE_BLOCK_K, SCALE_BLOCK_N};
use ndarray::{Array1, Array2, ArrayView2, ShapeBuilder};

use super::element::{LinearElement, LinearResult};
use super::operands::Operands;
use super::shape::{Extent, LinearShape};
use crate::buffer::Buffer;
use crate::driver::launchers::linear::Factors;
use crate::error::Error;
use crate::normalization::reference_activation;

/// Computes D, and Z where it is asked for. Shape and operands were checked.
pub(super) fn forward<T: LinearElement, O: LinearResult>(
    shape: &LinearShape,
    factors: &Factors,
    operands: &Operands<'_, T, O>,
    d: &mut Buffer<O>,
    mut z: Option<&mut Buffer<O>>,
) -> Result<(), Error> {
    (0..shape.batch)
        .try_for_each(|number| one(shape, factors, operands, number, d, z.as_deref_mut()))
}

/// As [`forward`], problem `number` of the batch alone.
pub(super) fn one<T: LinearElement, O: LinearResult>(
    shape: &LinearShape,
    factors: &Factors,
    operands: &Operands<'_, T, O>,
    number: usize,
    d: &mut Buffer<O>,
    z: Option<&mut Buffer<O>>,
) -> Result<(), Error> {
    let problem = Problem::of(shape, operands, number)?;
    let mut product = reference::Linear::new(problem.a.view(), problem.b.view());
    product.alpha = factors.alpha * problem.scale;
    product.bias = problem.bias.as_ref().map(|bias| bias.as_slice().expect("one row"));
    product.addition = problem.c.as_ref().map(|c| (factors.beta, c.view()));
    let fits = "shapes were checked";
    if let Some(z) = z {
        let before = reference::linear(&product).expect(fits);
        put(z, &shape.z(), number, before.view());
    }
    product.activation = reference_activation(factors.activation);
    product.residual = problem.residual.as_ref().map(|residual| residual.view());
    put(d, &shape.d(), number, reference::linear(&product).expect(fits).view());
    Ok(())
}

/// One problem of a batch in f64.
pub(super) struct Problem {
    /// op(A) and op(B), with the scales of blocks.
    pub(super) a: Array2<f64>,
    pub(super) b: Array2<f64>,
    /// The scales of tensors.
    pub(super) scale: f64,
    bias: Option<Array1<f64>>,
    c: Option<Array2<f64>>,
    residual: Option<Array2<f64>>,
}

impl Problem {
    pub(super) fn of<T: LinearElement, O: LinearResult>(
        shape: &LinearShape,
        operands: &Operands<'_, T, O>,
        number: usize,
    ) -> Result<Self, Error> {
        let mut a = take(operands.a, &shape.a(), number);
        let mut b = take(operands.b, &shape.b(), number);
        if shape.layout.transposed_a() {
            a = a.reversed_axes();
        }
        if shape.layout.transposed_b() {
            b = b.reversed_axes();
        }
        let mut scale = 1.0;
        if let Some((of_a, of_b)) = operands.scales.buffers() {
            let (of_a, of_b) = (of_a.to_vec()?, of_b.to_vec()?);
            if operands.scales.scaling() == Scaling::Tensor {
                scale = f64::from(of_a[0]) * f64::from(of_b[0]);
            } else {
                let along = shape.k.div_ceil(SCALE_BLOCK_K);
                let base = number * shape.m * along;
                for ((row, k), value) in a.indexed_iter_mut() {
                    *value *= f64::from(of_a[base + row * along + k / SCALE_BLOCK_K]);
                }
                let base = number * shape.n.div_ceil(SCALE_BLOCK_N) * along;
                for ((k, column), value) in b.indexed_iter_mut() {
                    let block = column / SCALE_BLOCK_N * along + k / SCALE_BLOCK_K;
                    *value *= f64::from(of_b[base + block]);
                }
            }
        }
        Ok(Self {
            a,
            b,
            scale,
            bias: operands.bias.map(|bias| take(bias, &shape.bias(), number).row(0).to_owned()),
            c: operands.c.map(|c| take(c, &shape.c(), number)),
            residual: operands.residual.map(|r| take(r, &shape.residual(), number)),
        })
    }
}

/// A matrix of a batch in f64.
pub(super) fn take<T: LinearElement>(
    buffer: &Buffer<T>,
    at: &Extent,
    number: usize,
) -> Array2<f64> {
    let values = buffer.as_host_slice().expect("the CPU's buffers are in the host's memory");
    if at.elements() == 0 {
        return Array2::zeros((at.rows, at.columns));
    }
    let begin = number * at.stride as usize;
    let shape = (at.rows, at.columns).strides((at.ld.max(at.columns), 1));
    let one = &values[begin..begin + at.elements()];
    let view = ArrayView2::from_shape(shape, one).expect("the extent was checked");
    view.mapv(T::to_f64)
}

/// The other way.
pub(super) fn put<T: LinearElement>(
    buffer: &mut Buffer<T>,
    at: &Extent,
    number: usize,
    values: ArrayView2<'_, f64>,
) {
    let place = buffer.as_host_slice_mut().expect("the CPU's buffers are in the host's memory");
    let begin = number * at.stride as usize;
    for (i, row) in values.rows().into_iter().enumerate() {
        let place = &mut place[begin + i * at.ld..][..at.columns];
        place.iter_mut().zip(row).for_each(|(place, &value)| *place = T::nearest(value));
    }
}
