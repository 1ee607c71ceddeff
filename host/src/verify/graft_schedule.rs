//! `graft_schedule`: epochs of seeds of every lifecycle and schedule.

use kasmina_reference::kasmina::{Epoch, GraftState, graft_epoch};
use kasmina_types::DType;
use kasmina_types::schedule::DRIFT_WINDOW;

use super::tally::{Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Timing, reordered, time};
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    EpochBuffers, EpochValues, GraftSchedule, GraftStates, LayerState, SeedStates,
};

/// Bytes that an epoch has to move for a seed: its lifecycle, schedule, α, ramp, target, counts and figure.
const SEED_BYTES: u64 = 38;

/// More than the drifts that are kept.
const EPOCHS: usize = 8;

pub(super) fn checks() -> Vec<Check> {
    vec![Check::new("graft_schedule", DType::F32, |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for num_seeds in units::sizes(device, source, [1, 64, 1000, 5000]) {
            let case = Case::new(num_seeds, &mut units);
            tally.case();
            let runs = run(device, &case, timed)
                .and_then(|first| Ok((first, run(&reordered(device), &case, false)?)));
            match runs {
                Ok((first, second)) => {
                    compare_runs(&case, &first, &second, tally);
                    judge(&case, &first, tally);
                    if let Some(seconds) = first.seconds {
                        let bytes = SEED_BYTES * num_seeds as u64;
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
    epochs: Vec<EpochValues>,
}

impl Case {
    fn new(num_seeds: usize, units: &mut Units) -> Self {
        let seeds = SeedStates {
            lifecycle: (0..num_seeds)
                .map(|s| if s % 2 == 0 { 3 } else { (s / 2 % 11) as u8 })
                .collect(),
            blueprint_id: vec![0; num_seeds],
            alpha: (0..num_seeds).map(|_| 0.5 * units.unit()).collect(),
            chunk_size: 1,
            ..SeedStates::default()
        };
        let graft = GraftStates {
            schedule: (0..num_seeds).map(|s| (s / 2 % 4) as u8).collect(),
            alpha_target: (0..num_seeds).map(|_| 1.0 - 0.5 * units.unit()).collect(),
            ramp_epochs: (0..num_seeds).map(|_| 1 + units.below(40) as u32).collect(),
            embargo_epochs: (0..num_seeds).map(|_| units.below(12) as u32).collect(),
            ..GraftStates::new(num_seeds)
        };
        let mut figures = |most: f32| -> Vec<f32> {
            let mut figure = |s: usize| if s % 37 == 36 { f32::NAN } else { most * units.unit() };
            (0..num_seeds).map(&mut figure).collect()
        };
        let epochs = (0..EPOCHS)
            .map(|_| EpochValues {
                loss: figures(2.0),
                drift: figures(0.2),
                gradient_norm: figures(1.5),
            })
            .collect();
        Self { name: format!("{EPOCHS} epochs of {num_seeds} seeds"), seeds, graft, epochs }
    }
}

/// The state after all epochs, and how many seeds each skipped.
struct Results {
    alpha: Vec<f32>,
    graft: GraftStates,
    skipped: Vec<u32>,
    seconds: Option<f64>,
}

fn run(device: &Device, case: &Case, timed: bool) -> Result<Results, Error> {
    let num_seeds = case.seeds.num_seeds();
    let mut state = LayerState::with_graft(device, case.seeds.clone(), case.graft.clone())?;
    let mut schedule = GraftSchedule::new(device, num_seeds)?;
    let mut epoch = EpochBuffers::new(device, num_seeds)?;
    let mut skipped = Vec::new();
    for values in &case.epochs {
        epoch.write(values)?;
        schedule.run(&mut state, &epoch)?;
        skipped.push(schedule.skipped()?);
    }
    let (alpha, graft) = (state.read()?.alpha, state.read_graft()?);
    let mut seconds = None;
    if timed {
        seconds = Some(time::median_seconds(device, || schedule.run(&mut state, &epoch))?);
    }
    Ok(Results { alpha, graft, skipped, seconds })
}

fn compare_runs(case: &Case, first: &Results, second: &Results, tally: &mut Tally) {
    let mut same = |what, a: &[u32], b: &[u32]| units::same_bits(&case.name, what, a, b, tally);
    same("alpha", &units::bits(&first.alpha), &units::bits(&second.alpha));
    let (a, b) = (&first.graft, &second.graft);
    same("baseline_loss", &units::bits(&a.baseline_loss), &units::bits(&b.baseline_loss));
    same("drift_history", &units::bits(&a.drift_history), &units::bits(&b.drift_history));
    same("drift_count", &a.drift_count, &b.drift_count);
    same("skipped", &first.skipped, &second.skipped);
}

fn judge(case: &Case, results: &Results, tally: &mut Tally) {
    let num_seeds = case.seeds.num_seeds();
    let (mut skipped, mut alpha) = (vec![0; case.epochs.len()], Vec::new());
    let mut expected =
        GraftStates { drift_history: vec![0.0; num_seeds * DRIFT_WINDOW], ..case.graft.clone() };
    for s in 0..num_seeds {
        let mut seed = GraftState {
            lifecycle: case.seeds.lifecycle[s],
            schedule: case.graft.schedule[s],
            alpha: case.seeds.alpha[s].into(),
            alpha_target: case.graft.alpha_target[s].into(),
            ramp_epochs: case.graft.ramp_epochs[s],
            baseline_loss: None,
            drifts: Vec::new(),
            epochs_in_state: case.graft.epochs_in_state[s],
            embargo_epochs: case.graft.embargo_epochs[s],
        };
        for (values, skipped) in case.epochs.iter().zip(&mut skipped) {
            let epoch = Epoch {
                loss: values.loss[s].into(),
                drift: values.drift[s].into(),
                gradient_norm: values.gradient_norm[s].into(),
            };
            *skipped += u32::from(graft_epoch(&mut seed, epoch));
        }
        alpha.push(seed.alpha);
        for (i, &drift) in seed.drifts.iter().enumerate() {
            expected.drift_history[s * DRIFT_WINDOW + i % DRIFT_WINDOW] = drift as f32;
        }
        expected.drift_count[s] = seed.drifts.len() as u32;
        expected.baseline_loss[s] = seed.baseline_loss.map_or(f32::NAN, |loss| loss as f32);
        expected.epochs_in_state[s] = seed.epochs_in_state;
        expected.embargo_epochs[s] = seed.embargo_epochs;
    }
    units::judge_rounded(&case.name, "alpha", &results.alpha, &alpha, 1.0, tally);
    let got = &results.graft;
    for (what, got, expected) in [
        ("skipped", &results.skipped, &skipped),
        ("drift_count", &got.drift_count, &expected.drift_count),
        ("epochs_in_state", &got.epochs_in_state, &expected.epochs_in_state),
        ("embargo_epochs", &got.embargo_epochs, &expected.embargo_epochs),
        ("drift_history", &units::bits(&got.drift_history), &units::bits(&expected.drift_history)),
        ("baseline_loss", &units::bits(&got.baseline_loss), &units::bits(&expected.baseline_loss)),
    ] {
        units::judge_words(&case.name, what, got, expected, tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Source, Status};

    #[test]
    fn a_wrong_alpha_and_a_wrong_count_fail() {
        let case = Case::new(90, &mut Units::of(&Source::random(3)));
        let verdict = |change: fn(&mut Results)| {
            let mut results = run(&Device::Cpu, &case, false).unwrap();
            change(&mut results);
            let mut tally = Tally::default();
            judge(&case, &results, &mut tally);
            tally.into_row("graft_schedule".into(), DType::F32, "cpu").status
        };
        assert_eq!(verdict(|_| {}), Status::Pass);
        for (name, change) in [
            ("alpha[6]", (|r| r.alpha[6] += 1e-3) as fn(&mut Results)),
            ("alpha[0]", |r| r.alpha[0] = f32::NAN),
            ("skipped[7]", |r| r.skipped[7] += 1),
            ("embargo_epochs[3]", |r| r.graft.embargo_epochs[3] += 1),
            ("baseline_loss[2]", |r| r.graft.baseline_loss[2] += 1e-5),
        ] {
            let Status::Fail { reason } = verdict(change) else { panic!("{name} passed") };
            assert!(reason.contains(name), "{reason}");
        }
    }
}
