//! Gradients of products against the reference.

use kasmina::linear::{Activation, Linear, LinearGradients, LinearResult, LinearShape, Operands};
use kasmina::types::DType;
use kasmina::{Buffer, Device};
use kasmina_reference::linear as reference;
use ndarray::Array2;

use super::forward::{Case, matrix, norm, reference_activation, relative_error, size, values};
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

/// Every gradient of one product, by what the forward pass kept; and the bias's alone.
#[track_caller]
pub fn check<T: LinearResult>(device: &Device, case: &Case) {
    let drawn = case.draw::<T, T>();
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
    let (mut d, mut z) = (made(case.m * shape.ldd), made(case.m * shape.ldz));
    linear.forward(&shape, &operands, &mut d, Some(&mut z)).expect("a product");
    let incoming: Vec<T> = values(case.m * shape.ldd, &mut Numbers::new(!case.seed));
    let grad_output = buffer(&incoming);
    let z = (options.activation != Activation::None).then_some(&z);
    let run = || {
        let (mut of_z, mut of_bias) = (made(case.m * shape.ldd), made(case.n));
        let (mut of_a, mut of_b) = (made(drawn.a.len()), made(drawn.b.len()));
        let gradients = LinearGradients {
            z: Some(&mut of_z),
            a: Some(&mut of_a),
            b: Some(&mut of_b),
            bias: Some(&mut of_bias),
        };
        linear
            .backward(&shape, (&a, &b), z, &grad_output, gradients)
            .unwrap_or_else(|why| panic!("{case:?}: {why}"));
        [of_z, of_a, of_b, of_bias].map(|buffer| buffer.to_vec().expect("a result"))
    };
    let got = run();
    let bytes =
        |all: &[Vec<T>; 4]| all.each_ref().map(|v| bytemuck::cast_slice::<T, u8>(v).to_vec());
    assert_eq!(bytes(&got), bytes(&run()), "{case:?}: two runs, two results");
    let [of_z, of_a, of_b, of_bias] = got;

    let (op_a, op_b) = drawn.product(0);
    let wide_bias = drawn.bias.as_ref().map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
    let mut product = reference::Linear::new(op_a.view(), op_b.view());
    product.alpha = options.alpha;
    product.bias = wide_bias.as_deref();
    product.activation = reference_activation(options.activation);
    let grad = matrix(&incoming, 0, 0, (case.m, case.n), shape.ldd);
    let expected = reference::linear_backward(&product, grad.view()).expect("shapes fit");
    let LinearShape { layout, m, n, k, lda, ldb, ldd, .. } = shape;
    // Slopes are 1 and less, or little more: what they make small is not looked at for itself.
    let sizes = [
        norm(&grad),
        options.alpha.abs() * size(&grad, &op_b.t().to_owned()),
        options.alpha.abs() * size(&op_a.t().to_owned(), &grad),
        norm(&grad),
    ];
    let transposed =
        |matrix: Array2<f64>, is: bool| if is { matrix.reversed_axes() } else { matrix };
    let (rows_a, rows_b) = (
        if layout.transposed_a() { (k, m) } else { (m, k) },
        if layout.transposed_b() { (n, k) } else { (k, n) },
    );
    let compared = [
        ("∂Z", matrix(&of_z, 0, 0, (m, n), ldd), expected.z),
        ("∂A", matrix(&of_a, 0, 0, rows_a, lda), transposed(expected.a, layout.transposed_a())),
        ("∂B", matrix(&of_b, 0, 0, rows_b, ldb), transposed(expected.b, layout.transposed_b())),
        (
            "∂bias",
            matrix(&of_bias, 0, 0, (1, n), n),
            Array2::from_shape_vec((1, n), expected.bias).expect("one row"),
        ),
    ];
    for ((what, got, expected), size) in compared.into_iter().zip(sizes) {
        let (error, bound) = (relative_error(&got, &expected, size), bound(T::DTYPE));
        assert!(
            error <= bound,
            "{what} of {case:?}, {options:?}: error {error:e}, bound {bound:e}"
        );
    }

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
