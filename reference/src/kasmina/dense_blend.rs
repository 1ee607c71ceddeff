//! The forward pass of a seed that grows a dense block: `y = (1−a)·x + a·T(x)`, `T(x) = act(W·x + b)`.
//!
//! With a = clip(α, 0, 1), for a seed that is active; every other is the identity, bit for bit. In f64.

use ndarray::{Array2, ArrayView2};

use super::state::{length, non_zero};
use super::{LayerError, NumericalMode, is_active};
use crate::linear::{Linear, linear};
use crate::normalization::Activation;

/// A seed whose blueprint is LINEAR, and the blueprint.
#[derive(Debug, Clone, Copy)]
pub struct DenseSeed<'a> {
    /// Its number, for the flags of an adaptive mode.
    pub number: usize,
    /// Lifecycle code.
    pub lifecycle: u8,
    /// Blend factor, clipped to 0…1 where it is used.
    pub alpha: f64,
    /// W, `[C, C]`, outputs × inputs.
    pub weights: ArrayView2<'a, f64>,
    /// b, `[C]`.
    pub bias: &'a [f64],
    /// What is applied to W·x + b.
    pub activation: Activation,
}

impl DenseSeed<'_> {
    /// a.
    pub(super) fn blend(&self) -> f64 {
        self.alpha.clamp(0.0, 1.0)
    }

    /// W·x + b of each row of `x`, `[batch, C]`.
    pub(super) fn before_activation(&self, x: ArrayView2<'_, f64>) -> Array2<f64> {
        let mut product = Linear::new(x, self.weights.reversed_axes());
        product.bias = Some(self.bias);
        linear(&product).expect("the shapes were checked")
    }

    /// Checks shapes, code and α.
    pub(super) fn validate(&self, x: ArrayView2<'_, f64>) -> Result<(), LayerError> {
        let (seed, chunk) = (self.number, self.weights.nrows());
        non_zero("chunk_size", chunk)?;
        length("blueprint_weights", "column of the chunk", chunk, self.weights.ncols())?;
        length("bias", "column of the chunk", chunk, self.bias.len())?;
        if x.ncols() != chunk {
            return Err(LayerError::InputWidth { seeds: 1, expected: chunk, got: x.ncols() });
        }
        if self.lifecycle > 10 {
            return Err(LayerError::Lifecycle { seed, got: self.lifecycle });
        }
        if self.alpha.is_nan() { Err(LayerError::Alpha { seed }) } else { Ok(()) }
    }
}

/// The seed's output `[batch, C]` for its chunk `x` of that shape.
///
/// # Errors
/// Shapes that do not fit together, a code out of range, an α that is NaN, or no flag for the seed.
pub fn dense_blend(
    x: ArrayView2<'_, f64>,
    seed: &DenseSeed<'_>,
    mode: NumericalMode<'_>,
) -> Result<Array2<f64>, LayerError> {
    seed.validate(x)?;
    mode.validate(seed.number)?;
    if !is_active(seed.lifecycle) {
        return Ok(x.to_owned());
    }
    let a = seed.blend();
    let mut y = seed.before_activation(x);
    y.zip_mut_with(&x, |z, &x| {
        *z = mode.apply(seed.number, (1.0 - a) * x + a * seed.activation.value(*z));
    });
    Ok(y)
}
