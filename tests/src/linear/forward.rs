//! Products of matrices against the reference.

use std::fmt::Debug;

use half::{bf16, f16};
use kasmina::linear::{
    Activation, Chosen, Layout, Linear, LinearElement, LinearError, LinearGradients, LinearOptions,
    LinearResult, LinearShape, Operands, Precision, Scales,
};
use kasmina::types::{E4m3, LinearStrides};
use kasmina::{Buffer, Device, Error};
use kasmina_reference::linear as reference;
use kasmina_reference::normalization::Activation as ReferenceActivation;
use ndarray::{Array2, ArrayView1, ArrayView2, ShapeBuilder};

use crate::Numbers;

/// One comparison. What is fused to the product is drawn from the seed, as are gaps between rows.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// How A and B lie.
    pub layout: Layout,
    /// Rows of D.
    pub m: usize,
    /// Columns of D.
    pub n: usize,
    /// Elements of a sum.
    pub k: usize,
    /// Problems.
    pub batch: usize,
    /// The precision.
    pub precision: Precision,
    /// Whether rows are apart.
    pub gaps: bool,
    /// Of the operands' values, and of what is fused.
    pub seed: u64,
}

/// What a case draws.
pub(super) struct Drawn<T, O> {
    pub(super) shape: LinearShape,
    pub(super) options: LinearOptions,
    pub(super) a: Vec<T>,
    pub(super) b: Vec<T>,
    pub(super) bias: Option<Vec<O>>,
    pub(super) c: Option<Vec<O>>,
    pub(super) residual: Option<Vec<O>>,
}

/// The reference's activation of the same place in the list.
pub(super) fn reference_activation(activation: Activation) -> ReferenceActivation {
    ReferenceActivation::ALL[activation as usize]
}

pub(super) fn values<T: LinearElement>(len: usize, numbers: &mut Numbers) -> Vec<T> {
    (0..len).map(|_| T::nearest(numbers.in_range(-1.0, 1.0).into())).collect()
}

/// Where a matrix of a batch begins, and its view, `[rows, columns]`.
pub(super) fn matrix<T: LinearElement>(
    values: &[T],
    number: usize,
    stride: u64,
    (rows, columns): (usize, usize),
    ld: usize,
) -> Array2<f64> {
    if rows == 0 || columns == 0 {
        return Array2::zeros((rows, columns));
    }
    let begin = number * stride as usize;
    let one = &values[begin..begin + (rows - 1) * ld + columns];
    let shape = (rows, columns).strides((ld, 1));
    ArrayView2::from_shape(shape, one).expect("a matrix").mapv(T::to_f64)
}

/// ‖got − expected‖ / max(‖expected‖, size), Frobenius. The size is that of the terms: where they cancel, or an activation
/// leaves nothing, errors are relative to it.
pub(super) fn relative_error(got: &Array2<f64>, expected: &Array2<f64>, size: f64) -> f64 {
    let error = norm(&(got - expected));
    if error == 0.0 { 0.0 } else { error / norm(expected).max(size) }
}

pub(super) fn norm(values: &Array2<f64>) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// ‖A·B‖ if the signs of the terms were independent: √(Σ_k Σ_i a_ik² · Σ_j b_kj²).
pub(super) fn size(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    let square = |values: ndarray::ArrayView1<'_, f64>| values.iter().map(|v| v * v).sum::<f64>();
    let terms = a.columns().into_iter().zip(b.rows());
    terms.map(|(column, row)| square(column) * square(row)).sum::<f64>().sqrt()
}

impl Case {
    /// One product without gaps.
    pub fn new(layout: Layout, m: usize, n: usize, k: usize, precision: Precision) -> Self {
        Self { layout, m, n, k, batch: 1, precision, gaps: false, seed: (m * n + k) as u64 }
    }

    /// α, β and all that is fused.
    pub(super) fn draw<T: LinearElement, O: LinearResult>(&self) -> Drawn<T, O> {
        let numbers = &mut Numbers::new(self.seed);
        let mut shape = LinearShape::new(self.layout, self.m, self.n, self.k);
        if self.gaps {
            // Odd distances, so that no alignment is left.
            for ld in [
                &mut shape.lda,
                &mut shape.ldb,
                &mut shape.ldc,
                &mut shape.ldr,
                &mut shape.ldd,
                &mut shape.ldz,
            ] {
                *ld += 1 + numbers.below(6);
            }
        }
        shape = shape.batched(self.batch);
        if self.batch > 1 && numbers.below(2) == 0 {
            shape.strides = LinearStrides { b: 0, bias: self.n as u64, ..shape.strides };
        }
        let activation = Activation::ALL[numbers.below(Activation::ALL.len())];
        let mut chance = || numbers.below(2) == 0;
        let (with_bias, with_c, with_residual, scaled) = (chance(), chance(), chance(), chance());
        let options = LinearOptions {
            alpha: if scaled { -0.75 } else { 1.0 },
            beta: if with_c { 0.5 } else { 0.0 },
            activation,
            precision: self.precision,
            ..Default::default()
        };
        let of = |rows: usize, ld: usize| self.batch * rows * ld;
        let (ta, tb) = (self.layout.transposed_a(), self.layout.transposed_b());
        let a = values(of(if ta { self.k } else { self.m }, shape.lda), numbers);
        let b = values(of(if tb { self.n } else { self.k }, shape.ldb), numbers);
        let mut optional = |there: bool, len: usize| there.then(|| values::<O>(len, numbers));
        let bias = optional(with_bias, self.batch * self.n);
        let c = optional(with_c, of(self.m, shape.ldc));
        let residual = optional(with_residual, of(self.m, shape.ldr));
        Drawn { shape, options, a, b, bias, c, residual }
    }
}

impl<T: LinearElement, O: LinearResult> Drawn<T, O> {
    /// op(A) and op(B) of a problem.
    pub(super) fn product(&self, number: usize) -> (Array2<f64>, Array2<f64>) {
        let LinearShape { layout, m, n, k, lda, ldb, strides, .. } = self.shape;
        let a = if layout.transposed_a() {
            matrix(&self.a, number, strides.a, (k, m), lda).reversed_axes()
        } else {
            matrix(&self.a, number, strides.a, (m, k), lda)
        };
        let b = if layout.transposed_b() {
            matrix(&self.b, number, strides.b, (n, k), ldb).reversed_axes()
        } else {
            matrix(&self.b, number, strides.b, (k, n), ldb)
        };
        (a, b)
    }

    /// Z and D of a problem, of op(A) and op(B).
    fn expected(&self, number: usize, (a, b): (Array2<f64>, Array2<f64>)) -> [Array2<f64>; 2] {
        let product = reference::Linear::new(a.view(), b.view());
        self.finished(number, &reference::linear(&product).expect("shapes fit"))
    }

    /// Z and D of a problem, of op(A)·op(B).
    pub(super) fn finished(&self, number: usize, product: &Array2<f64>) -> [Array2<f64>; 2] {
        let LinearShape { m, n, ldc, ldr, strides, .. } = self.shape;
        let LinearOptions { alpha, beta, activation, .. } = self.options;
        let of = |values: &Option<Vec<O>>, stride, ld| {
            values.as_ref().map(|values| matrix(values, number, stride, (m, n), ld))
        };
        let (c, residual) =
            (of(&self.c, strides.c, ldc), of(&self.residual, strides.residual, ldr));
        let bias = self.bias.as_ref().map(|bias| {
            matrix(bias, number, strides.bias, (1, n), n).into_iter().collect::<Vec<_>>()
        });
        let mut z = product * alpha;
        if let Some(bias) = bias {
            z += &ArrayView1::from(&bias);
        }
        if let Some(c) = c {
            z.scaled_add(beta, &c);
        }
        let activation = reference_activation(activation);
        let d = z.mapv(|z| activation.value(z));
        let d = residual.iter().fold(d, |d, residual| d + residual);
        [z, d]
    }
}

/// Runs a case twice, on results of NaN, and compares both with the reference in f64 of the operands' values: the relative
/// error in the norm stays below the precision's bound, nothing is written between rows, and both runs have the same bits.
#[track_caller]
pub fn check<T: LinearElement, O: LinearResult>(device: &Device, case: &Case) -> Chosen {
    let drawn = case.draw::<T, O>();
    check_scaled(device, case, &drawn, Scales::None, |_, product| product)
}

/// D and, where it is kept, Z of two runs on results of NaN, whose bits are the same and which write nothing between rows.
#[track_caller]
pub(super) fn results<T: LinearElement, O: LinearResult>(
    device: &Device,
    drawn: &Drawn<T, O>,
    scales: Scales<'_>,
    keeps_z: bool,
    what: &dyn Debug,
) -> (Vec<O>, Vec<O>, Chosen) {
    let (shape, options) = (drawn.shape, drawn.options);
    let linear = Linear::new(device, options).expect("options");
    let buffer = |values: &Vec<O>| Buffer::from_slice(device, values).expect("memory");
    let a = Buffer::from_slice(device, &drawn.a).expect("memory");
    let b = Buffer::from_slice(device, &drawn.b).expect("memory");
    let (bias, c) = (drawn.bias.as_ref().map(buffer), drawn.c.as_ref().map(buffer));
    let residual = drawn.residual.as_ref().map(buffer);
    let operands = Operands {
        bias: bias.as_ref(),
        c: c.as_ref(),
        residual: residual.as_ref(),
        scales,
        ..Operands::new(&a, &b)
    };
    let run = || {
        let made = |ld: usize| {
            let mut made = Buffer::<O>::zeroed(device, shape.batch * shape.m * ld).expect("memory");
            made.fill_bytes(0xff).expect("memory");
            made
        };
        let (mut d, mut z) = (made(shape.ldd), made(shape.ldz));
        let chosen = linear
            .forward(&shape, &operands, &mut d, keeps_z.then_some(&mut z))
            .unwrap_or_else(|why| panic!("{what:?}: {why}"));
        (d.to_vec().expect("a result"), z.to_vec().expect("a result"), chosen)
    };
    let (d, z, chosen) = run();
    let (d_again, z_again, _) = run();
    let same =
        |a: &[O], b: &[O]| bytemuck::cast_slice::<O, u8>(a) == bytemuck::cast_slice::<O, u8>(b);
    assert!(same(&d, &d_again) && same(&z, &z_again), "{what:?}: two runs, two results");
    let untouched = |values: &[O], ld: usize| {
        values.iter().enumerate().all(|(i, value)| i % ld < shape.n || value.to_f64().is_nan())
    };
    assert!(untouched(&d, shape.ldd.max(1)), "{what:?}: something between the rows of D");
    assert!(untouched(&z, shape.ldz.max(1)), "{what:?}: something between the rows of Z");
    (d, z, chosen)
}

#[track_caller]
fn check_scaled<T: LinearElement, O: LinearResult>(
    device: &Device,
    case: &Case,
    drawn: &Drawn<T, O>,
    scales: Scales<'_>,
    scale: impl Fn(usize, (Array2<f64>, Array2<f64>)) -> (Array2<f64>, Array2<f64>),
) -> Chosen {
    let (shape, options) = (drawn.shape, drawn.options);
    let keeps_z = case.seed.is_multiple_of(2);
    let (d, z, chosen) = results(device, drawn, scales, keeps_z, case);
    // Results are rounded to their own type, which may be narrower than the operands'.
    let rounding = match size_of::<O>() {
        2 if O::DTYPE == kasmina::types::DType::Bf16 => Precision::Bf16.error_bound(),
        2 => Precision::F16.error_bound(),
        _ => 0.0,
    };
    let precision = if chosen.precision == Precision::F64 && size_of::<O>() < 8 {
        Precision::F32
    } else {
        chosen.precision
    };
    let converted = match (T::DTYPE, precision) {
        (kasmina::types::DType::F32, Precision::Fp8 | Precision::Fp8Fast) => {
            Precision::FP8_CONVERSION
        }
        _ => 0.0,
    };
    let bound = precision.error_bound().max(rounding) + converted;
    for number in 0..case.batch {
        let product = scale(number, drawn.product(number));
        let size = options.alpha.abs() * size(&product.0, &product.1);
        let [expected_z, expected] = drawn.expected(number, product);
        for (what, values, stride, ld, expected) in [
            ("d", &d, shape.strides.d, shape.ldd, expected),
            ("z", &z, shape.strides.z, shape.ldz, expected_z),
        ] {
            if what == "z" && !keeps_z {
                continue;
            }
            let got = matrix(values, number, stride, (case.m, case.n), ld);
            let error = relative_error(&got, &expected, size);
            assert!(
                error <= bound,
                "{what} of {case:?} by {chosen:?}, {options:?}: relative error {error:e}, bound {bound:e}"
            );
        }
    }
    chosen
}

/// Rows and columns of results, with whatever goes with them: in f32 they are `gemv`'s, but where C is added or rows are
/// apart.
#[track_caller]
pub fn check_vectors(device: &Device, terms: usize, others: usize) {
    for (number, layout) in Layout::ALL.into_iter().enumerate() {
        for seed in 0..6 {
            for (m, n) in [(1, others), (others, 1)] {
                let (batch, gaps) = if seed < 4 { (1, false) } else { (2, seed == 5) };
                let seed = 6 * number as u64 + seed;
                let precision = Precision::Auto;
                let case = Case { layout, m, n, k: terms, batch, precision, gaps, seed };
                let chosen = check::<f32, f32>(device, &case);
                let drawn = case.draw::<f32, f32>();
                let by_gemv =
                    !gaps && drawn.c.is_none() && (batch == 1 || drawn.shape.strides.b != 0);
                let expected = match device {
                    Device::Cpu => "reference",
                    _ if by_gemv => "gemv",
                    _ => "linear",
                };
                assert!(chosen.kernel.starts_with(expected), "{case:?}: {chosen:?}");
                check::<f32, bf16>(device, &case);
            }
        }
    }
}

/// Sums of many terms of one sign, where what each addition rounds off shows most: within the bound of the precision that
/// the rule takes, which for a row or a column of results is f32's whatever the tolerance. `k` of these, and `shorter` of
/// matrices, which the executor takes long for.
#[track_caller]
pub fn check_long_sums(device: &Device, k: usize, shorter: usize) {
    for (layout, m, n) in
        [(Layout::NT, 1, 3), (Layout::NN, 3, 1), (Layout::TN, 1, 2), (Layout::NT, 2, 3)]
    {
        let vector = m.min(n) == 1;
        let shape = (layout, m, n, if vector { k } else { shorter });
        for tolerance in [1e-3, 1e-5] {
            let chosen = check_long::<f32>(device, shape, tolerance);
            assert!(!vector || chosen.precision != Precision::Tf32, "{chosen:?}");
        }
        let shape = (layout, m, n, shorter);
        check_long::<f16>(device, shape, 1e-3);
        check_long::<bf16>(device, shape, 1e-3);
        check_long_fp8(device, shape);
    }
}

/// Of fp8, whose sums by tensor cores keep few bits: the bound of each precision that the rule takes, by the tolerance.
#[track_caller]
fn check_long_fp8(device: &Device, (layout, m, n, k): (Layout, usize, usize, usize)) {
    let few = 4096;
    for (k, tolerance, expected) in [
        (k, 1e-2, Precision::Fp8),
        (k, 1e-5, Precision::F32),
        (few, 0.12, Precision::Fp8),
        (few, 0.125, Precision::Fp8Fast),
    ] {
        let chosen = check_long::<E4m3>(device, (layout, m, n, k), tolerance);
        let expected = if matches!(device, Device::Cpu) { Precision::F64 } else { expected };
        assert_eq!(chosen.precision, expected, "{chosen:?}");
    }
}

#[track_caller]
fn check_long<T: LinearElement>(
    device: &Device,
    (layout, m, n, k): (Layout, usize, usize, usize),
    tolerance: f64,
) -> Chosen {
    let numbers = &mut Numbers::new((m + n) as u64);
    let mut positive = |len: usize| -> Vec<T> {
        (0..len).map(|_| T::nearest(numbers.in_range(0.5, 1.5).into())).collect()
    };
    let (a, b) = (positive(m * k), positive(n * k));
    let of = |values: &[T]| Buffer::from_slice(device, values).expect("memory");
    let shape = LinearShape::new(layout, m, n, k);
    let linear = Linear::new(device, LinearOptions { tolerance, ..Default::default() });
    let mut d = Buffer::<f32>::zeroed(device, m * n).expect("memory");
    let operands = (of(&a), of(&b));
    let operands = Operands::new(&operands.0, &operands.1);
    let chosen = linear.and_then(|linear| linear.forward(&shape, &operands, &mut d, None));
    let chosen = chosen.expect("a product");
    let place = |transposed: bool, rows: usize, row: usize, along: usize| {
        if transposed { along * rows + row } else { row * k + along }
    };
    let expected = Array2::from_shape_fn((m, n), |(i, j)| -> f64 {
        let term = |along| {
            let a = a[place(layout.transposed_a(), m, i, along)].to_f64();
            a * b[place(!layout.transposed_b(), n, j, along)].to_f64()
        };
        (0..k).map(term).sum()
    });
    let got = matrix(&d.to_vec().expect("a result"), 0, 0, (m, n), n);
    let (error, bound) = (relative_error(&got, &expected, 0.0), chosen.precision.error_bound_of(k));
    let bound = bound.max(Precision::F32.error_bound());
    assert!(error <= bound, "{m}x{n}x{k} {layout:?} by {chosen:?}: {error:e}, bound {bound:e}");
    chosen
}

/// fp8 with a scale for each tensor, and with a scale for each block; how each was computed.
#[track_caller]
pub fn check_scales(device: &Device, case: &Case) -> [Chosen; 2] {
    let drawn = case.draw::<E4m3, f32>();
    let numbers = &mut Numbers::new(case.seed ^ 1);
    let mut scales =
        |len: usize| -> Vec<f32> { (0..len).map(|_| numbers.in_range(0.25, 2.0)).collect() };
    let buffer = |values: &[f32]| Buffer::from_slice(device, values).expect("memory");
    let (a, b) = (scales(1), scales(1));
    let (on_a, on_b) = (buffer(&a), buffer(&b));
    let tensor = Scales::Tensor { a: &on_a, b: &on_b };
    let by_tensor = check_scaled(device, case, &drawn, tensor, |_, (x, y)| {
        (x * f64::from(a[0]), y * f64::from(b[0]))
    });
    let along = case.k.div_ceil(128);
    let (of_a, of_b) = (case.m * along, case.n.div_ceil(128) * along);
    let (a, b) = (scales(case.batch * of_a), scales(case.batch * of_b));
    let (on_a, on_b) = (buffer(&a), buffer(&b));
    let block = Scales::Block { a: &on_a, b: &on_b };
    let by_block = check_scaled(device, case, &drawn, block, |number, (mut x, mut y)| {
        for ((row, k), value) in x.indexed_iter_mut() {
            *value *= f64::from(a[number * of_a + row * along + k / 128]);
        }
        for ((k, column), value) in y.indexed_iter_mut() {
            *value *= f64::from(b[number * of_b + column / 128 * along + k / 128]);
        }
        (x, y)
    });
    [by_tensor, by_block]
}

/// Everything that is refused, by name, before anything is launched.
pub fn check_refusals(device: &Device) {
    let zeros = |len| Buffer::<f32>::zeroed(device, len).expect("memory");
    let (a, b, mut d) = (zeros(6), zeros(12), zeros(8));
    let linear = Linear::new(device, LinearOptions::default()).expect("options");
    let shape = LinearShape::new(Layout::NN, 2, 4, 3);
    let operands = Operands::new(&a, &b);
    linear.forward(&shape, &operands, &mut d, None).expect("what fits");
    let mut refused = |shape: LinearShape, operands: &Operands<'_, f32, f32>, word: &str| {
        let why = linear.forward(&shape, operands, &mut d, None).expect_err(word).to_string();
        assert!(why.contains(word), "{why}");
    };
    refused(LinearShape { lda: 2, ..shape }, &operands, "lda");
    refused(LinearShape { k: 4, lda: 4, ..shape }, &operands, "`a`");
    refused(LinearShape { ldd: 5, ..shape }, &operands, "`d`");
    refused(LinearShape { batch: 2, ..shape }, &operands, "strides.d");
    refused(LinearShape { m: 1 << 31, ..shape }, &operands, "m is");
    refused(shape, &Operands { c: Some(&b), ..operands }, "β");
    refused(shape, &Operands { bias: Some(&zeros(3)), ..operands }, "bias");
    refused(shape, &Operands { scales: Scales::Tensor { a: &a, b: &a }, ..operands }, "fp8");
    let mut half = Buffer::<f64>::zeroed(device, 8).expect("memory");
    let why = linear.forward(&shape, &Operands::new(&a, &b), &mut half, None).expect_err("f64");
    assert!(matches!(why, Error::Linear(LinearError::Output { .. })), "{why}");
    let options = LinearOptions { precision: Precision::F16, ..Default::default() };
    let linear = Linear::new(device, options).expect("options");
    let narrow = Buffer::<bf16>::zeroed(device, 12).expect("memory");
    let narrow = Operands::new(&narrow, &narrow);
    let why = linear.forward(&shape, &narrow, &mut d, None).expect_err("f16");
    assert!(matches!(why, Error::Linear(LinearError::Precision { .. })), "{why}");
    // f32 is converted forwards alone.
    linear.forward(&shape, &operands, &mut d, None).expect("a conversion");
    let grad_a = Some(&mut zeros(6));
    let gradients = LinearGradients { a: grad_a, ..Default::default() };
    let why = linear.backward(&shape, (&a, &b), None, &d, gradients).expect_err("f16");
    assert!(matches!(why, Error::Linear(LinearError::Conversion { .. })), "{why}");
    let options = LinearOptions { tolerance: f64::NAN, ..Default::default() };
    Linear::new(device, options).err().expect("no tolerance");
    let none = LinearShape::new(Layout::NN, 0, 4, 3);
    let linear = Linear::new(device, LinearOptions::default()).expect("options");
    linear.forward(&none, &operands, &mut d, None).expect("nothing to do");
}
