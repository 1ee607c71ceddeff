//! What something else changed stays found, whatever is commanded next.

use super::*;
use crate::buffer::failures::fail_copies_out;
use crate::kasmina::{Blueprint, EpochReport, LayerConfig, SeedEpoch};
use crate::{BufferStatistics, Device};
use kasmina_types::seed_state::field;
use kasmina_types::{BlendSchedule, BlueprintType};

type Layer = KasminaLayer<f32>;
type Command = fn(&mut Layer) -> Result<(), Error>;

fn blueprint(factor: f32) -> Blueprint {
    Blueprint { kind: BlueprintType::Scale, weights: vec![factor; 4], scale: 1.0 }
}

/// Three seeds; seed 1 is GERMINATED with blueprint 1, seed 2 is TRAINING with it; blueprint 2 is unused.
fn layer(device: &Device, checks: bool) -> Layer {
    let config = LayerConfig { enable_integrity_checks: checks, ..LayerConfig::new(3, 12) };
    let mut layer = Layer::new(device, config).expect("a layer");
    for factor in [2.0, 3.0] {
        layer.load_blueprint(&blueprint(factor)).expect("room");
    }
    for seed in [1, 2] {
        layer.germinate(seed, 1).expect("DORMANT");
    }
    layer.advance(2).expect("GERMINATED");
    layer
}

const COMMANDS: [(&str, Command); 11] = [
    ("germinate", |l| l.germinate(0, 2)),
    ("advance", |l| l.advance(1).map(drop)),
    ("cancel", |l| l.cancel(1)),
    ("cull", |l| l.cull(2)),
    ("set_alpha", |l| l.set_alpha(1, 0.5)),
    ("set_alpha_target", |l| l.set_alpha_target(1, 0.5)),
    ("set_schedule", |l| l.set_schedule(1, BlendSchedule::DriftControlled, 3)),
    ("end_epoch", |l| l.end_epoch(&EpochReport::uniform(3, SeedEpoch::default())).map(drop)),
    ("load_blueprint", |l| l.load_blueprint(&blueprint(4.0)).map(drop)),
    ("replace_blueprint", |l| l.replace_blueprint(1, &blueprint(4.0))),
    ("unload_blueprint", |l| l.unload_blueprint(2)),
];

fn is_integrity(why: &Error) -> bool {
    matches!(why, Error::Layer(LayerError::Integrity { .. }))
}

/// No command makes a foreign change its own: each refuses, and changes nothing.
#[test]
fn commands_refuse_what_something_else_changed() {
    type Spoil = fn(&mut LayerState) -> Result<(), Error>;
    let spoils: [(&str, Spoil); 4] = [
        ("alpha", |s| s.alpha.copy_range_from_slice(0, &[0.25])),
        ("lifecycle", |s| s.lifecycle.copy_range_from_slice(0, &[1])),
        ("drift_history", |s| s.graft.drift_history.copy_range_from_slice(2, &[1.0])),
        ("blueprint_offset", |s| s.blueprint_offset.copy_range_from_slice(2, &[4])),
    ];
    for device in [Device::Cpu, Device::simt()] {
        for (array, spoil) in spoils {
            let mut layer = layer(&device, true);
            spoil(&mut layer.state).expect("a copy");
            let before = layer.checksum().expect("a read");
            for (name, command) in COMMANDS {
                let why = command(&mut layer).expect_err(name);
                assert!(is_integrity(&why), "{array}, {name}: {why}");
                assert_eq!(layer.checksum().expect("a read"), before, "{array}, {name}");
                assert_eq!(layer.blueprints(), [1, 2], "{array}, {name}");
            }
            assert!(is_integrity(&layer.verify_integrity().expect_err(array)), "{array}");
        }
    }
}

/// What a command leaves is what it said it would, bit for bit.
#[test]
fn commands_leave_what_they_guard() {
    for device in [Device::Cpu, Device::simt()] {
        for (name, command) in COMMANDS {
            let mut layer = layer(&device, true);
            command(&mut layer).unwrap_or_else(|why| panic!("{name}: {why}"));
            layer.verify_integrity().unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
}

/// A change between a command's look and its update is not taken for its own, nor is an update that the
/// device refuses therefore.
#[test]
fn a_refused_update_refreshes_nothing() {
    for device in [Device::Cpu, Device::simt()] {
        let mut layer = layer(&device, true);
        let guard = layer.guard;
        let mut found = layer.found().expect("as it was");
        layer.state.lifecycle.copy_range_from_slice(1, &[7]).expect("a copy");
        let train = StateUpdate {
            mask: field::LIFECYCLE,
            lifecycle: SeedLifecycle::Training as u32,
            ..StateUpdate::of(1)
        };
        let why = layer.apply(&mut found, &[train]).expect_err("FOSSILIZED by now");
        assert!(why.to_string().contains("FOSSILIZED"), "{why}");
        assert_eq!(layer.guard, guard);
        assert!(is_integrity(&layer.verify_integrity().expect_err("changed")));
    }
}

/// Of a batch with an update that is wrong, none is applied.
#[test]
fn a_batch_is_whole_or_not_at_all() {
    let mut layer = layer(&Device::simt(), true);
    let before = layer.checksum().expect("a read");
    let mut found = layer.found().expect("as it was");
    let alpha = |seed, alpha| StateUpdate { mask: field::ALPHA, alpha, ..StateUpdate::of(seed) };
    layer.apply(&mut found, &[alpha(0, 0.5), alpha(9, 0.5)]).expect_err("no such seed");
    assert_eq!(layer.checksum().expect("a read"), before);
    layer.verify_integrity().expect("nothing has changed");
}

/// A command reads each of the 13 guarded arrays once, and the three answers of the update; without checks
/// only what it asks for.
#[test]
fn nothing_is_read_twice() {
    for (checks, most) in [(true, 13 + 3), (false, 5)] {
        let copies = || BufferStatistics::of_this_thread().copies_out;
        for (name, command) in COMMANDS.into_iter().filter(|(name, _)| *name != "end_epoch") {
            let mut layer = layer(&Device::simt(), checks);
            let before = copies();
            command(&mut layer).unwrap_or_else(|why| panic!("{name}: {why}"));
            let read = copies() - before;
            assert!(read <= most, "{name}: {read} reads, checks: {checks}");
        }
    }
}

/// Whichever reading of a command fails, and whether the readings after it fail too: the layer goes on from what the
/// device has.
#[test]
fn a_failed_reading_locks_nobody_out() {
    for (name, command) in COMMANDS {
        for lasting in [false, true] {
            for failing in 0_u64.. {
                let mut layer = layer(&Device::simt(), true);
                fail_copies_out(failing..if lasting { u64::MAX } else { failing + 1 });
                let done = command(&mut layer);
                fail_copies_out(0..0);
                layer
                    .verify_integrity()
                    .unwrap_or_else(|why| panic!("{name}, {failing}, {lasting}: {why}"));
                layer.set_alpha(0, 0.5).expect("the state is the layer's");
                layer.verify_integrity().expect("nothing else changed it");
                if done.is_ok() {
                    assert!(failing >= 13, "{name}: no reading failed");
                    break;
                }
            }
        }
    }
}

/// A failed command takes nothing for its own that it cannot have changed.
#[test]
fn a_failed_look_refreshes_nothing() {
    let mut layer = layer(&Device::simt(), true);
    layer.state.alpha.copy_range_from_slice(0, &[0.25]).expect("a copy");
    fail_copies_out(3..4);
    layer.cull(2).expect_err("a failed reading");
    fail_copies_out(0..0);
    assert!(is_integrity(&layer.verify_integrity().expect_err("changed")));
}

/// Codes that mean nothing are an error, with and without a guard.
#[test]
fn codes_that_are_none_are_said() {
    type Spoil = fn(&mut LayerState) -> Result<(), Error>;
    let spoils: [(&str, Spoil); 4] = [
        ("lifecycle[1]", |s| s.lifecycle.copy_range_from_slice(1, &[200])),
        ("schedule[1]", |s| s.graft.schedule.copy_range_from_slice(1, &[200])),
        ("blueprint_type[1]", |s| s.blueprint_type.copy_range_from_slice(1, &[200])),
        ("blueprint_id[1]", |s| s.blueprint_id.copy_range_from_slice(1, &[999])),
    ];
    for checks in [true, false] {
        for (place, spoil) in spoils {
            let mut layer = layer(&Device::Cpu, checks);
            spoil(&mut layer.state).expect("a copy");
            let mut answers =
                vec![layer.report().map(drop), layer.seed(0).map(drop), layer.seed(1).map(drop)];
            if place.starts_with("lifecycle") {
                answers.push(layer.lifecycle(1).map(drop));
                answers.push(layer.cancel(1));
                answers.push(COMMANDS[7].1(&mut layer));
                answers.push(layer.unload_blueprint(2));
            }
            if place == "blueprint_type[1]" {
                answers.push(layer.blueprint(1).map(drop));
                answers.push(layer.linear_blueprint(1).map(drop));
            }
            for answer in answers {
                let why = answer.expect_err(place);
                assert_eq!(is_integrity(&why), checks, "{place}: {why}");
                assert!(checks || why.to_string().contains(place), "{place}: {why}");
            }
        }
    }
}
