//! The forward pass: each active seed blends its chunk with a transformation of it.
//!
//! `y = (1−a)·x + a·T(x)` with a = clip(α, 0, 1), evaluated as written, element by element, in the type of
//! the input. A seed that is not active, or has no blueprint, copies its chunk bit for bit.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{BlueprintType, LayerError, LayerState, NumericalMode, is_active};
use crate::{Real, summation::pairwise_sum};

/// Output `[batch, S·C]` of the layer for the input `x` of that shape.
///
/// # Errors
/// A state array of the wrong length, a code or blueprint id out of range, an α that is NaN, an input whose
/// width is not S·C.
pub fn blend_forward<T: Real, W: Real>(
    x: ArrayView2<'_, T>,
    state: &LayerState<'_, W>,
) -> Result<Array2<T>, LayerError> {
    blend_forward_in_mode(x, state, NumericalMode::Fast)
}

/// As [`blend_forward`], in a numerical mode.
///
/// # Errors
/// As [`blend_forward`]; flags that are not one for each seed.
pub fn blend_forward_in_mode<T: Real, W: Real>(
    x: ArrayView2<'_, T>,
    state: &LayerState<'_, W>,
    mode: NumericalMode<'_>,
) -> Result<Array2<T>, LayerError> {
    state.validate()?;
    state.validate_mode(mode)?;
    let (seeds, chunk) = (state.num_seeds(), state.chunk_size());
    if x.ncols() != seeds * chunk {
        return Err(LayerError::InputWidth { seeds, expected: seeds * chunk, got: x.ncols() });
    }

    let blueprints = prepare_blueprints::<T, W>(state, is_active);
    // Row-major, so that the chunks follow each other: row 0 seed 0, row 0 seed 1, …
    let mut y: Vec<T> = x.iter().copied().collect();
    y.par_chunks_exact_mut(chunk).enumerate().for_each_init(
        || Vec::with_capacity(chunk),
        |input, (index, output)| {
            let seed = index % seeds;
            let blueprint = &blueprints[usize::from(state.blueprint_id[seed])];
            if let (true, Some(blueprint)) = (is_active(state.lifecycle[seed]), blueprint) {
                input.clear();
                input.extend_from_slice(output);
                let alpha = T::from_f64(state.alpha[seed].as_f64().clamp(0.0, 1.0));
                for (i, out) in output.iter_mut().enumerate() {
                    let y = (T::one() - alpha) * input[i] + alpha * blueprint.transform(input, i);
                    *out = mode.apply(seed, y);
                }
            }
        },
    );
    Ok(Array2::from_shape_vec(x.dim(), y).expect("as many elements as the input has"))
}

/// A blueprint in the type of the input; for ATTENTION_HEAD the weights are already softmax(w).
pub(super) struct Blueprint<T> {
    pub(super) kind: BlueprintType,
    pub(super) weights: Vec<T>,
    pub(super) scale: T,
}

impl<T: Real> Blueprint<T> {
    /// T(x) at element `i` of the chunk `x`.
    pub(super) fn transform(&self, x: &[T], i: usize) -> T {
        let (w, s) = (&self.weights, self.scale);
        match self.kind {
            BlueprintType::ResidualBlock => x[i] + s * w[i],
            BlueprintType::AttentionHead => x[i] * w[i],
            BlueprintType::MlpExpansion => {
                let product = x[i] * w[i];
                // Not `max`: the derivative's mask is [x·w > 0], and a NaN is not greater than 0.
                if product > T::zero() { s * product } else { T::zero() }
            }
            BlueprintType::ConvFilter => {
                // x is 0 outside its chunk: the first two elements have fewer taps.
                let taps = i.min(2);
                s * (1..=taps).fold(w[0] * x[i], |sum, tap| sum + w[tap] * x[i - tap])
            }
            BlueprintType::Scale => s * x[i] * w[i],
        }
    }
}

/// One entry for each id, filled for the blueprints of seeds whose state `uses` one; entry 0, 'none', stays
/// empty.
pub(super) fn prepare_blueprints<T: Real, W: Real>(
    state: &LayerState<'_, W>,
    uses: impl Fn(u8) -> bool,
) -> Vec<Option<Blueprint<T>>> {
    let mut blueprints = Vec::new();
    blueprints.resize_with(state.blueprint_weights.nrows().max(1), || None);
    for (&lifecycle, &id) in state.lifecycle.iter().zip(state.blueprint_id) {
        let id = usize::from(id);
        if !uses(lifecycle) || id == 0 || blueprints[id].is_some() {
            continue;
        }
        let kind = BlueprintType::from_code(state.blueprint_type[id])
            .expect("`validate` accepted the type");
        let weights: Vec<f64> =
            state.blueprint_weights.row(id).iter().map(|w| w.as_f64()).collect();
        let weights =
            if kind == BlueprintType::AttentionHead { softmax(&weights) } else { weights };
        blueprints[id] = Some(Blueprint {
            kind,
            weights: weights.into_iter().map(T::from_f64).collect(),
            scale: T::from_f64(state.blueprint_scales[id].as_f64()),
        });
    }
    blueprints
}

/// exp(w) / Σ exp(w), shifted by the largest weight so that nothing overflows.
fn softmax(weights: &[f64]) -> Vec<f64> {
    let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = weights.iter().map(|w| (w - largest).exp()).collect();
    let sum = pairwise_sum(&exponentials, |&e| e);
    exponentials.into_iter().map(|e| e / sum).collect()
}
