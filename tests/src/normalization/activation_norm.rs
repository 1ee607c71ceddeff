//! `activation_norm`, forward and backward, against the reference.

use kasmina::kasmina::LayerElement;
use kasmina::normalization::{
    Activation, ActivationNorm, ActivationNormOptions, Norm, NormGradients, NormOrder,
    NormStatistics, NormalizationError,
};
use kasmina::{Buffer, Device, Error};
use kasmina_reference::normalization as reference;
use ndarray::ArrayView2;

use crate::{Narrow, Numbers, assert_near};

/// A shape, what is computed, and the seed of everything else.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Activation, norm, order and ε.
    pub options: ActivationNormOptions,
    /// Whether there is a γ.
    pub gamma: bool,
    /// Whether there is a β; RMS norm has none.
    pub beta: bool,
    /// Whether one value is NaN, and one infinite.
    pub broken: bool,
    /// Seed of the values.
    pub seed: u64,
}

impl Case {
    /// A case whose options, too, follow from `seed`: 56 seeds in a row have each combination of
    /// activation, norm, order and parameters.
    pub fn of(rows: usize, cols: usize, seed: u64) -> Self {
        let bit = |at: u64| ((seed / 7) >> at) & 1 == 1;
        let norm = if bit(0) { Norm::RmsNorm } else { Norm::LayerNorm };
        let options = ActivationNormOptions {
            activation: Activation::ALL[(seed % 7) as usize],
            norm,
            order: NormOrder::ALL[usize::from(bit(1))],
            epsilon: 1e-5,
        };
        let parameters = !bit(2);
        let beta = parameters && norm == Norm::LayerNorm;
        Self { rows, cols, options, gamma: parameters, beta, broken: false, seed }
    }
}

/// Everything that the two passes write.
struct Results<T> {
    y: Vec<T>,
    mean: Vec<f32>,
    rstd: Vec<f32>,
    grad_input: Vec<T>,
    grad_gamma: Vec<f32>,
    grad_beta: Vec<f32>,
}

/// Inputs of a case.
struct Inputs<T> {
    x: Vec<T>,
    grad_output: Vec<T>,
    gamma: Option<Vec<f32>>,
    beta: Option<Vec<f32>>,
}

/// Runs both passes twice on `device` and compares every result with the f64 reference, and the two
/// runs bit for bit.
#[track_caller]
pub fn check<T: Narrow + LayerElement>(device: &Device, case: Case) {
    let mut numbers = Numbers::new(case.seed ^ 0x5eed);
    let elements = case.rows * case.cols;
    // About 0.3, so that the mean has something to take away.
    let x = (0..elements).map(|_| T::narrow(numbers.in_range(-2.2, 2.8))).collect();
    let mut inputs = Inputs::<T> {
        x,
        grad_output: (0..elements).map(|_| T::narrow(numbers.in_range(-1.0, 1.0))).collect(),
        gamma: case.gamma.then(|| (0..case.cols).map(|_| numbers.in_range(0.2, 1.8)).collect()),
        beta: case.beta.then(|| (0..case.cols).map(|_| numbers.in_range(-1.0, 1.0)).collect()),
    };
    if case.broken {
        let infinity = if case.seed.is_multiple_of(2) { f32::INFINITY } else { f32::NEG_INFINITY };
        inputs.x[numbers.below(elements)] = T::narrow(infinity);
        inputs.x[numbers.below(elements)] = T::narrow(f32::NAN);
    }
    let got = run(device, case, &inputs);
    let again = run(device, case, &inputs);
    let same = bits(&got.y) == bits(&again.y)
        && bits(&got.mean) == bits(&again.mean)
        && bits(&got.rstd) == bits(&again.rstd)
        && bits(&got.grad_input) == bits(&again.grad_input)
        && bits(&got.grad_gamma) == bits(&again.grad_gamma)
        && bits(&got.grad_beta) == bits(&again.grad_beta);
    assert!(same, "{case:?}: two runs, two results");
    compare(case, &inputs, &got);
}

fn compare<T: Narrow>(case: Case, inputs: &Inputs<T>, got: &Results<T>) {
    let shape = (case.rows, case.cols);
    let wide = |values: &[T]| values.iter().map(|v| v.wide()).collect::<Vec<f64>>();
    let (x, g) = (wide(&inputs.x), wide(&inputs.grad_output));
    let x = ArrayView2::from_shape(shape, &x).expect("the case's shape");
    let g = ArrayView2::from_shape(shape, &g).expect("the case's shape");
    let (gamma, beta) = (inputs.gamma.as_deref(), inputs.beta.as_deref());
    let options = reference_options(case.options);
    let forward = reference::activation_norm(x, gamma, beta, options).expect("a valid case");
    let backward =
        reference::activation_norm_backward(x, g, gamma, beta, options).expect("a valid case");

    let near = |what: &str, got: &[f64], expected: &[f64], scale: f64, tolerance: f64| {
        assert_near(&format!("{what} of {case:?}"), got, expected, scale, tolerance);
    };
    let floats = |values: &[f32]| values.iter().map(|&v| v.into()).collect::<Vec<f64>>();
    near("y", &wide(&got.y), &flat(&forward.output), 1.0, T::TOLERANCE);
    near("mean", &floats(&got.mean), &forward.mean, 1.0, statistics_tolerance::<T>());
    near("rstd", &floats(&got.rstd), &forward.rstd, 0.0, statistics_tolerance::<T>());

    // ∂x is made of terms of the size of r·ĝ, which cancel where there are few columns: its rounding is
    // relative to them. A row of nearly equal values has an r of up to 1/√ε.
    let grad_input = wide(&got.grad_input);
    for (row, (got, expected)) in
        grad_input.chunks(case.cols).zip(backward.input.rows()).enumerate()
    {
        let scale = forward.rstd[row].max(1.0);
        let scale = if scale.is_nan() { 1.0 } else { scale };
        near(&format!("∂x, row {row},"), got, &expected.to_vec(), scale, T::TOLERANCE);
    }
    // Sums of `rows` terms of size about 1, of inputs that are exact: f32 is what limits them, and the
    // activation's precision.
    let scale = (case.rows as f64).sqrt().max(1.0);
    let tolerance = statistics_tolerance::<T>();
    near("∂γ", &floats(&got.grad_gamma), &backward.gamma, scale, tolerance);
    if case.options.norm == Norm::LayerNorm {
        near("∂β", &floats(&got.grad_beta), &backward.beta, scale, tolerance);
    }
}

/// What is computed of narrow elements in f32 has the precision of their activations.
fn statistics_tolerance<T: Narrow>() -> f64 {
    if size_of::<T>() == 4 { 1e-5 } else { 1e-4 }
}

/// Both passes, twice into the same poisoned buffers: what the last run left must not matter.
fn run<T: Narrow + LayerElement>(device: &Device, case: Case, inputs: &Inputs<T>) -> Results<T> {
    let Case { rows, cols, options, .. } = case;
    let memory = "memory";
    let buffer = |values: &[T]| Buffer::from_slice(device, values).expect(memory);
    let parameter = |values: &Option<Vec<f32>>| {
        values.as_ref().map(|values| Buffer::from_slice(device, values).expect(memory))
    };
    let (x, grad_output) = (buffer(&inputs.x), buffer(&inputs.grad_output));
    let (gamma, beta) = (parameter(&inputs.gamma), parameter(&inputs.beta));
    let poisoned = || {
        let mut buffer = Buffer::<T>::zeroed(device, rows * cols).expect(memory);
        buffer.fill_bytes(0xff).expect(memory);
        buffer
    };
    let (mut y, mut grad_input) = (poisoned(), poisoned());
    let mut statistics = NormStatistics::new(device, rows).expect(memory);
    statistics.mean.fill_bytes(0xff).expect(memory);
    statistics.rstd.fill_bytes(0xff).expect(memory);
    let with_beta = options.norm == Norm::LayerNorm;
    let mut gradients = NormGradients::new(device, cols, true, with_beta).expect(memory);
    for buffer in [&mut gradients.gamma, &mut gradients.beta].into_iter().flatten() {
        buffer.fill_bytes(0xff).expect(memory);
    }
    let mut norm = ActivationNorm::<T>::new(device, rows, cols, options).expect("a plan");
    for _ in 0..2 {
        norm.forward(&x, gamma.as_ref(), beta.as_ref(), &mut y, &mut statistics)
            .and_then(|()| {
                norm.backward(
                    &x,
                    &grad_output,
                    gamma.as_ref(),
                    beta.as_ref(),
                    &statistics,
                    &mut grad_input,
                    &mut gradients,
                )
            })
            .unwrap_or_else(|why| panic!("{case:?}: {why}"));
    }
    let result = "a result";
    let of = |buffer: &Option<Buffer<f32>>| {
        buffer.as_ref().map_or_else(Vec::new, |buffer| buffer.to_vec().expect(result))
    };
    Results {
        y: y.to_vec().expect(result),
        mean: statistics.mean.to_vec().expect(result),
        rstd: statistics.rstd.to_vec().expect(result),
        grad_input: grad_input.to_vec().expect(result),
        grad_gamma: of(&gradients.gamma),
        grad_beta: of(&gradients.beta),
    }
}

fn reference_options(options: ActivationNormOptions) -> reference::NormOptions {
    let position = |activation| Activation::ALL.iter().position(|&known| known == activation);
    reference::NormOptions {
        activation: reference::Activation::ALL[position(options.activation).expect("known")],
        norm: match options.norm {
            Norm::LayerNorm => reference::Norm::LayerNorm,
            Norm::RmsNorm => reference::Norm::RmsNorm,
        },
        order: match options.order {
            NormOrder::ActivationThenNorm => reference::NormOrder::ActivationThenNorm,
            NormOrder::NormThenActivation => reference::NormOrder::NormThenActivation,
        },
        epsilon: options.epsilon.into(),
    }
}

fn flat(values: &ndarray::Array2<f64>) -> Vec<f64> {
    values.iter().copied().collect()
}

fn bits<T: bytemuck::Pod>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Values far from 0, whose squares would drown their variance: `E[x²] − E[x]²` has nothing left of it.
#[track_caller]
pub fn check_large_offset(device: &Device) {
    for cols in [64, 1000, 9000] {
        let x: Vec<f32> = (0..cols).map(|i| 4096.0 + (i % 7) as f32 / 8.0).collect();
        let input = Buffer::from_slice(device, &x).expect("memory");
        let mut y = Buffer::zeroed(device, cols).expect("memory");
        let mut statistics = NormStatistics::new(device, 1).expect("memory");
        let mut norm =
            ActivationNorm::<f32>::new(device, 1, cols, Default::default()).expect("a plan");
        norm.forward(&input, None, None, &mut y, &mut statistics).expect("a result");
        let n = cols as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let rstd = f64::from(statistics.rstd.to_vec().expect("a result")[0]);
        assert!((rstd * (variance + 1e-5).sqrt() - 1.0).abs() < 1e-5, "{cols} columns: {rstd}");
        // The mean is rounded to f32: half an ulp of 4096 is 2.4e-4, over a deviation of 0.25.
        let y = y.to_vec().expect("a result");
        for (x, y) in x.iter().zip(y) {
            let expected = (f64::from(*x) - mean) * rstd;
            assert!((f64::from(y) - expected).abs() < 2e-3, "{cols} columns: {y}, {expected}");
        }
    }
}

/// What does not fit is refused, with nothing written.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let options = ActivationNormOptions::default();
    for epsilon in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let refused =
            ActivationNorm::<f32>::new(device, 2, 3, ActivationNormOptions { epsilon, ..options });
        assert!(
            matches!(refused, Err(Error::Normalization(NormalizationError::Epsilon { .. }))),
            "ε = {epsilon}"
        );
    }
    for (rows, cols) in [(0, 3), (3, 0)] {
        let refused = ActivationNorm::<f32>::new(device, rows, cols, options);
        assert!(matches!(refused, Err(Error::Length { got: 0, .. })));
    }
    let refused = ActivationNorm::<f32>::new(device, 1 << 31, 1, options);
    assert!(matches!(refused, Err(Error::TooLarge { what: "rows", .. })));

    let memory = "memory";
    let x = Buffer::from_slice(device, &[1.0_f32; 6]).expect(memory);
    let mut y = Buffer::from_slice(device, &[7.0_f32; 6]).expect(memory);
    let gamma = Buffer::from_slice(device, &[1.0_f32; 2]).expect(memory);
    let beta = Buffer::from_slice(device, &[1.0_f32; 3]).expect(memory);
    let mut statistics = NormStatistics::new(device, 2).expect(memory);
    let mut norm = ActivationNorm::<f32>::new(device, 2, 3, options).expect("a plan");
    let refused = norm.forward(&x, Some(&gamma), None, &mut y, &mut statistics);
    assert!(matches!(refused, Err(Error::Length { buffer: "gamma", got: 2, .. })), "{refused:?}");
    let mut short = NormStatistics::new(device, 1).expect(memory);
    let refused = norm.forward(&x, None, None, &mut y, &mut short);
    assert!(matches!(refused, Err(Error::Length { buffer: "statistics.mean", .. })), "{refused:?}");
    let rms = ActivationNormOptions { norm: Norm::RmsNorm, ..options };
    let mut norm = ActivationNorm::<f32>::new(device, 2, 3, rms).expect("a plan");
    let no_beta = |result: &Result<(), Error>| {
        matches!(result, Err(Error::Normalization(NormalizationError::BetaOfRmsNorm { .. })))
    };
    assert!(no_beta(&norm.forward(&x, None, Some(&beta), &mut y, &mut statistics)));
    let mut gradients = NormGradients::new(device, 3, true, true).expect(memory);
    let g = Buffer::from_slice(device, &[1.0_f32; 6]).expect(memory);
    assert!(no_beta(&norm.backward(&x, &g, None, None, &statistics, &mut y, &mut gradients)));
    assert_eq!(y.to_vec().expect("untouched"), [7.0; 6]);
}

/// ∂x is the same, bit for bit, whether the parameters' gradients are asked for or not.
#[track_caller]
pub fn check_no_parameter_gradients(device: &Device) {
    let (rows, cols) = (9, 300);
    let x: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = Buffer::from_slice(device, &x).expect("memory");
    let mut statistics = NormStatistics::new(device, rows).expect("memory");
    let options = ActivationNormOptions { activation: Activation::Silu, ..Default::default() };
    let mut norm = ActivationNorm::<f32>::new(device, rows, cols, options).expect("a plan");
    let mut y = Buffer::zeroed(device, rows * cols).expect("memory");
    norm.forward(&x, None, None, &mut y, &mut statistics).expect("a result");
    let [with, without] = [true, false].map(|wanted| {
        let mut gradients = NormGradients::new(device, cols, wanted, wanted).expect("memory");
        let mut grad_input = Buffer::zeroed(device, rows * cols).expect("memory");
        norm.backward(&x, &y, None, None, &statistics, &mut grad_input, &mut gradients)
            .expect("a result");
        grad_input.to_vec().expect("a result")
    });
    assert_eq!(bits(&with), bits(&without));
    assert!(with.iter().any(|&v| v != 0.0));
}
