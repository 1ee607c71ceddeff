//! State updates: the lifecycle by its own rules, refusals, and what a transition resets.

use kasmina_reference::kasmina::{FieldValues, Refusal, SeedRecord, apply_update, may_become};

fn seed(lifecycle: u8) -> SeedRecord {
    SeedRecord {
        lifecycle,
        blueprint_id: 1,
        alpha: 0.5,
        schedule: 0,
        alpha_target: 1.0,
        ramp_epochs: 30,
        epochs_in_state: 12,
        baseline_loss: Some(2.0),
        drift_count: 4,
        embargo_epochs: 0,
    }
}

fn to(lifecycle: u32) -> FieldValues {
    FieldValues { lifecycle: Some(lifecycle), ..FieldValues::default() }
}

#[test]
fn the_lifecycle_has_nineteen_ways() {
    let ways = (0..=255).flat_map(|from| (0..=255).map(move |to| (from, to)));
    assert_eq!(ways.filter(|&(from, to)| may_become(from, to)).count(), 19);
    // Rolled back from GRAFTING to FINE_TUNING; FOSSILIZED is the end; the dead return to DORMANT alone.
    for from in 0..11 {
        assert_eq!(may_become(from, 10), (3..=6).contains(&from));
        assert!(!may_become(7, from.into()) && !may_become(from, from.into()));
        for dead in 8..11 {
            assert_eq!(may_become(dead, from.into()), from == 0);
        }
    }
}

#[test]
fn a_whole_life_is_legal() {
    let mut record = seed(0);
    for next in [1, 2, 3, 4, 5, 6, 7] {
        record.epochs_in_state = 9;
        assert_eq!(apply_update(&mut record, &to(next), 2), Ok(()));
        assert_eq!((u32::from(record.lifecycle), record.epochs_in_state), (next, 0));
    }
}

#[test]
fn grafting_forgets_what_the_schedule_saw() {
    let mut record = seed(2);
    assert_eq!(apply_update(&mut record, &to(3), 2), Ok(()));
    assert_eq!((record.baseline_loss, record.drift_count), (None, 0));
    assert_eq!(apply_update(&mut record, &to(4), 2), Ok(()));
    let mut other = seed(4);
    assert_eq!(apply_update(&mut other, &to(5), 2), Ok(()));
    assert_eq!((other.baseline_loss, other.drift_count), (Some(2.0), 4));
}

#[test]
fn an_embargo_holds_until_it_has_ended() {
    let mut record = SeedRecord { embargo_epochs: 1, ..seed(8) };
    // Lifting it in the same update is too late.
    let lifted = FieldValues { embargo_epochs: Some(0), ..to(0) };
    assert_eq!(apply_update(&mut record, &lifted, 2), Err(Refusal::Embargoed));
    assert_eq!(record, SeedRecord { embargo_epochs: 1, ..seed(8) });
    record.embargo_epochs = 0;
    assert_eq!(apply_update(&mut record, &to(0), 2), Ok(()));
    // The cancelled and the rolled back do not wait.
    let mut cancelled = SeedRecord { embargo_epochs: 9, ..seed(9) };
    assert_eq!(apply_update(&mut cancelled, &to(0), 2), Ok(()));
}

#[test]
fn a_wrong_value_refuses_the_whole_update() {
    let none = FieldValues::default;
    for (values, refusal) in [
        (to(11), Refusal::IllegalTransition),
        (FieldValues { blueprint_id: Some(2), ..none() }, Refusal::BlueprintOutOfRange),
        (FieldValues { blueprint_id: Some(65536), ..none() }, Refusal::BlueprintOutOfRange),
        (FieldValues { schedule: Some(4), ..none() }, Refusal::UnknownSchedule),
        (FieldValues { ramp_epochs: Some(0), ..none() }, Refusal::EmptyRamp),
        (FieldValues { alpha: Some(f32::INFINITY), ..none() }, Refusal::AlphaOutOfRange),
        (FieldValues { alpha_target: Some(1.5), ..none() }, Refusal::AlphaOutOfRange),
        (FieldValues { alpha_target: Some(f32::NAN), ..none() }, Refusal::AlphaOutOfRange),
    ] {
        let mut record = seed(2);
        let lifecycle = values.lifecycle.or(Some(3));
        let values = FieldValues { lifecycle, embargo_epochs: Some(5), ..values };
        assert_eq!(apply_update(&mut record, &values, 2), Err(refusal));
        assert_eq!(record, seed(2));
    }
    // 'None' needs no blueprint.
    let mut record = seed(0);
    let nothing = FieldValues { blueprint_id: Some(0), ..none() };
    assert_eq!(apply_update(&mut record, &nothing, 0), Ok(()));
    assert_eq!(record, SeedRecord { blueprint_id: 0, ..seed(0) });
}
