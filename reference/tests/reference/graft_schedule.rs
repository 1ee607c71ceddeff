//! Blend schedules: each by hand, and what holds for all.

use kasmina_reference::kasmina::{Epoch, GraftState, graft_epoch};
use proptest::prelude::*;

fn grafting(schedule: u8, ramp_epochs: u32) -> GraftState {
    GraftState {
        lifecycle: 3,
        schedule,
        alpha: 0.0,
        alpha_target: 1.0,
        ramp_epochs,
        baseline_loss: None,
        drifts: Vec::new(),
        epochs_in_state: 0,
        embargo_epochs: 0,
    }
}

const CALM: Epoch = Epoch { loss: 1.0, drift: 0.0, gradient_norm: 0.5 };

/// The steps of α in units of 1/n.
fn steps(seed: &mut GraftState, epochs: &[Epoch]) -> Vec<f64> {
    let n = f64::from(seed.ramp_epochs);
    epochs
        .iter()
        .map(|&epoch| {
            let before = seed.alpha;
            assert!(!graft_epoch(seed, epoch));
            (seed.alpha - before) * n
        })
        .collect()
}

#[track_caller]
fn assert_steps(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-12, "{got} {expected}");
    }
}

#[test]
fn a_fixed_ramp_takes_n_epochs() {
    let mut seed = grafting(0, 30);
    for epoch in 0..30 {
        assert!(seed.alpha < 1.0 - 1e-9, "{epoch}");
        graft_epoch(&mut seed, CALM);
    }
    assert!((seed.alpha - 1.0).abs() < 1e-12);
    graft_epoch(&mut seed, CALM);
    assert_eq!((seed.alpha, seed.epochs_in_state), (1.0, 31));
}

#[test]
fn performance_moves_between_half_and_three_steps() {
    let loss = |loss| Epoch { loss, ..CALM };
    let mut seed = grafting(1, 1000);
    // The first stores L₀ = 2; then 2·(2−L)/2.
    let epochs = [2.0, 2.0, 1.0, 0.5, 3.0, -9.0].map(loss);
    assert_steps(&steps(&mut seed, &epochs), &[0.5, 0.5, 1.0, 1.5, 0.5, 3.0]);
    assert_eq!(seed.baseline_loss, Some(2.0));
    for first in [0.0, -1.0, 1e-13] {
        let mut seed = grafting(1, 10);
        assert_steps(&steps(&mut seed, &[loss(first), loss(5.0)]), &[1.0, 1.0]);
    }
}

#[test]
fn drift_is_averaged_over_five_epochs() {
    let drift = |drift| Epoch { drift, ..CALM };
    let mut seed = grafting(2, 1000);
    // Means: 0.05; 0.1; 0.15; …; then the first falls out of the window.
    let epochs = [0.05, 0.15, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0].map(drift);
    // Means 0.05, 0.1, 0.15, 0.1125, 0.09, 0.08, 0.05, 0.
    let expected = [2.0, 1.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0];
    assert_steps(&steps(&mut seed, &epochs), &expected);
}

#[test]
fn the_gradients_band_has_both_its_ends() {
    let norm = |norm: f32| Epoch { gradient_norm: norm.into(), ..CALM };
    let epochs = [0.1, 1.0, 0.1_f32.next_down(), 1.0_f32.next_up(), 0.0].map(norm);
    assert_steps(&steps(&mut grafting(3, 100), &epochs), &[1.0, 1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn what_is_no_number_moves_nothing_but_the_counts() {
    for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let all = Epoch { loss: broken, drift: broken, gradient_norm: broken };
        for schedule in 1..4 {
            let mut seed = grafting(schedule, 10);
            assert!(graft_epoch(&mut seed, all));
            let expected = GraftState { epochs_in_state: 1, ..grafting(schedule, 10) };
            assert_eq!(seed, expected);
        }
        let mut seed = grafting(0, 10);
        assert!(!graft_epoch(&mut seed, all));
        assert_eq!(seed.alpha, 0.1);
    }
}

proptest! {
    #[test]
    fn alpha_never_passes_its_target_and_never_falls(
        schedule in 0_u8..4,
        ramp in 1_u32..50,
        target in 0.0..=1.0_f64,
        figures in prop::collection::vec((-1.0..3.0_f64, 0.0..0.3_f64, 0.0..2.0_f64), 1..80),
    ) {
        let mut seed = GraftState { alpha_target: target, ..grafting(schedule, ramp) };
        for (loss, drift, gradient_norm) in figures {
            let before = seed.alpha;
            graft_epoch(&mut seed, Epoch { loss, drift, gradient_norm });
            prop_assert!(before <= seed.alpha && seed.alpha <= target);
        }
    }

    #[test]
    fn only_grafting_seeds_rise(lifecycle in 0_u8..11, epochs: u32, embargo: u32) {
        prop_assume!(lifecycle != 3);
        let start = GraftState {
            lifecycle, epochs_in_state: epochs, embargo_epochs: embargo, ..grafting(0, 5)
        };
        let mut seed = start.clone();
        prop_assert!(!graft_epoch(&mut seed, CALM));
        let expected = GraftState {
            epochs_in_state: epochs.saturating_add(1),
            embargo_epochs: embargo.saturating_sub(1),
            ..start
        };
        prop_assert_eq!(seed, expected);
    }
}
