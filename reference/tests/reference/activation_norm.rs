//! Activation with normalisation: known values, closed forms, invariances, and central differences for
//! every activation, norm and order.

use approx::assert_relative_eq;
use kasmina_reference::normalization::{
    Activation, Norm, NormError, NormOptions, NormOrder, activation_norm, activation_norm_backward,
};
use ndarray::{Array2, ArrayView2, array};
use proptest::prelude::*;

const NONE: Option<&[f64]> = None;

#[track_caller]
fn assert_near(got: &Array2<f64>, expected: &Array2<f64>, tolerance: f64) {
    assert_eq!(got.dim(), expected.dim());
    for (got, expected) in got.iter().zip(expected) {
        assert_relative_eq!(*got, *expected, max_relative = tolerance, epsilon = tolerance);
    }
}

fn options(activation: Activation, norm: Norm, order: NormOrder) -> NormOptions {
    NormOptions { activation, norm, order, epsilon: 1e-5 }
}

fn every_option() -> impl Iterator<Item = NormOptions> {
    let norms = [Norm::LayerNorm, Norm::RmsNorm];
    let orders = [NormOrder::ActivationThenNorm, NormOrder::NormThenActivation];
    Activation::ALL.into_iter().flat_map(move |activation| {
        norms.into_iter().flat_map(move |norm| {
            orders.into_iter().map(move |order| options(activation, norm, order))
        })
    })
}

/// Values of sin, none of them where ReLU has its corner.
fn values(count: usize, phase: f64) -> Vec<f64> {
    (0..count).map(|i| 1.7 * (1.3 * i as f64 + phase).sin()).collect()
}

#[test]
fn activations_at_known_points() {
    // From 30-digit arithmetic.
    for (activation, x, value) in [
        (Activation::None, -3.5, -3.5),
        (Activation::Relu, -2.0, 0.0),
        (Activation::Relu, 2.0, 2.0),
        (Activation::GeluErf, 1.0, 0.841_344_746_068_542_9),
        (Activation::GeluErf, -2.0, -0.045_500_263_896_358_4),
        (Activation::GeluTanh, 1.0, 0.841_191_990_608_276_6),
        (Activation::Silu, 1.0, 0.731_058_578_630_004_9),
        (Activation::Sigmoid, -1.0, 0.268_941_421_369_995_1),
        (Activation::Tanh, 0.5, 0.462_117_157_260_009_76),
    ] {
        assert_relative_eq!(activation.value(x), value, max_relative = 1e-13);
    }
    for activation in Activation::ALL {
        assert!(activation.value(f64::NAN).is_nan(), "{activation:?}");
    }
}

#[test]
fn derivatives_are_central_differences() {
    for activation in Activation::ALL {
        for i in 0..80 {
            let (x, h) = (-6.03 + 0.15 * f64::from(i), 1e-5);
            let difference = (activation.value(x + h) - activation.value(x - h)) / (2.0 * h);
            assert_relative_eq!(activation.derivative(x), difference, epsilon = 1e-9);
        }
    }
}

#[test]
fn two_columns_have_a_closed_form() {
    // (a, b): mean (a+b)/2, deviation ±d with d = (a−b)/2, so that û = ±d/√(d² + ε).
    let x = array![[3.0, 1.0]];
    let with = NormOptions {
        epsilon: 0.21,
        ..options(Activation::None, Norm::LayerNorm, NormOrder::ActivationThenNorm)
    };
    let got = activation_norm(x.view(), Some(&[2.0, 1.0]), Some(&[0.5, 0.0]), with).unwrap();
    let normal = 1.0 / 1.21_f64.sqrt();
    assert_near(&got.output, &array![[2.0 * normal + 0.5, -normal]], 1e-15);
    assert_relative_eq!(got.mean[0], 2.0);
    assert_relative_eq!(got.rstd[0], normal);

    // RMS norm of (3, 4): mean square 12.5.
    let x = array![[3.0, 4.0]];
    let with = NormOptions { epsilon: 12.5, norm: Norm::RmsNorm, ..with };
    let got = activation_norm(x.view(), NONE, NONE, with).unwrap();
    assert_near(&got.output, &array![[0.6, 0.8]], 1e-15);
    assert_eq!(got.mean, [0.0]);
}

#[test]
fn one_column_is_its_offset_under_layer_norm() {
    let x = array![[7.0], [-2.0]];
    for activation in Activation::ALL {
        let with = options(activation, Norm::LayerNorm, NormOrder::ActivationThenNorm);
        let got = activation_norm(x.view(), Some(&[3.0]), Some(&[0.25]), with).unwrap();
        assert_eq!(got.output, array![[0.25], [0.25]], "{activation:?}");
    }
}

#[test]
fn the_order_says_where_the_activation_is() {
    let (x, gamma) = (values(12, 0.1), values(6, 2.0));
    let x = ArrayView2::from_shape((2, 6), &x).unwrap();
    for norm in [Norm::LayerNorm, Norm::RmsNorm] {
        let of = |activation, order, x: ArrayView2<'_, f64>| {
            activation_norm(x, Some(&gamma), None, options(activation, norm, order)).unwrap().output
        };
        let (first, last) = (NormOrder::ActivationThenNorm, NormOrder::NormThenActivation);
        for activation in Activation::ALL {
            let activated = x.mapv(|x| activation.value(x));
            assert_eq!(of(activation, first, x), of(Activation::None, first, activated.view()));
            let plain = of(Activation::None, first, x);
            assert_eq!(of(activation, last, x), plain.mapv(|y| activation.value(y)));
        }
    }
}

/// L = Σ c·y for random c: every gradient against the difference quotient of L.
#[test]
fn gradients_are_central_differences() {
    let (rows, cols) = (3, 7);
    let (x, g) = (values(rows * cols, 0.37), values(rows * cols, 1.9));
    let (gamma, beta) = (values(cols, 0.8), values(cols, 2.6));
    let shape = (rows, cols);
    let g = ArrayView2::from_shape(shape, &g).unwrap();
    for options in every_option() {
        let beta = (options.norm == Norm::LayerNorm).then_some(&beta);
        let loss = |x: &[f64], gamma: &[f64], beta: Option<&[f64]>| {
            let x = ArrayView2::from_shape(shape, x).unwrap();
            let y = activation_norm(x, Some(gamma), beta, options).unwrap().output;
            (&y * &g).sum()
        };
        let offset = beta.map(Vec::as_slice);
        let array = ArrayView2::from_shape(shape, &x).unwrap();
        let got = activation_norm_backward(array, g, Some(&gamma), offset, options).unwrap();
        let check = |what: &str, got: f64, along: &dyn Fn(f64) -> f64| {
            let h = 1e-5;
            // Fourth order: the error is of h⁴.
            let quotient =
                (8.0 * (along(h) - along(-h)) - (along(2.0 * h) - along(-2.0 * h))) / (12.0 * h);
            assert!(
                approx::relative_eq!(got, quotient, max_relative = 1e-6, epsilon = 1e-8),
                "{options:?}: {what}: {got}, difference quotient {quotient}"
            );
        };
        let shifted = |values: &[f64], i: usize, h: f64| {
            let mut values = values.to_vec();
            values[i] += h;
            values
        };
        for i in 0..x.len() {
            let along = |h: f64| loss(&shifted(&x, i, h), &gamma, offset);
            check("∂x", got.input[[i / cols, i % cols]], &along);
        }
        for c in 0..cols {
            check("∂γ", got.gamma[c], &|h| loss(&x, &shifted(&gamma, c, h), offset));
            if let Some(beta) = beta {
                check("∂β", got.beta[c], &|h| loss(&x, &gamma, Some(&shifted(beta, c, h))));
            }
        }
    }
}

#[test]
fn gradients_of_a_layer_norm_sum_to_nothing_and_are_orthogonal() {
    // û depends neither on an offset of u nor, but for ε, on its scale.
    let x = values(40, 0.2);
    let g = values(40, 5.0);
    let (x, g) = (
        ArrayView2::from_shape((1, 40), &x).unwrap(),
        ArrayView2::from_shape((1, 40), &g).unwrap(),
    );
    let with = NormOptions {
        epsilon: 1e-14,
        ..options(Activation::None, Norm::LayerNorm, NormOrder::ActivationThenNorm)
    };
    let got = activation_norm_backward(x, g, NONE, NONE, with).unwrap().input;
    assert!(got.sum().abs() < 1e-12);
    assert!((&got * &x).sum().abs() < 1e-11);
    let with = NormOptions { norm: Norm::RmsNorm, ..with };
    let got = activation_norm_backward(x, g, NONE, NONE, with).unwrap().input;
    assert!(got.sum().abs() > 1e-3, "an offset changes an RMS norm");
    assert!((&got * &x).sum().abs() < 1e-11);
}

#[test]
fn a_large_offset_costs_no_accuracy() {
    let plain = values(1000, 0.4);
    let offset: Vec<f64> = plain.iter().map(|x| x + 1e6).collect();
    let with = options(Activation::None, Norm::LayerNorm, NormOrder::ActivationThenNorm);
    let of = |x: &[f64]| {
        activation_norm(ArrayView2::from_shape((1, 1000), x).unwrap(), NONE, NONE, with).unwrap()
    };
    assert_near(&of(&plain).output, &of(&offset).output, 1e-8);
}

#[test]
fn nan_fills_its_row_alone() {
    let mut x = Array2::from_shape_vec((2, 5), values(10, 1.0)).unwrap();
    x[[1, 3]] = f64::NAN;
    for options in every_option() {
        let got = activation_norm(x.view(), NONE, NONE, options).unwrap();
        assert!(got.output.row(0).iter().all(|y| y.is_finite()), "{options:?}");
        assert!(got.output.row(1).iter().all(|y| y.is_nan()), "{options:?}");
    }
}

#[test]
fn what_means_nothing_is_refused() {
    let x = array![[1.0, 2.0]];
    let with = options(Activation::None, Norm::RmsNorm, NormOrder::ActivationThenNorm);
    let run = |gamma: Option<&[f64]>, beta: Option<&[f64]>, options| {
        activation_norm(x.view(), gamma, beta, options).map(|got| got.output)
    };
    for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = run(None, None, NormOptions { epsilon, ..with });
        assert!(matches!(refused, Err(NormError::Epsilon { .. })), "{epsilon}");
    }
    let wrong = NormError::Length { tensor: "gamma", expected: 2, got: 3 };
    assert_eq!(run(Some(&[1.0; 3]), None, with), Err(wrong));
    assert_eq!(run(None, Some(&[0.0; 2]), with), Err(NormError::BetaOfRmsNorm));
    let none = Array2::<f64>::zeros((3, 0));
    assert_eq!(activation_norm(none.view(), NONE, NONE, with), Err(NormError::NoColumns));
    let g = array![[1.0]];
    let refused = activation_norm_backward(x.view(), g.view(), NONE, NONE, with);
    assert_eq!(refused, Err(NormError::Shape { expected: (1, 2), got: (1, 1) }));
}

proptest! {
    #[test]
    fn rows_have_mean_0_and_mean_square_1(seed in 0.0..6.0_f64, cols in 2usize..300) {
        let x = values(cols, seed);
        let x = ArrayView2::from_shape((1, cols), &x).unwrap();
        for norm in [Norm::LayerNorm, Norm::RmsNorm] {
            let with = NormOptions { epsilon: 1e-12, ..options(Activation::Tanh, norm, NormOrder::ActivationThenNorm) };
            let y = activation_norm(x, NONE, NONE, with).unwrap().output;
            let n = cols as f64;
            prop_assert!((y.mapv(|y| y * y).sum() / n - 1.0).abs() < 1e-6);
            if norm == Norm::LayerNorm {
                prop_assert!((y.sum() / n).abs() < 1e-9);
            }
        }
    }
}
