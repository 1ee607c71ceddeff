//! The forward pass: published values, identities of each blueprint type, what it refuses.

use std::collections::BTreeMap;

use approx::assert_relative_eq;
use kasmina_reference::{
    kasmina::{LayerError, LayerState, blend_forward, is_active},
    numeric::{Dtype, Tolerance, compare},
};
use ndarray::{Array2, array, s};
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;

const GRAFTING: u8 = 3;
const RESIDUAL_BLOCK: u8 = 0;
const ATTENTION_HEAD: u8 = 1;
const MLP_EXPANSION: u8 = 2;
const CONV_FILTER: u8 = 3;
const SCALE: u8 = 4;

/// A layer of one seed with blueprint 1.
struct OneSeed {
    lifecycle: u8,
    blueprint_id: u16,
    alpha: f64,
    kind: u8,
    weights: Vec<f64>,
    scale: f64,
}

impl OneSeed {
    fn grafting(kind: u8, weights: &[f64], scale: f64, alpha: f64) -> Self {
        let weights = weights.to_vec();
        Self { lifecycle: GRAFTING, blueprint_id: 1, alpha, kind, weights, scale }
    }

    fn forward(&self, x: &[f64]) -> Vec<f64> {
        // Row 0 is reserved: NaN there must not reach the output.
        let mut weights = Array2::from_elem((2, x.len()), f64::NAN);
        for (to, from) in weights.row_mut(1).iter_mut().zip(&self.weights) {
            *to = *from;
        }
        let state = LayerState {
            lifecycle: &[self.lifecycle],
            blueprint_id: &[self.blueprint_id],
            alpha: &[self.alpha],
            blueprint_type: &[u8::MAX, self.kind],
            blueprint_weights: weights.view(),
            blueprint_scales: &[f64::NAN, self.scale],
        };
        let x = Array2::from_shape_vec((1, x.len()), x.to_vec()).expect("one row");
        blend_forward(x.view(), &state).expect("a valid layer").into_raw_vec_and_offset().0
    }
}

#[derive(Deserialize)]
struct Case {
    x: Vec<Vec<f64>>,
    scale: f64,
    alpha: f64,
    types: BTreeMap<String, TypeCase>,
}

#[derive(Deserialize)]
struct TypeCase {
    w: Vec<f64>,
    y: Vec<Vec<f64>>,
}

#[test]
fn known_values_of_each_type() {
    let case: Case = serde_json::from_str(include_str!("../cases/blueprint_forward.json")).unwrap();
    let codes = [
        ("RESIDUAL_BLOCK", RESIDUAL_BLOCK),
        ("ATTENTION_HEAD", ATTENTION_HEAD),
        ("MLP_EXPANSION", MLP_EXPANSION),
        ("CONV_FILTER", CONV_FILTER),
    ];
    for (name, kind) in codes {
        let TypeCase { w, y } = &case.types[name];
        let seed = OneSeed::grafting(kind, w, case.scale, case.alpha);
        for (x, y) in case.x.iter().zip(y) {
            for (got, want) in seed.forward(x).iter().zip(y) {
                assert_relative_eq!(got, want, max_relative = 1e-14);
            }
        }
    }
}

#[test]
fn the_three_v1_strategies_are_special_cases() {
    let (x, w, alpha) = ([0.5, -2.0, 3.0], [1.5, 0.25, -1.0], 0.3);
    let linear = OneSeed::grafting(SCALE, &w, 1.0, alpha).forward(&x);
    let multiplicative = OneSeed::grafting(SCALE, &w, 1.0, 1.0).forward(&x);
    let additive = OneSeed::grafting(RESIDUAL_BLOCK, &w, 1.0, 1.0).forward(&x);
    for i in 0..x.len() {
        assert_relative_eq!(linear[i], (1.0 - alpha) * x[i] + alpha * (x[i] * w[i]));
        assert_relative_eq!(multiplicative[i], x[i] * w[i]);
        assert_relative_eq!(additive[i], x[i] + w[i]);
    }
}

#[test]
fn seeds_that_are_not_active_copy_their_bits() {
    let x = [f32::from_bits(0x7fc0_dead), -0.0, f32::INFINITY, f32::from_bits(1), 1.5];
    let input = Array2::from_shape_vec((1, 5), x.to_vec()).unwrap();
    let weights = Array2::from_elem((2, 5), 3.0_f32);
    for lifecycle in 0..=10 {
        for blueprint_id in [0, 1] {
            let state = LayerState {
                lifecycle: &[lifecycle],
                blueprint_id: &[blueprint_id],
                alpha: &[0.5],
                blueprint_type: &[0, SCALE],
                blueprint_weights: weights.view(),
                blueprint_scales: &[1.0, 1.0],
            };
            let y = blend_forward(input.view(), &state).unwrap();
            let same = y.iter().zip(&x).all(|(y, x)| y.to_bits() == x.to_bits());
            assert_eq!(same, !is_active(lifecycle) || blueprint_id == 0, "lifecycle {lifecycle}");
        }
    }
    let active: Vec<u8> = (0..=255).filter(|&code| is_active(code)).collect();
    assert_eq!(active, [3, 4, 5, 6, 7]);
}

#[test]
fn each_seed_takes_its_own_blueprint_in_every_row() {
    let weights = array![[0.0, 0.0], [2.0, 3.0], [10.0, 20.0]];
    let state = LayerState {
        lifecycle: &[3, 0, 7],
        blueprint_id: &[1, 1, 2],
        alpha: &[1.0, 1.0, 0.5],
        blueprint_type: &[0, SCALE, RESIDUAL_BLOCK],
        blueprint_weights: weights.view(),
        blueprint_scales: &[0.0, 1.0, 1.0],
    };
    let x = array![[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [-1.0, 2.0, 5.0, 6.0, 0.0, 4.0]];
    let y = blend_forward(x.view(), &state).unwrap();
    assert_eq!(y, array![[2.0, 3.0, 1.0, 1.0, 6.0, 11.0], [-2.0, 6.0, 5.0, 6.0, 5.0, 14.0]]);

    // The same input in another memory order is the same input.
    let column_major = x.t().as_standard_layout().into_owned();
    assert_eq!(blend_forward(column_major.t(), &state).unwrap(), y);
}

#[test]
fn a_layer_without_blueprints_is_the_identity() {
    let weights = Array2::<f32>::zeros((0, 2));
    let state = LayerState {
        lifecycle: &[3, 3],
        blueprint_id: &[0, 0],
        alpha: &[1.0, 1.0],
        blueprint_type: &[],
        blueprint_weights: weights.view(),
        blueprint_scales: &[],
    };
    let x = array![[1.0_f32, 2.0, 3.0, 4.0]];
    assert_eq!(blend_forward(x.view(), &state).unwrap(), x);
    let empty = Array2::<f32>::zeros((0, 4));
    assert_eq!(blend_forward(empty.view(), &state).unwrap().dim(), (0, 4));
}

#[test]
fn alpha_is_clipped() {
    let (x, w) = ([0.5, -2.0, 3.0], [1.5, 0.25, -1.0]);
    let forward = |alpha| OneSeed::grafting(SCALE, &w, 2.0, alpha).forward(&x);
    assert_eq!(forward(-3.0), x);
    assert_eq!(forward(f64::INFINITY), forward(1.0));
}

#[test]
fn convolution_has_only_the_taps_that_exist() {
    let taps = [2.0, 30.0, 400.0];
    for (x, y) in [
        (vec![1.0], vec![2.0]),
        (vec![1.0, 1.0], vec![2.0, 32.0]),
        (vec![1.0, 1.0, 1.0, 2.0], vec![2.0, 32.0, 432.0, 434.0]),
    ] {
        let weights = &taps[..x.len().min(3)];
        assert_eq!(OneSeed::grafting(CONV_FILTER, weights, 1.0, 1.0).forward(&x), y);
    }
}

#[test]
fn a_non_finite_value_stays_in_its_reach() {
    let x = [1.0, f64::NAN, 1.0, 1.0, 1.0];
    let nan_at = |kind| {
        let y = OneSeed::grafting(kind, &[1.0; 5], 1.0, 0.5).forward(&x);
        (0..5).filter(|&i| y[i].is_nan()).collect::<Vec<_>>()
    };
    for kind in [RESIDUAL_BLOCK, ATTENTION_HEAD, MLP_EXPANSION, SCALE] {
        assert_eq!(nan_at(kind), [1], "type {kind}");
    }
    assert_eq!(nan_at(CONV_FILTER), [1, 2, 3]);
}

#[test]
fn softmax_takes_weights_that_would_overflow() {
    let y = OneSeed::grafting(ATTENTION_HEAD, &[1000.0, 1000.0, -1000.0], 1.0, 1.0)
        .forward(&[4.0, 4.0, 4.0]);
    assert_eq!(y, [2.0, 2.0, 0.0]);
}

#[test]
fn what_it_refuses_is_named() {
    let weights = Array2::<f32>::ones((2, 3));
    let good = LayerState {
        lifecycle: &[3, 0],
        blueprint_id: &[1, 1],
        alpha: &[0.5, 0.5],
        blueprint_type: &[0, 4],
        blueprint_weights: weights.view(),
        blueprint_scales: &[1.0, 1.0],
    };
    let x = Array2::<f32>::ones((2, 6));
    let error = |state| blend_forward(x.view(), &state).unwrap_err();
    let length = |tensor, per, got| LayerError::Length { tensor, per, expected: 2, got };

    assert!(blend_forward(x.view(), &good).is_ok());
    assert_eq!(error(LayerState { alpha: &[0.5], ..good }), length("alpha", "seed", 1));
    assert_eq!(error(LayerState { blueprint_id: &[], ..good }), length("blueprint_id", "seed", 0));
    assert_eq!(
        error(LayerState { blueprint_type: &[0], ..good }),
        length("blueprint_type", "blueprint", 1)
    );
    assert_eq!(
        error(LayerState { blueprint_scales: &[1.0; 3], ..good }),
        length("blueprint_scales", "blueprint", 3)
    );
    assert_eq!(
        error(LayerState { lifecycle: &[3, 11], ..good }),
        LayerError::Lifecycle { seed: 1, got: 11 }
    );
    assert_eq!(
        error(LayerState { blueprint_id: &[1, 2], ..good }),
        LayerError::BlueprintId { seed: 1, got: 2, blueprints: 2 }
    );
    assert_eq!(
        error(LayerState { blueprint_type: &[0, 5], ..good }),
        LayerError::BlueprintType { blueprint: 1, got: 5 }
    );
    assert_eq!(
        error(LayerState { alpha: &[f32::NAN, 0.0], ..good }),
        LayerError::Alpha { seed: 0 }
    );
    assert_eq!(
        error(LayerState { blueprint_weights: weights.slice(s![.., ..0]), ..good }),
        LayerError::Empty { what: "chunk_size" }
    );
    assert_eq!(
        blend_forward(x.slice(s![.., ..5]), &good).unwrap_err(),
        LayerError::InputWidth { seeds: 2, expected: 6, got: 5 }
    );
}

/// A chunk and as many weights, a scale and a blend factor.
fn chunk() -> impl Strategy<Value = (Vec<f64>, Vec<f64>, f64, f64)> {
    (1_usize..40)
        .prop_flat_map(|c| (vec(-10.0..10.0, c), vec(-3.0..3.0, c), -2.0..2.0_f64, 0.0..=1.0_f64))
}

/// Whether values differ by no more than roundings of their terms, of which none is above 600: terms may cancel.
fn are_near(got: &[f64], want: &[f64]) -> bool {
    got.len() == want.len() && got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12)
}

proptest! {
    #[test]
    fn alpha_zero_gives_x((x, w, scale, _) in chunk(), kind in 0_u8..5) {
        prop_assert_eq!(OneSeed::grafting(kind, &w, scale, 0.0).forward(&x), x);
    }

    #[test]
    fn all_but_residual_and_relu_are_linear(
        (x, w, scale, alpha) in chunk(),
        kind in prop::sample::select(vec![ATTENTION_HEAD, CONV_FILTER, SCALE]),
        factor in -3.0..3.0_f64,
    ) {
        let seed = OneSeed::grafting(kind, &w, scale, alpha);
        let scaled: Vec<f64> = x.iter().map(|v| factor * v).collect();
        let want: Vec<f64> = seed.forward(&x).iter().map(|v| factor * v).collect();
        prop_assert!(are_near(&seed.forward(&scaled), &want));
    }

    #[test]
    fn attention_weights_sum_to_one((x, w, scale, _) in chunk(), c in 0.5..5.0_f64) {
        let y = OneSeed::grafting(ATTENTION_HEAD, &w, scale, 1.0).forward(&vec![c; x.len()]);
        prop_assert!((y.iter().sum::<f64>() - c).abs() < 1e-13 * c);
        // Order of the weights is order of the shares.
        for i in 1..w.len() {
            prop_assert_eq!(w[i] > w[i - 1], y[i] > y[i - 1]);
        }
    }

    #[test]
    fn convolution_is_the_polynomial_product((x, w, scale, alpha) in chunk()) {
        let taps = &w[..w.len().min(3)];
        let mut product = vec![0.0; x.len() + taps.len()];
        for (i, x) in x.iter().enumerate() {
            for (j, tap) in taps.iter().enumerate() {
                product[i + j] += x * tap;
            }
        }
        let want: Vec<f64> =
            x.iter().zip(product).map(|(x, t)| x + alpha * (scale * t - x)).collect();
        let y = OneSeed::grafting(CONV_FILTER, &w, scale, alpha).forward(&x);
        prop_assert!(are_near(&y, &want));
    }

    #[test]
    fn relu_follows_its_mask((x, w, scale, alpha) in chunk()) {
        let y = OneSeed::grafting(MLP_EXPANSION, &w, scale, alpha).forward(&x);
        let open = OneSeed::grafting(SCALE, &w, scale, alpha).forward(&x);
        for i in 0..x.len() {
            let want = if x[i] * w[i] > 0.0 { open[i] } else { (1.0 - alpha) * x[i] };
            prop_assert!((y[i] - want).abs() < 1e-13);
        }
    }

    #[test]
    fn f32_agrees_with_f64((x, w, scale, alpha) in chunk(), kind in 0_u8..5) {
        let x = Array2::from_shape_fn((1, x.len()), |(_, i)| x[i] as f32);
        let weights = Array2::from_shape_fn((2, w.len()), |(_, i)| w[i] as f32);
        let state = LayerState {
            lifecycle: &[GRAFTING],
            blueprint_id: &[1],
            alpha: &[alpha as f32],
            blueprint_type: &[kind; 2],
            blueprint_weights: weights.view(),
            blueprint_scales: &[scale as f32; 2],
        };
        let single = blend_forward(x.view(), &state).unwrap().mapv(f64::from);
        let double = blend_forward(x.mapv(f64::from).view(), &state).unwrap();
        let comparison =
            compare(single.as_slice().unwrap(), double.as_slice().unwrap()).unwrap();
        prop_assert!(Tolerance::for_dtype(Dtype::F32, 1).accepts(&comparison), "{comparison:?}");
    }
}
