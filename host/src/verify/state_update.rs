//! `state_update`: batches of which about half is right, with several updates of one seed.

use kasmina_reference::kasmina::{FieldValues, SeedRecord, apply_update};
use kasmina_types::seed_state::field;
use kasmina_types::{DType, StateUpdate, UpdateStatus};

use super::tally::{Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Timing, reordered, time};
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{GraftStates, LayerState, SeedStates, StateUpdates, UpdateReport};

const BLUEPRINTS: usize = 5;

/// Bytes that an update has to move: its record, and its answer.
const UPDATE_BYTES: u64 = 48 + 5;

pub(super) fn checks() -> Vec<Check> {
    vec![Check::new("state_update", DType::F32, |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for size in units::sizes(device, source, [1, 64, 300, 1000]) {
            let case = Case::new(size, &mut units);
            tally.case();
            let runs = run(device, &case, timed)
                .and_then(|first| Ok((first, run(&reordered(device), &case, false)?)));
            match runs {
                Ok((first, second)) => {
                    for ((what, a), (_, b)) in words(&first).iter().zip(&words(&second)) {
                        units::same_bits(&case.name, what, a, b, tally);
                    }
                    judge(&case, &first, tally);
                    if let Some(seconds) = first.seconds {
                        let bytes = UPDATE_BYTES * size as u64;
                        tally.timing(Timing { seconds, bytes });
                    }
                }
                Err(source) => return Err(Mismatch::Run { case: case.name, source }),
            }
        }
        Ok(())
    })]
}

struct Case {
    name: String,
    seeds: SeedStates,
    graft: GraftStates,
    updates: Vec<StateUpdate>,
}

impl Case {
    /// As many updates as seeds, drawn: some seeds have several.
    fn new(size: usize, units: &mut Units) -> Self {
        let seeds = SeedStates {
            lifecycle: (0..size).map(|s| (s % 11) as u8).collect(),
            blueprint_id: (0..size).map(|_| units.below(BLUEPRINTS) as u16).collect(),
            alpha: (0..size).map(|_| units.unit()).collect(),
            blueprint_type: vec![4; BLUEPRINTS],
            blueprint_weights: vec![1.0; BLUEPRINTS],
            blueprint_scales: vec![1.0; BLUEPRINTS],
            chunk_size: 1,
        };
        let graft = GraftStates {
            epochs_in_state: (0..size).map(|_| units.below(100) as u32).collect(),
            baseline_loss: (0..size).map(|_| units.unit()).collect(),
            drift_count: (0..size).map(|_| units.below(9) as u32).collect(),
            embargo_epochs: (0..size).map(|_| units.below(2) as u32).collect(),
            ..GraftStates::new(size)
        };
        let updates = (0..size)
            .map(|_| StateUpdate {
                mask: units.below(1 << 7) as u32 | u32::from(units.below(30) == 0) << 9,
                lifecycle: units.below(12) as u32,
                blueprint_id: units.below(BLUEPRINTS + 1) as u32,
                schedule: units.below(5) as u32,
                ramp_epochs: units.below(30) as u32,
                embargo_epochs: units.below(3) as u32,
                alpha: if units.below(30) == 0 { f32::NAN } else { units.unit() },
                alpha_target: 1.02 * units.unit(),
                // The seed after the last, now and then.
                ..StateUpdate::of(units.below(size + 1) as u32)
            })
            .collect();
        Self { name: format!("{size} updates of {size} seeds"), seeds, graft, updates }
    }
}

struct Results {
    seeds: SeedStates,
    graft: GraftStates,
    report: UpdateReport,
    seconds: Option<f64>,
}

fn run(device: &Device, case: &Case, timed: bool) -> Result<Results, Error> {
    let mut state = LayerState::with_graft(device, case.seeds.clone(), case.graft.clone())?;
    let mut updates = StateUpdates::new(device, case.updates.len())?;
    let report = updates.apply(&mut state, &case.updates)?;
    let (seeds, graft) = (state.read()?, state.read_graft()?);
    let mut seconds = None;
    if timed {
        let apply = || updates.apply(&mut state, &case.updates).map(drop);
        seconds = Some(time::median_seconds(device, apply)?);
    }
    Ok(Results { seeds, graft, report, seconds })
}

/// Everything that was written, by name.
fn words(results: &Results) -> Vec<(&'static str, Vec<u32>)> {
    let Results { seeds, graft, report, .. } = results;
    vec![
        ("status", report.statuses.iter().map(|&status| status as u32).collect()),
        ("counts", vec![report.applied, report.refused]),
        ("lifecycle", seeds.lifecycle.iter().map(|&v| v.into()).collect()),
        ("blueprint_id", seeds.blueprint_id.iter().map(|&v| v.into()).collect()),
        ("alpha", units::bits(&seeds.alpha)),
        ("schedule", graft.schedule.iter().map(|&v| v.into()).collect()),
        ("alpha_target", units::bits(&graft.alpha_target)),
        ("ramp_epochs", graft.ramp_epochs.clone()),
        ("epochs_in_state", graft.epochs_in_state.clone()),
        ("baseline_loss", units::bits(&graft.baseline_loss)),
        ("drift_count", graft.drift_count.clone()),
        ("embargo_epochs", graft.embargo_epochs.clone()),
    ]
}

fn judge(case: &Case, results: &Results, tally: &mut Tally) {
    let (mut seeds, mut graft) = (case.seeds.clone(), case.graft.clone());
    let mut statuses = Vec::new();
    for update in &case.updates {
        statuses.push(expected_status(&mut seeds, &mut graft, update));
    }
    let applied = statuses.iter().filter(|&&s| s == UpdateStatus::Applied).count() as u32;
    let refused = statuses.len() as u32 - applied;
    let report = UpdateReport { statuses, found: Vec::new(), applied, refused };
    let expected = words(&Results { seeds, graft, report, seconds: None });
    for ((what, got), (_, expected)) in words(results).iter().zip(&expected) {
        units::judge_words(&case.name, what, got, expected, tally);
    }
}

/// Applies one update to plain arrays by the reference.
fn expected_status(
    seeds: &mut SeedStates,
    graft: &mut GraftStates,
    update: &StateUpdate,
) -> UpdateStatus {
    use kasmina_reference::kasmina::Refusal;
    let s = update.seed as usize;
    if s >= seeds.num_seeds() {
        return UpdateStatus::SeedOutOfRange;
    }
    if update.mask & !field::ALL != 0 {
        return UpdateStatus::UnknownField;
    }
    let has = |bit| update.mask & bit != 0;
    let values = FieldValues {
        lifecycle: has(field::LIFECYCLE).then_some(update.lifecycle),
        blueprint_id: has(field::BLUEPRINT_ID).then_some(update.blueprint_id),
        schedule: has(field::SCHEDULE).then_some(update.schedule),
        ramp_epochs: has(field::RAMP_EPOCHS).then_some(update.ramp_epochs),
        embargo_epochs: has(field::EMBARGO_EPOCHS).then_some(update.embargo_epochs),
        alpha: has(field::ALPHA).then_some(update.alpha),
        alpha_target: has(field::ALPHA_TARGET).then_some(update.alpha_target),
    };
    let mut seed = SeedRecord {
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
    match apply_update(&mut seed, &values, BLUEPRINTS) {
        Err(Refusal::IllegalTransition) => return UpdateStatus::IllegalTransition,
        Err(Refusal::Embargoed) => return UpdateStatus::Embargoed,
        Err(Refusal::BlueprintOutOfRange) => return UpdateStatus::BlueprintOutOfRange,
        Err(Refusal::UnknownSchedule) => return UpdateStatus::UnknownSchedule,
        Err(Refusal::EmptyRamp) => return UpdateStatus::EmptyRamp,
        Err(Refusal::AlphaOutOfRange) => return UpdateStatus::AlphaOutOfRange,
        Ok(()) => {}
    }
    (seeds.lifecycle[s], seeds.blueprint_id[s]) = (seed.lifecycle, seed.blueprint_id);
    (seeds.alpha[s], graft.alpha_target[s]) = (seed.alpha, seed.alpha_target);
    (graft.schedule[s], graft.ramp_epochs[s]) = (seed.schedule, seed.ramp_epochs);
    (graft.epochs_in_state[s], graft.drift_count[s]) = (seed.epochs_in_state, seed.drift_count);
    graft.baseline_loss[s] = seed.baseline_loss.unwrap_or(f32::NAN);
    graft.embargo_epochs[s] = seed.embargo_epochs;
    UpdateStatus::Applied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Source, Status};

    #[test]
    fn one_wrong_status_and_one_wrong_word_fail() {
        let case = Case::new(60, &mut Units::of(&Source::random(3)));
        let verdict = |change: fn(&mut Results)| {
            let mut results = run(&Device::Cpu, &case, false).unwrap();
            change(&mut results);
            let mut tally = Tally::default();
            judge(&case, &results, &mut tally);
            tally.into_row("state_update".into(), DType::F32, "cpu").status
        };
        assert_eq!(verdict(|_| {}), Status::Pass);
        for (name, change) in [
            ("counts[0]", (|r| r.report.applied += 1) as fn(&mut Results)),
            ("lifecycle[4]", |r| r.seeds.lifecycle[4] ^= 1),
            ("drift_count[9]", |r| r.graft.drift_count[9] += 1),
            ("alpha[2]", |r| r.seeds.alpha[2] = -r.seeds.alpha[2] - 1.0),
        ] {
            let Status::Fail { reason } = verdict(change) else { panic!("{name} passed") };
            assert!(reason.contains(name), "{reason}");
        }
    }
}
