//! `blend_backward` as a case, and a layer's step: forward pass and backward pass in one call.

use half::{bf16, f16};
use kasmina_reference::kasmina::{self as reference, BlendGradients, NumericalMode, RowStrategy};
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::DType;
use ndarray::Array2;
use rayon::prelude::*;

use super::data::{self, Draw};
use super::layer::{CHECKED_ROWS, CHECKED_VALUES, Checked, State};
use super::{BenchError, Prepared, kasmina_layer, spread, timer, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    BlendBackward, BlendForward, BlendOptions, GradientBuffers, GradientValues, LayerElement,
    LayerState, SeedStates, TelemetryBuffers, Variant,
};

/// Where what a halo costs is looked at, by each variant of the backward pass.
pub(super) const CONVOLUTIONS: [[usize; 3]; 2] = [[256, 1000, 64], [4096, 1000, 64]];

/// Which passes a call makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passes {
    /// The backward pass.
    Backward,
    /// The backward pass, fetched by the copy engine.
    BackwardTma,
    /// The forward pass with telemetry, then the backward pass.
    Both,
    /// The same by a `KasminaLayer` with its default configuration.
    Layer,
}

impl Passes {
    pub(super) fn kernel(self) -> &'static str {
        match self {
            Self::Backward => "blend_backward",
            Self::BackwardTma => "blend_backward_tma",
            Self::Both => "layer_step",
            Self::Layer => "kasmina_layer",
        }
    }

    /// Arrays `[batch, hidden]` that are read or written.
    pub(super) fn arrays(self) -> usize {
        match self {
            Self::Backward | Self::BackwardTma => 3,
            Self::Both | Self::Layer => 5,
        }
    }

    fn variant(self) -> Variant {
        match self {
            Self::BackwardTma => Variant::Tma,
            Self::Backward => Variant::Plain,
            // What a user gets.
            Self::Both | Self::Layer => Variant::Auto,
        }
    }
}

/// Makes the buffers of `[batch, seeds, chunk]` and checks one result.
pub(super) fn prepare(
    device: &Device,
    dtype: DType,
    shape: [usize; 3],
    state: State,
    passes: Passes,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    match dtype {
        DType::F32 => of::<f32>(device, Dtype::F32, shape, state, passes, bytes),
        DType::F16 => of::<f16>(device, Dtype::F16, shape, state, passes, bytes),
        DType::Bf16 => of::<bf16>(device, Dtype::Bf16, shape, state, passes, bytes),
        DType::F64 | DType::I32 | DType::E4m3 => {
            unreachable!("the cases of the layer have its element types")
        }
    }
}

/// What one call reads and writes of `[batch, hidden]`.
struct Set<T: LayerElement> {
    input: Buffer<T>,
    output: Option<Buffer<T>>,
    grad_output: Buffer<T>,
    grad_input: Buffer<T>,
}

/// The passes with their state and what they write of the parameters.
struct Layer<T: LayerElement> {
    state: LayerState,
    forward: BlendForward<T>,
    backward: BlendBackward<T>,
    telemetry: TelemetryBuffers,
    gradients: GradientBuffers,
}

impl<T: LayerElement> Layer<T> {
    fn call(&mut self, set: &mut Set<T>) -> Result<(), Error> {
        let Self { state, forward, backward, telemetry, gradients } = self;
        if let Some(output) = &mut set.output {
            forward.run(state, &set.input, output, telemetry)?;
        }
        backward.run(state, &set.input, &set.grad_output, &mut set.grad_input, gradients)
    }
}

fn of<T: LayerElement + Draw>(
    device: &Device,
    dtype: Dtype,
    shape: [usize; 3],
    state: State,
    passes: Passes,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    if passes == Passes::Layer {
        return kasmina_layer::prepare::<T>(device, dtype, shape, state, bytes);
    }
    let [batch, seeds, chunk] = shape;
    let elements = batch * seeds * chunk;
    let states = state.states(seeds, chunk);
    let layer_state = LayerState::new(device, states.clone()).map_err(BenchError::from)?;
    let options = BlendOptions { variant: passes.variant(), ..BlendOptions::default() };
    let mut layer = Layer {
        forward: BlendForward::new(device, batch, seeds, chunk)?,
        backward: BlendBackward::with_options(device, batch, seeds, chunk, options)?,
        telemetry: TelemetryBuffers::new(device, seeds)?,
        gradients: GradientBuffers::new(device, &layer_state)?,
        state: layer_state,
    };
    let sets = timer::buffer_sets(device, bytes);
    let mut buffers = Vec::new();
    for set in 0..sets as u64 {
        buffers.push(Set {
            input: Buffer::from_slice(device, &data::draw::<T>(1 + set, elements))?,
            output: match passes {
                Passes::Backward | Passes::BackwardTma => None,
                Passes::Both | Passes::Layer => Some(Buffer::zeroed(device, elements)?),
            },
            grad_output: Buffer::from_slice(device, &data::draw::<T>(1001 + set, elements))?,
            grad_input: Buffer::zeroed(device, elements)?,
        });
    }

    // Each set once: a variant may have to make something for an input that it sees first.
    for set in &mut buffers {
        layer.call(set)?;
    }
    let first = &mut buffers[0];
    first.grad_input.fill_bytes(0xFF)?;
    layer.gradients.fill_bytes(0xFF)?;
    layer.telemetry.fill_bytes(0xFF)?;
    if let Some(output) = &mut first.output {
        output.fill_bytes(0xFF)?;
    }
    layer.call(first)?;
    let x = first.input.to_vec()?;
    let (g, dx) = (first.grad_output.to_vec()?, first.grad_input.to_vec()?);
    let tolerance = Tolerance::for_dtype(dtype, 1);
    let result = Gradients { shape, x: &x, g: &g, dx: &dx };
    let mut max_rel_error = result.check_input(&states, tolerance)?;
    result.check_parameters(&states, &layer.gradients.read()?)?;
    if let Some(output) = &first.output {
        let forward = Checked { shape, y: output.to_vec()?, x };
        max_rel_error = max_rel_error.max(forward.check_output(&states, tolerance)?);
        forward.check_telemetry(&layer.telemetry.read()?, RowStrategy::Hierarchical)?;
    }

    let call = move |set: usize| layer.call(&mut buffers[set % sets]);
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}

/// One result with its operands, on the host.
pub(super) struct Gradients<'a, T> {
    pub(super) shape: [usize; 3],
    pub(super) x: &'a [T],
    pub(super) g: &'a [T],
    pub(super) dx: &'a [T],
}

impl<T: LayerElement> Gradients<'_, T> {
    /// The largest error of some rows; every element is written, and an identity keeps its bits.
    pub(super) fn check_input(
        &self,
        states: &SeedStates,
        tolerance: Tolerance,
    ) -> Result<f64, BenchError> {
        let [batch, seeds, chunk] = self.shape;
        let hidden = seeds * chunk;
        let wrong = |what| {
            let (error, tolerance) = (f64::INFINITY, 0.0);
            Err(BenchError::WrongResult { what, error, tolerance })
        };
        if !self.dx.par_iter().all(|dx| dx.to_f32().is_finite()) {
            return wrong("the input's gradient (an element is not written, or not a number)");
        }
        let same_bits = |i: usize| {
            reference::is_active(states.lifecycle[i % hidden / chunk])
                || bytemuck::bytes_of(&self.g[i]) == bytemuck::bytes_of(&self.dx[i])
        };
        if !(0..self.g.len()).into_par_iter().all(same_bits) {
            return wrong("the gradient of a seed that is the identity");
        }
        let rows = spread(batch, CHECKED_ROWS);
        let take = |values: &[T]| -> Vec<f64> {
            let row = |&row: &usize| &values[row * hidden..][..hidden];
            rows.iter().flat_map(row).map(|value| f64::from(value.to_f32())).collect()
        };
        let matrix = |values: &[T]| {
            Array2::from_shape_vec((rows.len(), hidden), take(values)).expect("whole rows")
        };
        let expected = gradients(&matrix(self.x), &matrix(self.g), states);
        let (expected, _) = expected.grad_input.into_raw_vec_and_offset();
        within("the input's gradient", &take(self.dx), &expected, tolerance)
    }

    /// What some seeds' parameters receive over all rows, and the gradients of the blueprints that no
    /// other seed trains.
    pub(super) fn check_parameters(
        &self,
        states: &SeedStates,
        got: &GradientValues,
    ) -> Result<(), BenchError> {
        let [batch, seeds, chunk] = self.shape;
        let checked = spread(seeds, (CHECKED_VALUES / (batch * chunk)).max(3));
        let matrix = |values: &[T]| {
            let chunk_of = |row, seed: &usize| (row * seeds + seed) * chunk;
            let values: Vec<f64> = (0..batch)
                .flat_map(|row| checked.iter().map(move |seed| chunk_of(row, seed)))
                .flat_map(|at| &values[at..][..chunk])
                .map(|value| f64::from(value.to_f32()))
                .collect();
            Array2::from_shape_vec((batch, checked.len() * chunk), values)
                .expect("a chunk of each row and seed")
        };
        let some = SeedStates {
            lifecycle: checked.iter().map(|&seed| states.lifecycle[seed]).collect(),
            blueprint_id: checked.iter().map(|&seed| states.blueprint_id[seed]).collect(),
            alpha: checked.iter().map(|&seed| states.alpha[seed]).collect(),
            ..states.clone()
        };
        let expected = gradients(&matrix(self.x), &matrix(self.g), &some);
        let summed = Tolerance::for_dtype(Dtype::F32, batch * chunk);
        let of_seeds = |values: &[f32]| -> Vec<f64> {
            checked.iter().map(|&seed| f64::from(values[seed])).collect()
        };
        for (what, got, expected) in [
            ("grad_alpha", &got.grad_alpha, &expected.grad_alpha),
            ("gradient_norm", &got.gradient_norm, &expected.gradient_norm),
            ("gradient_variance", &got.gradient_variance, &expected.gradient_variance),
            ("gradient_max", &got.gradient_max, &expected.gradient_max),
        ] {
            within(what, &of_seeds(got), expected, summed)?;
        }
        for id in 0..states.num_blueprints() {
            let trains = |&seed: &usize| {
                usize::from(states.blueprint_id[seed]) == id
                    && reference::trains_blueprint(states.lifecycle[seed])
            };
            if !(0..seeds).filter(trains).all(|seed| checked.binary_search(&seed).is_ok()) {
                continue;
            }
            let weights = &got.grad_weights[id * chunk..][..chunk];
            let weights: Vec<f64> = weights.iter().map(|&w| w.into()).collect();
            within("grad_weights", &weights, &expected.grad_weights.row(id).to_vec(), summed)?;
            let scale = [f64::from(got.grad_scales[id])];
            within("grad_scales", &scale, &[expected.grad_scales[id]], summed)?;
        }
        Ok(())
    }
}

fn gradients(x: &Array2<f64>, g: &Array2<f64>, states: &SeedStates) -> BlendGradients<f64> {
    reference::blend_backward(x.view(), g.view(), &states.of_reference(), NumericalMode::Fast)
        .expect("the state was checked")
}
