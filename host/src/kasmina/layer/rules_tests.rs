//! Each row of the table with its condition just met and just not.

use super::*;
use SeedLifecycle as L;

fn seed(lifecycle: L, epochs_in_state: u32) -> SeedProgress {
    SeedProgress { lifecycle, alpha: 0.5, alpha_target: 1.0, epochs_in_state, embargo_epochs: 0 }
}

fn good() -> SeedEpoch {
    SeedEpoch {
        loss: 1.0,
        drift: 0.0,
        reconstruction_loss: 0.01,
        performance_gain: 0.001,
        stability: 0.95,
        error_rate: 0.1,
        errors: 5,
        improvement: 0.01,
    }
}

#[track_caller]
fn expect(seed: SeedProgress, epoch: SeedEpoch, to: Option<L>) {
    let got = TransitionRules::default().decide(&seed, &epoch).map(|(to, _)| to);
    assert_eq!(got, to, "{seed:?} {epoch:?}");
    if let Some(to) = got {
        assert!(seed.lifecycle.may_become(to), "{} → {to}", seed.lifecycle);
    }
}

fn next_after(value: f32) -> f32 {
    f32::from_bits(value.to_bits() + 1)
}

fn next_before(value: f32) -> f32 {
    f32::from_bits(value.to_bits() - 1)
}

#[test]
fn training() {
    expect(seed(L::Training, 100), good(), Some(L::Grafting));
    expect(seed(L::Training, 99), good(), None);
    let worse = SeedEpoch { reconstruction_loss: next_after(0.01), ..good() };
    expect(seed(L::Training, 100), worse, None);
    expect(seed(L::Training, 1000), SeedEpoch::default(), None);
}

#[test]
fn grafting() {
    let there = |epochs, alpha| SeedProgress { alpha, ..seed(L::Grafting, epochs) };
    expect(there(50, 1.0), good(), Some(L::Stabilization));
    expect(there(49, 1.0), good(), None);
    expect(there(50, next_before(1.0)), good(), None);
    let low = SeedProgress { alpha_target: 0.5, ..there(50, 0.5) };
    expect(low, good(), Some(L::Stabilization));
}

#[test]
fn stabilization() {
    expect(seed(L::Stabilization, 20), SeedEpoch::default(), Some(L::Evaluating));
    expect(seed(L::Stabilization, 19), good(), None);
}

#[test]
fn evaluating_goes_on() {
    expect(seed(L::Evaluating, 30), good(), Some(L::FineTuning));
    expect(seed(L::Evaluating, 29), good(), None);
    expect(seed(L::Evaluating, 30), SeedEpoch { performance_gain: 0.0, ..good() }, None);
    expect(seed(L::Evaluating, 30), SeedEpoch { stability: 0.8, ..good() }, Some(L::FineTuning));
    expect(seed(L::Evaluating, 30), SeedEpoch { stability: next_before(0.8), ..good() }, None);
    expect(seed(L::Evaluating, 30), SeedEpoch::default(), None);
}

#[test]
fn evaluating_is_culled() {
    let bad = |change: fn(&mut SeedEpoch)| {
        let mut epoch = good();
        change(&mut epoch);
        epoch
    };
    let at = SeedEpoch { performance_gain: -0.05, ..good() };
    expect(seed(L::Evaluating, 30), at, None);
    let below = SeedEpoch { performance_gain: next_after(-0.05), ..good() };
    expect(seed(L::Evaluating, 30), below, Some(L::Culled));
    expect(seed(L::Evaluating, 29), below, None);
    expect(
        seed(L::Evaluating, 30),
        bad(|e| e.error_rate = f32::from_bits(0.1_f32.to_bits() + 1)),
        Some(L::Culled),
    );
    expect(seed(L::Evaluating, 30), bad(|e| e.errors = 6), Some(L::Culled));
}

#[test]
fn fine_tuning() {
    expect(seed(L::FineTuning, 50), good(), Some(L::Fossilized));
    expect(seed(L::FineTuning, 49), good(), None);
    let less = SeedEpoch { improvement: next_before(0.01), ..good() };
    expect(seed(L::FineTuning, 50), less, Some(L::Culled));
    expect(seed(L::FineTuning, 49), less, None);
    let shaky = SeedEpoch { stability: next_before(0.95), ..good() };
    expect(seed(L::FineTuning, 50), shaky, Some(L::Culled));
    // What nobody knows is no reason to cull; what is known to be bad is one, whatever else is not known.
    let unknown = f32::NAN;
    expect(seed(L::FineTuning, 10_000), SeedEpoch::default(), None);
    expect(seed(L::FineTuning, 50), SeedEpoch { improvement: unknown, ..good() }, None);
    expect(seed(L::FineTuning, 50), SeedEpoch { stability: unknown, ..good() }, None);
    expect(seed(L::FineTuning, 50), SeedEpoch { stability: unknown, ..less }, Some(L::Culled));
    expect(seed(L::FineTuning, 50), SeedEpoch { improvement: unknown, ..shaky }, Some(L::Culled));
}

#[test]
fn the_others_wait_for_a_command() {
    for lifecycle in
        [L::Dormant, L::Germinated, L::Fossilized, L::Culled, L::Cancelled, L::RolledBack]
    {
        expect(seed(lifecycle, 10_000), good(), None);
    }
}

#[test]
fn resets_happen_by_themselves_where_asked_for() {
    let rules = TransitionRules { automatic_reset: true, ..TransitionRules::default() };
    let to = |seed: SeedProgress| rules.decide(&seed, &good()).map(|(to, _)| to);
    assert_eq!(to(seed(L::Culled, 1)), Some(L::Dormant));
    assert_eq!(to(SeedProgress { embargo_epochs: 1, ..seed(L::Culled, 1) }), None);
    assert_eq!(to(seed(L::Cancelled, 0)), Some(L::Dormant));
    assert_eq!(to(seed(L::RolledBack, 0)), Some(L::Dormant));
}

#[test]
fn nothing_happens_by_itself_where_that_is_off() {
    let rules = TransitionRules { automatic: false, ..TransitionRules::default() };
    for lifecycle in L::ALL {
        let seed = SeedProgress { alpha: 1.0, ..seed(lifecycle, 10_000) };
        assert_eq!(rules.decide(&seed, &good()), None);
    }
}

#[test]
fn thresholds_are_numbers() {
    let rules = TransitionRules { improvement: f32::NAN, ..TransitionRules::default() };
    let why = rules.check().expect_err("NaN").to_string();
    assert!(why.contains("rules.improvement"), "{why}");
}
