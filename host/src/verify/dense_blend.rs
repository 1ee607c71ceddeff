//! `dense_blend` and `dense_blend_backward`: both passes of a layer whose seeds grow a dense block, with their products.
//!
//! Results are judged as those of `linear`: by the norm of the error, relative to that of the reference, or of the terms
//! where they cancel.

use half::{bf16, f16};
use kasmina_reference::kasmina::{self as reference, DenseSeed, NumericalMode};
use ndarray::{Array2, ArrayView2, s};

use super::linear::judge;
use super::tally::{Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Scale, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{KasminaLayer, LayerElement, LinearBlueprint, StabilityMode};
use crate::linear::{Activation, Precision};
use crate::normalization::reference_activation;

/// Advances of each seed: to TRAINING, GRAFTING, EVALUATING and FINE_TUNING. The first two share a blueprint, and so do
/// the last two.
const STEPS: [usize; 4] = [2, 3, 5, 6];
const ALPHA: f32 = 0.375;
/// The rows of the case that is timed in the main job.
const TIMED_ROWS: usize = 150;

pub(super) fn checks() -> Vec<Check> {
    vec![check::<f32>(Precision::F32), check::<f16>(Precision::F16), check::<bf16>(Precision::Bf16)]
}

fn check<T: LayerElement>(precision: Precision) -> Check {
    Check::new("dense_blend", T::DTYPE, move |device, source, tally| {
        let mut units = Units::of(source);
        // Columns, rows and cases at most: each case is sixteen launches.
        let (columns, rows, cases) = match source.scale(device) {
            Scale::Small => (24, 40, 4),
            Scale::Medium => (100, usize::MAX, usize::MAX),
            Scale::Large => (512, usize::MAX, usize::MAX),
        };
        for size in units::sizes(device, source, [1, 64, 131, TIMED_ROWS]).into_iter().take(cases) {
            let batch = size.min(rows);
            let case = Case::<T>::new(batch, 1 + units.below(columns), &mut units);
            tally.case();
            // Values, ∂z and results are each rounded.
            case.compare(device, 3.0 * precision.error_bound(), tally)
                .map_err(|source| Mismatch::Run { case: case.name.clone(), source })?;
            if matches!(source.inputs, Inputs::Digits(_)) && size == TIMED_ROWS {
                case.timed(device, tally)
                    .map_err(|source| Mismatch::Run { case: case.name.clone(), source })?;
            }
        }
        Ok(())
    })
}

struct Case<T> {
    name: String,
    batch: usize,
    chunk: usize,
    blocks: [LinearBlueprint; 2],
    x: Vec<T>,
    g: Vec<T>,
}

/// What both passes give: y, ∂x, and of each blueprint ∂W and ∂b.
struct Results<T> {
    y: Vec<T>,
    grad_input: Vec<T>,
    weights: [Vec<f32>; 2],
    bias: [Vec<f32>; 2],
    alpha: Vec<f32>,
}

impl<T: LayerElement> Case<T> {
    fn new(batch: usize, chunk: usize, units: &mut Units) -> Self {
        let mut value = || units.unit() - 0.25;
        let size = 1.0 / (chunk as f32).sqrt();
        let mut of_type =
            |len: usize| -> Vec<T> { (0..len).map(|_| T::nearest(value().into())).collect() };
        let elements = batch * STEPS.len() * chunk;
        let (x, g) = (of_type(elements), of_type(elements));
        let mut block = |activation| LinearBlueprint {
            // As the layer has them.
            weights: of_type(chunk * chunk)
                .into_iter()
                .map(|w| T::nearest(w.to_f64() * f64::from(size)).to_f64() as f32)
                .collect(),
            bias: of_type(chunk).into_iter().map(|b| b.to_f64() as f32).collect(),
            activation,
        };
        let blocks = [block(Activation::GeluTanh), block(Activation::Silu)];
        let name = format!("{batch} rows of {} seeds of {chunk}", STEPS.len());
        Self { name, batch, chunk, blocks, x, g }
    }

    fn layer(&self, device: &Device) -> Result<(KasminaLayer<T>, [u16; 2]), Error> {
        let (seeds, chunk) = (STEPS.len(), self.chunk);
        let mut layer = KasminaLayer::<T>::builder(seeds, seeds * chunk)
            .max_blueprints(3)
            .linear_budget_bytes(2 * chunk * chunk * size_of::<T>())
            .numerical_stability_mode(StabilityMode::Fast)
            .build(device)?;
        let mut ids = [0; 2];
        for (id, block) in ids.iter_mut().zip(&self.blocks) {
            *id = layer.load_linear_blueprint(block)?.id;
        }
        for (seed, steps) in STEPS.into_iter().enumerate() {
            layer.germinate(seed, ids[seed / 2])?;
            for _ in 1..steps {
                layer.advance(seed)?;
            }
            layer.set_alpha(seed, ALPHA)?;
        }
        Ok((layer, ids))
    }

    fn run(&self, device: &Device) -> Result<Results<T>, Error> {
        let (mut layer, ids) = self.layer(device)?;
        let chunk = self.chunk;
        let x = Buffer::from_slice(device, &self.x)?;
        let g = Buffer::from_slice(device, &self.g)?;
        let y = layer.forward(&x)?.to_vec()?;
        let grad_input = layer.backward(&x, &g)?.to_vec()?;
        let weights = [layer.linear_gradient(ids[0])?, layer.linear_gradient(ids[1])?];
        let gradients = layer.gradients().expect("a backward pass was made").read()?;
        let row = |id: u16| gradients.grad_weights[usize::from(id) * chunk..][..chunk].to_vec();
        let bias = ids.map(row);
        Ok(Results { y, grad_input, weights, bias, alpha: gradients.grad_alpha })
    }

    /// Both passes.
    fn timed(&self, device: &Device, tally: &mut Tally) -> Result<(), Error> {
        let (mut layer, _) = self.layer(device)?;
        let x = Buffer::from_slice(device, &self.x)?;
        let g = Buffer::from_slice(device, &self.g)?;
        let seconds = time::median_seconds(device, || {
            layer.forward(&x)?;
            layer.backward(&x, &g).map(drop)
        })?;
        // x read twice, ∂y read, y and ∂x written; of each blueprint W read twice and ∂W written.
        let weights = self.blocks.len() * self.chunk * self.chunk;
        let bytes = (5 * self.x.len() + 2 * weights) * size_of::<T>() + weights * size_of::<f32>();
        tally.timing(Timing { seconds, bytes: bytes as u64 });
        Ok(())
    }

    fn compare(&self, device: &Device, tolerance: f64, tally: &mut Tally) -> Result<(), Error> {
        let (first, second) = (self.run(device)?, self.run(&reordered(device))?);
        let expected = self.expected();
        let (name, root) = (&self.name, (self.x.len() as f64).sqrt());
        let mut of_input = |what, a: &[T], b: &[T], expected: ArrayView2<'_, f64>| {
            judge(name, what, (a, b), (expected, root), tolerance, tally);
        };
        of_input("y", &first.y, &second.y, expected.y.view());
        of_input("∂x", &first.grad_input, &second.grad_input, expected.grad_input.view());
        // Terms of ∂W, of ∂b and of ∂α, which are about as large as 1.
        let batch = (self.batch as f64).sqrt();
        let (of_weights, of_bias) = (batch * self.chunk as f64, batch * (self.chunk as f64).sqrt());
        let mut of_parameters = |what, a: &[f32], b: &[f32], expected: &Array2<f64>, size| {
            judge(name, what, (a, b), (expected.view(), size), tolerance, tally);
        };
        for i in 0..2 {
            let (a, b) = (&first.weights[i], &second.weights[i]);
            of_parameters("∂W", a, b, &expected.weights[i], of_weights);
            let (a, b) = (&first.bias[i], &second.bias[i]);
            of_parameters("∂b", a, b, &expected.bias[i], of_bias);
        }
        of_parameters("∂α", &first.alpha, &second.alpha, &expected.alpha, of_bias);
        Ok(())
    }

    fn expected(&self) -> Expected {
        let (seeds, chunk) = (STEPS.len(), self.chunk);
        let shape = (self.batch, seeds * chunk);
        let wide = |values: &[T]| {
            let values = values.iter().map(|value| value.to_f64()).collect();
            Array2::from_shape_vec(shape, values).expect("the case's lengths")
        };
        let (x, g) = (wide(&self.x), wide(&self.g));
        let mut expected = Expected {
            y: Array2::zeros(shape),
            grad_input: Array2::zeros(shape),
            weights: [Array2::zeros((chunk, chunk)), Array2::zeros((chunk, chunk))],
            bias: [Array2::zeros((1, chunk)), Array2::zeros((1, chunk))],
            alpha: Array2::zeros((1, seeds)),
        };
        for (seed, steps) in STEPS.into_iter().enumerate() {
            let block = &self.blocks[seed / 2];
            let weights = block.weights.iter().map(|&w| w.into()).collect();
            let weights = Array2::from_shape_vec((chunk, chunk), weights).expect("a matrix");
            let bias: Vec<f64> = block.bias.iter().map(|&b| b.into()).collect();
            let dense = DenseSeed {
                number: seed,
                lifecycle: steps as u8,
                alpha: ALPHA.into(),
                weights: weights.view(),
                bias: &bias,
                activation: reference_activation(block.activation),
            };
            let columns = s![.., seed * chunk..(seed + 1) * chunk];
            let (x, g) = (x.slice(columns), g.slice(columns));
            let (good, fast) = ("a good seed", NumericalMode::Fast);
            let y = reference::dense_blend(x, &dense, fast).expect(good);
            expected.y.slice_mut(columns).assign(&y);
            let found = reference::dense_blend_backward(x, g, &dense, fast).expect(good);
            expected.grad_input.slice_mut(columns).assign(&found.grad_input);
            expected.weights[seed / 2] += &found.grad_weights;
            for (sum, b) in expected.bias[seed / 2].iter_mut().zip(&found.grad_bias) {
                *sum += b;
            }
            expected.alpha[(0, seed)] = found.grad_alpha;
        }
        expected
    }
}

struct Expected {
    y: Array2<f64>,
    grad_input: Array2<f64>,
    weights: [Array2<f64>; 2],
    bias: [Array2<f64>; 2],
    alpha: Array2<f64>,
}
