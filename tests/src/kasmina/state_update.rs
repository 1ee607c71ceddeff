//! `state_update` against the reference, record by record.

use kasmina::kasmina::{GraftStates, LayerState, SeedStates, StateUpdates};
use kasmina::types::seed_state::field;
use kasmina::types::{SeedLifecycle, StateUpdate, UpdateStatus};
use kasmina::{Device, Error};
use kasmina_reference::kasmina::{FieldValues, Refusal, SeedRecord, apply_update, may_become};

use crate::Numbers;

/// Blueprints of the tests' layers, 'none' among them.
const BLUEPRINTS: usize = 4;

/// A state with something to lose in each array.
fn states(num_seeds: usize, seed: u64) -> (SeedStates, GraftStates) {
    let mut numbers = Numbers::new(seed);
    let states = SeedStates {
        lifecycle: (0..num_seeds).map(|s| (s % 11) as u8).collect(),
        blueprint_id: (0..num_seeds).map(|_| numbers.below(BLUEPRINTS) as u16).collect(),
        alpha: (0..num_seeds).map(|_| numbers.in_range(0.0, 1.0)).collect(),
        blueprint_type: vec![4; BLUEPRINTS],
        blueprint_weights: vec![1.0; BLUEPRINTS],
        blueprint_scales: vec![1.0; BLUEPRINTS],
        chunk_size: 1,
    };
    let mut graft = GraftStates::new(num_seeds);
    for s in 0..num_seeds {
        graft.schedule[s] = numbers.below(4) as u8;
        graft.alpha_target[s] = numbers.in_range(0.0, 1.0);
        graft.ramp_epochs[s] = 1 + numbers.below(40) as u32;
        graft.epochs_in_state[s] = numbers.below(100) as u32;
        graft.baseline_loss[s] = if s % 3 == 0 { f32::NAN } else { numbers.in_range(0.0, 9.0) };
        graft.drift_count[s] = numbers.below(9) as u32;
        graft.embargo_epochs[s] = numbers.below(2) as u32;
        for drift in &mut graft.drift_history[s * 5..][..5] {
            *drift = numbers.in_range(0.0, 1.0);
        }
    }
    (states, graft)
}

/// All per-seed arrays as words, each by its name.
fn words(seeds: &SeedStates, graft: &GraftStates) -> Vec<(&'static str, Vec<u32>)> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    let bytes = |values: &[u8]| values.iter().map(|&byte| byte.into()).collect();
    vec![
        ("lifecycle", bytes(&seeds.lifecycle)),
        ("blueprint_id", seeds.blueprint_id.iter().map(|&id| id.into()).collect()),
        ("alpha", bits(&seeds.alpha)),
        ("schedule", bytes(&graft.schedule)),
        ("alpha_target", bits(&graft.alpha_target)),
        ("ramp_epochs", graft.ramp_epochs.clone()),
        ("epochs_in_state", graft.epochs_in_state.clone()),
        ("baseline_loss", bits(&graft.baseline_loss)),
        ("drift_history", bits(&graft.drift_history)),
        ("drift_count", graft.drift_count.clone()),
        ("embargo_epochs", graft.embargo_epochs.clone()),
    ]
}

/// Applies one record to plain arrays, by the reference.
fn apply(seeds: &mut SeedStates, graft: &mut GraftStates, update: &StateUpdate) -> UpdateStatus {
    let s = update.seed as usize;
    if s >= seeds.num_seeds() {
        return UpdateStatus::SeedOutOfRange;
    }
    if update.mask >= 1 << 7 {
        return UpdateStatus::UnknownField;
    }
    let has = |bit: u32| update.mask >> bit & 1 == 1;
    let values = FieldValues {
        lifecycle: has(0).then_some(update.lifecycle),
        blueprint_id: has(1).then_some(update.blueprint_id),
        schedule: has(2).then_some(update.schedule),
        ramp_epochs: has(3).then_some(update.ramp_epochs),
        embargo_epochs: has(4).then_some(update.embargo_epochs),
        alpha: has(5).then_some(update.alpha),
        alpha_target: has(6).then_some(update.alpha_target),
    };
    let mut record = SeedRecord {
        lifecycle: seeds.lifecycle[s],
        blueprint_id: seeds.blueprint_id[s],
        alpha: seeds.alpha[s],
        schedule: graft.schedule[s],
        alpha_target: graft.alpha_target[s],
        ramp_epochs: graft.ramp_epochs[s],
        epochs_in_state: graft.epochs_in_state[s],
        baseline_loss: Some(graft.baseline_loss[s]).filter(|loss| !loss.is_nan()),
        drift_count: graft.drift_count[s],
        embargo_epochs: graft.embargo_epochs[s],
    };
    match apply_update(&mut record, &values, BLUEPRINTS) {
        Err(Refusal::IllegalTransition) => UpdateStatus::IllegalTransition,
        Err(Refusal::Embargoed) => UpdateStatus::Embargoed,
        Err(Refusal::BlueprintOutOfRange) => UpdateStatus::BlueprintOutOfRange,
        Err(Refusal::UnknownSchedule) => UpdateStatus::UnknownSchedule,
        Err(Refusal::EmptyRamp) => UpdateStatus::EmptyRamp,
        Err(Refusal::AlphaOutOfRange) => UpdateStatus::AlphaOutOfRange,
        Ok(()) => {
            seeds.lifecycle[s] = record.lifecycle;
            seeds.blueprint_id[s] = record.blueprint_id;
            seeds.alpha[s] = record.alpha;
            graft.schedule[s] = record.schedule;
            graft.alpha_target[s] = record.alpha_target;
            graft.ramp_epochs[s] = record.ramp_epochs;
            graft.epochs_in_state[s] = record.epochs_in_state;
            graft.baseline_loss[s] = record.baseline_loss.unwrap_or(f32::NAN);
            graft.drift_count[s] = record.drift_count;
            graft.embargo_epochs[s] = record.embargo_epochs;
            UpdateStatus::Applied
        }
    }
}

/// An update that is right as often as not.
fn random_update(num_seeds: usize, numbers: &mut Numbers) -> StateUpdate {
    let strange = |numbers: &mut Numbers| numbers.below(40) == 0;
    let seed = numbers.below(num_seeds) as u32;
    StateUpdate {
        seed: if strange(numbers) { u32::MAX - seed } else { seed },
        mask: if strange(numbers) { 1 << numbers.below(32) } else { numbers.below(128) as u32 },
        lifecycle: if strange(numbers) { u32::MAX } else { numbers.below(11) as u32 },
        blueprint_id: if strange(numbers) { 1 << 16 } else { numbers.below(BLUEPRINTS + 1) as u32 },
        schedule: if strange(numbers) { 256 } else { numbers.below(5) as u32 },
        ramp_epochs: if strange(numbers) { 0 } else { 1 + numbers.below(50) as u32 },
        embargo_epochs: numbers.below(3) as u32,
        alpha: if strange(numbers) { f32::NAN } else { numbers.in_range(-2.0, 2.0) },
        alpha_target: if strange(numbers) { f32::INFINITY } else { numbers.in_range(-0.1, 1.1) },
        ..StateUpdate::of(0)
    }
}

/// Random batches, few seeds or many: statuses, counts and every array as the reference's, one record after
/// the other.
#[track_caller]
pub fn check(device: &Device, num_seeds: usize, batch: usize, seed: u64) {
    let (mut seeds, mut graft) = states(num_seeds, seed);
    let mut numbers = Numbers::new(seed ^ 0x5eed);
    let mut state = LayerState::with_graft(device, seeds.clone(), graft.clone()).expect("a state");
    let mut updates = StateUpdates::new(device, batch + 3).expect("memory");
    for _ in 0..3 {
        let records: Vec<_> = (0..batch).map(|_| random_update(num_seeds, &mut numbers)).collect();
        let report = updates.apply(&mut state, &records).unwrap_or_else(|why| panic!("{why}"));
        let mut applied = 0;
        for (i, record) in records.iter().enumerate() {
            let found = seeds.lifecycle.get(record.seed as usize).copied();
            let found = found.and_then(SeedLifecycle::from_u8);
            let status = apply(&mut seeds, &mut graft, record);
            applied += u32::from(status == UpdateStatus::Applied);
            assert_eq!((report.statuses[i], report.found[i]), (status, found), "{i}: {record:?}");
        }
        assert_eq!((report.applied, report.refused), (applied, batch as u32 - applied));
        assert_eq!(report.refusals(&records).count() as u32, report.refused);
        let (got, got_graft) = (state.read().expect("a state"), state.read_graft().expect("one"));
        assert_eq!(words(&got, &got_graft), words(&seeds, &graft));
    }
}

/// Every state to every byte, with and without an embargo: applied where the table says, and nothing of a
/// refused seed changed, in any array.
#[track_caller]
pub fn check_every_transition(device: &Device) {
    let num_seeds = 11 * 256;
    for embargo in [0, 3] {
        let (mut seeds, mut graft) = states(num_seeds, 5);
        seeds.lifecycle = (0..num_seeds).map(|s| (s / 256) as u8).collect();
        graft.embargo_epochs.fill(embargo);
        let mut state =
            LayerState::with_graft(device, seeds.clone(), graft.clone()).expect("a state");
        let records: Vec<_> = (0..num_seeds as u32)
            .map(|s| StateUpdate { mask: field::ALL, lifecycle: s % 256, ..good(s) })
            .collect();
        let mut updates = StateUpdates::new(device, num_seeds).expect("memory");
        let report = updates.apply(&mut state, &records).unwrap_or_else(|why| panic!("{why}"));
        let (got, got_graft) = (state.read().expect("a state"), state.read_graft().expect("one"));
        let (before, after) = (words(&seeds, &graft), words(&got, &got_graft));
        let mut applied = 0;
        for s in 0..num_seeds {
            let (from, to) = ((s / 256) as u8, (s % 256) as u32);
            let expected = match (may_become(from, to), from == 8 && embargo > 0) {
                (true, false) => UpdateStatus::Applied,
                (true, true) => UpdateStatus::Embargoed,
                (false, _) => UpdateStatus::IllegalTransition,
            };
            assert_eq!(report.statuses[s], expected, "{from} to {to}");
            if expected == UpdateStatus::Applied {
                applied += 1;
                assert_eq!(u32::from(got.lifecycle[s]), to);
                assert_eq!(got_graft.epochs_in_state[s], 0);
                let forgets = (got_graft.baseline_loss[s].is_nan(), got_graft.drift_count[s]);
                if to == 3 {
                    assert_eq!(forgets, (true, 0), "{from} to {to}");
                } else {
                    assert_eq!(got_graft.drift_count[s], graft.drift_count[s], "{from} to {to}");
                }
                continue;
            }
            for ((name, before), (_, after)) in before.iter().zip(&after) {
                let width = before.len() / num_seeds;
                let place = s * width..(s + 1) * width;
                assert_eq!(before[place.clone()], after[place], "{name} of seed {s}");
            }
        }
        assert_eq!((report.applied, applied), (applied, if embargo == 0 { 19 } else { 18 }));
    }
}

/// An update of every field that is right but for its transition.
fn good(seed: u32) -> StateUpdate {
    StateUpdate {
        blueprint_id: 3,
        schedule: 2,
        ramp_epochs: 77,
        embargo_epochs: 9,
        alpha: 0.125,
        alpha_target: 0.75,
        ..StateUpdate::of(seed)
    }
}

/// Each mask of one bit sets its field and no other, and every wrong value is refused by its status.
#[track_caller]
pub fn check_fields(device: &Device) {
    let (seeds, graft) = states(12, 3);
    let run = |update: StateUpdate| {
        let mut state =
            LayerState::with_graft(device, seeds.clone(), graft.clone()).expect("a state");
        let mut updates = StateUpdates::new(device, 1).expect("memory");
        let report = updates.apply(&mut state, &[update]).unwrap_or_else(|why| panic!("{why}"));
        let after = words(&state.read().expect("a state"), &state.read_graft().expect("a state"));
        let before = words(&seeds, &graft);
        let changed: Vec<&str> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .map(|(before, _)| before.0)
            .collect();
        (report.statuses[0], changed)
    };
    // Seed 2 is TRAINING, with a baseline and drifts.
    for (mask, fields) in [
        (0, vec![]),
        (field::LIFECYCLE, vec!["lifecycle", "epochs_in_state", "baseline_loss", "drift_count"]),
        (field::BLUEPRINT_ID, vec!["blueprint_id"]),
        (field::SCHEDULE, vec!["schedule"]),
        (field::RAMP_EPOCHS, vec!["ramp_epochs"]),
        (field::EMBARGO_EPOCHS, vec!["embargo_epochs"]),
        (field::ALPHA, vec!["alpha"]),
        (field::ALPHA_TARGET, vec!["alpha_target"]),
    ] {
        let old = usize::from(seeds.blueprint_id[2]);
        let update = StateUpdate {
            mask,
            lifecycle: 3,
            blueprint_id: ((old + 1) % BLUEPRINTS) as u32,
            schedule: (u32::from(graft.schedule[2]) + 1) % 4,
            ..good(2)
        };
        assert_eq!(run(update), (UpdateStatus::Applied, fields), "mask {mask:#x}");
    }
    let all = StateUpdate { mask: field::ALL, lifecycle: 3, ..good(2) };
    for (update, status) in [
        (StateUpdate { seed: 12, ..all }, UpdateStatus::SeedOutOfRange),
        (StateUpdate { mask: 1 << 7, ..all }, UpdateStatus::UnknownField),
        (StateUpdate { lifecycle: 4, ..all }, UpdateStatus::IllegalTransition),
        (StateUpdate { lifecycle: 1 << 8 | 3, ..all }, UpdateStatus::IllegalTransition),
        (StateUpdate { blueprint_id: 4, ..all }, UpdateStatus::BlueprintOutOfRange),
        (StateUpdate { blueprint_id: 1 << 16, ..all }, UpdateStatus::BlueprintOutOfRange),
        (StateUpdate { schedule: 4, ..all }, UpdateStatus::UnknownSchedule),
        (StateUpdate { ramp_epochs: 0, ..all }, UpdateStatus::EmptyRamp),
        (StateUpdate { alpha: f32::NAN, ..all }, UpdateStatus::AlphaOutOfRange),
        (StateUpdate { alpha_target: -0.25, ..all }, UpdateStatus::AlphaOutOfRange),
        (StateUpdate { alpha_target: f32::NAN, ..all }, UpdateStatus::AlphaOutOfRange),
    ] {
        assert_eq!(run(update), (status, vec![]), "{update:?}");
    }
}

/// A batch longer than the capacity is refused and changes nothing; an empty one is nothing.
#[track_caller]
pub fn check_capacity(device: &Device) {
    let (seeds, graft) = states(3, 1);
    let mut state = LayerState::with_graft(device, seeds.clone(), graft).expect("a state");
    let mut updates = StateUpdates::new(device, 2).expect("memory");
    let refused = updates.apply(&mut state, &[StateUpdate { mask: field::ALPHA, ..good(1) }; 3]);
    assert!(matches!(refused, Err(Error::TooLarge { got: 3, limit: 2, .. })), "{refused:?}");
    assert_eq!(state.read().expect("a state"), seeds);
    let report = updates.apply(&mut state, &[]).expect("an empty batch");
    assert_eq!((report.applied, report.refused, report.statuses.len()), (0, 0, 0));
}
