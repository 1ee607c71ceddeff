//! The backward pass: published values, central differences of the forward pass, what each state lets
//! through, numerical modes.

use std::collections::BTreeMap;

use approx::assert_relative_eq;
use kasmina_reference::kasmina::{
    BlendGradients, LayerError, LayerState, NumericalMode, blend_backward, blend_forward,
    blend_forward_in_mode, sanitise, telemetry, unstable_seeds,
};
use ndarray::{Array2, s};
use proptest::prelude::*;
use serde::Deserialize;

const TRAINING: u8 = 2;
const GRAFTING: u8 = 3;
const FINE_TUNING: u8 = 6;
const MLP_EXPANSION: u8 = 2;
const TYPES: [u8; 5] = [0, 1, 2, 3, 4];

/// A layer with its input and the gradient at its output.
#[derive(Clone, Debug)]
struct Layer {
    lifecycle: Vec<u8>,
    blueprint_id: Vec<u16>,
    alpha: Vec<f64>,
    kinds: Vec<u8>,
    weights: Array2<f64>,
    scales: Vec<f64>,
    x: Array2<f64>,
    g: Array2<f64>,
}

impl Layer {
    fn state(&self) -> LayerState<'_, f64> {
        LayerState {
            lifecycle: &self.lifecycle,
            blueprint_id: &self.blueprint_id,
            alpha: &self.alpha,
            blueprint_type: &self.kinds,
            blueprint_weights: self.weights.view(),
            blueprint_scales: &self.scales,
        }
    }

    fn gradients(&self) -> BlendGradients<f64> {
        blend_backward(self.x.view(), self.g.view(), &self.state(), NumericalMode::Fast)
            .expect("a valid layer")
    }

    /// Σ g·y.
    fn loss(&self) -> f64 {
        let y = blend_forward(self.x.view(), &self.state()).expect("a valid layer");
        (&y * &self.g).sum()
    }

    /// The central difference of the loss as `move_by` moves something by ±h.
    fn difference(&self, move_by: impl Fn(&mut Self, f64)) -> f64 {
        // Every T is a polynomial of degree 2 at most, or an exponential of small weights: h may be large.
        let h = 1e-4;
        let at = |step| {
            let mut moved = self.clone();
            move_by(&mut moved, step);
            moved.loss()
        };
        (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
    }

    /// The layer whose loss the parameters of seed `seed` see: TRAINING is T itself on a detached input.
    fn seen_by_parameters(&self) -> Self {
        let mut seen = self.clone();
        for seed in 0..self.lifecycle.len() {
            match self.lifecycle[seed] {
                TRAINING => (seen.lifecycle[seed], seen.alpha[seed]) = (GRAFTING, 1.0),
                GRAFTING | FINE_TUNING => {}
                _ => seen.lifecycle[seed] = 0,
            }
        }
        seen
    }
}

#[track_caller]
fn assert_near(what: &str, got: f64, want: f64, scale: f64) {
    assert!((got - want).abs() <= 1e-6 * want.abs().max(scale), "{what}: {got} is not {want}");
}

/// Compares every gradient with differences.
#[track_caller]
fn check_differences(layer: &Layer) {
    let gradients = layer.gradients();
    let size = |values: &Array2<f64>| (values.iter().map(|v| v * v).sum::<f64>()).sqrt().max(1e-3);
    let scale = size(&layer.g);
    for (at, &got) in gradients.grad_input.indexed_iter() {
        assert_near(&format!("∂x{at:?}"), got, layer.difference(|l, h| l.x[at] += h), scale);
    }
    let seen = layer.seen_by_parameters();
    for (at, &got) in gradients.grad_weights.indexed_iter() {
        // Blueprint 0 is 'none', and a seed cannot have it.
        let want = if at.0 == 0 { 0.0 } else { seen.difference(|l, h| l.weights[at] += h) };
        assert_near(&format!("∂w{at:?}"), got, want, scale);
    }
    for (blueprint, &got) in gradients.grad_scales.iter().enumerate() {
        let want = seen.difference(|l, h| l.scales[blueprint] += h);
        assert_near(&format!("∂s[{blueprint}]"), got, want, scale);
    }
    for (seed, &got) in gradients.grad_alpha.iter().enumerate() {
        let blends = matches!(layer.lifecycle[seed], GRAFTING | FINE_TUNING);
        let want = if blends { layer.difference(|l, h| l.alpha[seed] += h) } else { 0.0 };
        assert_near(&format!("∂α[{seed}]"), got, want, scale);
    }
}

fn number() -> impl Strategy<Value = f64> {
    // Away from zero, where relu has no derivative.
    (0.05..2.0_f64, any::<bool>()).prop_map(|(v, negative)| if negative { -v } else { v })
}

/// A layer of every state and type; blueprints are shared, α stays away from its ends.
fn layer() -> impl Strategy<Value = Layer> {
    (1_usize..5, 1_usize..8, 1_usize..7).prop_flat_map(|(batch, seeds, chunk)| {
        let numbers = move |n: usize| prop::collection::vec(number(), n);
        let blueprints = 4_usize;
        (
            prop::collection::vec(0_u8..=10, seeds),
            prop::collection::vec(0_u16..blueprints as u16, seeds),
            prop::collection::vec(0.05..0.95_f64, seeds),
            prop::collection::vec(0_u8..5, blueprints),
            numbers(blueprints * chunk),
            numbers(blueprints),
            numbers(batch * seeds * chunk),
            numbers(batch * seeds * chunk),
        )
            .prop_map(move |(lifecycle, blueprint_id, alpha, kinds, w, scales, x, g)| {
                let matrix = |rows: usize, v| {
                    Array2::from_shape_vec((rows, seeds * chunk), v).expect("the shape")
                };
                Layer {
                    lifecycle,
                    blueprint_id,
                    alpha,
                    kinds,
                    weights: Array2::from_shape_vec((blueprints, chunk), w).expect("the shape"),
                    scales,
                    x: matrix(batch, x),
                    g: matrix(batch, g),
                }
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_gradient_is_a_difference_of_the_forward_pass(layer in layer()) {
        check_differences(&layer);
    }

    #[test]
    fn statistics_are_those_of_a_seeds_own_part(layer in layer()) {
        let gradients = layer.gradients();
        for seed in 0..layer.lifecycle.len() {
            // Alone, the seed is all that its blueprint hears of.
            let mut alone = layer.clone();
            for other in (0..layer.lifecycle.len()).filter(|&other| other != seed) {
                alone.lifecycle[other] = 0;
            }
            let own = alone.gradients().grad_weights;
            let own = own.row(layer.blueprint_id[seed].into());
            let mean = own.mean().unwrap();
            let variance = own.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / own.len() as f64;
            let norm = own.iter().map(|w| w * w).sum::<f64>().sqrt();
            let max = own.iter().fold(0.0, |max: f64, w| max.max(w.abs()));
            prop_assert!((gradients.gradient_norm[seed] - norm).abs() <= 1e-12 * norm);
            prop_assert!((gradients.gradient_variance[seed] - variance).abs() <= 1e-12 * norm * norm);
            prop_assert_eq!(gradients.gradient_max[seed], max);
        }
    }

    #[test]
    fn an_inactive_seed_passes_its_gradient_bit_for_bit(layer in layer()) {
        let gradients = layer.gradients();
        let chunk = layer.weights.ncols();
        for seed in 0..layer.lifecycle.len() {
            let active = (3..=7).contains(&layer.lifecycle[seed]) && layer.blueprint_id[seed] != 0;
            let columns = s![.., seed * chunk..(seed + 1) * chunk];
            if !active {
                prop_assert_eq!(gradients.grad_input.slice(columns), layer.g.slice(columns));
            }
            let trains = [TRAINING, GRAFTING, FINE_TUNING].contains(&layer.lifecycle[seed]);
            if !trains || layer.blueprint_id[seed] == 0 {
                prop_assert_eq!(gradients.gradient_norm[seed], 0.0);
                prop_assert_eq!(gradients.grad_alpha[seed], 0.0);
            }
        }
    }
}

/// Each type in each state, alone, on chunks shorter and longer than a convolution.
#[test]
fn each_type_in_each_state() {
    for kind in TYPES {
        for lifecycle in 0..=10 {
            for chunk in [1, 2, 3, 5] {
                let numbers = |rows: usize, columns: usize, from: usize| {
                    Array2::from_shape_fn((rows, columns), |(r, c)| {
                        let n = ((r * columns + c + from) * 37 % 64) as f64 / 32.0 - 0.99;
                        n + 0.05 * n.signum()
                    })
                };
                check_differences(&Layer {
                    lifecycle: vec![lifecycle],
                    blueprint_id: vec![1],
                    alpha: vec![0.3],
                    kinds: vec![0, kind],
                    weights: numbers(2, chunk, 3),
                    scales: vec![0.0, 1.5],
                    x: numbers(3, chunk, 11),
                    g: numbers(3, chunk, 29),
                });
            }
        }
    }
}

#[derive(Deserialize)]
struct Case {
    x: Vec<Vec<f64>>,
    g: Vec<Vec<f64>>,
    scale: f64,
    alpha: f64,
    types: BTreeMap<String, TypeCase>,
}

#[derive(Deserialize)]
struct TypeCase {
    w: Vec<f64>,
    d_input: Vec<Vec<f64>>,
    d_weight: Vec<f64>,
    d_scale: f64,
    d_alpha: f64,
    triton_source_d_input: Vec<Vec<f64>>,
    triton_source_d_weight: Vec<f64>,
    triton_source_d_scale: f64,
}

fn matrix(rows: &[Vec<f64>]) -> Array2<f64> {
    Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).expect("rows of one length")
}

#[test]
fn known_values_of_each_type_and_not_the_known_wrong_ones() {
    let case: Case =
        serde_json::from_str(include_str!("../cases/blueprint_grad_case.json")).unwrap();
    let codes =
        [("RESIDUAL_BLOCK", 0), ("ATTENTION_HEAD", 1), ("MLP_EXPANSION", 2), ("CONV_FILTER", 3)];
    let mut wrong = 0;
    for (name, kind) in codes {
        let known = &case.types[name];
        let mut weights = Array2::from_elem((2, 5), f64::NAN);
        for (i, &w) in known.w.iter().enumerate() {
            weights[[1, i]] = w;
        }
        let layer = Layer {
            lifecycle: vec![GRAFTING],
            blueprint_id: vec![1],
            alpha: vec![case.alpha],
            kinds: vec![u8::MAX, kind],
            weights,
            scales: vec![f64::NAN, case.scale],
            x: matrix(&case.x),
            g: matrix(&case.g),
        };
        let got = layer.gradients();
        let weights: Vec<f64> =
            got.grad_weights.row(1).iter().copied().take(known.w.len()).collect();
        let input: Vec<f64> = got.grad_input.iter().copied().collect();
        for (got, want, published) in [
            (input, known.d_input.concat(), known.triton_source_d_input.concat()),
            (weights, known.d_weight.clone(), known.triton_source_d_weight.clone()),
            (got.grad_scales[1..].into(), vec![known.d_scale], vec![known.triton_source_d_scale]),
            (got.grad_alpha, vec![known.d_alpha], vec![known.d_alpha]),
        ] {
            assert_eq!(got.len(), want.len());
            for ((got, want), published) in got.into_iter().zip(want).zip(published) {
                assert_relative_eq!(got, want, max_relative = 1e-12, epsilon = 1e-15);
                if (published - want).abs() > 1e-9 {
                    wrong += 1;
                    assert!((got - published).abs() > 1e-9, "{name}: the published value");
                }
            }
        }
    }
    // RESIDUAL ∂x and ∂w, MLP ∂s.
    assert_eq!(wrong, 10 + 5 + 1);
}

#[test]
fn a_clipped_alpha_has_no_gradient() {
    for (alpha, clipped) in [(-0.5, true), (0.0, true), (0.5, false), (1.0, true), (1.5, true)] {
        let layer = Layer {
            lifecycle: vec![GRAFTING],
            blueprint_id: vec![1],
            alpha: vec![alpha],
            kinds: vec![0, 4],
            weights: Array2::from_elem((2, 2), 3.0),
            scales: vec![1.0; 2],
            x: Array2::from_elem((1, 2), 1.0),
            g: Array2::from_elem((1, 2), 1.0),
        };
        assert_eq!(layer.gradients().grad_alpha[0] == 0.0, clipped, "α = {alpha}");
    }
}

#[test]
fn relu_is_closed_at_zero() {
    let layer = Layer {
        lifecycle: vec![GRAFTING],
        blueprint_id: vec![1],
        alpha: vec![1.0],
        kinds: vec![0, MLP_EXPANSION],
        weights: Array2::from_elem((2, 2), -3.0),
        scales: vec![1.0; 2],
        x: matrix(&[vec![0.0, -0.0]]),
        g: Array2::from_elem((1, 2), 1.0),
    };
    assert!(layer.gradients().grad_input.iter().all(|&g| g == 0.0));
}

/// One seed of one type, two rows of five columns of ones, with one element of x or g replaced.
fn with_broken(kind: u8, in_g: bool, (row, column): (usize, usize), value: f64) -> Layer {
    let mut layer = Layer {
        lifecycle: vec![GRAFTING],
        blueprint_id: vec![1],
        alpha: vec![0.5],
        kinds: vec![0, kind],
        weights: Array2::from_elem((2, 5), 0.5),
        scales: vec![1.0; 2],
        x: Array2::ones((2, 5)),
        g: Array2::ones((2, 5)),
    };
    let broken = if in_g { &mut layer.g } else { &mut layer.x };
    broken[[row, column]] = value;
    layer
}

/// For each type and each broken element, which weights' gradients are not finite: those that have a term with it.
#[test]
fn what_is_not_finite_follows_the_terms() {
    const ATTENTION_HEAD: u8 = 1;
    const RESIDUAL_BLOCK: u8 = 0;
    const CONV_FILTER: u8 = 3;
    for kind in TYPES {
        for column in 0..5 {
            for (in_g, value) in [false, true].into_iter().flat_map(|in_g| {
                [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(move |value| (in_g, value))
            }) {
                let broken = with_broken(kind, in_g, (1, column), value).gradients();
                let what = format!(
                    "type {kind}, {value} in {} at {column}",
                    ["x", "g"][usize::from(in_g)]
                );
                for i in 0..5 {
                    let spreads = match kind {
                        RESIDUAL_BLOCK => in_g && i == column,
                        // Through Σ p·h to all.
                        ATTENTION_HEAD => true,
                        // w > 0 is closed for what is not above 0, and x is not asked for then.
                        MLP_EXPANSION => i == column && (in_g || value == f64::INFINITY),
                        // Tap i has g from column i on, and x up to column 4 − i.
                        CONV_FILTER => i < 3 && if in_g { column >= i } else { column + i < 5 },
                        _ => i == column,
                    };
                    assert_eq!(
                        !broken.grad_weights[[1, i]].is_finite(),
                        spreads,
                        "{what}: ∂w[{i}]"
                    );
                }
                let weights_broken = broken.grad_weights.iter().any(|w| !w.is_finite());
                let scale_broken = weights_broken && kind != ATTENTION_HEAD;
                assert_eq!(!broken.grad_scales[1].is_finite(), scale_broken, "{what}: ∂s");
                assert_eq!(!broken.gradient_norm[0].is_finite(), weights_broken, "{what}: norm");
                let reads_x = kind != RESIDUAL_BLOCK;
                assert_eq!(!broken.grad_alpha[0].is_finite(), in_g || reads_x, "{what}: ∂α");
            }
        }
    }
    // 0·∞: closed, the derivative is 0 and x is not asked for; the gradient that comes in is.
    let mut closed = with_broken(MLP_EXPANSION, true, (0, 2), f64::INFINITY);
    closed.x[[0, 2]] = -1.0;
    assert!(closed.gradients().grad_weights[[1, 2]].is_nan());
}

#[test]
fn modes_sanitise_what_active_seeds_write_and_nothing_else() {
    assert_eq!(sanitise(f64::NAN, 1.0, 2.0), 0.0);
    assert_eq!(sanitise(-1e-9, 1.0, 2.0), 0.0);
    assert_eq!(sanitise(f64::INFINITY, -1.0, 2.0), 2.0);
    assert_eq!(sanitise(-5.0_f32, -1.0, 2.0), -1.0);
    assert_eq!(sanitise(0.5_f32, -1.0, 2.0), 0.5);

    let layer = Layer {
        lifecycle: vec![GRAFTING, 0, FINE_TUNING],
        blueprint_id: vec![1; 3],
        alpha: vec![1.0; 3],
        kinds: vec![0, 4],
        weights: Array2::from_elem((2, 1), 100.0),
        scales: vec![1.0; 2],
        x: matrix(&[vec![5.0, 1e-9, f64::NAN]]),
        g: matrix(&[vec![5.0, 1e-9, f64::NAN]]),
    };
    let state = layer.state();
    let unstable = unstable_seeds(&telemetry(layer.x.view(), 3).unwrap());
    assert_eq!(unstable, [0, 0, 1]);
    let strict = NumericalMode::Strict { low: -2.0, high: 2.0 };
    let adaptive = NumericalMode::Adaptive { low: -2.0, high: 2.0, unstable: &unstable };
    for (mode, want) in [(strict, [2.0, 1e-9, 0.0]), (adaptive, [500.0, 1e-9, 0.0])] {
        let y = blend_forward_in_mode(layer.x.view(), &state, mode).unwrap();
        assert_eq!(y.as_slice().unwrap(), want);
        let gradients = blend_backward(layer.x.view(), layer.g.view(), &state, mode).unwrap();
        assert_eq!(gradients.grad_input.as_slice().unwrap(), want);
        assert!(gradients.grad_weights[[1, 0]].is_nan(), "parameters' gradients are as they are");
    }
}

#[test]
fn an_outlier_makes_a_seed_unstable() {
    let mut values = vec![0.0; 200];
    values[7] = 1.0;
    let x = Array2::from_shape_vec((200, 1), values).unwrap();
    assert_eq!(unstable_seeds(&telemetry(x.view(), 1).unwrap()), [1]);
    let x = Array2::from_shape_fn((200, 1), |(i, _)| (i % 2) as f64);
    assert_eq!(unstable_seeds(&telemetry(x.view(), 1).unwrap()), [0]);
}

#[test]
fn what_it_refuses_is_named() {
    let weights = Array2::<f32>::ones((2, 3));
    let state = LayerState {
        lifecycle: &[3, 0],
        blueprint_id: &[1, 1],
        alpha: &[0.5, 0.5],
        blueprint_type: &[0, 4],
        blueprint_weights: weights.view(),
        blueprint_scales: &[1.0, 1.0],
    };
    let x = Array2::<f32>::ones((2, 6));
    let refused = |g: ndarray::ArrayView2<'_, f32>, mode| {
        blend_backward(x.view(), g, &state, mode).unwrap_err()
    };
    let fast = NumericalMode::Fast;
    assert!(blend_backward(x.view(), x.view(), &state, fast).is_ok());
    assert_eq!(refused(x.slice(s![..1, ..]), fast), LayerError::Rows { expected: 2, got: 1 });
    assert_eq!(
        refused(x.slice(s![.., ..5]), fast),
        LayerError::InputWidth { seeds: 2, expected: 6, got: 5 }
    );
    let adaptive = NumericalMode::Adaptive { low: 0.0, high: 1.0, unstable: &[0] };
    assert_eq!(
        refused(x.view(), adaptive),
        LayerError::Length { tensor: "unstable", per: "seed", expected: 2, got: 1 }
    );
}
