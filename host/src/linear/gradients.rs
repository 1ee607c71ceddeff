//! The backward pass.

use std::sync::PoisonError;

use bytemuck::Pod;
use kasmina_types::{Activation, Layout, LinearStrides};
use ndarray::Array2;

use super::cpu;
use super::element::LinearResult;
use super::error::LinearError;
use super::forward::{Linear, LinearOptions, Scratch};
use super::operands::Operands;
use super::shape::{Extent, LinearShape};
use super::shared::{check_shared, folded};
use crate::buffer::{Buffer, check_length};
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::linear::{self as launcher, BackwardArguments};
use crate::error::Error;
use crate::normalization::reference_activation;

const OP: &str = "linear_backward";

/// Where the gradients go. Each is of its operand's shape, with rows as far apart; those that are `None` are not
/// computed. ∂C is β·∂Z, ∂R is ∂D. Of an operand that all problems of a batch share (its stride is 0) the gradient is the sum
/// over the batch.
pub struct LinearGradients<'a, T: Pod> {
    /// ∂Z, of D's shape and distances. Needed where there is an activation and ∂A or ∂B is wanted.
    pub z: Option<&'a mut Buffer<T>>,
    /// ∂A = α·∂Z·op(B)ᵀ, in A's layout.
    pub a: Option<&'a mut Buffer<T>>,
    /// ∂B = α·op(A)ᵀ·∂Z, in B's layout.
    pub b: Option<&'a mut Buffer<T>>,
    /// ∂bias_j = Σ_i ∂Z_ij, `[n]`, over all problems of a batch.
    pub bias: Option<&'a mut Buffer<T>>,
}

impl<T: Pod> Default for LinearGradients<'_, T> {
    /// None.
    fn default() -> Self {
        Self { z: None, a: None, b: None, bias: None }
    }
}

impl Linear {
    /// The gradients of a loss whose gradient by D is `grad_output`, of D's shape and distances. `z` is what
    /// [`Self::forward`] left there; without an activation it is not needed. A and B are of the results' own type.
    ///
    /// ∂A and ∂B are products in the options' precision, by the rule without conversion: `Auto` takes tf32 for f32 at most, and
    /// a narrower one of f32 is refused (give this pass a [`Linear`] of its own). ∂Z and ∂bias are computed in f32 (f64 for f64) and rounded once.
    /// Where a batch shares A, or B, the gradients of its problems are rounded, and their sum in f32 (f64 for f64) once more;
    /// they take a buffer of the batch's length. A batch that shares B, with rows of A and of the results that follow each
    /// other, is one product of all rows instead.
    ///
    /// # Errors
    /// As [`Self::forward`]; a gradient that needs Z or ∂Z where there is none; a batch whose results are not one right
    /// after the other, whose ∂bias is wanted while each problem has a bias of its own, whose problems share a part of an
    /// operand, or that shares an operand with gaps between its rows.
    pub fn backward<T: LinearResult>(
        &self,
        shape: &LinearShape,
        (a, b): (&Buffer<T>, &Buffer<T>),
        z: Option<&Buffer<T>>,
        grad_output: &Buffer<T>,
        gradients: LinearGradients<'_, T>,
    ) -> Result<(), Error> {
        shape.check()?;
        let folded = folded(shape);
        let shape = folded.as_ref().unwrap_or(shape);
        let LinearGradients { z: mut grad_z, a: grad_a, b: grad_b, bias: grad_bias } = gradients;
        let activation = self.options.activation;
        self.check_gradients(shape, z, grad_output, &grad_z, &grad_bias)?;
        let products = grad_a.is_some() || grad_b.is_some();
        if activation != Activation::None && grad_z.is_none() && products {
            let advice = "give a buffer of D's shape as `gradients.z`";
            return Err(LinearError::Gradient { what: "∂A and ∂B need ∂Z", advice }.into());
        }
        for (extent, wanted) in [(shape.a(), grad_a.is_some()), (shape.b(), grad_b.is_some())] {
            if wanted {
                check_shared(shape.batch, &extent)?;
            }
        }
        if products {
            // What is refused is refused before anything is written.
            let LinearOptions { precision, tolerance, .. } = self.options;
            precision.resolved(T::DTYPE, tolerance, shape, true)?;
        }
        self.through(shape, activation, z, grad_output, grad_z.as_deref_mut(), grad_bias)?;
        // Without an activation ∂Z is ∂D.
        let grad_z = match (activation, &grad_z) {
            (Activation::None, _) | (_, None) => grad_output,
            (_, Some(grad_z)) => &**grad_z,
        };
        if let Some(grad_a) = grad_a {
            let (product, transposed) = of_a(shape);
            let operands =
                if transposed { Operands::new(b, grad_z) } else { Operands::new(grad_z, b) };
            self.operand_gradient(&product, &shape.a(), &operands, grad_a)?;
        }
        if let Some(grad_b) = grad_b {
            let (product, transposed) = of_b(shape);
            let operands =
                if transposed { Operands::new(grad_z, a) } else { Operands::new(a, grad_z) };
            self.operand_gradient(&product, &shape.b(), &operands, grad_b)?;
        }
        Ok(())
    }

    fn check_gradients<T: LinearResult>(
        &self,
        shape: &LinearShape,
        z: Option<&Buffer<T>>,
        grad_output: &Buffer<T>,
        grad_z: &Option<&mut Buffer<T>>,
        grad_bias: &Option<&mut Buffer<T>>,
    ) -> Result<(), Error> {
        if self.options.activation != Activation::None && z.is_none() {
            let what = "the activation's gradient needs `z`";
            let advice = "keep it in the forward pass";
            return Err(LinearError::Gradient { what, advice }.into());
        }
        let follows = |extent: Extent| extent.stride == (extent.rows * extent.ld) as u64;
        let passes = grad_z.is_some() || grad_bias.is_some();
        let follow = follows(shape.d()) && (z.is_none() || follows(shape.z()));
        if shape.batch != 1 && passes && !follow {
            let what = "the results of the batch are not one right after the other";
            let advice = "make strides.d m·ldd and strides.z m·ldz";
            return Err(LinearError::Gradient { what, advice }.into());
        }
        if shape.batch > 1 && grad_bias.is_some() && shape.strides.bias != 0 {
            let what = "∂bias is that of one bias for the whole batch";
            let advice = "make strides.bias 0, or call `backward` for each problem";
            return Err(LinearError::Gradient { what, advice }.into());
        }
        for (name, buffer, extent) in [
            ("z", z, shape.z()),
            ("grad_output", Some(grad_output), shape.d()),
            ("gradients.z", grad_z.as_deref(), shape.d()),
        ] {
            if let Some(buffer) = buffer {
                buffer.check_device(OP, name, &self.device)?;
                extent.check(shape.batch, buffer.len())?;
            }
        }
        if let Some(bias) = grad_bias {
            bias.check_device(OP, "gradients.bias", &self.device)?;
            check_length(OP, "gradients.bias", shape.n, bias.len())?;
        }
        Ok(())
    }

    /// The sums of the columns of a matrix `[rows, columns]` without gaps, in f32 (f64 for f64).
    pub(super) fn column_sums<T: LinearResult>(
        &self,
        rows: usize,
        columns: usize,
        matrix: &Buffer<T>,
        sums: &mut Buffer<T>,
    ) -> Result<(), Error> {
        let shape = LinearShape::new(Layout::NN, rows, columns, 0);
        self.through(&shape, Activation::None, None, matrix, None, Some(sums))
    }

    /// ∂Z and ∂bias.
    fn through<T: LinearResult>(
        &self,
        shape: &LinearShape,
        activation: Activation,
        z: Option<&Buffer<T>>,
        grad_output: &Buffer<T>,
        mut grad_z: Option<&mut Buffer<T>>,
        grad_bias: Option<&mut Buffer<T>>,
    ) -> Result<(), Error> {
        if grad_z.is_none() && grad_bias.is_none() {
            return Ok(());
        }
        let z = z.filter(|_| activation != Activation::None);
        let rows = shape.batch * shape.m;
        let Some(kernels) = KernelDevice::of(&self.device) else {
            let tall = |extent: Extent| extent.with_rows(rows);
            let mut gradient = cpu::take(grad_output, &tall(shape.d()), 0);
            if let Some(z) = z {
                let z = cpu::take(z, &tall(shape.z()), 0);
                let function = reference_activation(activation);
                gradient.zip_mut_with(&z, |gradient, &z| *gradient *= function.derivative(z));
            }
            if let Some(grad_z) = grad_z.as_deref_mut() {
                cpu::put(grad_z, &tall(shape.d()), 0, gradient.view());
            }
            if let Some(bias) = grad_bias {
                let sums = Array2::from_shape_fn((1, shape.n), |(_, j)| gradient.column(j).sum());
                cpu::put(bias, &shape.bias(), 0, sums.view());
            }
            return Ok(());
        };
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, counts) = launcher::backward_scratch(T::DTYPE, rows, shape.n);
        let (partials, arrivals) = scratch.grown(&self.device, bytes, counts)?;
        let launched = launcher::launch_backward(
            kernels,
            BackwardArguments {
                rows,
                columns: shape.n,
                activation,
                grad_output: (grad_output, shape.ldd),
                z: z.map(|z| (z, shape.ldz)),
                grad_z: grad_z.map(|grad_z| (grad_z, shape.ldd)),
                grad_bias,
                partials,
                arrivals,
            },
        );
        if launched.is_err() {
            *scratch = Scratch::default();
        }
        launched
    }
}

/// The product that is ∂A, and whether its operands are op(B) and ∂Zᵀ instead of ∂Z and op(B)ᵀ: A's array is transposed.
fn of_a(shape: &LinearShape) -> (LinearShape, bool) {
    let LinearShape { m, n, k, lda, ldb, ldd, strides: s, .. } = *shape;
    let (ta, tb) = (shape.layout.transposed_a(), shape.layout.transposed_b());
    let (m, n, k) = if ta { (k, m, n) } else { (m, k, n) };
    let layout = if ta { Layout::of(tb, true) } else { Layout::of(false, !tb) };
    let (first, second) = if ta { ((ldb, s.b), (ldd, s.d)) } else { ((ldd, s.d), (ldb, s.b)) };
    (product(shape, layout, [m, n, k], [first, second, (lda, s.a)]), ta)
}

/// The product that is ∂B, and whether its operands are ∂Zᵀ and op(A) instead of op(A)ᵀ and ∂Z: B's array is transposed.
fn of_b(shape: &LinearShape) -> (LinearShape, bool) {
    let LinearShape { m, n, k, lda, ldb, ldd, strides: s, .. } = *shape;
    let (ta, tb) = (shape.layout.transposed_a(), shape.layout.transposed_b());
    let (m, n, k) = if tb { (n, k, m) } else { (k, n, m) };
    let layout = if tb { Layout::of(true, ta) } else { Layout::of(!ta, false) };
    let (first, second) = if tb { ((ldd, s.d), (lda, s.a)) } else { ((lda, s.a), (ldd, s.d)) };
    (product(shape, layout, [m, n, k], [first, second, (ldb, s.b)]), tb)
}

/// A product alone: shape, then distance of rows and stride of both operands and of the result.
fn product(
    of: &LinearShape,
    layout: Layout,
    [m, n, k]: [usize; 3],
    [(lda, a), (ldb, b), (ldd, d)]: [(usize, u64); 3],
) -> LinearShape {
    // Z is not asked for: its place is D's.
    let strides = LinearStrides { a, b, d, z: d, ..LinearStrides::default() };
    LinearShape {
        lda,
        ldb,
        ldd,
        ldz: ldd,
        batch: of.batch,
        strides,
        ..LinearShape::new(layout, m, n, k)
    }
}
