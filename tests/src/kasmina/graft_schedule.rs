//! `graft_schedule` against the reference, epoch after epoch.

use kasmina::kasmina::{
    EpochBuffers, EpochInputs, EpochValues, GraftSchedule, GraftStates, LayerState, SeedStates,
};
use kasmina::{Buffer, Device, Error};
use kasmina_reference::kasmina::{Epoch, GraftState, graft_epoch};

use crate::{Numbers, assert_near};

const WINDOW: usize = 5;

/// Seeds of every lifecycle and schedule, with α on both sides of their targets.
pub fn states(num_seeds: usize, seed: u64) -> (SeedStates, GraftStates) {
    let mut numbers = Numbers::new(seed);
    let states = SeedStates {
        // Every second one grafts.
        lifecycle: (0..num_seeds)
            .map(|s| if s % 2 == 0 { 3 } else { (s / 2 % 11) as u8 })
            .collect(),
        blueprint_id: vec![0; num_seeds],
        alpha: (0..num_seeds).map(|_| numbers.in_range(-0.1, 1.1)).collect(),
        chunk_size: 1,
        ..SeedStates::default()
    };
    let mut graft = GraftStates::new(num_seeds);
    for s in 0..num_seeds {
        graft.schedule[s] = numbers.below(4) as u8;
        graft.alpha_target[s] = numbers.in_range(0.0, 1.0);
        graft.ramp_epochs[s] = 1 + numbers.below(40) as u32;
        graft.epochs_in_state[s] = if numbers.below(9) == 0 { u32::MAX } else { 5 };
        graft.embargo_epochs[s] = numbers.below(3) as u32;
    }
    (states, graft)
}

/// An epoch's figures about the schedules' thresholds, a few of them broken.
pub fn values(num_seeds: usize, numbers: &mut Numbers) -> EpochValues {
    let mut figure = |low, high| -> Vec<f32> {
        (0..num_seeds)
            .map(|_| match numbers.below(24) {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::NEG_INFINITY,
                3 => 0.0,
                _ => numbers.in_range(low, high),
            })
            .collect()
    };
    EpochValues {
        loss: figure(-0.2, 2.0),
        drift: figure(0.0, 0.2),
        gradient_norm: figure(0.0, 1.4),
    }
}

/// Runs `epochs` epochs on `device` and compares each with the f64 reference; counts exactly, α by its
/// rounding.
#[track_caller]
pub fn check(device: &Device, num_seeds: usize, epochs: usize, seed: u64) {
    let (seeds, graft) = states(num_seeds, seed);
    let mut expected: Vec<GraftState> = (0..num_seeds)
        .map(|s| GraftState {
            lifecycle: seeds.lifecycle[s],
            schedule: graft.schedule[s],
            alpha: seeds.alpha[s].into(),
            alpha_target: graft.alpha_target[s].into(),
            ramp_epochs: graft.ramp_epochs[s],
            baseline_loss: None,
            drifts: Vec::new(),
            epochs_in_state: graft.epochs_in_state[s],
            embargo_epochs: graft.embargo_epochs[s],
        })
        .collect();
    let mut state = LayerState::with_graft(device, seeds.clone(), graft.clone()).expect("a state");
    let mut twin = LayerState::with_graft(device, seeds.clone(), graft).expect("a state");
    let mut schedule = GraftSchedule::new(device, num_seeds).expect("a plan");
    let mut epoch = EpochBuffers::new(device, num_seeds).expect("memory");
    let mut numbers = Numbers::new(seed ^ 0x5eed);
    for number in 0..epochs {
        let brings = values(num_seeds, &mut numbers);
        epoch.write(&brings).expect("the right lengths");
        schedule.run(&mut twin, &epoch).unwrap_or_else(|why| panic!("{why}"));
        // The norms of another buffer count as well.
        let norms = Buffer::from_slice(device, &brings.gradient_norm).expect("memory");
        let inputs = EpochInputs { gradient_norm: &norms, ..(&epoch).into() };
        schedule.run(&mut state, inputs).unwrap_or_else(|why| panic!("{why}"));

        let mut skipped = 0;
        for (s, one) in expected.iter_mut().enumerate() {
            let brings = Epoch {
                loss: brings.loss[s].into(),
                drift: brings.drift[s].into(),
                gradient_norm: brings.gradient_norm[s].into(),
            };
            skipped += u32::from(graft_epoch(one, brings));
        }
        assert_eq!(schedule.skipped().expect("a count"), skipped, "epoch {number}");
        let (got, graft) = (state.read().expect("a state"), state.read_graft().expect("a state"));
        let alpha: Vec<f64> = expected.iter().map(|one| one.alpha).collect();
        let got_alpha: Vec<f64> = got.alpha.iter().map(|&alpha| alpha.into()).collect();
        let tolerance = 1e-7 * (number + 1) as f64;
        assert_near(&format!("α after epoch {number}"), &got_alpha, &alpha, 1.0, tolerance);
        for (s, one) in expected.iter().enumerate() {
            let what = format!("seed {s} after epoch {number}: {one:?}");
            assert_eq!(graft.epochs_in_state[s], one.epochs_in_state, "{what}");
            assert_eq!(graft.embargo_epochs[s], one.embargo_epochs, "{what}");
            assert_eq!(graft.drift_count[s] as usize, one.drifts.len(), "{what}");
            let baseline = one.baseline_loss.map_or(f64::NAN, |loss| loss) as f32;
            assert_eq!(graft.baseline_loss[s].to_bits(), baseline.to_bits(), "{what}");
            let seen = one.drifts.len();
            for i in seen.saturating_sub(WINDOW)..seen {
                let kept = graft.drift_history[s * WINDOW + i % WINDOW];
                assert_eq!(f64::from(kept), one.drifts[i], "{what}");
            }
        }
        assert_eq!(got.lifecycle, seeds.lifecycle);
        assert_eq!(format!("{got:?}"), format!("{:?}", twin.read().expect("a state")));
    }
    assert_eq!(
        format!("{:?}", state.read_graft().expect("a state")),
        format!("{:?}", twin.read_graft().expect("a state"))
    );
}

/// What does not fit is refused, and the state stays.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let (seeds, graft) = states(4, 1);
    let mut state = LayerState::with_graft(device, seeds.clone(), graft).expect("a state");
    let mut schedule = GraftSchedule::new(device, 4).expect("a plan");
    let short = EpochBuffers::new(device, 3).expect("memory");
    let refused = schedule.run(&mut state, &short);
    assert!(matches!(refused, Err(Error::Length { buffer: "loss", got: 3, .. })), "{refused:?}");
    let mut other = GraftSchedule::new(device, 5).expect("a plan");
    let epoch = EpochBuffers::new(device, 5).expect("memory");
    let refused = other.run(&mut state, &epoch);
    assert!(matches!(refused, Err(Error::Length { buffer: "state", got: 4, .. })), "{refused:?}");
    assert_eq!(state.read().expect("a state"), seeds);
    assert!(matches!(GraftSchedule::new(device, 0), Err(Error::Length { .. })));
    let mut epoch = EpochBuffers::new(device, 2).expect("memory");
    let wrong =
        EpochValues { loss: vec![1.0; 2], drift: vec![0.0; 1], gradient_norm: vec![0.0; 2] };
    assert!(matches!(epoch.write(&wrong), Err(Error::Length { buffer: "drift", .. })));
    assert_eq!(epoch.loss.to_vec().expect("values"), [0.0; 2]);
}
