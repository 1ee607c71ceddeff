//! `blend_forward` as a case.

use half::{bf16, f16};
use kasmina_reference::kasmina::{self as reference, RowStrategy};
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::{BlueprintType, DType, SeedLifecycle};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::data::{self, Draw};
use super::{BenchError, Prepared, spread, timer, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    BlendForward, BlendOptions, LayerElement, LayerState, SeedStates, TelemetryBuffers,
    TelemetryValues, Variant,
};

/// What the seeds do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A third of the seeds grafting, with the three strategies of the layer's first version in turn:
    /// SCALE with α = 0.5, SCALE with α = 1, RESIDUAL_BLOCK with α = 1. The others are the identity.
    V1,
    /// Every seed active, all five blueprint types in turn, random α.
    Mixed,
    /// A third of the seeds grafting, RESIDUAL_BLOCK, ATTENTION_HEAD and MLP_EXPANSION in turn, three
    /// blueprints of each, random α, as the peers that differentiate. The others are the identity.
    Third,
    /// Every seed active with a CONV_FILTER, five blueprints, random α: every column needs its neighbours.
    Conv,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Mixed => "mixed",
            Self::Third => "third",
            Self::Conv => "conv",
        }
    }

    pub(super) fn states(self, seeds: usize, chunk_size: usize) -> SeedStates {
        use BlueprintType::{AttentionHead, ConvFilter, MlpExpansion, ResidualBlock, Scale};
        // Blueprint 0 is none; its type is not read.
        let types: Vec<BlueprintType> = match self {
            Self::V1 => [&[Scale; 5][..], &[ResidualBlock; 3]].concat(),
            Self::Mixed => [&[Scale][..], &BlueprintType::ALL].concat(),
            Self::Conv => [&[Scale][..], &[ConvFilter; 5]].concat(),
            Self::Third => {
                let types = [ResidualBlock, AttentionHead, MlpExpansion];
                [&[Scale][..], &types.repeat(3)].concat()
            }
        };
        let random_alpha =
            |seed: usize| (data::bits(1, seed as u64) >> 40) as f32 / (1 << 24) as f32;
        let seed = |seed: usize| match self {
            Self::V1 => {
                let turn = seed / 3;
                let (id, alpha) = match turn % 3 {
                    0 => (1 + turn % 4, 0.5),
                    1 => (1 + turn % 4, 1.0),
                    _ => (5 + turn / 3 % 3, 1.0),
                };
                let grafts = seed.is_multiple_of(3);
                let lifecycle =
                    if grafts { SeedLifecycle::Grafting } else { SeedLifecycle::Dormant };
                (lifecycle as u8, id as u16, alpha)
            }
            Self::Mixed | Self::Conv => {
                (SeedLifecycle::FineTuning as u8, 1 + (seed % 5) as u16, random_alpha(seed))
            }
            Self::Third => {
                let grafts = seed.is_multiple_of(3);
                let lifecycle =
                    if grafts { SeedLifecycle::Grafting } else { SeedLifecycle::Dormant };
                (lifecycle as u8, 1 + (seed / 3 % 9) as u16, random_alpha(seed))
            }
        };
        SeedStates {
            lifecycle: (0..seeds).map(|s| seed(s).0).collect(),
            blueprint_id: (0..seeds).map(|s| seed(s).1).collect(),
            alpha: (0..seeds).map(|s| seed(s).2).collect(),
            blueprint_type: types.iter().map(|&kind| kind as u8).collect(),
            blueprint_weights: data::draw(0, types.len() * chunk_size),
            blueprint_scales: vec![1.0; types.len()],
            chunk_size,
        }
    }
}

/// Makes the buffers of `[batch, seeds, chunk]` and checks one result.
pub(super) fn prepare(
    device: &Device,
    dtype: DType,
    shape: [usize; 3],
    state: State,
    variant: Variant,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    match dtype {
        DType::F32 => of::<f32>(device, Dtype::F32, shape, state, variant, bytes),
        DType::F16 => of::<f16>(device, Dtype::F16, shape, state, variant, bytes),
        DType::Bf16 => of::<bf16>(device, Dtype::Bf16, shape, state, variant, bytes),
        DType::F64 | DType::I32 | DType::E4m3 => {
            unreachable!("the cases of the layer have its element types")
        }
    }
}

fn of<T: LayerElement + Draw>(
    device: &Device,
    dtype: Dtype,
    shape: [usize; 3],
    state: State,
    variant: Variant,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    let [batch, seeds, chunk] = shape;
    let elements = batch * seeds * chunk;
    let states = state.states(seeds, chunk);
    let mut layer_state = LayerState::new(device, states.clone()).map_err(BenchError::from)?;
    let options = BlendOptions { variant, ..BlendOptions::default() };
    let mut forward = BlendForward::<T>::with_options(device, batch, seeds, chunk, options)?;
    let mut telemetry = TelemetryBuffers::new(device, seeds)?;
    let sets = timer::buffer_sets(device, bytes);
    let mut buffers = Vec::new();
    for set in 0..sets as u64 {
        let input = Buffer::from_slice(device, &data::draw::<T>(1 + set, elements))?;
        buffers.push((input, Buffer::<T>::zeroed(device, elements)?));
    }

    // Each set once: a variant may have to make something for an input that it sees first.
    for (input, output) in &mut buffers {
        forward.run(&mut layer_state, input, output, &mut telemetry)?;
    }
    let (input, output) = &mut buffers[0];
    output.fill_bytes(0xFF)?;
    telemetry.fill_bytes(0xFF)?;
    forward.run(&mut layer_state, input, output, &mut telemetry)?;
    let result = Checked { shape, x: input.to_vec()?, y: output.to_vec()? };
    let tolerance = Tolerance::for_dtype(dtype, 1);
    let max_rel_error = result.check_output(&states, tolerance)?;
    result.check_telemetry(&telemetry.read()?, RowStrategy::Hierarchical)?;

    let call = move |set: usize| -> Result<(), Error> {
        let (input, output) = &mut buffers[set % sets];
        forward.run(&mut layer_state, input, output, &mut telemetry)
    };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}

/// One result with its input, on the host.
pub(super) struct Checked<T> {
    pub(super) shape: [usize; 3],
    pub(super) x: Vec<T>,
    pub(super) y: Vec<T>,
}

/// Rows of which the output is compared.
pub(super) const CHECKED_ROWS: usize = 32;

/// Values that the telemetry of the checked seeds is of, about.
pub(super) const CHECKED_VALUES: usize = 1 << 24;

impl<T: LayerElement> Checked<T> {
    /// The largest error of some rows; every element is written, and an identity keeps its bits.
    pub(super) fn check_output(
        &self,
        states: &SeedStates,
        tolerance: Tolerance,
    ) -> Result<f64, BenchError> {
        let [batch, seeds, chunk] = self.shape;
        let wrong = |what| {
            let (error, tolerance) = (f64::INFINITY, 0.0);
            Err(BenchError::WrongResult { what, error, tolerance })
        };
        if !self.y.par_iter().all(|y| y.to_f32().is_finite()) {
            return wrong("the output (an element is not written, or not a number)");
        }
        let same_bits = |i: usize| {
            let seed = i % (seeds * chunk) / chunk;
            reference::is_active(states.lifecycle[seed])
                || bytemuck::bytes_of(&self.x[i]) == bytemuck::bytes_of(&self.y[i])
        };
        if !(0..self.x.len()).into_par_iter().all(same_bits) {
            return wrong("the output of a seed that is the identity");
        }
        let rows = spread(batch, CHECKED_ROWS);
        let take = |values: &[T]| -> Vec<f64> {
            let row = |&row: &usize| &values[row * seeds * chunk..][..seeds * chunk];
            rows.iter().flat_map(row).map(|value| f64::from(value.to_f32())).collect()
        };
        let x =
            Array2::from_shape_vec((rows.len(), seeds * chunk), take(&self.x)).expect("whole rows");
        let weights = (states.num_blueprints(), chunk);
        let layer = reference::LayerState {
            lifecycle: &states.lifecycle,
            blueprint_id: &states.blueprint_id,
            alpha: &states.alpha,
            blueprint_type: &states.blueprint_type,
            blueprint_weights: ArrayView2::from_shape(weights, &states.blueprint_weights)
                .expect("the state was checked"),
            blueprint_scales: &states.blueprint_scales,
        };
        let expected = reference::blend_forward(x.view(), &layer).expect("the state was checked");
        within("the output", &take(&self.y), &expected.into_raw_vec_and_offset().0, tolerance)
    }

    /// The telemetry of some seeds, over all rows: the largest error of a sum, and what it may be.
    pub(super) fn check_telemetry(
        &self,
        got: &TelemetryValues,
        strategy: RowStrategy,
    ) -> Result<(f64, Tolerance), BenchError> {
        let [batch, seeds, chunk] = self.shape;
        let checked = spread(seeds, (CHECKED_VALUES / (batch * chunk)).clamp(3, 12));
        let chunk_of = |row: usize, seed: usize| &self.x[(row * seeds + seed) * chunk..][..chunk];
        let values: Vec<f32> = (0..batch)
            .flat_map(|row| checked.iter().flat_map(move |&seed| chunk_of(row, seed)))
            .map(|x| x.to_f32())
            .collect();
        let x = ArrayView2::from_shape((batch, checked.len() * chunk), &values)
            .expect("a chunk of each row and seed");
        let expected = reference::telemetry_by(x, checked.len(), strategy).expect("whole chunks");
        let exact = Tolerance::for_dtype(Dtype::I32, 1);
        let summed = Tolerance::for_dtype(Dtype::F32, batch * chunk);
        let floats = |values: &[f32]| -> Vec<f64> {
            checked.iter().map(|&seed| f64::from(values[seed])).collect()
        };
        let counts = |values: &[u32]| -> Vec<f64> {
            checked.iter().map(|&seed| f64::from(values[seed])).collect()
        };
        let wide = |values: &[u64]| -> Vec<f64> { values.iter().map(|&n| n as f64).collect() };
        within("count", &counts(&got.count), &wide(&expected.count), exact)?;
        within("nonfinite", &counts(&got.nonfinite), &wide(&expected.nonfinite), exact)?;
        // A mean of extremes is a sum too.
        let extreme = if strategy == RowStrategy::Mean { summed } else { exact };
        within("min", &floats(&got.min), &expected.min, extreme)?;
        within("max", &floats(&got.max), &expected.max, extreme)?;
        let mut error: f64 = 0.0;
        for (what, got, expected) in [
            ("mean", &got.mean, &expected.mean),
            ("variance", &got.variance, &expected.variance),
            ("dead_ratio", &got.dead_ratio, &expected.dead_ratio),
            ("snr", &got.snr, &expected.snr),
        ] {
            error = error.max(within(what, &floats(got), expected, summed)?);
        }
        Ok((error, summed))
    }
}
