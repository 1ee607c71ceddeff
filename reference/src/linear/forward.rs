//! `D = act(α·A·B + bias + β·C) + R`.

use ndarray::{Array2, ArrayView2, Zip};
use rayon::prelude::*;

use super::LinearError;
use crate::Real;
use crate::normalization::Activation;

/// Operands of a product. A transposed operand is a transposed view.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a, T> {
    /// A, `[m, k]`.
    pub a: ArrayView2<'a, T>,
    /// B, `[k, n]`.
    pub b: ArrayView2<'a, T>,
    /// α.
    pub alpha: f64,
    /// A value for each column, `[n]`.
    pub bias: Option<&'a [T]>,
    /// β and C, `[m, n]`.
    pub addition: Option<(f64, ArrayView2<'a, T>)>,
    /// What is applied to each element.
    pub activation: Activation,
    /// R, `[m, n]`, which is added after the activation.
    pub residual: Option<ArrayView2<'a, T>>,
}

impl<'a, T: Real> Linear<'a, T> {
    /// A·B.
    pub fn new(a: ArrayView2<'a, T>, b: ArrayView2<'a, T>) -> Self {
        let activation = Activation::None;
        Self { a, b, alpha: 1.0, bias: None, addition: None, activation, residual: None }
    }

    /// Rows and columns of D.
    pub fn shape(&self) -> (usize, usize) {
        (self.a.nrows(), self.b.ncols())
    }

    pub(super) fn check(&self) -> Result<(), LinearError> {
        let expected = self.shape();
        if self.b.nrows() != self.a.ncols() {
            return Err(LinearError::Inner { expected: self.a.ncols(), got: self.b.nrows() });
        }
        if let Some(bias) = self.bias.filter(|bias| bias.len() != expected.1) {
            return Err(LinearError::Bias { expected: expected.1, got: bias.len() });
        }
        let c = self.addition.map(|(_, c)| c);
        for (matrix, values) in [("c", c), ("residual", self.residual)] {
            if let Some(got) = values.map(|values| values.dim()).filter(|&dim| dim != expected) {
                return Err(LinearError::Shape { matrix, expected, got });
            }
        }
        Ok(())
    }

    /// α·A·B + bias + β·C: what the activation is applied to.
    pub(super) fn before_activation(&self) -> Array2<f64> {
        let mut z = product(self.a, self.b);
        z.mapv_inplace(|value| self.alpha * value);
        if let Some(bias) = self.bias {
            for mut row in z.rows_mut() {
                row.iter_mut().zip(bias).for_each(|(z, bias)| *z += bias.as_f64());
            }
        }
        if let Some((beta, c)) = self.addition {
            Zip::from(&mut z).and(c).for_each(|z, c| *z += beta * c.as_f64());
        }
        z
    }
}

/// D, `[m, n]`, in f64 from the operands' values.
///
/// # Errors
/// Operands that do not fit together.
pub fn linear<T: Real>(operands: &Linear<'_, T>) -> Result<Array2<f64>, LinearError> {
    operands.check()?;
    let mut d = operands.before_activation();
    d.mapv_inplace(|z| operands.activation.value(z));
    if let Some(residual) = operands.residual {
        Zip::from(&mut d).and(residual).for_each(|d, residual| *d += residual.as_f64());
    }
    Ok(d)
}

/// A·B in f64, row by row, each sum in the order of k.
pub(super) fn product<A: Real, B: Real>(a: ArrayView2<'_, A>, b: ArrayView2<'_, B>) -> Array2<f64> {
    let (m, n) = (a.nrows(), b.ncols());
    let b = b.mapv(Real::as_f64);
    let b = b.as_standard_layout();
    let mut product = Array2::zeros((m, n));
    let rows: Vec<_> = product.rows_mut().into_iter().enumerate().collect();
    rows.into_par_iter().for_each(|(i, mut row)| {
        let row = row.as_slice_mut().expect("rows of a new array are contiguous");
        for (a, b) in a.row(i).iter().zip(b.rows()) {
            let a = a.as_f64();
            row.iter_mut().zip(b).for_each(|(sum, &b)| *sum += a * b);
        }
    });
    product
}
