//! A layer is saved, and another goes on from there.

use std::fs;

use kasmina::kasmina::checkpoint::{Checkpoint, CheckpointStore, LayerMemory};
use kasmina::kasmina::files::TensorFile;
use kasmina::kasmina::{
    Blueprint, EpochReport, GradientClipping, KasminaLayer, LayerConfig, LayerElement, SeedEpoch,
    StabilityMode, TransitionRules,
};
use kasmina::types::{BlendSchedule, BlueprintType, SeedLifecycle};
use kasmina::{Buffer, Device};

use super::{bits, blueprint, graft, inputs};
use crate::{Narrow, Numbers};

const SEEDS: usize = 6;
const CHUNK: usize = 8;
const ROWS: usize = 5;
const ZEROS: u16 = 6;

/// A layer whose every memory matters: it clips adaptively, and has flags to keep, ids to give again,
/// and blueprints to evict.
fn config() -> LayerConfig {
    LayerConfig {
        max_blueprints: 10,
        blueprint_budget_bytes: Some(7 * CHUNK * size_of::<f32>()),
        numerical_stability_mode: StabilityMode::Adaptive,
        stability_lower_bound: Some(-1.5),
        stability_upper_bound: Some(1.5),
        gradient_clip: GradientClipping::Adaptive { factor: 0.5, decay: 0.75 },
        telemetry_ring_capacity: 3,
        enable_debug_assertions: true,
        rules: TransitionRules {
            grafting_epochs: 4,
            stabilization_epochs: 1,
            ..TransitionRules::default()
        },
        ramp_epochs: 7,
        ..LayerConfig::new(SEEDS, SEEDS * CHUNK)
    }
}

fn elements<T: Narrow>(device: &Device, seed: u64) -> Buffer<T> {
    inputs(device, ROWS * SEEDS * CHUNK, seed)
}

/// Trained for a while: the checkpoint comes between a backward pass and the end of its epoch, and after a
/// forward pass that saw what is not finite.
fn trained<T: Narrow + LayerElement>(device: &Device) -> KasminaLayer<T> {
    let mut numbers = Numbers::new(21);
    let mut layer = KasminaLayer::new(device, config()).expect("a layer");
    for (seed, kind) in BlueprintType::ALL.into_iter().enumerate() {
        let id = layer.load_blueprint(&blueprint(kind, CHUNK, &mut numbers)).expect("room").id;
        graft(&mut layer, seed, id, 0.25 + 0.1 * seed as f32);
    }
    for (seed, schedule) in [
        (1, BlendSchedule::PerformanceLinked),
        (2, BlendSchedule::DriftControlled),
        (3, BlendSchedule::GradNormGated),
        (4, BlendSchedule::GradNormGated),
    ] {
        layer.set_schedule(seed, schedule, 9).expect("a seed");
    }
    // One of zeros, and one that goes, so that its id has been given up.
    let zeros =
        Blueprint { kind: BlueprintType::ResidualBlock, weights: vec![0.0; CHUNK], scale: 0.0 };
    assert_eq!(layer.load_blueprint(&zeros).expect("room").id, ZEROS);
    let spare = blueprint(BlueprintType::Scale, CHUNK, &mut numbers);
    assert_eq!(layer.load_blueprint(&spare).expect("room").id, 7);
    layer.touch_blueprint(ZEROS).expect("loaded");
    assert_eq!(layer.load_blueprint(&spare).expect("room").evicted, Some(7));
    layer.touch_blueprint(ZEROS).expect("loaded");
    for step in 0..3 {
        pass(&mut layer, step);
        if step < 2 {
            layer.end_epoch(&report(step)).expect("an epoch");
        }
    }
    let mut values = elements::<T>(device, 99).to_vec().expect("a read");
    values[3] = T::narrow(f32::NAN);
    values[2 * CHUNK + 1] = T::narrow(f32::INFINITY);
    let broken = Buffer::from_slice(device, &values).expect("memory");
    layer.forward(&broken).expect("a pass");
    layer
}

fn report(epoch: u64) -> EpochReport {
    let loss = 1.0 / (epoch + 1) as f32;
    let epoch = SeedEpoch { loss, drift: 0.02, ..SeedEpoch::default() };
    EpochReport::uniform(SEEDS, epoch)
}

/// A step; the bits of its results.
fn pass<T: Narrow + LayerElement>(layer: &mut KasminaLayer<T>, step: u64) -> Vec<u8> {
    let device = layer.device().clone();
    let x = elements::<T>(&device, step);
    // Small, so that norms are in the band of the schedules that they gate.
    let g: Vec<T> = elements::<T>(&device, step + 50)
        .to_vec()
        .expect("a read")
        .into_iter()
        .map(|g| T::narrow(g.wide() as f32 / 32.0))
        .collect();
    let g = Buffer::from_slice(&device, &g).expect("memory");
    let mut all = bits(layer.forward(&x).expect("a pass"));
    all.extend(bits(layer.backward(&x, &g).expect("a pass")));
    let gradients = layer.gradients().expect("a backward pass").read().expect("a read");
    for id in layer.blueprints() {
        // Where a blueprint's gradients lie depends on its slot.
        all.extend(format!("{:?}", layer.blueprint(id).expect("loaded")).bytes());
    }
    for (name, values) in gradients.arrays().filter(|(name, _)| *name != "grad_weights") {
        all.extend(name.bytes());
        all.extend_from_slice(bytemuck::cast_slice(values));
    }
    layer.descend(0.05).expect("finite parameters");
    all
}

/// Everything that the layer does from here on, and what it is then.
fn go_on<T: Narrow + LayerElement>(layer: &mut KasminaLayer<T>) -> Vec<u8> {
    let mut all = Vec::new();
    for step in 10..13 {
        all.extend(format!("{:?}", layer.end_epoch(&report(step)).expect("an epoch")).bytes());
        all.extend(pass(layer, step));
    }
    let mut numbers = Numbers::new(4);
    for _ in 0..2 {
        let next = blueprint(BlueprintType::MlpExpansion, CHUNK, &mut numbers);
        let loaded = layer.load_blueprint(&next).expect("room");
        all.extend(format!("{loaded:?}").bytes());
        graft(layer, 5, loaded.id, 0.5);
        all.extend(pass(layer, 20));
        layer.rollback(5).expect("GRAFTING");
        layer.advance(5).expect("a reset");
    }
    all.extend(layer.checkpoint(7).expect("a read").to_bytes().expect("a state"));
    all
}

/// A layer that is restored from a file goes on with the bits of the one that was saved.
#[track_caller]
pub fn check_continuation<T: Narrow + LayerElement>(device: &Device) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c");
    let mut first = trained::<T>(device);
    let saved = first.checkpoint(3).expect("a read");
    saved.save(&path).expect("a file");
    let checksum = first.checksum().expect("a read");
    let file = TensorFile::read(&path).expect("a file");
    assert_eq!(file.metadata("crc32"), Some(format!("{checksum:08x}").as_str()));

    let loaded = Checkpoint::load(&path).expect("a checkpoint");
    assert_eq!((loaded.metadata.step, loaded.metadata.epoch), (3, 2));
    let mut second = KasminaLayer::<T>::new(device, config()).expect("a layer");
    second.forward(&elements::<T>(device, 1)).expect("a pass");
    second.restore(&loaded).expect("a checkpoint of such a layer");
    assert_eq!(second.epochs(), 2);
    assert_eq!(second.blueprints(), first.blueprints());
    assert!(second.blueprints().contains(&ZEROS), "a blueprint of zeros is loaded");
    assert_eq!(second.telemetry_history().expect("on"), []);
    assert!(second.gradients().is_none());
    assert_eq!(second.checksum().expect("a read"), checksum);
    second.verify_integrity().expect("just restored");
    let again = second.checkpoint(3).expect("a read");
    assert_eq!(again.to_bytes().expect("a state"), fs::read(&path).expect("a file"));
    let expected = go_on(&mut first);
    assert!(go_on(&mut second) == expected, "the restored layer goes another way");

    // Back to it from later, in the same layer.
    second.restore(&loaded).expect("a checkpoint of such a layer");
    assert!(go_on(&mut second) == expected, "the second time it goes another way");

    // Nothing in it is there for nothing.
    type Spoil = fn(&mut Checkpoint, &mut LayerMemory);
    let spoils: [(&str, Spoil); 7] = [
        ("flags", |_, m| m.unstable.fill(0)),
        ("running norms", |_, m| m.running_norms.fill(f32::NAN)),
        ("gradient norms", |_, m| m.gradient_norms = None),
        ("order of use", |_, m| m.blueprint_use.reverse()),
        ("retired ids", |_, m| m.retired_ids.clear()),
        ("epoch", |c, _| c.metadata.epoch = 0),
        ("drifts", |c, _| c.graft.drift_count.fill(0)),
    ];
    for (what, spoil) in spoils {
        let mut other = loaded.clone();
        let mut memory = other.layer.take().expect("a layer's");
        spoil(&mut other, &mut memory);
        other.layer = Some(memory);
        second.restore(&other).expect(what);
        assert!(go_on(&mut second) != expected, "without its {what} it goes the same way");
    }
}

/// A blueprint that gets the id of one that went is not clipped by the norm of that, in a restored layer
/// neither.
#[track_caller]
pub fn check_norms_of_new_blueprints(device: &Device) {
    for restored in [false, true] {
        let config = LayerConfig { max_blueprints: 2, blueprint_budget_bytes: None, ..config() };
        let mut layer = KasminaLayer::<f32>::new(device, config.clone()).expect("a layer");
        let x = inputs::<f32>(device, SEEDS * CHUNK, 1);
        let clipped = |layer: &mut KasminaLayer<f32>, kind, scale: f32| {
            let new = blueprint(kind, CHUNK, &mut Numbers::new(3));
            assert_eq!(layer.load_blueprint(&new).expect("room").id, 1);
            graft(layer, 0, 1, 0.5);
            let g = Buffer::from_slice(device, &[scale; SEEDS * CHUNK]).expect("memory");
            layer.backward(&x, &g).expect("a pass");
            layer.clip_report().expect("on").expect("a backward pass").clipped_units
        };
        assert_eq!(clipped(&mut layer, BlueprintType::Scale, 1e-3), 0);
        if restored {
            let saved = layer.checkpoint(1).expect("a read");
            layer = KasminaLayer::new(device, config).expect("a layer");
            layer.restore(&saved).expect("a checkpoint of such a layer");
        }
        layer.rollback(0).expect("GRAFTING");
        layer.advance(0).expect("a reset");
        layer.unload_blueprint(1).expect("not in use");
        assert_eq!(clipped(&mut layer, BlueprintType::Scale, 1.0), 0, "restored: {restored}");
        // The same jump of one blueprint is clipped.
        let g = Buffer::from_slice(device, &[1e3; SEEDS * CHUNK]).expect("memory");
        layer.backward(&x, &g).expect("a pass");
        let report = layer.clip_report().expect("on").expect("a backward pass");
        assert_eq!(report.clipped_units, 1, "restored: {restored}");
    }
}

/// Where the newest file is damaged, the one before it is taken, and the layer goes on from there.
#[track_caller]
pub fn check_fallback(device: &Device) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = CheckpointStore::new(folder.path(), 3).expect("a store");
    let mut layer = trained::<f32>(device);
    store.save(3, &layer.checkpoint(3).expect("a read")).expect("a file");
    let expected = go_on(&mut layer);
    let newest = store.save(9, &layer.checkpoint(9).expect("a read")).expect("a file");
    let mut bytes = fs::read(&newest).expect("a file");
    let at = bytes.len() - SEEDS; // Among the last arrays.
    bytes[at] ^= 1;
    fs::write(&newest, bytes).expect("a file");

    let recovered = store.recover().expect("a folder").expect("a checkpoint");
    assert_eq!((recovered.checkpoint.metadata.step, recovered.skipped.len()), (3, 1));
    assert_eq!(recovered.skipped[0].path, newest);
    let mut again = KasminaLayer::<f32>::new(device, config()).expect("a layer");
    again.restore(&recovered.checkpoint).expect("a checkpoint of such a layer");
    assert!(go_on(&mut again) == expected, "it goes another way");
}

/// A checkpoint that does not fit is refused, and the layer stays as it was.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let mut layer = trained::<f32>(device);
    let good = layer.checkpoint(3).expect("a read");
    let before = good.to_bytes().expect("a state");
    let memory = |change: fn(&mut LayerMemory)| {
        let mut bad = good.clone();
        change(bad.layer.as_mut().expect("a layer's"));
        bad
    };
    let mut alpha = good.clone();
    alpha.states.alpha[1] = f32::NAN;
    let mut ramp = good.clone();
    ramp.graft.ramp_epochs[0] = 0;
    for (bad, said) in [
        (alpha, "`alpha[1]` is NaN"),
        (ramp, "`ramp_epochs[0]`"),
        (memory(|m| m.unstable[2] = 9), "`layer_unstable[2]` is 9"),
        (memory(|m| m.running_norms[1] = -2.0), "`layer_seed_running_norms[1]` is -2"),
        (memory(|m| m.blueprint_ids[7] = 10), "a blueprint 10, and `max_blueprints` is 10"),
        (memory(|m| m.retired_ids.push(11)), "a blueprint 11, and `max_blueprints` is 10"),
        (memory(|m| m.blueprint_use.truncate(3)), "`layer_blueprint_use` has 3 elements"),
    ] {
        let why = layer.restore(&bad).expect_err(said).to_string();
        assert!(why.contains(said), "{said:?} is not in {why}");
        let after = layer.checkpoint(3).expect("a read").to_bytes().expect("a state");
        assert!(after == before, "{said}: the layer changed");
    }
    for (other, said) in [
        (LayerConfig { num_seeds: 3, hidden_dim: 3 * CHUNK, ..config() }, "`num_seeds` is 6"),
        (LayerConfig { hidden_dim: SEEDS * 4, ..config() }, "`chunk_size` is 8"),
        (LayerConfig { blueprint_budget_bytes: Some(6 * 4 * CHUNK), ..config() }, "6 fit"),
        (LayerConfig { max_blueprints: 8, ..config() }, "`max_blueprints` is 8"),
    ] {
        let mut other = KasminaLayer::<f32>::new(device, other).expect("a layer");
        let before = other.checkpoint(0).expect("a read").to_bytes().expect("a state");
        let why = other.restore(&good).expect_err(said).to_string();
        assert!(why.contains(said), "{said:?} is not in {why}");
        assert!(other.checkpoint(0).expect("a read").to_bytes().expect("a state") == before);
    }

    // Without what a layer remembers: rows are ids, and one of zeros that nobody holds is not there.
    let mut states = layer.state().read().expect("a read");
    let graft = layer.state().read_graft().expect("a read");
    states.alpha[0] = 0.125;
    let plain = Checkpoint::new(states, graft, 0, 40);
    layer.restore(&plain).expect("a state");
    assert_eq!((layer.epochs(), layer.blueprints()), (40, vec![1, 2, 3, 4, 5, 8]));
    assert_eq!(layer.lifecycle(0).expect("a seed"), SeedLifecycle::Grafting);
}

/// A checkpoint is as large as what is loaded, not as the ids or the budget.
#[track_caller]
pub fn check_size(device: &Device) {
    for (max_blueprints, chunk_size) in [(4096, 4096), (1 << 16, 65_600)] {
        let config = LayerConfig {
            max_blueprints,
            blueprint_budget_bytes: Some(4 * 4 * chunk_size),
            enable_debug_assertions: true,
            ..LayerConfig::new(1, chunk_size)
        };
        let mut layer = KasminaLayer::<f32>::new(device, config.clone()).expect("a layer");
        let one = |factor| Blueprint {
            kind: BlueprintType::Scale,
            weights: vec![factor; chunk_size],
            scale: 1.0,
        };
        // The ids go up to 6, and of them 4 stay.
        for factor in 1..=6 {
            layer.load_blueprint(&one(factor as f32)).expect("room");
        }
        graft(&mut layer, 0, 6, 0.5);
        let bytes = layer.checkpoint(0).expect("a read").to_bytes().expect("a state");
        let rows = 5 * 4 * chunk_size;
        assert!((rows..rows + 4096).contains(&bytes.len()), "{} bytes", bytes.len());
        let of_state = Checkpoint::of_layer(layer.state(), 0, 0).expect("a read");
        assert!(of_state.to_bytes().expect("a state").len() < rows + 4096);
        let mut again = KasminaLayer::<f32>::new(device, config).expect("a layer");
        again.restore(&Checkpoint::from_bytes("it", bytes.clone()).expect("whole")).expect("fits");
        assert_eq!(again.blueprints(), [3, 4, 5, 6]);
        assert_eq!(again.blueprint(6).expect("loaded"), one(6.0));
        assert!(again.checkpoint(0).expect("a read").to_bytes().expect("a state") == bytes);
        // The reference has a row for every id.
        if !matches!(device, Device::Cpu) {
            let x = Buffer::from_slice(device, &vec![1.0_f32; chunk_size]).expect("memory");
            let y = again.forward(&x).expect("a pass").to_vec().expect("a read");
            assert!(y.iter().all(|&y| y == 3.5), "{}", y[0]);
        }
    }
}
