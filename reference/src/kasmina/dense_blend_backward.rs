//! The backward pass of a seed that grows a dense block, term by term from `y = (1−a)·x + a·act(z)`, `z = W·x + b`.
//!
//! With g = ∂L/∂y: ∂z = a·g·act′(z), ∂x = (1−a)·g + Wᵀ·∂z, ∂W = Σ ∂z·xᵀ and ∂b = Σ ∂z over the batch, and
//! ∂α = Σ g·(act(z) − x) for 0 < α < 1, else 0. A TRAINING seed passes ∂x = g, and its blueprint receives what a = 1
//! gives; a STABILIZATION, EVALUATING or FOSSILIZED one has ∂W, ∂b and ∂α of 0. In f64.

use ndarray::{Array2, ArrayView2};

use super::dense_blend::DenseSeed;
use super::state::TRAINING;
use super::{LayerError, NumericalMode, is_active, trains_blueprint};
use crate::linear::{Linear, linear};
use crate::summation::pairwise_sum;

/// What one seed says of its input, its blueprint and its blend factor.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseGradients {
    /// ∂L/∂x, `[batch, C]`.
    pub grad_input: Array2<f64>,
    /// ∂L/∂W, `[C, C]`.
    pub grad_weights: Array2<f64>,
    /// ∂L/∂b, `[C]`.
    pub grad_bias: Vec<f64>,
    /// ∂L/∂α.
    pub grad_alpha: f64,
    /// The root of the sum of the squares of ∂L/∂α's terms: what its rounding errors may be judged by.
    pub alpha_scale: f64,
    /// Norm of ∂L/∂b.
    pub gradient_norm: f64,
    /// Its population variance.
    pub gradient_variance: f64,
    /// Its largest magnitude.
    pub gradient_max: f64,
}

/// All gradients of one seed for its chunk `x` and the gradient `g` at its output, `[batch, C]` both.
///
/// # Errors
/// As [`super::dense_blend`]; a `g` whose shape is not that of `x`.
pub fn dense_blend_backward(
    x: ArrayView2<'_, f64>,
    g: ArrayView2<'_, f64>,
    seed: &DenseSeed<'_>,
    mode: NumericalMode<'_>,
) -> Result<DenseGradients, LayerError> {
    seed.validate(x)?;
    mode.validate(seed.number)?;
    let (batch, chunk) = x.dim();
    if g.ncols() != chunk {
        return Err(LayerError::InputWidth { seeds: 1, expected: chunk, got: g.ncols() });
    }
    if g.nrows() != batch {
        return Err(LayerError::Rows { expected: batch, got: g.nrows() });
    }
    let (active, trains) = (is_active(seed.lifecycle), trains_blueprint(seed.lifecycle));
    let mut gradients = DenseGradients {
        grad_input: g.to_owned(),
        grad_weights: Array2::zeros((chunk, chunk)),
        grad_bias: vec![0.0; chunk],
        grad_alpha: 0.0,
        alpha_scale: 0.0,
        gradient_norm: 0.0,
        gradient_variance: 0.0,
        gradient_max: 0.0,
    };
    if !active && !trains {
        return Ok(gradients);
    }
    let a = if seed.lifecycle == TRAINING { 1.0 } else { seed.blend() };
    let z = seed.before_activation(x);
    let mut grad_z = z.mapv(|z| seed.activation.derivative(z));
    grad_z.zip_mut_with(&g, |slope, &g| *slope *= a * g);
    let product = |a, b| linear(&Linear::new(a, b)).expect("the shapes were checked");
    if active {
        gradients.grad_input = product(grad_z.view(), seed.weights);
        gradients.grad_input.zip_mut_with(&g, |dx, &g| {
            *dx = mode.apply(seed.number, (1.0 - a) * g + *dx);
        });
    }
    if !trains {
        return Ok(gradients);
    }
    gradients.grad_weights = product(grad_z.t(), x);
    let columns = grad_z.columns();
    gradients.grad_bias = columns.into_iter().map(|c| pairwise_sum(&c.to_vec(), |v| *v)).collect();
    let bias = &gradients.grad_bias;
    let mean = pairwise_sum(bias, |v| *v) / chunk as f64;
    gradients.gradient_norm = pairwise_sum(bias, |v| v * v).sqrt();
    gradients.gradient_variance = pairwise_sum(bias, |v| (v - mean).powi(2)) / chunk as f64;
    gradients.gradient_max = bias.iter().fold(0.0, |largest, v| v.abs().max(largest));
    if active && 0.0 < seed.alpha && seed.alpha < 1.0 {
        let terms: Vec<f64> = (g.iter().zip(&z).zip(x))
            .map(|((g, z), x)| g * (seed.activation.value(*z) - x))
            .collect();
        gradients.grad_alpha = pairwise_sum(&terms, |v| *v);
        gradients.alpha_scale = pairwise_sum(&terms, |v| v * v).sqrt();
    }
    Ok(gradients)
}
