//! Random commands against a model of a few lines.

use kasmina::Device;
use kasmina::kasmina::{EpochReport, KasminaLayer, SeedEpoch, TransitionRules};
use kasmina::types::{BlendSchedule, BlueprintType, SeedLifecycle};

use super::{blueprint, snapshot};
use crate::Numbers;

const SEEDS: usize = 3;
const RAMP: u32 = 4;
const EMBARGO: u32 = 2;

#[derive(Clone, Debug, PartialEq)]
struct Seed {
    lifecycle: u8,
    blueprint: u16,
    alpha: f32,
    target: f32,
    ramp: u32,
    epochs: u32,
    embargo: u32,
}

/// What each state may become, written out.
fn legal(from: u8) -> &'static [u8] {
    match from {
        0 => &[1],
        1 => &[2, 9],
        2 => &[3, 8, 9],
        3 => &[4, 10],
        4 => &[5, 10],
        5 => &[6, 8, 10],
        6 => &[7, 8, 10],
        8..=10 => &[0],
        _ => &[],
    }
}

impl Seed {
    /// Whether the transition was legal; it is made if so.
    fn to(&mut self, lifecycle: u8) -> bool {
        if !legal(self.lifecycle).contains(&lifecycle) || self.lifecycle == 8 && self.embargo > 0 {
            return false;
        }
        (self.lifecycle, self.epochs) = (lifecycle, 0);
        match lifecycle {
            0 => (self.blueprint, self.alpha) = (0, 0.0),
            8 => self.embargo = EMBARGO,
            _ => {}
        }
        true
    }

    fn advance(&mut self) -> bool {
        match self.lifecycle {
            0 | 7 => false,
            8..=10 => self.to(0),
            lifecycle => self.to(lifecycle + 1),
        }
    }

    fn germinate(&mut self, id: u16, loaded: bool) -> bool {
        if !loaded || !self.to(1) {
            return false;
        }
        (self.blueprint, self.alpha, self.target, self.ramp) = (id, 0.0, 1.0, RAMP);
        true
    }

    fn end_epoch(&mut self) {
        self.epochs += 1;
        self.embargo = self.embargo.saturating_sub(1);
        if self.lifecycle == 3 {
            self.alpha = (self.alpha + 1.0 / self.ramp as f32).min(self.target);
        }
    }
}

/// Runs `commands` commands drawn from `seed`, and compares the layer with the model after each; a command
/// that is refused leaves every bit as it was.
#[track_caller]
pub fn check_commands(device: &Device, seed: u64, commands: usize) {
    let mut numbers = Numbers::new(seed);
    let rules = TransitionRules { embargo_epochs: EMBARGO, automatic: false, ..Default::default() };
    let mut layer = KasminaLayer::<f32>::builder(SEEDS, SEEDS * 4)
        .max_blueprints(5)
        .ramp_epochs(RAMP)
        .rules(rules)
        .build(device)
        .expect("a layer");
    for kind in [BlueprintType::Scale, BlueprintType::ResidualBlock] {
        layer.load_blueprint(&blueprint(kind, 4, &mut numbers)).expect("room");
    }
    let fresh = Seed {
        lifecycle: 0,
        blueprint: 0,
        alpha: 0.0,
        target: 1.0,
        ramp: RAMP,
        epochs: 0,
        embargo: 0,
    };
    let mut model = vec![fresh; SEEDS];
    let (mut accepted, mut refused) = (0, 0);
    for step in 0..commands {
        let before = snapshot(&layer);
        // One past the last, too.
        let at = numbers.below(SEEDS + 1);
        let mut outside = model[0].clone();
        let known = at < SEEDS;
        let seed_model = if known { &mut model[at] } else { &mut outside };
        let (what, expected, done) = match numbers.below(12) {
            0 | 1 => {
                let id = numbers.below(6) as u16;
                let loaded = (1..=2).contains(&id);
                let expected = known && seed_model.germinate(id, loaded);
                (format!("germinate {at} {id}"), expected, layer.germinate(at, id))
            }
            2..=5 => {
                let expected = known && seed_model.advance();
                (format!("advance {at}"), expected, layer.advance(at).map(drop))
            }
            6 => {
                let expected = known && seed_model.to(9);
                (format!("cancel {at}"), expected, layer.cancel(at))
            }
            7 => {
                let expected = known && seed_model.to(8);
                (format!("cull {at}"), expected, layer.cull(at))
            }
            8 => {
                let expected = known && seed_model.to(10);
                (format!("rollback {at}"), expected, layer.rollback(at))
            }
            9 => {
                let target = [0.5, 0.25, 1.5, -0.1, f32::NAN][numbers.below(5)];
                let expected = known && (0.0..=1.0).contains(&target);
                if expected {
                    seed_model.target = target;
                }
                (format!("target {at} {target}"), expected, layer.set_alpha_target(at, target))
            }
            10 => {
                let ramp = numbers.below(4) as u32;
                let expected = known && ramp > 0;
                if expected {
                    seed_model.ramp = ramp;
                }
                let done = layer.set_schedule(at, BlendSchedule::FixedRamp, ramp);
                (format!("ramp {at} {ramp}"), expected, done)
            }
            _ => {
                let seeds = if known { SEEDS } else { SEEDS - 1 };
                if known {
                    model.iter_mut().for_each(Seed::end_epoch);
                }
                let report = EpochReport::uniform(seeds, SeedEpoch::default());
                ("end_epoch".into(), known, layer.end_epoch(&report).map(drop))
            }
        };
        assert_eq!(done.is_ok(), expected, "seed {seed}, step {step}: {what}: {done:?}");
        if done.is_err() {
            refused += 1;
            assert_eq!(snapshot(&layer), before, "seed {seed}: refused {what} changed something");
        } else {
            accepted += 1;
        }
        compare(&layer, &model, &format!("seed {seed}, step {step}: {what}"));
        layer.verify_integrity().expect("only the layer changed the state");
    }
    assert!(commands < 50 || accepted > 5 && refused > 5, "{accepted} accepted, {refused} refused");
}

#[track_caller]
fn compare(layer: &KasminaLayer<f32>, model: &[Seed], what: &str) {
    let states = layer.state().read().expect("a read");
    let graft = layer.state().read_graft().expect("a read");
    for (i, seed) in model.iter().enumerate() {
        let got = Seed {
            lifecycle: states.lifecycle[i],
            blueprint: states.blueprint_id[i],
            alpha: seed.alpha,
            target: graft.alpha_target[i],
            ramp: graft.ramp_epochs[i],
            epochs: graft.epochs_in_state[i],
            embargo: graft.embargo_epochs[i],
        };
        assert_eq!(&got, seed, "{what}");
        assert!((states.alpha[i] - seed.alpha).abs() < 1e-6, "{what}: α {}", states.alpha[i]);
    }
}

/// A refused transition names both states.
#[track_caller]
pub fn check_messages(device: &Device) {
    let mut layer = KasminaLayer::<f32>::builder(2, 8).name("here").build(device).expect("a layer");
    for (done, words) in [
        (layer.cull(0), &["DORMANT", "CULLED", "GERMINATED"][..]),
        (layer.advance(1).map(drop), &["DORMANT", "GERMINATED", "`germinate`"]),
        (layer.cancel(7), &["here", "7", "2 seeds"]),
        (layer.germinate(0, 3), &["3", "not loaded"]),
        (layer.set_alpha_target(0, 2.0), &["alpha_target", "2", "0 to 1"]),
    ] {
        let why = done.expect_err("refused").to_string();
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
    }
    let kind = BlueprintType::Scale;
    let id = layer.load_blueprint(&blueprint(kind, 4, &mut Numbers::new(1))).expect("room").id;
    layer.germinate(0, id).expect("DORMANT");
    while layer.advance(0).expect("not the last state") != SeedLifecycle::Fossilized {}
    let why = layer.advance(0).expect_err("terminal").to_string();
    assert!(why.contains("FOSSILIZED") && why.contains("DORMANT"), "{why}");
}

/// Transitions at an epoch's end: one seed on each row of the table, with its condition just met.
#[track_caller]
pub fn check_end_of_epoch(device: &Device) {
    use kasmina::types::SeedLifecycle as L;
    // Each wait is over after two epochs.
    let rules = TransitionRules {
        training_epochs: 2,
        grafting_epochs: 2,
        stabilization_epochs: 2,
        evaluating_epochs: 2,
        fine_tuning_epochs: 2,
        embargo_epochs: 2,
        automatic_reset: true,
        ..Default::default()
    };
    let mut layer = KasminaLayer::<f32>::builder(8, 16)
        .ramp_epochs(2)
        .rules(rules)
        .build(device)
        .expect("a layer");
    let mut numbers = Numbers::new(1);
    let id =
        layer.load_blueprint(&blueprint(BlueprintType::Scale, 2, &mut numbers)).expect("room").id;
    // Seed s is advanced s times: 0 is GERMINATED, 6 is FOSSILIZED; 7 is evaluated and is bad.
    for seed in 0..8 {
        layer.germinate(seed, id).expect("DORMANT");
        for _ in 0..if seed == 7 { 4 } else { seed } {
            layer.advance(seed).expect("a legal step");
        }
    }
    let good = SeedEpoch {
        reconstruction_loss: 0.01,
        performance_gain: 0.5,
        stability: 1.0,
        error_rate: 0.0,
        improvement: 0.01,
        ..SeedEpoch::default()
    };
    let mut report = EpochReport::uniform(8, good);
    report.seeds[7].performance_gain = -0.5;
    let first = layer.end_epoch(&report).expect("an epoch");
    assert_eq!((first.epoch, first.transitions.as_slice()), (1, &[][..]));
    let second = layer.end_epoch(&report).expect("an epoch");
    let passed: Vec<_> = second.transitions.iter().map(|t| (t.seed, t.from, t.to)).collect();
    let expected = [
        (1, L::Training, L::Grafting),
        (2, L::Grafting, L::Stabilization),
        (3, L::Stabilization, L::Evaluating),
        (4, L::Evaluating, L::FineTuning),
        (5, L::FineTuning, L::Fossilized),
        (7, L::Evaluating, L::Culled),
    ];
    assert_eq!(passed, expected);
    for (seed, _, to) in expected {
        assert_eq!(layer.lifecycle(seed).expect("a read"), to);
    }
    // The culled one waits for its embargo, then it is reset and lets its blueprint go.
    let third = layer.end_epoch(&report).expect("an epoch");
    assert!(third.transitions.iter().all(|t| t.seed != 7), "{third:?}");
    let fourth = layer.end_epoch(&report).expect("an epoch");
    assert!(fourth.transitions.iter().any(|t| (t.seed, t.to) == (7, L::Dormant)), "{fourth:?}");
    assert_eq!(layer.seed(7).expect("a seed").blueprint_id, 0);
}
