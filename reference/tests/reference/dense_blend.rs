//! A seed that grows a dense block: values by hand, central differences, what each state lets through, refusals.

use approx::assert_relative_eq;
use kasmina_reference::kasmina::{
    DenseGradients, DenseSeed, LayerError, NumericalMode, dense_blend, dense_blend_backward,
};
use kasmina_reference::normalization::Activation;
use ndarray::{Array2, array};

const TRAINING: u8 = 2;
const GRAFTING: u8 = 3;
const FINE_TUNING: u8 = 6;

#[derive(Clone)]
struct Case {
    lifecycle: u8,
    alpha: f64,
    weights: Array2<f64>,
    bias: Vec<f64>,
    activation: Activation,
    x: Array2<f64>,
    g: Array2<f64>,
}

impl Case {
    fn drawn(lifecycle: u8, activation: Activation, [batch, chunk]: [usize; 2]) -> Self {
        let mut number = (31 * batch + chunk + activation as usize) as f64;
        let mut value = || {
            number += 1.0;
            (number * 1.7).sin()
        };
        Self {
            lifecycle,
            alpha: 0.3,
            weights: Array2::from_shape_simple_fn((chunk, chunk), &mut value),
            bias: (0..chunk).map(|_| value()).collect(),
            activation,
            x: Array2::from_shape_simple_fn((batch, chunk), &mut value),
            g: Array2::from_shape_simple_fn((batch, chunk), &mut value),
        }
    }

    fn seed(&self) -> DenseSeed<'_> {
        DenseSeed {
            number: 0,
            lifecycle: self.lifecycle,
            alpha: self.alpha,
            weights: self.weights.view(),
            bias: &self.bias,
            activation: self.activation,
        }
    }

    fn gradients(&self) -> DenseGradients {
        dense_blend_backward(self.x.view(), self.g.view(), &self.seed(), NumericalMode::Fast)
            .expect("a good case")
    }

    /// Σ g·y.
    fn loss(&self) -> f64 {
        let y = dense_blend(self.x.view(), &self.seed(), NumericalMode::Fast).expect("a good case");
        (&y * &self.g).sum()
    }

    #[track_caller]
    fn check(&self, what: &str, got: f64, move_by: impl Fn(&mut Self, f64)) {
        let h = 1e-4;
        let moved = |h: f64| {
            let mut case = self.clone();
            move_by(&mut case, h);
            case.loss()
        };
        let expected = (moved(h) - moved(-h)) / (2.0 * h);
        assert!(
            (got - expected).abs() <= 1e-6 * expected.abs().max(1.0),
            "{what}: {got} {expected}"
        );
    }
}

#[test]
fn values_by_hand() {
    let case = Case {
        lifecycle: GRAFTING,
        alpha: 0.25,
        weights: array![[1.0, -1.0], [2.0, 0.5]],
        bias: vec![0.5, -1.0],
        activation: Activation::Relu,
        x: array![[1.0, 2.0], [-1.0, -3.0]],
        g: array![[1.0, 10.0], [100.0, 1000.0]],
    };
    // z = [[-0.5, 2], [2.5, -4.5]]
    let y = dense_blend(case.x.view(), &case.seed(), NumericalMode::Fast).expect("a good case");
    assert_eq!(y, array![[0.75, 2.0], [-0.125, -2.25]]);
    let gradients = case.gradients();
    // ∂z = [[0, 2.5], [25, 0]]
    assert_eq!(gradients.grad_bias, [25.0, 2.5]);
    assert_eq!(gradients.grad_weights, array![[-25.0, -75.0], [2.5, 5.0]]);
    assert_eq!(gradients.grad_input, array![[5.75, 8.75], [100.0, 725.0]]);
    // Σ g·(act(z) − x) = 1·(0−1) + 10·(2−2) + 100·(2.5+1) + 1000·(0+3)
    assert_eq!(gradients.grad_alpha, 3349.0);
}

/// Every gradient against the loss, for every smooth activation.
#[test]
fn central_differences() {
    for activation in Activation::ALL.into_iter().filter(|&a| a != Activation::Relu) {
        for lifecycle in [GRAFTING, FINE_TUNING] {
            for shape in [[1, 1], [3, 4], [5, 2]] {
                let case = Case::drawn(lifecycle, activation, shape);
                let gradients = case.gradients();
                for ((i, j), &got) in gradients.grad_input.indexed_iter() {
                    case.check("x", got, |case, h| case.x[(i, j)] += h);
                }
                for ((i, j), &got) in gradients.grad_weights.indexed_iter() {
                    case.check("W", got, |case, h| case.weights[(i, j)] += h);
                }
                for (i, &got) in gradients.grad_bias.iter().enumerate() {
                    case.check("b", got, |case, h| case.bias[i] += h);
                }
                case.check("α", gradients.grad_alpha, |case, h| case.alpha += h);
            }
        }
    }
}

/// TRAINING gives the blueprint what a = 1 gives it, and the input g; frozen states give the input what GRAFTING does.
#[test]
fn states_let_through_what_they_should() {
    let case = Case::drawn(GRAFTING, Activation::GeluTanh, [4, 3]);
    let full = Case { alpha: 1.0, ..case.clone() }.gradients();
    let training = Case { lifecycle: TRAINING, ..case.clone() };
    let got = training.gradients();
    assert_eq!(got.grad_input, case.g);
    assert_eq!((&got.grad_weights, &got.grad_bias), (&full.grad_weights, &full.grad_bias));
    assert_eq!(got.grad_alpha, 0.0);
    let y = dense_blend(case.x.view(), &training.seed(), NumericalMode::Fast).expect("good");
    assert_eq!(y, case.x);
    for lifecycle in [4, 5, 7] {
        let got = Case { lifecycle, ..case.clone() }.gradients();
        assert_eq!(got.grad_input, case.gradients().grad_input);
        assert!(got.grad_weights.iter().chain(&got.grad_bias).all(|&v| v == 0.0));
        assert_eq!(got.grad_alpha, 0.0);
    }
    for lifecycle in [0, 1, 8, 9, 10] {
        let got = Case { lifecycle, ..case.clone() }.gradients();
        assert_eq!((got.grad_input, got.gradient_norm), (case.g.clone(), 0.0));
    }
    // Where α is clipped it has no gradient.
    for alpha in [0.0, 1.0, -1.0, 2.0] {
        assert_eq!(Case { alpha, ..case.clone() }.gradients().grad_alpha, 0.0);
    }
}

#[test]
fn figures_are_those_of_the_bias() {
    let gradients = Case::drawn(GRAFTING, Activation::Silu, [6, 5]).gradients();
    let bias = &gradients.grad_bias;
    let norm = bias.iter().map(|v| v * v).sum::<f64>().sqrt();
    assert_relative_eq!(gradients.gradient_norm, norm, max_relative = 1e-14);
    let mean = bias.iter().sum::<f64>() / 5.0;
    let variance = bias.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 5.0;
    assert_relative_eq!(gradients.gradient_variance, variance, max_relative = 1e-12);
    assert!(bias.iter().any(|v| v.abs() == gradients.gradient_max));
}

#[test]
fn strict_modes_bound_what_is_written() {
    let case = Case::drawn(GRAFTING, Activation::None, [3, 4]);
    let mode = NumericalMode::Strict { low: -0.1, high: 0.2 };
    let y = dense_blend(case.x.view(), &case.seed(), mode).expect("good");
    assert!(y.iter().all(|v| (-0.1..=0.2).contains(v)) && y.iter().any(|&v| v == 0.2));
    let got = dense_blend_backward(case.x.view(), case.g.view(), &case.seed(), mode).expect("good");
    assert!(got.grad_input.iter().all(|v| (-0.1..=0.2).contains(v)));
    let flags = NumericalMode::Adaptive { low: -0.1, high: 0.2, unstable: &[] };
    dense_blend(case.x.view(), &case.seed(), flags).expect_err("no flag");
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::drawn(GRAFTING, Activation::None, [3, 4]);
    let refused = |seed: DenseSeed<'_>| {
        dense_blend(case.x.view(), &seed, NumericalMode::Fast).expect_err("refused")
    };
    let (wide, none) = (Array2::zeros((4, 3)), Array2::zeros((0, 0)));
    let seed = case.seed();
    assert!(matches!(
        refused(DenseSeed { weights: wide.view(), ..seed }),
        LayerError::Length { .. }
    ));
    assert!(matches!(
        refused(DenseSeed { weights: none.view(), ..seed }),
        LayerError::Empty { .. }
    ));
    assert!(matches!(refused(DenseSeed { bias: &[0.0], ..seed }), LayerError::Length { .. }));
    assert!(matches!(refused(DenseSeed { lifecycle: 11, ..seed }), LayerError::Lifecycle { .. }));
    assert!(matches!(refused(DenseSeed { alpha: f64::NAN, ..seed }), LayerError::Alpha { .. }));
    let g = Array2::zeros((2, 4));
    let why = dense_blend_backward(case.x.view(), g.view(), &seed, NumericalMode::Fast);
    assert!(matches!(why, Err(LayerError::Rows { .. })));
}
