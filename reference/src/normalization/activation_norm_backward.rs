//! Activation and normalisation of rows: the gradients.
//!
//! With g = ∂L/∂y, `ĝ` the gradient of the normalised û, and n columns:
//! `∂L/∂u = r·(ĝ − mean(ĝ) − û·mean(ĝ·û))` for layer norm; RMS norm has no μ to differentiate, and so
//! no mean(ĝ). Where the activation comes first, ĝ = g·γ and `∂L/∂x = ∂L/∂u · act′(x)`; where it comes
//! last, g·act′(û·γ + β) takes the place of g. `∂L/∂γ = Σ g·û` and `∂L/∂β = Σ g` over the rows. Mean and
//! r are computed again from x, in f64.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::activation_norm::{Affine, Norm, NormOptions, NormOrder, rows_of};
use super::error::NormError;
use crate::{Real, summation::pairwise_sum};

/// The gradients of a loss.
#[derive(Debug, Clone, PartialEq)]
pub struct NormGradients<T> {
    /// ∂L/∂x, `[rows, cols]`.
    pub input: Array2<T>,
    /// ∂L/∂γ, `[cols]`; that of a γ of ones where there is none.
    pub gamma: Vec<f64>,
    /// ∂L/∂β, `[cols]`; that of a β of zeros where there is none.
    pub beta: Vec<f64>,
}

/// The gradients at `x` `[rows, cols]` for `grad_output`, of the same shape.
///
/// # Errors
/// As [`super::activation_norm`], and a gradient of another shape.
pub fn activation_norm_backward<T: Real, W: Real>(
    x: ArrayView2<'_, T>,
    grad_output: ArrayView2<'_, T>,
    gamma: Option<&[W]>,
    beta: Option<&[W]>,
    options: NormOptions,
) -> Result<NormGradients<T>, NormError> {
    options.check(x.ncols(), gamma.map(<[W]>::len), beta.map(<[W]>::len))?;
    if grad_output.dim() != x.dim() {
        return Err(NormError::Shape { expected: x.dim(), got: grad_output.dim() });
    }
    let affine = Affine::new(gamma, beta);
    let rows: Vec<RowGradients> = rows_of(&x)
        .into_par_iter()
        .zip(rows_of(&grad_output))
        .map(|(x, g)| row_gradients(&x, &g, &affine, options))
        .collect();
    let over_rows = |term: &(dyn Fn(&RowGradients, usize) -> f64 + Sync)| {
        let column = |c| pairwise_sum(&rows, |row| term(row, c));
        (0..x.ncols()).into_par_iter().map(column).collect()
    };
    let input = rows.iter().flat_map(|row| row.input.iter().map(|&v| T::from_f64(v))).collect();
    Ok(NormGradients {
        input: Array2::from_shape_vec(x.dim(), input).expect("as many elements as the input has"),
        gamma: over_rows(&|row, c| row.affine[c] * row.normal[c]),
        beta: over_rows(&|row, c| row.affine[c]),
    })
}

struct RowGradients {
    /// ∂L/∂x.
    input: Vec<f64>,
    /// ∂L/∂(û·γ + β).
    affine: Vec<f64>,
    /// û.
    normal: Vec<f64>,
}

fn row_gradients(x: &[f64], g: &[f64], affine: &Affine, options: NormOptions) -> RowGradients {
    let row = options.normalise(x);
    let n = x.len() as f64;
    let last = options.order == NormOrder::NormThenActivation;
    let through = |c: usize| match last {
        true => g[c] * options.activation.derivative(affine.apply(c, row.normal[c])),
        false => g[c],
    };
    let of_affine: Vec<f64> = (0..x.len()).map(through).collect();
    let of_normal: Vec<f64> =
        of_affine.iter().enumerate().map(|(c, g)| g * affine.gamma(c)).collect();
    let products: Vec<f64> = of_normal.iter().zip(&row.normal).map(|(g, u)| g * u).collect();
    let along = pairwise_sum(&products, |&v| v) / n;
    let common = match options.norm {
        Norm::LayerNorm => pairwise_sum(&of_normal, |&v| v) / n,
        Norm::RmsNorm => 0.0,
    };
    let input = (0..x.len()).map(|c| {
        let of_normalised = row.rstd * (of_normal[c] - common - row.normal[c] * along);
        if last { of_normalised } else { of_normalised * options.activation.derivative(x[c]) }
    });
    RowGradients { input: input.collect(), affine: of_affine, normal: row.normal }
}
