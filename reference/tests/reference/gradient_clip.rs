//! Gradient clipping: by hand, and what holds for all gradients.

use kasmina_reference::kasmina::{Clip, Clipped, ParameterGradients, gradient_clip};
use proptest::{collection::vec, prelude::*};

/// Three blueprints of two weights, four seeds; blueprint 2 has two of them.
const IDS: [u16; 4] = [1, 2, 0, 2];
const OFFSETS: [u32; 3] = [0, 2, 4];

#[derive(Clone, Debug, PartialEq)]
struct Gradients {
    weights: Vec<f64>,
    scales: Vec<f64>,
    alpha: Vec<f64>,
}

impl Gradients {
    fn clip(&mut self, clip: Clip, running: &mut [Option<f64>]) -> Clipped {
        let gradients = &mut ParameterGradients {
            weights: &mut self.weights,
            scales: &mut self.scales,
            alpha: &mut self.alpha,
            blueprint_id: &IDS,
            blueprint_offset: &OFFSETS,
            chunk_size: 2,
        };
        gradient_clip(clip, gradients, running)
    }

    fn all(&self) -> Vec<f64> {
        [&self.weights[..], &self.scales, &self.alpha].concat()
    }

    /// The values of unit 2: its row, its scale, the α of seeds 1 and 3.
    fn unit2(&self) -> [f64; 5] {
        [self.weights[4], self.weights[5], self.scales[2], self.alpha[1], self.alpha[3]]
    }
}

fn gradients() -> Gradients {
    Gradients {
        weights: vec![0.0, 0.0, 3.0, 0.0, 1.0, -1.0],
        scales: vec![0.0, 4.0, 1.0],
        alpha: vec![0.0, -1.0, 0.0, 1.0],
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|g| g * g).sum::<f64>().sqrt()
}

#[test]
fn by_value_keeps_signs_and_counts() {
    let mut g = gradients();
    g.weights[5] = f64::NEG_INFINITY;
    let clipped = g.clip(Clip::ByValue(2.0), &mut [None; 3]);
    assert_eq!(g.weights, [0.0, 0.0, 2.0, 0.0, 1.0, f64::NEG_INFINITY]);
    assert_eq!(g.scales, [0.0, 2.0, 1.0]);
    assert_eq!((clipped.clipped_values, clipped.nonfinite, clipped.nonfinite_units), (2, 1, 1));
    let mut g = Gradients { scales: vec![-9.0, 9.0, 0.0], ..gradients() };
    g.clip(Clip::ByValue(2.0), &mut [None; 3]);
    assert_eq!(g.scales, [-2.0, 2.0, 0.0]);
}

#[test]
fn the_norm_of_all_is_five_and_some() {
    // 9 + 16 of unit 1, 5 of unit 2.
    let mut g = gradients();
    let clipped = g.clip(Clip::GlobalNorm(3.0), &mut [None; 3]);
    let expected = 30.0_f64.sqrt();
    assert!((clipped.norm - expected).abs() < 1e-15);
    assert!((clipped.coefficient - 3.0 / expected).abs() < 1e-15);
    assert!((norm(&g.all()) - 3.0).abs() < 1e-14);
    assert_eq!(clipped.clipped_units, 3);
    let mut g = gradients();
    let clipped = g.clip(Clip::GlobalNorm(6.0), &mut [None; 3]);
    assert_eq!((g, clipped.coefficient, clipped.clipped_units), (gradients(), 1.0, 0));
}

#[test]
fn one_value_that_is_no_number_spreads_nowhere() {
    for broken in [f64::NAN, f64::INFINITY] {
        let mut g = gradients();
        g.weights[2] = broken;
        let before = g.clone();
        let clipped = g.clip(Clip::GlobalNorm(0.1), &mut [None; 3]);
        assert_eq!(format!("{g:?}"), format!("{before:?}"));
        assert_eq!((clipped.nonfinite, clipped.coefficient), (1, 1.0));
        assert!((clipped.norm - 21.0_f64.sqrt()).abs() < 1e-14);
        // The other unit is clipped all the same.
        let mut running = [None, Some(1e-3), Some(1e-3)];
        g.clip(Clip::Adaptive { factor: 1.0, decay: 0.5 }, &mut running);
        assert_eq!(running[1], Some(1e-3));
        assert!((norm(&g.unit2()) - 1e-3).abs() < 1e-15);
        assert_eq!(g.scales[1], 4.0);
    }
}

#[test]
fn a_unit_is_held_to_its_own_history() {
    let adaptive = Clip::Adaptive { factor: 2.0, decay: 0.75 };
    let mut running = [None; 3];
    let mut g = gradients();
    let first = g.clip(adaptive, &mut running);
    assert_eq!((&g, first.clipped_units), (&gradients(), 0));
    // Unit 0 has only zeros and no history.
    assert_eq!(running, [None, Some(5.0), Some(5.0_f64.sqrt())]);
    // Ten times as much: held to twice the running norm, which takes in the whole.
    for value in g.weights.iter_mut().chain(&mut g.scales).skip(2) {
        *value *= 10.0;
    }
    g.alpha.iter_mut().for_each(|value| *value *= 10.0);
    let second = g.clip(adaptive, &mut running);
    assert_eq!(second.clipped_units, 2);
    assert!((norm(&[g.weights[2], g.weights[3], g.scales[1], g.alpha[0]]) - 10.0).abs() < 1e-13);
    assert!((norm(&g.unit2()) - 2.0 * 5.0_f64.sqrt()).abs() < 1e-13);
    assert!((running[1].expect("a history") - (0.75 * 5.0 + 0.25 * 50.0)).abs() < 1e-13);
    // A frozen blueprint's zeros leave its history.
    let mut frozen = Gradients { weights: vec![0.0; 6], scales: vec![0.0; 3], alpha: vec![0.0; 4] };
    let before = running;
    frozen.clip(adaptive, &mut running);
    assert_eq!(running, before);
}

proptest! {
    #[test]
    fn norms_end_within_their_limits(
        weights in vec(-9.0..9.0_f64, 6), scales in vec(-9.0..9.0_f64, 3),
        alpha in vec(-9.0..9.0_f64, 4), limit in 0.0..30.0_f64,
    ) {
        let before = Gradients { weights, scales, alpha };
        let mut g = before.clone();
        let clipped = g.clip(Clip::GlobalNorm(limit), &mut [None; 3]);
        prop_assert!(norm(&g.all()) <= limit * (1.0 + 1e-12) || g == before);
        prop_assert!((clipped.norm - norm(&before.all())).abs() < 1e-12);
        for (after, before) in g.all().iter().zip(before.all()) {
            prop_assert!((after - before * clipped.coefficient).abs() < 1e-14);
        }
        let mut g = before.clone();
        g.clip(Clip::ByValue(limit), &mut [None; 3]);
        for (after, before) in g.all().iter().zip(before.all()) {
            prop_assert_eq!(*after, before.clamp(-limit, limit));
        }
    }
}
