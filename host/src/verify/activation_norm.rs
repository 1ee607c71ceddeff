//! `activation_norm` and `activation_norm_backward`: output, statistics and gradients, for activations,
//! norms and orders in turn.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_reference::normalization as reference;
use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::dtype::DType;
use ndarray::ArrayView2;
use rand::RngExt;
use rand::rngs::StdRng;

use super::random::{self, Limits, Sample};
use super::tally::{Compared, Mismatch, Tally};
use super::{Check, Inputs, Source, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::digits::{Digits, PIXELS};
use crate::error::Error;
use crate::kasmina::LayerElement;
use crate::normalization::{
    Activation, ActivationNorm, ActivationNormOptions, Norm, NormGradients, NormOrder,
    NormStatistics, reference_options,
};

/// Longer rows than a block holds are among them.
const MOST_COLUMNS: usize = 20_000;

pub(super) fn checks() -> Vec<Check> {
    use Pass::{Backward, Forward};
    vec![
        check::<f32>(Forward),
        check::<f16>(Forward),
        check::<bf16>(Forward),
        check::<f32>(Backward),
        check::<f16>(Backward),
        check::<bf16>(Backward),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Forward,
    Backward,
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "activation_norm",
            Self::Backward => "activation_norm_backward",
        }
    }

    /// Tensors of the input's size that are read or written.
    fn tensors(self) -> usize {
        match self {
            Self::Forward => 2,
            Self::Backward => 3,
        }
    }
}

fn check<T: LayerElement + Sample>(pass: Pass) -> Check {
    Check::new(pass.name(), T::DTYPE, move |device, source, tally| {
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for case in cases::<T>(device, source) {
            tally.case();
            let result = Prepared::new(device, &case).and_then(|mut prepared| {
                let first = prepared.run_poisoned()?;
                let second = Prepared::new(&reordered(device), &case)?.run_poisoned()?;
                if timed {
                    let seconds = time::median_seconds(device, || prepared.run(pass))?;
                    let bytes = (pass.tensors() * size_of_val(case.x.as_slice())) as u64;
                    tally.timing(Timing { seconds, bytes });
                }
                Ok((first, second))
            });
            match result {
                Ok((first, second)) => {
                    compare_runs(&case, pass, &first, &second, tally);
                    judge(&case, pass, &first, tally);
                }
                Err(source) => return Err(Mismatch::Run { case: case.name, source }),
            }
        }
        Ok(())
    })
}

struct Case<T> {
    name: String,
    rows: usize,
    cols: usize,
    options: ActivationNormOptions,
    x: Vec<T>,
    grad_output: Vec<T>,
    gamma: Option<Vec<f32>>,
    beta: Option<Vec<f32>>,
}

impl<T> Case<T> {
    /// γ and β are there where `parameters` says so; β for layer norm alone.
    fn new(
        cols: usize,
        options: ActivationNormOptions,
        parameters: bool,
        x: Vec<T>,
        grad_output: Vec<T>,
    ) -> Self {
        let rows = x.len() / cols;
        let ActivationNormOptions { activation, norm, order, .. } = options;
        let parameter = |factor: usize, offset: f32| {
            (0..cols).map(|i| ((i * factor + 11) % 64) as f32 / 40.0 + offset).collect()
        };
        Self {
            name: format!("{rows} × {cols}, {activation}, {norm}, {order}"),
            rows,
            cols,
            options,
            x,
            grad_output,
            gamma: parameters.then(|| parameter(37, 0.2)),
            beta: (parameters && norm == Norm::LayerNorm).then(|| parameter(29, -0.8)),
        }
    }
}

fn cases<T: Sample>(device: &Device, source: &Source) -> Box<dyn Iterator<Item = Case<T>>> {
    match &source.inputs {
        Inputs::Digits(digits) => Box::new(digit_cases(Arc::clone(digits))),
        &Inputs::Random(seed) => {
            let (limits, mut rng) = (Limits::of(source.scale(device)), random::generator(seed));
            Box::new((0..limits.cases).map(move |index| random_case(&mut rng, limits, index)))
        }
    }
}

/// Each image; each half of one; each pixel over the images; each pixel's images in one row with its
/// neighbours'.
fn digit_cases<T: Sample>(digits: Arc<Digits>) -> impl Iterator<Item = Case<T>> {
    let images = digits.labels.len();
    let of =
        |activation, norm, order| ActivationNormOptions { activation, norm, order, epsilon: 1e-5 };
    let (first, last) = (NormOrder::ActivationThenNorm, NormOrder::NormThenActivation);
    [
        (PIXELS, false, of(Activation::GeluErf, Norm::LayerNorm, first)),
        (PIXELS / 2, false, of(Activation::Silu, Norm::RmsNorm, last)),
        (images, true, of(Activation::GeluTanh, Norm::LayerNorm, last)),
        (8 * images, true, of(Activation::Tanh, Norm::LayerNorm, first)),
    ]
    .into_iter()
    .map(move |(cols, by_pixel, options)| {
        let index = |i: usize| if by_pixel { i % images * PIXELS + i / images } else { i };
        let all = images * PIXELS;
        let grey = |i: usize| T::from_grey(digits.pixels[index(i % all)]);
        // The gradient is another image's, so that it has no simple relation to its own.
        let x = (0..all).map(grey).collect();
        Case::new(cols, options, true, x, (0..all).map(|i| grey(i + 7 * PIXELS + 3)).collect())
    })
}

fn random_case<T: Sample>(rng: &mut StdRng, limits: Limits, index: usize) -> Case<T> {
    let most = limits.elements.min(MOST_COLUMNS);
    let cols = if index == 0 { most } else { random::length(rng, most) };
    // Every other one is whole vectors.
    let cols = if index.is_multiple_of(2) { (cols / 8).max(1) * 8 } else { cols };
    let most_rows = (limits.elements / cols).clamp(1, limits.batch);
    let rows = if index == 1 { most_rows } else { random::length(rng, most_rows) };
    let options = ActivationNormOptions {
        activation: Activation::ALL[rng.random_range(0..Activation::ALL.len())],
        norm: Norm::ALL[rng.random_range(0..2)],
        order: NormOrder::ALL[rng.random_range(0..2)],
        epsilon: 1e-5,
    };
    let parameters = rng.random();
    let x = random::values(rng, rows * cols, index % 4 == 3);
    Case::new(cols, options, parameters, x, random::values(rng, rows * cols, false))
}

/// What a case needs on a device.
struct Prepared<T: LayerElement> {
    norm: ActivationNorm<T>,
    x: Buffer<T>,
    grad_output: Buffer<T>,
    gamma: Option<Buffer<f32>>,
    beta: Option<Buffer<f32>>,
    y: Buffer<T>,
    statistics: NormStatistics,
    grad_input: Buffer<T>,
    gradients: NormGradients,
}

/// What a run has written.
struct Results<T> {
    y: Vec<T>,
    mean: Vec<f32>,
    rstd: Vec<f32>,
    grad_input: Vec<T>,
    grad_gamma: Vec<f32>,
    grad_beta: Vec<f32>,
}

impl<T: LayerElement> Prepared<T> {
    fn new(device: &Device, case: &Case<T>) -> Result<Self, Error> {
        let parameter = |values: &Option<Vec<f32>>| {
            values.as_ref().map(|values| Buffer::from_slice(device, values)).transpose()
        };
        let offset = case.options.norm == Norm::LayerNorm;
        Ok(Self {
            norm: ActivationNorm::new(device, case.rows, case.cols, case.options)?,
            x: Buffer::from_slice(device, &case.x)?,
            grad_output: Buffer::from_slice(device, &case.grad_output)?,
            gamma: parameter(&case.gamma)?,
            beta: parameter(&case.beta)?,
            y: Buffer::zeroed(device, case.x.len())?,
            statistics: NormStatistics::new(device, case.rows)?,
            grad_input: Buffer::zeroed(device, case.x.len())?,
            gradients: NormGradients::new(device, case.cols, true, offset)?,
        })
    }

    fn run(&mut self, pass: Pass) -> Result<(), Error> {
        let (gamma, beta) = (self.gamma.as_ref(), self.beta.as_ref());
        match pass {
            Pass::Forward => {
                self.norm.forward(&self.x, gamma, beta, &mut self.y, &mut self.statistics)
            }
            Pass::Backward => self.norm.backward(
                &self.x,
                &self.grad_output,
                gamma,
                beta,
                &self.statistics,
                &mut self.grad_input,
                &mut self.gradients,
            ),
        }
    }

    /// Both passes into outputs that hold what no result is, so that a value that is not written shows.
    fn run_poisoned(&mut self) -> Result<Results<T>, Error> {
        self.y.fill_bytes(0xFF)?;
        self.grad_input.fill_bytes(0xFF)?;
        let NormStatistics { mean, rstd } = &mut self.statistics;
        let gradients = [&mut self.gradients.gamma, &mut self.gradients.beta];
        for buffer in [mean, rstd].into_iter().chain(gradients.into_iter().flatten()) {
            buffer.fill_bytes(0xFF)?;
        }
        self.run(Pass::Forward)?;
        self.run(Pass::Backward)?;
        let read =
            |buffer: &Option<Buffer<f32>>| buffer.as_ref().map_or(Ok(vec![]), Buffer::to_vec);
        Ok(Results {
            y: self.y.to_vec()?,
            mean: self.statistics.mean.to_vec()?,
            rstd: self.statistics.rstd.to_vec()?,
            grad_input: self.grad_input.to_vec()?,
            grad_gamma: read(&self.gradients.gamma)?,
            grad_beta: read(&self.gradients.beta)?,
        })
    }
}

/// Two runs must have given the same bits.
fn compare_runs<T: LayerElement>(
    case: &Case<T>,
    pass: Pass,
    first: &Results<T>,
    second: &Results<T>,
    tally: &mut Tally,
) {
    fn differs<V: bytemuck::Pod>(a: &[V], b: &[V]) -> Option<usize> {
        let bits = |v: &V| bytemuck::bytes_of(v).to_vec();
        (0..a.len()).find(|&i| bits(&a[i]) != bits(&b[i]))
    }
    let places = match pass {
        Pass::Forward => [
            ("y", differs(&first.y, &second.y)),
            ("mean", differs(&first.mean, &second.mean)),
            ("rstd", differs(&first.rstd, &second.rstd)),
        ],
        Pass::Backward => [
            ("grad_input", differs(&first.grad_input, &second.grad_input)),
            ("grad_gamma", differs(&first.grad_gamma, &second.grad_gamma)),
            ("grad_beta", differs(&first.grad_beta, &second.grad_beta)),
        ],
    };
    for (what, place) in places {
        if let Some(index) = place {
            tally.fail(Mismatch::Nondeterministic { case: case.name.clone(), what, index });
        }
    }
}

/// Compares what the pass writes with the reference.
fn judge<T: LayerElement>(case: &Case<T>, pass: Pass, results: &Results<T>, tally: &mut Tally) {
    let valid = "a case has the shape that it says";
    let wide = |values: &[T]| values.iter().map(|v| v.to_f32().into()).collect::<Vec<f64>>();
    let floats = |values: &[f32]| values.iter().map(|&v| v.into()).collect::<Vec<f64>>();
    let shape = (case.rows, case.cols);
    let x = wide(&case.x);
    let x = ArrayView2::from_shape(shape, &x).expect(valid);
    let (gamma, beta) = (case.gamma.as_deref(), case.beta.as_deref());
    let options = reference_options(&case.options);
    let forward = reference::activation_norm(x, gamma, beta, options).expect(valid);

    let element = Tolerance::for_dtype(stored(T::DTYPE), 1).limit();
    // Figures in f32 of the activations of narrow elements have the precision of those.
    let narrow = if T::DTYPE == DType::F32 { 1.0 } else { 10.0 };
    let figure = |terms| narrow * Tolerance::for_dtype(Dtype::F32, terms).limit();
    let cols = case.cols;
    let at = |i: usize| format!("[{}, {}]", i / cols, i % cols);
    let mut compare = |what: &str,
                       got: &[f64],
                       expected: &[f64],
                       scale: &dyn Fn(usize) -> f64,
                       tolerance: f64,
                       at: &dyn Fn(usize) -> String| {
        for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            let comparison = numeric::compare_to_scale(&[got], &[expected], scale(i))
                .expect("one value is as many as one");
            let error = comparison.max_rel_error;
            let compared = Compared { got, expected, error, tolerance };
            tally.judge(&case.name, &compared, || format!("{what}{}", at(i)));
        }
    };
    let index = |i: usize| format!("[{i}]");
    match pass {
        Pass::Forward => {
            let expected: Vec<f64> = forward.output.iter().copied().collect();
            // What is normalised has mean square 1.
            compare("y", &wide(&results.y), &expected, &|_| 1.0, element, &at);
            let (mean, rstd) = (floats(&results.mean), floats(&results.rstd));
            compare("mean", &mean, &forward.mean, &|_| 1.0, figure(cols), &index);
            compare("rstd", &rstd, &forward.rstd, &|_| 0.0, figure(cols), &index);
        }
        Pass::Backward => {
            let g = wide(&case.grad_output);
            let g = ArrayView2::from_shape(shape, &g).expect(valid);
            let expected =
                reference::activation_norm_backward(x, g, gamma, beta, options).expect(valid);
            let input: Vec<f64> = expected.input.iter().copied().collect();
            // Its terms are of the size of r·ĝ, and cancel where there are few columns.
            let of_row = |i: usize| forward.rstd[i / cols].max(1.0);
            compare("∂x", &wide(&results.grad_input), &input, &of_row, element, &at);
            // Sums of terms about 1 that partly cancel.
            let size = (case.rows as f64).sqrt();
            let of_sum = |_| size;
            let gamma = floats(&results.grad_gamma);
            compare("∂γ", &gamma, &expected.gamma, &of_sum, figure(case.rows), &index);
            if case.options.norm == Norm::LayerNorm {
                let beta = floats(&results.grad_beta);
                compare("∂β", &beta, &expected.beta, &of_sum, figure(case.rows), &index);
            }
        }
    }
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::Bf16,
        DType::F32 | DType::F64 | DType::I32 | DType::E4m3 => Dtype::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Row, Status};

    fn case() -> Case<f32> {
        let mut rng = random::generator(3);
        let values = |rng: &mut StdRng| random::values(rng, 7 * 50, false);
        let (x, g) = (values(&mut rng), values(&mut rng));
        let options = ActivationNormOptions { activation: Activation::Silu, ..Default::default() };
        Case::new(50, options, true, x, g)
    }

    fn verdict(pass: Pass, change: impl FnOnce(&mut Results<f32>)) -> Row {
        let case = case();
        let mut results = Prepared::new(&Device::Cpu, &case).unwrap().run_poisoned().unwrap();
        change(&mut results);
        let mut tally = Tally::default();
        judge(&case, pass, &results, &mut tally);
        tally.into_row(pass.name().into(), DType::F32, "cpu")
    }

    #[test]
    fn one_wrong_value_fails_its_pass() {
        use Pass::{Backward, Forward};
        assert_eq!(verdict(Forward, |_| {}).status, Status::Pass);
        assert_eq!(verdict(Backward, |_| {}).status, Status::Pass);
        assert!(verdict(Forward, |r| r.y[349] += 1e-3).failed());
        assert!(verdict(Forward, |r| r.mean[6] += 1e-3).failed());
        assert!(verdict(Forward, |r| r.rstd[0] *= 1.001).failed());
        assert!(verdict(Forward, |r| r.y[0] = f32::NAN).failed());
        assert_eq!(verdict(Forward, |r| r.grad_input[0] = 9.0).status, Status::Pass);
        assert!(verdict(Backward, |r| r.grad_input[17] += 1e-2).failed());
        assert!(verdict(Backward, |r| r.grad_gamma[49] += 1e-2).failed());
        let Status::Fail { reason } = verdict(Backward, |r| r.grad_beta[2] += 1e-2).status else {
            panic!("it passed")
        };
        assert!(
            reason.contains("7 × 50, silu, layer_norm") && reason.contains("∂β[2]"),
            "{reason}"
        );
    }

    #[test]
    fn a_second_run_with_other_bits_fails() {
        let case = case();
        let run = || Prepared::new(&Device::Cpu, &case).unwrap().run_poisoned().unwrap();
        let (first, mut second) = (run(), run());
        let failed = |second: &Results<f32>| {
            let mut tally = Tally::default();
            compare_runs(&case, Pass::Backward, &first, second, &mut tally);
            tally.into_row("activation_norm_backward".into(), DType::F32, "cpu").failed()
        };
        assert!(!failed(&second));
        second.grad_gamma[3] = f32::from_bits(second.grad_gamma[3].to_bits() ^ 1);
        assert!(failed(&second));
    }
}
