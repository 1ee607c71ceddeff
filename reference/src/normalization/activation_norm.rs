//! Activation and normalisation of rows: the forward pass.
//!
//! `u = act(x)`, `û = (u − μ)·r`, `y = û·γ + β`, or with the activation last `û = (x − μ)·r`,
//! `y = act(û·γ + β)`. Layer norm has μ = mean(u) and r = 1/√(mean((u−μ)²) + ε), RMS norm μ = 0 and
//! r = 1/√(mean(u²) + ε), each over the columns of a row. Computed in f64, the variance in two passes.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{Activation, NormError};
use crate::{Real, summation::pairwise_sum};

/// How a row is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Norm {
    /// (u − mean) / √(variance + ε).
    LayerNorm,
    /// u / √(mean(u²) + ε).
    RmsNorm,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormOrder {
    /// y = norm(act(x))·γ + β.
    ActivationThenNorm,
    /// y = act(norm(x)·γ + β).
    NormThenActivation,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormOptions {
    /// The activation.
    pub activation: Activation,
    /// The normalisation.
    pub norm: Norm,
    /// Which of them comes first.
    pub order: NormOrder,
    /// ε > 0.
    pub epsilon: f64,
}

/// Output and statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalized<T> {
    /// y, `[rows, cols]`.
    pub output: Array2<T>,
    /// μ, `[rows]`; 0 for RMS norm.
    pub mean: Vec<f64>,
    /// r, `[rows]`.
    pub rstd: Vec<f64>,
}

/// The forward pass for `x` `[rows, cols]`; γ and β `[cols]`, 1 and 0 where they are `None`.
///
/// # Errors
/// No columns, an ε that is not above 0, γ or β of another length, a β for RMS norm.
pub fn activation_norm<T: Real, W: Real>(
    x: ArrayView2<'_, T>,
    gamma: Option<&[W]>,
    beta: Option<&[W]>,
    options: NormOptions,
) -> Result<Normalized<T>, NormError> {
    options.check(x.ncols(), gamma.map(<[W]>::len), beta.map(<[W]>::len))?;
    let affine = Affine::new(gamma, beta);
    let rows: Vec<(Vec<T>, f64, f64)> = rows_of(&x)
        .into_par_iter()
        .map(|x| {
            let row = options.normalise(&x);
            let output = row.normal.iter().enumerate().map(|(c, &normal)| {
                let y = affine.apply(c, normal);
                T::from_f64(match options.order {
                    NormOrder::ActivationThenNorm => y,
                    NormOrder::NormThenActivation => options.activation.value(y),
                })
            });
            (output.collect(), row.mean, row.rstd)
        })
        .collect();
    let output = rows.iter().flat_map(|row| row.0.iter().copied()).collect();
    Ok(Normalized {
        output: Array2::from_shape_vec(x.dim(), output).expect("as many elements as the input has"),
        mean: rows.iter().map(|row| row.1).collect(),
        rstd: rows.iter().map(|row| row.2).collect(),
    })
}

/// One row, normalised.
pub(super) struct Row {
    /// û.
    pub(super) normal: Vec<f64>,
    pub(super) mean: f64,
    pub(super) rstd: f64,
}

impl NormOptions {
    pub(super) fn check(
        &self,
        cols: usize,
        gamma: Option<usize>,
        beta: Option<usize>,
    ) -> Result<(), NormError> {
        if cols == 0 {
            return Err(NormError::NoColumns);
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(NormError::Epsilon { got: self.epsilon });
        }
        for (tensor, length) in [("gamma", gamma), ("beta", beta)] {
            match length {
                Some(got) if got != cols => {
                    return Err(NormError::Length { tensor, expected: cols, got });
                }
                _ => {}
            }
        }
        if self.norm == Norm::RmsNorm && beta.is_some() {
            return Err(NormError::BetaOfRmsNorm);
        }
        Ok(())
    }

    /// û of a row of x.
    pub(super) fn normalise(&self, x: &[f64]) -> Row {
        let u: Vec<f64> = match self.order {
            NormOrder::ActivationThenNorm => x.iter().map(|&x| self.activation.value(x)).collect(),
            NormOrder::NormThenActivation => x.to_vec(),
        };
        let n = u.len() as f64;
        let mean = match self.norm {
            Norm::LayerNorm => pairwise_sum(&u, |&u| u) / n,
            Norm::RmsNorm => 0.0,
        };
        let variance = pairwise_sum(&u, |&u| (u - mean).powi(2)) / n;
        let rstd = 1.0 / (variance + self.epsilon).sqrt();
        Row { normal: u.iter().map(|&u| (u - mean) * rstd).collect(), mean, rstd }
    }
}

/// γ and β in f64, 1 and 0 where there are none.
pub(super) struct Affine {
    gamma: Option<Vec<f64>>,
    beta: Option<Vec<f64>>,
}

impl Affine {
    pub(super) fn new<W: Real>(gamma: Option<&[W]>, beta: Option<&[W]>) -> Self {
        let wide = |values: &[W]| values.iter().map(|value| value.as_f64()).collect();
        Self { gamma: gamma.map(wide), beta: beta.map(wide) }
    }

    pub(super) fn gamma(&self, column: usize) -> f64 {
        self.gamma.as_ref().map_or(1.0, |gamma| gamma[column])
    }

    /// û·γ + β.
    pub(super) fn apply(&self, column: usize, normal: f64) -> f64 {
        normal * self.gamma(column) + self.beta.as_ref().map_or(0.0, |beta| beta[column])
    }
}

/// The rows in f64.
pub(super) fn rows_of<T: Real>(x: &ArrayView2<'_, T>) -> Vec<Vec<f64>> {
    x.rows().into_iter().map(|row| row.iter().map(|x| x.as_f64()).collect()).collect()
}
