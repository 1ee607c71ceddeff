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
    seed_norms: Vec<f64>,
}

impl Gradients {
    fn clip(&mut self, clip: Clip, running: &mut [Option<f64>]) -> Clipped {
        let gradients = &mut ParameterGradients {
            weights: &mut self.weights,
            scales: &mut self.scales,
            alpha: &mut self.alpha,
            blueprint_id: &IDS,
            blueprint_offset: &OFFSETS,
            seed_norms: &self.seed_norms,
            chunk_size: 2,
        };
        gradient_clip(clip, gradients, running)
    }

    fn all(&self) -> Vec<f64> {
        [&self.weights[..], &self.scales, &self.alpha].concat()
    }
}

/// Seed 0 adds (3, 0) to its blueprint's weights, seeds 1 and 3 (1, 0) and (0, −1) to theirs.
fn gradients() -> Gradients {
    Gradients {
        weights: vec![0.0, 0.0, 3.0, 0.0, 1.0, -1.0],
        scales: vec![0.0, 4.0, 1.0],
        alpha: vec![4.0, -1.0, 0.0, 1.0],
        seed_norms: vec![3.0, 1.0, 0.0, 1.0],
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
    assert_eq!((clipped.clipped_values, clipped.nonfinite, clipped.nonfinite_units), (3, 1, 1));
    let mut g = Gradients { scales: vec![-9.0, 9.0, 0.0], ..gradients() };
    g.clip(Clip::ByValue(2.0), &mut [None; 3]);
    assert_eq!(g.scales, [-2.0, 2.0, 0.0]);
}

#[test]
fn the_norm_of_all_is_five_and_some() {
    // 9 + 16 + 16 of unit 1, 5 of unit 2.
    let mut g = gradients();
    let clipped = g.clip(Clip::GlobalNorm(3.0), &mut [None; 3]);
    let expected = 46.0_f64.sqrt();
    assert!((clipped.norm - expected).abs() < 1e-15);
    assert!((clipped.coefficient - 3.0 / expected).abs() < 1e-15);
    assert!((norm(&g.all()) - 3.0).abs() < 1e-14);
    assert_eq!(clipped.clipped_units, 3);
    let mut g = gradients();
    let clipped = g.clip(Clip::GlobalNorm(7.0), &mut [None; 3]);
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
        assert!((clipped.norm - 37.0_f64.sqrt()).abs() < 1e-14);
        // The seeds of the other blueprint are clipped all the same.
        let mut running = [Some(1e-3); 4];
        g.seed_norms[0] = broken;
        let clipped = g.clip(Clip::Adaptive { factor: 1.0, decay: 0.5 }, &mut running);
        assert_eq!((running[0], running[2]), (Some(1e-3), Some(1e-3)));
        assert_eq!((g.scales[1], g.alpha[0]), (4.0, 4.0));
        assert!((g.alpha[3] - 1e-3 / 2.0_f64.sqrt()).abs() < 1e-15);
        assert!((norm(&g.weights[4..]) - 1e-3).abs() < 1e-15);
        assert_eq!((clipped.nonfinite_units, clipped.clipped_units), (1, 2));
    }
}

#[test]
fn a_seed_is_held_to_its_own_history() {
    let adaptive = Clip::Adaptive { factor: 2.0, decay: 0.75 };
    let mut running = [None; 4];
    let mut g = gradients();
    let first = g.clip(adaptive, &mut running);
    assert_eq!((&g, first.clipped_units), (&gradients(), 0));
    // Seed 2 has only zeros and no history.
    let root = 2.0_f64.sqrt();
    assert_eq!(
        running.map(|r| r.map(|r: f64| (r * 1e12).round())),
        [Some(5e12), Some((root * 1e12).round()), None, Some((root * 1e12).round())]
    );
    // Ten times as much of seeds 0 and 1: held to twice their running norms, which take in the whole.
    g = Gradients {
        weights: vec![0.0, 0.0, 30.0, 0.0, 10.0, -1.0],
        scales: vec![0.0, 40.0, 1.0],
        alpha: vec![40.0, -10.0, 0.0, 1.0],
        seed_norms: vec![30.0, 10.0, 0.0, 1.0],
    };
    let second = g.clip(adaptive, &mut running);
    assert_eq!((second.clipped_units, second.nonfinite_units), (2, 0));
    assert!((second.coefficient - 0.2).abs() < 1e-15);
    let near = |got: f64, expected: f64| (got - expected).abs() < 1e-13;
    // Blueprint 1 has one seed, which is scaled as a whole, ∂s with it.
    assert!(near(g.weights[2], 6.0) && near(g.scales[1], 8.0) && near(g.alpha[0], 8.0));
    // Of blueprint 2 seed 1 is held to a fifth, and seed 3 is not: (0.2 · 10 + 1 · 1) / (10 + 1) of the sum.
    assert!(near(g.alpha[1], -2.0) && near(g.alpha[3], 1.0));
    assert!(near(g.weights[4], 30.0 / 11.0) && near(g.scales[2], 3.0 / 11.0), "{g:?}");
    assert!(near(running[0].expect("a history"), 0.75 * 5.0 + 0.25 * 50.0));
    // What a frozen seed has of zeros leaves its history.
    let mut frozen = Gradients {
        weights: vec![0.0; 6],
        scales: vec![0.0; 3],
        alpha: vec![0.0; 4],
        seed_norms: vec![0.0; 4],
    };
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
        let before = Gradients { weights, scales, alpha, seed_norms: vec![0.0; 4] };
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

    /// What seeds share ends as short as if each part of it had been clipped before they were added.
    #[test]
    fn a_shared_gradient_is_bounded_by_its_clipped_parts(
        parts in vec(-9.0..9.0_f64, 8), alpha in vec(-9.0..9.0_f64, 4),
        history in vec(0.1..9.0_f64, 4),
    ) {
        let seed_norms: Vec<f64> = parts.chunks_exact(2).map(norm).collect();
        let mut weights = vec![0.0; 6];
        for (part, id) in parts.chunks_exact(2).zip(IDS) {
            for (weight, g) in weights[2 * usize::from(id)..].iter_mut().zip(part) {
                *weight += g;
            }
        }
        let mut g = Gradients { weights, scales: vec![1.0; 3], alpha, seed_norms };
        let before = g.clone();
        let mut running: Vec<_> = history.iter().copied().map(Some).collect();
        g.clip(Clip::Adaptive { factor: 1.0, decay: 0.5 }, &mut running);
        let coefficient = |seed: usize| {
            (history[seed] / before.seed_norms[seed].hypot(before.alpha[seed])).min(1.0)
        };
        for id in 0..3 {
            let of_id = (0..4).filter(|&seed| usize::from(IDS[seed]) == id);
            let bound: f64 = of_id.map(|seed| coefficient(seed) * before.seed_norms[seed]).sum();
            prop_assert!(norm(&g.weights[2 * id..2 * id + 2]) <= bound * (1.0 + 1e-12));
        }
        for seed in 0..4 {
            prop_assert!((g.alpha[seed] - before.alpha[seed] * coefficient(seed)).abs() < 1e-13);
        }
    }
}
