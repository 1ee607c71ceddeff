//! The same on the CPU: the reference's mathematics, in f64.

use kasmina_reference::kasmina::{DenseSeed, dense_blend, dense_blend_backward};
use ndarray::{Array2, ArrayView2};

use super::DenseStore;
use super::pass::Holder;
use crate::buffer::Buffer;
use crate::error::Error;
use crate::kasmina::blend_forward::LayerElement;
use crate::kasmina::{GradientBuffers, LayerState, NumericalMode};
use crate::normalization::reference_activation;

const HOST: &str = "the CPU's buffers are in the host's memory";
const CHECKED: &str = "lengths and state were checked";

/// Runs the passes of seeds for so many rows.
pub(super) struct CpuSeeds {
    pub(super) batch: usize,
}

/// A seed's blueprint in f64.
struct Parameters {
    weights: Array2<f64>,
    bias: Vec<f64>,
    alpha: f64,
}

impl Parameters {
    fn of<T: LayerElement>(
        state: &LayerState,
        store: &DenseStore<T>,
        holder: &Holder,
    ) -> Result<Self, Error> {
        let chunk = state.chunk_size();
        let weights = store.read(holder.place.slot)?.into_iter().map(wide).collect();
        let bias = state.weights.range_to_vec(holder.offset, chunk)?;
        Ok(Self {
            weights: Array2::from_shape_vec((chunk, chunk), weights).expect(CHECKED),
            bias: bias.into_iter().map(f64::from).collect(),
            alpha: state.alpha.range_to_vec(holder.seed, 1)?[0].into(),
        })
    }

    fn seed(&self, holder: &Holder) -> DenseSeed<'_> {
        DenseSeed {
            number: holder.seed,
            lifecycle: holder.lifecycle as u8,
            alpha: self.alpha,
            weights: self.weights.view(),
            bias: &self.bias,
            activation: reference_activation(holder.place.activation),
        }
    }
}

impl CpuSeeds {
    pub(super) fn forward<T: LayerElement>(
        &self,
        state: &LayerState,
        store: &DenseStore<T>,
        holders: &[Holder],
        (mode, flags): (NumericalMode, &Buffer<u8>),
        input: &Buffer<T>,
        output: &mut Buffer<T>,
    ) -> Result<(), Error> {
        let flags = flags.to_vec()?;
        for holder in holders.iter().filter(|holder| holder.lifecycle.is_active()) {
            let parameters = Parameters::of(state, store, holder)?;
            let x = self.chunk(state, holder, input);
            let mode = mode.of_reference(&flags);
            let y = dense_blend(x.view(), &parameters.seed(holder), mode).expect(CHECKED);
            self.put(state, holder, y.view(), output);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of a pass and what it is of")]
    pub(super) fn backward<T: LayerElement>(
        &self,
        state: &LayerState,
        store: &mut DenseStore<T>,
        holders: &[Holder],
        mode: NumericalMode,
        (input, grad_output): (&Buffer<T>, &Buffer<T>),
        grad_input: &mut Buffer<T>,
        gradients: &mut GradientBuffers,
    ) -> Result<(), Error> {
        let (flags, chunk) = (state.unstable.to_vec()?, state.chunk_size());
        let offsets = state.blueprint_offset.to_vec()?;
        let loaded: Vec<_> = store.loaded().collect();
        for (id, place) in loaded {
            let mut grad_weights = Array2::<f64>::zeros((chunk, chunk));
            let mut grad_bias = vec![0.0; chunk];
            for holder in holders.iter().filter(|holder| holder.blueprint == id) {
                let parameters = Parameters::of(state, store, holder)?;
                let (x, g) =
                    (self.chunk(state, holder, input), self.chunk(state, holder, grad_output));
                let seed = parameters.seed(holder);
                let mode = mode.of_reference(&flags);
                let found = dense_blend_backward(x.view(), g.view(), &seed, mode).expect(CHECKED);
                if holder.lifecycle.is_active() {
                    self.put(state, holder, found.grad_input.view(), grad_input);
                }
                if !holder.lifecycle.trains() {
                    continue;
                }
                grad_weights += &found.grad_weights;
                grad_bias.iter_mut().zip(&found.grad_bias).for_each(|(sum, b)| *sum += b);
                for (buffer, value) in [
                    (&mut gradients.grad_alpha, found.grad_alpha),
                    (&mut gradients.gradient_norm, found.gradient_norm),
                    (&mut gradients.gradient_variance, found.gradient_variance),
                    (&mut gradients.gradient_max, found.gradient_max),
                ] {
                    buffer.copy_range_from_slice(holder.seed, &[value as f32])?;
                }
            }
            let grad_store = store.gradients.as_mut().expect("the layer has prepared for training");
            let narrow = |values: &mut dyn Iterator<Item = &f64>| -> Vec<f32> {
                values.map(|&value| value as f32).collect()
            };
            let grad_weights = narrow(&mut grad_weights.iter());
            grad_store.copy_range_from_slice(place.slot * chunk * chunk, &grad_weights)?;
            let (at, row) = (usize::from(id), narrow(&mut grad_bias.iter()));
            gradients.grad_weights.copy_range_from_slice(offsets[at] as usize, &row)?;
            gradients.grad_scales.copy_range_from_slice(at, &[0.0])?;
        }
        Ok(())
    }

    /// A seed's columns in f64.
    fn chunk<T: LayerElement>(
        &self,
        state: &LayerState,
        holder: &Holder,
        values: &Buffer<T>,
    ) -> Array2<f64> {
        let (chunk, hidden) = (state.chunk_size(), state.hidden());
        let values = values.as_host_slice().expect(HOST);
        Array2::from_shape_fn((self.batch, chunk), |(row, column)| {
            wide(values[row * hidden + holder.seed * chunk + column])
        })
    }

    /// The other way.
    fn put<T: LayerElement>(
        &self,
        state: &LayerState,
        holder: &Holder,
        values: ArrayView2<'_, f64>,
        to: &mut Buffer<T>,
    ) {
        let (chunk, hidden) = (state.chunk_size(), state.hidden());
        let to = to.as_host_slice_mut().expect(HOST);
        for ((row, column), &value) in values.indexed_iter() {
            to[row * hidden + holder.seed * chunk + column] = LayerElement::from_f32(value as f32);
        }
    }
}

fn wide<T: LayerElement>(value: T) -> f64 {
    LayerElement::to_f32(value).into()
}
