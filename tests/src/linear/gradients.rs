//! Gradients of products against the reference.

use kasmina::linear::{
    Activation, Layout, Linear, LinearGradients, LinearOptions, LinearResult, LinearShape, Operands,
};
use kasmina::types::{DType, LinearStrides};
use kasmina::{Buffer, Device, Error};
use kasmina_reference::linear as reference;
use ndarray::Array2;

use super::forward::{
    Case, Drawn, matrix, norm, reference_activation, relative_error, size, values,
};
use crate::Numbers;

/// What the gradients' relative errors, in the norm, stay below: of the roundings of Z and of ∂Z to the type, and of the
/// result's, each the forward pass's bound at most.
fn bound(dtype: DType) -> f64 {
    3.0 * match dtype {
        DType::F64 => 1e-12,
        DType::F16 => 6e-4,
        DType::Bf16 => 4e-3,
        _ => 1e-6,
    }
}

/// Which operands the problems of a batch share.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shared {
    /// A.
    pub a: bool,
    /// B.
    pub b: bool,
}

/// Every gradient of products by what the forward pass kept, each operand of each problem its own; and the bias's alone.
#[track_caller]
pub fn check<T: LinearResult>(device: &Device, case: &Case) {
    check_batch::<T>(device, case, Shared::default());
}

/// As [`check`], where a batch shares operands: their gradients are sums over the batch.
#[track_caller]
pub fn check_batch<T: LinearResult>(device: &Device, case: &Case, shared: Shared) {
    let mut drawn = case.draw::<T, T>();
    let strides = drawn.shape.batched(case.batch).strides;
    let of = |stride, shared| if shared { 0 } else { stride };
    drawn.shape.strides =
        LinearStrides { a: of(strides.a, shared.a), b: of(strides.b, shared.b), ..strides };
    let (shape, mut options) = (drawn.shape, drawn.options);
    options.beta = 0.0;
    let linear = Linear::new(device, options).expect("options");
    let buffer = |values: &[T]| Buffer::from_slice(device, values).expect("memory");
    let (a, b) = (buffer(&drawn.a), buffer(&drawn.b));
    let bias = drawn.bias.as_ref().map(|bias| buffer(bias));
    let operands = Operands { bias: bias.as_ref(), ..Operands::new(&a, &b) };
    let made = |len: usize| {
        let mut made = Buffer::<T>::zeroed(device, len).expect("memory");
        made.fill_bytes(0xff).expect("memory");
        made
    };
    let results = case.batch * case.m;
    let (mut d, mut z) = (made(results * shape.ldd), made(results * shape.ldz));
    linear.forward(&shape, &operands, &mut d, Some(&mut z)).expect("a product");
    let incoming: Vec<T> = values(results * shape.ldd, &mut Numbers::new(!case.seed));
    let grad_output = buffer(&incoming);
    let z = (options.activation != Activation::None).then_some(&z);
    let run = || {
        let (mut of_z, mut of_bias) = (made(results * shape.ldd), made(case.n));
        let (mut of_a, mut of_b) = (made(drawn.a.len()), made(drawn.b.len()));
        let gradients = LinearGradients {
            z: Some(&mut of_z),
            a: Some(&mut of_a),
            b: Some(&mut of_b),
            bias: Some(&mut of_bias),
        };
        linear.backward(&shape, (&a, &b), z, &grad_output, gradients)?;
        Ok::<_, Error>([of_z, of_a, of_b, of_bias].map(|v| v.to_vec().expect("a result")))
    };
    let got = match run() {
        Ok(got) => got,
        Err(why) => {
            // A sum over the batch has no gaps, where it is not a product of all rows.
            let refused = case.gaps && case.batch > 1 && (shared.a || shared.b);
            let advised = why.to_string().contains("make lda or ldb the length of a row");
            assert!(refused && advised, "{case:?}, {shared:?}: {why}");
            return;
        }
    };
    let bytes =
        |all: &[Vec<T>; 4]| all.each_ref().map(|v| bytemuck::cast_slice::<T, u8>(v).to_vec());
    assert_eq!(bytes(&got), bytes(&run().expect("as before")), "{case:?}: two runs, two results");
    let [of_z, of_a, of_b, of_bias] = got;
    let expected: Vec<Expected> = (0..case.batch)
        .map(|number| Expected::of(&drawn, options.alpha, options.activation, number, &incoming))
        .collect();
    let LinearShape { layout, m, n, k, lda, ldb, ldd, strides, .. } = shape;
    let (rows_a, rows_b) = (
        if layout.transposed_a() { (k, m) } else { (m, k) },
        if layout.transposed_b() { (n, k) } else { (k, n) },
    );
    let judge = |what: &str, got: &Array2<f64>, expected: &Array2<f64>, size: f64| {
        let (error, bound) = (relative_error(got, expected, size), bound(T::DTYPE));
        assert!(
            error <= bound,
            "{what} of {case:?}, {shared:?}, {options:?}: error {error:e}, bound {bound:e}"
        );
    };
    let sum = |of: fn(&Expected) -> &Sized2| {
        let size = expected.iter().map(|each| of(each).1.powi(2)).sum::<f64>().sqrt();
        let mut sum = of(&expected[0]).0.clone();
        expected[1..].iter().for_each(|each| sum += &of(each).0);
        (sum, size)
    };
    for (number, each) in expected.iter().enumerate() {
        let (z, size) = &each.z;
        judge("∂Z", &matrix(&of_z, number, strides.d, (m, n), ldd), z, *size);
        if !shared.a {
            judge("∂A", &matrix(&of_a, number, strides.a, rows_a, lda), &each.a.0, each.a.1);
        }
        if !shared.b {
            judge("∂B", &matrix(&of_b, number, strides.b, rows_b, ldb), &each.b.0, each.b.1);
        }
    }
    if shared.a {
        let (expected, size) = sum(|each| &each.a);
        judge("Σ∂A", &matrix(&of_a, 0, 0, rows_a, lda), &expected, size);
    }
    if shared.b {
        let (expected, size) = sum(|each| &each.b);
        judge("Σ∂B", &matrix(&of_b, 0, 0, rows_b, ldb), &expected, size);
    }
    let (expected, size) = sum(|each| &each.bias);
    judge("∂bias", &matrix(&of_bias, 0, 0, (1, n), n), &expected, size);

    let mut alone = made(case.n);
    let gradients = LinearGradients { bias: Some(&mut alone), ..Default::default() };
    linear.backward(&shape, (&a, &b), z, &grad_output, gradients).expect("the bias alone");
    let alone = alone.to_vec().expect("a result");
    assert_eq!(
        bytemuck::cast_slice::<T, u8>(&alone),
        bytemuck::cast_slice::<T, u8>(&of_bias),
        "{case:?}: the bias alone"
    );
}

/// A gradient, and the size that its error is relative to at least.
type Sized2 = (Array2<f64>, f64);

/// The reference's gradients of a problem.
struct Expected {
    z: Sized2,
    a: Sized2,
    b: Sized2,
    bias: Sized2,
}

impl Expected {
    fn of<T: LinearResult>(
        drawn: &Drawn<T, T>,
        alpha: f64,
        activation: Activation,
        number: usize,
        incoming: &[T],
    ) -> Self {
        let LinearShape { layout, m, n, ldd, strides, .. } = drawn.shape;
        let (op_a, op_b) = drawn.product(number);
        let bias: Option<Vec<f64>> =
            drawn.bias.as_ref().map(|v| v[..n].iter().map(|v| v.to_f64()).collect());
        let mut product = reference::Linear::new(op_a.view(), op_b.view());
        product.alpha = alpha;
        product.bias = bias.as_deref();
        product.activation = reference_activation(activation);
        let grad = matrix(incoming, number, strides.d, (m, n), ldd);
        let expected = reference::linear_backward(&product, grad.view()).expect("shapes fit");
        let transposed =
            |matrix: Array2<f64>, is: bool| if is { matrix.reversed_axes() } else { matrix };
        // Slopes are 1 and less, or little more: what they make small is not looked at for itself.
        let (of_a, of_b) = (
            alpha.abs() * size(&grad, &op_b.t().to_owned()),
            alpha.abs() * size(&op_a.t().to_owned(), &grad),
        );
        let bias = Array2::from_shape_vec((1, n), expected.bias).expect("one row");
        Self {
            z: (expected.z, norm(&grad)),
            a: (transposed(expected.a, layout.transposed_a()), of_a),
            b: (transposed(expected.b, layout.transposed_b()), of_b),
            bias: (bias, norm(&grad)),
        }
    }
}

/// Batches whose gradients are neither each problem's nor one sum.
pub fn check_refusals(device: &Device) {
    let shape = LinearShape::new(Layout::NN, 2, 3, 4).batched(3);
    let linear = Linear::new(device, LinearOptions::default()).expect("options");
    let of = |len: usize| Buffer::<f32>::zeroed(device, len).expect("memory");
    let (a, b, d) = (of(3 * 8), of(3 * 12), of(3 * 6));
    let refused = |strides: LinearStrides, lda: usize, bias: bool| {
        let shape = LinearShape { strides, lda, ..shape };
        let (mut of_a, mut of_bias) = (of(3 * 8), of(3));
        let gradients = LinearGradients {
            a: Some(&mut of_a),
            bias: bias.then_some(&mut of_bias),
            ..Default::default()
        };
        let why = linear.backward(&shape, (&a, &b), None, &d, gradients);
        why.expect_err("a batch that has no such gradient").to_string()
    };
    let strides = shape.strides;
    let why = refused(LinearStrides { a: 4, ..strides }, 4, false);
    assert!(why.contains("make its stride 0"), "{why}");
    let why = refused(LinearStrides { a: 0, ..strides }, 5, false);
    assert!(why.contains("the length of a row"), "{why}");
    let why = refused(LinearStrides { bias: 3, ..strides }, 4, true);
    assert!(why.contains("strides.bias"), "{why}");
}
