//! The gradients of `D = act(Z) + R`, `Z = α·A·B + bias + β·C`.
//!
//! `∂Z = ∂D ⊙ act′(Z)`, `∂A = α·∂Z·Bᵀ`, `∂B = α·Aᵀ·∂Z`, `∂bias_j = Σ_i ∂Z_ij`, `∂C = β·∂Z`, `∂R = ∂D`.

use ndarray::{Array2, ArrayView2, Axis, Zip};

use super::forward::product;
use super::{Linear, LinearError};
use crate::Real;
use crate::summation::pairwise_sum;

/// The gradients, each of its operand's shape. ∂R is ∂D.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearGradients {
    /// ∂A, `[m, k]`.
    pub a: Array2<f64>,
    /// ∂B, `[k, n]`.
    pub b: Array2<f64>,
    /// ∂bias, `[n]`.
    pub bias: Vec<f64>,
    /// ∂Z, `[m, n]`; ∂C is β times it.
    pub z: Array2<f64>,
}

/// The gradients of a loss whose gradient by D, `[m, n]`, is `grad_output`.
///
/// # Errors
/// Operands that do not fit together.
pub fn linear_backward<T: Real>(
    operands: &Linear<'_, T>,
    grad_output: ArrayView2<'_, T>,
) -> Result<LinearGradients, LinearError> {
    operands.check()?;
    let (expected, got) = (operands.shape(), grad_output.dim());
    if got != expected {
        return Err(LinearError::Shape { matrix: "grad_output", expected, got });
    }
    let mut z = operands.before_activation();
    Zip::from(&mut z)
        .and(grad_output)
        .for_each(|z, grad| *z = grad.as_f64() * operands.activation.derivative(*z));
    let mut a = product(z.view(), operands.b.t());
    let mut b = product(operands.a.t(), z.view());
    for gradient in [&mut a, &mut b] {
        gradient.mapv_inplace(|value| operands.alpha * value);
    }
    let columns = z.axis_iter(Axis(1));
    let bias = columns.map(|column| pairwise_sum(&column.to_vec(), |&value| value)).collect();
    Ok(LinearGradients { a, b, bias, z })
}
