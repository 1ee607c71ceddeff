//! `linear` and `linear_backward`: rows for every element type and precision.
//!
//! A result is judged by the norm of its error, relative to the norm of the reference in f64 of the same operands, as
//! `Precision::error_bound` states it. Where terms cancel or an activation leaves nothing, it is relative to the norm that
//! the product has if the signs of its terms are independent.

use half::{bf16, f16};
use kasmina_reference::linear as reference;
use kasmina_types::linear::{SCALE_BLOCK_K, SCALE_BLOCK_N};
use kasmina_types::{DType, E4m3};
use ndarray::{Array2, ArrayView1, ArrayView2};

use super::tally::{Compared, Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Scale, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::linear::{
    Activation, Layout, Linear, LinearElement, LinearGradients, LinearOptions, LinearResult,
    LinearShape, Operands, Precision, Scales,
};
use crate::normalization::reference_activation;

pub(super) fn checks() -> Vec<Check> {
    vec![
        forward::<f32, f32>("linear", Precision::F32, false),
        forward::<f32, f32>("linear_tf32", Precision::Tf32, false),
        // f32 that is converted first.
        forward::<f32, f32>("linear_bf16", Precision::Bf16, false),
        forward::<f32, f32>("linear_f16", Precision::F16, false),
        forward::<f32, bf16>("linear_fp8", Precision::Fp8, false),
        forward::<f16, f16>("linear", Precision::F16, false),
        forward::<bf16, bf16>("linear", Precision::Bf16, false),
        forward::<E4m3, bf16>("linear", Precision::Fp8, false),
        forward::<E4m3, bf16>("linear_fp8_fast", Precision::Fp8Fast, false),
        forward::<E4m3, bf16>("linear_fp8_blocks", Precision::Fp8, true),
        forward::<f64, f64>("linear", Precision::F64, false),
        backward::<f32>(Precision::F32),
        backward::<f16>(Precision::F16),
        backward::<bf16>(Precision::Bf16),
        backward::<f64>(Precision::F64),
    ]
}

/// Rows, columns or elements of a sum at most: what a device works through in seconds.
fn most(scale: Scale) -> usize {
    match scale {
        Scale::Small => 150,
        Scale::Medium => 400,
        Scale::Large => 3000,
    }
}

struct Case<T, O> {
    name: String,
    shape: LinearShape,
    options: LinearOptions,
    a: Vec<T>,
    b: Vec<T>,
    bias: Option<Vec<O>>,
    c: Option<Vec<O>>,
    residual: Option<Vec<O>>,
    /// Of blocks of A, and of B.
    scales: Option<[Vec<f32>; 2]>,
}

/// Half of the cases have operands as bulk copies want them: others are not moved where a product is this small.
fn drawn<T: LinearElement, O: LinearResult>(
    units: &mut Units,
    most: usize,
    size: usize,
    precision: Precision,
) -> Case<T, O> {
    let m = size.min(most);
    let (n, k) = (1 + units.below(m + 60).min(most), 1 + units.below(m + 60).min(most));
    let aligned = units.below(2) == 0;
    let [m, n, k] = [m, n, k].map(|count| if aligned { count.next_multiple_of(16) } else { count });
    // Those of fp8 lie along k.
    let layout = match units.below(4) {
        _ if aligned && T::DTYPE == DType::E4m3 => Layout::NT,
        any => Layout::ALL[any],
    };
    let shape = LinearShape::new(layout, m, n, k);
    let activation = Activation::ALL[units.below(Activation::ALL.len())];
    let [bias, c, residual] = [(); 3].map(|()| units.below(2) == 0);
    let beta = if c { 0.5 } else { 0.0 };
    let options = LinearOptions { alpha: 1.25, beta, activation, precision, ..Default::default() };
    let mut values = |len: usize| (0..len).map(|_| f64::from(units.unit()) - 0.25).collect();
    let (a, b): (Vec<f64>, Vec<f64>) = (values(m * k), values(k * n));
    let mut optional = |there: bool, len: usize| there.then(|| nearest(&values(len)));
    Case {
        name: format!("{m} × {n} × {k} {layout}, {activation}"),
        shape,
        options,
        a: nearest(&a),
        b: nearest(&b),
        bias: optional(bias, n),
        c: optional(c, m * n),
        residual: optional(residual, m * n),
        scales: None,
    }
}

pub(super) fn nearest<T: LinearElement>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&value| T::nearest(value)).collect()
}

pub(super) fn wide<T: LinearElement>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// A matrix, or the transpose of what its array holds.
pub(super) fn matrix<T: LinearElement>(
    values: &[T],
    rows: usize,
    columns: usize,
    transposed: bool,
) -> Array2<f64> {
    let (r, c) = if transposed { (columns, rows) } else { (rows, columns) };
    let stored = Array2::from_shape_vec((r, c), wide(values)).expect("the case's lengths");
    if transposed { stored.reversed_axes() } else { stored }
}

/// ‖A·B‖ if the signs of its terms are independent.
pub(super) fn terms(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> f64 {
    let square = |values: ArrayView1<'_, f64>| values.iter().map(|v| v * v).sum::<f64>();
    let along = a.columns().into_iter().zip(b.rows());
    along.map(|(column, row)| square(column) * square(row)).sum::<f64>().sqrt()
}

/// Judges a result that was computed twice, against the reference and the size of its terms.
pub(super) fn judge<T: LinearElement>(
    case: &str,
    what: &'static str,
    (first, second): (&[T], &[T]),
    expected: (ArrayView2<'_, f64>, f64),
    tolerance: f64,
    tally: &mut Tally,
) {
    let (expected, terms) = expected;
    let bytes = |values: &[T]| -> Vec<u32> {
        bytemuck::cast_slice::<T, u8>(values).iter().map(|&byte| byte.into()).collect()
    };
    units::same_bits(case, what, &bytes(first), &bytes(second), tally);
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let got = wide(first);
    let size = norm(&mut expected.iter().copied());
    let error = norm(&mut got.iter().zip(&expected).map(|(got, expected)| got - expected));
    // NaN where the reference has none.
    let error = if error == 0.0 { 0.0 } else { error / size.max(terms) };
    let error = if error.is_nan() { f64::INFINITY } else { error };
    let compared =
        Compared { got: norm(&mut got.iter().copied()), expected: size, error, tolerance };
    tally.judge(case, &compared, || format!("the norm of {what}"));
}

impl<T: LinearElement, O: LinearResult> Case<T, O> {
    /// With scales for blocks.
    fn scaled(self, units: &mut Units) -> Self {
        let LinearShape { m, n, k, .. } = self.shape;
        let along = k.div_ceil(SCALE_BLOCK_K);
        let mut scales = |rows: usize| (0..rows * along).map(|_| 0.5 + units.unit()).collect();
        let scales = Some([scales(m), scales(n.div_ceil(SCALE_BLOCK_N))]);
        Self { name: format!("{}, scaled", self.name), scales, ..self }
    }

    fn scales_on(&self, device: &Device) -> Result<Option<[Buffer<f32>; 2]>, Error> {
        let Some([a, b]) = &self.scales else { return Ok(None) };
        Ok(Some([Buffer::from_slice(device, a)?, Buffer::from_slice(device, b)?]))
    }

    /// op(A) and op(B), scaled.
    fn operands(&self) -> (Array2<f64>, Array2<f64>) {
        let LinearShape { layout, m, n, k, .. } = self.shape;
        let mut a = matrix(&self.a, m, k, layout.transposed_a());
        let mut b = matrix(&self.b, k, n, layout.transposed_b());
        if let Some([of_a, of_b]) = &self.scales {
            let along = k.div_ceil(SCALE_BLOCK_K);
            for ((row, x), value) in a.indexed_iter_mut() {
                *value *= f64::from(of_a[row * along + x / SCALE_BLOCK_K]);
            }
            for ((x, column), value) in b.indexed_iter_mut() {
                *value *= f64::from(of_b[column / SCALE_BLOCK_N * along + x / SCALE_BLOCK_K]);
            }
        }
        (a, b)
    }

    fn run(&self, device: &Device) -> Result<(Vec<O>, Vec<O>, Precision), Error> {
        let (a, b) = (Buffer::from_slice(device, &self.a)?, Buffer::from_slice(device, &self.b)?);
        let buffer = |values: &Option<Vec<O>>| {
            values.as_ref().map(|values| Buffer::from_slice(device, values)).transpose()
        };
        let (bias, c, residual) = (buffer(&self.bias)?, buffer(&self.c)?, buffer(&self.residual)?);
        let scales = self.scales_on(device)?;
        let operands = Operands {
            bias: bias.as_ref(),
            c: c.as_ref(),
            residual: residual.as_ref(),
            scales: by_blocks(&scales),
            ..Operands::new(&a, &b)
        };
        let len = self.shape.m * self.shape.n;
        let (mut d, mut z) = (Buffer::zeroed(device, len)?, Buffer::zeroed(device, len)?);
        d.fill_bytes(0xFF)?;
        z.fill_bytes(0xFF)?;
        let linear = Linear::new(device, self.options)?;
        let chosen = linear.forward(&self.shape, &operands, &mut d, Some(&mut z))?;
        Ok((d.to_vec()?, z.to_vec()?, chosen.precision))
    }
}

fn by_blocks(scales: &Option<[Buffer<f32>; 2]>) -> Scales<'_> {
    scales.as_ref().map_or(Scales::None, |[a, b]| Scales::Block { a, b })
}

/// With scales for blocks, or none.
fn forward<T: LinearElement, O: LinearResult>(
    name: &'static str,
    precision: Precision,
    blocks: bool,
) -> Check {
    Check::new(name, T::DTYPE, move |device, source, tally| {
        let mut units = Units::of(source);
        for size in units::sizes(device, source, [1, 64, 131, 150]) {
            let case = drawn::<T, O>(&mut units, most(source.scale(device)), size, precision);
            let case = if blocks { case.scaled(&mut units) } else { case };
            tally.case();
            forward_case(device, &case, tally)
                .map_err(|source| Mismatch::Run { case: case.name.clone(), source })?;
        }
        if matches!(source.inputs, Inputs::Digits(_)) {
            let case = drawn::<T, O>(&mut units, most(source.scale(device)), 150, precision);
            let case = if blocks { case.scaled(&mut units) } else { case };
            timed(device, &case, tally)
                .map_err(|source| Mismatch::Run { case: case.name.clone(), source })?;
        }
        Ok(())
    })
}

fn forward_case<T: LinearElement, O: LinearResult>(
    device: &Device,
    case: &Case<T, O>,
    tally: &mut Tally,
) -> Result<(), Error> {
    let (d, z, chosen) = case.run(device)?;
    let (d_again, z_again, _) = case.run(&reordered(device))?;
    let (a, b) = case.operands();
    let LinearShape { m, n, .. } = case.shape;
    let optional = |values: &Option<Vec<O>>| values.as_ref().map(|v| matrix(v, m, n, false));
    let (c, residual) = (optional(&case.c), optional(&case.residual));
    let bias = case.bias.as_ref().map(|bias| wide(bias));
    let mut product = reference::Linear::new(a.view(), b.view());
    product.alpha = case.options.alpha;
    product.bias = bias.as_deref();
    product.addition = c.as_ref().map(|c| (case.options.beta, c.view()));
    let expected_z = reference::linear(&product).expect("shapes fit");
    product.activation = reference_activation(case.options.activation);
    product.residual = residual.as_ref().map(|residual| residual.view());
    let expected = reference::linear(&product).expect("shapes fit");
    let converted = match (T::DTYPE, chosen) {
        // Of few elements the roundings may agree: a product of two is off by up to 1/8 and 1/256.
        (DType::F32, Precision::Fp8) if case.a.len() + case.b.len() < 256 => 0.13,
        (DType::F32, Precision::Fp8) => Precision::FP8_CONVERSION,
        _ => 0.0,
    };
    let tolerance = bound(chosen, size_of::<O>(), case.options.precision) + converted;
    let size = case.options.alpha * terms(a.view(), b.view());
    judge(&case.name, "d", (&d, &d_again), (expected.view(), size), tolerance, tally);
    judge(&case.name, "z", (&z, &z_again), (expected_z.view(), size), tolerance, tally);
    Ok(())
}

/// The bound of what was computed; of the CPU, which computes in f64, that of the results' own rounding, which what was
/// asked for has room for.
pub(super) fn bound(chosen: Precision, result_bytes: usize, asked: Precision) -> f64 {
    if chosen == Precision::F64 && result_bytes < 8 { asked } else { chosen }.error_bound()
}

fn timed<T: LinearElement, O: LinearResult>(
    device: &Device,
    case: &Case<T, O>,
    tally: &mut Tally,
) -> Result<(), Error> {
    let options = LinearOptions { beta: 0.0, ..case.options };
    let linear = Linear::new(device, options)?;
    let (a, b) = (Buffer::from_slice(device, &case.a)?, Buffer::from_slice(device, &case.b)?);
    let scales = case.scales_on(device)?;
    let operands = Operands { scales: by_blocks(&scales), ..Operands::new(&a, &b) };
    let mut d = Buffer::<O>::zeroed(device, case.shape.m * case.shape.n)?;
    let seconds = time::median_seconds(device, || {
        linear.forward(&case.shape, &operands, &mut d, None).map(drop)
    })?;
    let bytes = (a.len() + b.len()) * size_of::<T>() + d.len() * size_of::<O>();
    tally.timing(Timing { seconds, bytes: bytes as u64 });
    Ok(())
}

fn backward<T: LinearResult>(precision: Precision) -> Check {
    Check::new("linear_backward", T::DTYPE, move |device, source, tally| {
        let mut units = Units::of(source);
        for size in units::sizes(device, source, [1, 64, 131, 150]) {
            let case = drawn::<T, T>(&mut units, most(source.scale(device)), size, precision);
            let len = case.shape.m * case.shape.n;
            let incoming: Vec<f64> = (0..len).map(|_| f64::from(units.unit()) - 0.25).collect();
            tally.case();
            backward_case(device, &case, &nearest(&incoming), tally)
                .map_err(|source| Mismatch::Run { case: case.name.clone(), source })?;
        }
        if matches!(source.inputs, Inputs::Digits(_)) {
            let case = drawn::<T, T>(&mut units, most(source.scale(device)), 150, precision);
            timed_backward(device, &case, tally)
                .map_err(|source| Mismatch::Run { case: case.name.clone(), source })?;
        }
        Ok(())
    })
}

/// ∂A, ∂B and ∂bias, ∂Z on the way.
fn timed_backward<T: LinearResult>(
    device: &Device,
    case: &Case<T, T>,
    tally: &mut Tally,
) -> Result<(), Error> {
    let linear = Linear::new(device, LinearOptions { beta: 0.0, ..case.options })?;
    let (a, b) = (Buffer::from_slice(device, &case.a)?, Buffer::from_slice(device, &case.b)?);
    let made = |len: usize| Buffer::<T>::zeroed(device, len);
    let outputs = case.shape.m * case.shape.n;
    let (z, grad_output) = (made(outputs)?, made(outputs)?);
    let (mut of_z, mut of_a, mut of_b) = (made(outputs)?, made(a.len())?, made(b.len())?);
    let mut of_bias = made(case.shape.n)?;
    let seconds = time::median_seconds(device, || {
        let gradients = LinearGradients {
            z: Some(&mut of_z),
            a: Some(&mut of_a),
            b: Some(&mut of_b),
            bias: Some(&mut of_bias),
        };
        linear.backward(&case.shape, (&a, &b), Some(&z), &grad_output, gradients)
    })?;
    // ∂D and Z read, ∂Z written and read twice, A and B read, ∂A and ∂B written, ∂bias.
    let elements = 5 * outputs + 2 * (a.len() + b.len()) + case.shape.n;
    tally.timing(Timing { seconds, bytes: (elements * size_of::<T>()) as u64 });
    Ok(())
}

fn gradients_of<T: LinearResult>(
    device: &Device,
    case: &Case<T, T>,
    incoming: &[T],
) -> Result<[Vec<T>; 4], Error> {
    let options = LinearOptions { beta: 0.0, ..case.options };
    let linear = Linear::new(device, options)?;
    let (a, b) = (Buffer::from_slice(device, &case.a)?, Buffer::from_slice(device, &case.b)?);
    let grad_output = Buffer::from_slice(device, incoming)?;
    let made = |len: usize| -> Result<Buffer<T>, Error> {
        let mut made = Buffer::zeroed(device, len)?;
        made.fill_bytes(0xFF)?;
        Ok(made)
    };
    let (mut d, mut z) = (made(incoming.len())?, made(incoming.len())?);
    let operands = Operands::new(&a, &b);
    linear.forward(&case.shape, &operands, &mut d, Some(&mut z))?;
    let (mut of_z, mut of_a, mut of_b, mut of_bias) =
        (made(incoming.len())?, made(a.len())?, made(b.len())?, made(case.shape.n)?);
    let gradients = LinearGradients {
        z: Some(&mut of_z),
        a: Some(&mut of_a),
        b: Some(&mut of_b),
        bias: Some(&mut of_bias),
    };
    linear.backward(&case.shape, (&a, &b), Some(&z), &grad_output, gradients)?;
    Ok([of_z.to_vec()?, of_a.to_vec()?, of_b.to_vec()?, of_bias.to_vec()?])
}

fn backward_case<T: LinearResult>(
    device: &Device,
    case: &Case<T, T>,
    incoming: &[T],
    tally: &mut Tally,
) -> Result<(), Error> {
    let got = gradients_of(device, case, incoming)?;
    let again = gradients_of(&reordered(device), case, incoming)?;
    let (a, b) = case.operands();
    let LinearShape { layout, m, n, .. } = case.shape;
    let mut product = reference::Linear::new(a.view(), b.view());
    product.alpha = case.options.alpha;
    product.activation = reference_activation(case.options.activation);
    let incoming = matrix(incoming, m, n, false);
    let expected = reference::linear_backward(&product, incoming.view()).expect("shapes fit");
    let bias = Array2::from_shape_vec((1, n), expected.bias).expect("a row");
    let stored = |matrix: Array2<f64>, transposed: bool| {
        if transposed { matrix.reversed_axes() } else { matrix }
    };
    let expected = [
        expected.z,
        stored(expected.a, layout.transposed_a()),
        stored(expected.b, layout.transposed_b()),
        bias,
    ];
    // Slopes are 1 and less, or little more: what they make small is not looked at for itself.
    let (alpha, incoming) = (case.options.alpha, incoming.view());
    let whole = terms(Array2::eye(m).view(), incoming);
    let sizes = [whole, alpha * terms(incoming, b.t()), alpha * terms(a.t(), incoming), whole];
    // Z, ∂Z and the result are each rounded.
    let tolerance = 3.0 * case.options.precision.error_bound();
    for (i, what) in ["∂Z", "∂A", "∂B", "∂bias"].into_iter().enumerate() {
        let both = (&got[i][..], &again[i][..]);
        judge(&case.name, what, both, (expected[i].view(), sizes[i]), tolerance, tally);
    }
    Ok(())
}
