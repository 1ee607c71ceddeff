//! Blueprints come, change and go while the layer runs.

use kasmina::kasmina::checkpoint::crc32_of_state;
use kasmina::kasmina::{Blueprint, KasminaLayer, LoadedBlueprint};
use kasmina::types::BlueprintType;
use kasmina::{Buffer, Device};

use super::{blueprint, graft, inputs, snapshot};
use crate::Numbers;

fn scale_by(factor: f32) -> Blueprint {
    Blueprint { kind: BlueprintType::Scale, weights: vec![factor; 4], scale: 1.0 }
}

fn layer(device: &Device, slots: usize) -> KasminaLayer<f32> {
    KasminaLayer::builder(3, 12)
        .max_blueprints(6)
        .blueprint_budget_bytes(slots * 16 + 15)
        .build(device)
        .expect("a layer")
}

/// The least recently used of those that no seed uses goes; none goes that a seed uses.
#[track_caller]
pub fn check_eviction(device: &Device) {
    let mut layer = layer(device, 2);
    let load = |layer: &mut KasminaLayer<f32>, factor| layer.load_blueprint(&scale_by(factor));
    assert_eq!(load(&mut layer, 2.0).expect("room"), LoadedBlueprint { id: 1, evicted: None });
    assert_eq!(load(&mut layer, 3.0).expect("room"), LoadedBlueprint { id: 2, evicted: None });
    layer.touch_blueprint(1).expect("loaded");
    assert_eq!(load(&mut layer, 4.0).expect("room"), LoadedBlueprint { id: 3, evicted: Some(2) });
    graft(&mut layer, 0, 1, 1.0);
    graft(&mut layer, 2, 3, 1.0);
    let before = snapshot(&layer);
    let why = load(&mut layer, 5.0).expect_err("both are in use").to_string();
    assert!(why.contains("budget") && why.contains("2 fit"), "{why}");
    let why = layer.unload_blueprint(3).expect_err("in use").to_string();
    assert!(why.contains("seed 2") && why.contains("GRAFTING"), "{why}");
    let why = layer.germinate(1, 2).expect_err("evicted").to_string();
    assert!(why.contains("evicted"), "{why}");
    assert_eq!(snapshot(&layer), before);

    let x = Buffer::from_slice(device, &[1.0_f32; 12]).expect("memory");
    let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
    assert_eq!(y, [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0]);

    // A seed that was rolled back uses its blueprint until it is reset.
    layer.rollback(0).expect("GRAFTING");
    load(&mut layer, 5.0).expect_err("still in use");
    layer.advance(0).expect("a reset");
    assert_eq!(load(&mut layer, 5.0).expect("room"), LoadedBlueprint { id: 4, evicted: Some(1) });
    // The new one lies where the old one was.
    graft(&mut layer, 1, 4, 1.0);
    let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
    assert_eq!(y, [1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 4.0, 4.0, 4.0, 4.0]);
    let statistics = layer.registry();
    assert_eq!((statistics.loads, statistics.evictions, statistics.used_bytes), (4, 2, 32));
}

/// A pass that is in flight reads what was there when it was queued; the next one reads the new weights,
/// under the same id.
#[track_caller]
pub fn check_replacement_in_flight(device: &Device) {
    let rows = 2000;
    let mut layer = layer(device, 2);
    let id = layer.load_blueprint(&scale_by(2.0)).expect("room").id;
    graft(&mut layer, 1, id, 1.0);
    let x = Buffer::from_slice(device, &vec![1.0_f32; rows * 12]).expect("memory");
    let mut outputs = [0, 1].map(|_| Buffer::<f32>::zeroed(device, x.len()).expect("memory"));
    let [first, second] = &mut outputs;
    layer.forward_into(&x, first).expect("a pass");
    layer.replace_blueprint(id, &scale_by(7.0)).expect("loaded");
    layer.forward_into(&x, second).expect("a pass");
    for (output, factor) in outputs.iter().zip([2.0, 7.0]) {
        let y = output.to_vec().expect("a read");
        assert!(y.chunks_exact(12).all(|row| row[4..8] == [factor; 4]), "{factor}");
    }
    assert_eq!(layer.blueprint(id).expect("loaded"), scale_by(7.0));
    assert_eq!(layer.registry().replacements, 1);
}

/// Blueprints that do not fit are refused.
#[track_caller]
pub fn check_unfit(device: &Device) {
    let mut layer =
        KasminaLayer::<f32>::builder(2, 8).max_blueprint_types(4).build(device).expect("one");
    let fit = |kind, weights, scale| Blueprint { kind, weights, scale };
    let before = snapshot(&layer);
    use BlueprintType::{ConvFilter, MlpExpansion, Scale};
    for (bad, word) in [
        (fit(MlpExpansion, vec![0.0; 3], 1.0), "3 weights"),
        (fit(MlpExpansion, vec![0.0; 5], 1.0), "5 weights"),
        (fit(MlpExpansion, vec![0.0, f32::NAN, 0.0, 0.0], 1.0), "finite"),
        (fit(MlpExpansion, vec![0.0; 4], f32::INFINITY), "finite"),
        (fit(Scale, vec![0.0; 4], 1.0), "SCALE"),
    ] {
        let why = layer.load_blueprint(&bad).expect_err(word).to_string();
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(snapshot(&layer), before);
    let id = layer.load_blueprint(&fit(ConvFilter, vec![1.0, 2.0, 3.0], 1.0)).expect("taps").id;
    assert_eq!(layer.blueprint(id).expect("loaded").weights, [1.0, 2.0, 3.0, 0.0]);
}

/// A state goes from one layer to another; a damaged one, or one that does not fit, goes nowhere.
#[track_caller]
pub fn check_loading(device: &Device) {
    let mut numbers = Numbers::new(5);
    let mut source = layer(device, 4);
    for kind in [BlueprintType::Scale, BlueprintType::AttentionHead, BlueprintType::MlpExpansion] {
        source.load_blueprint(&blueprint(kind, 4, &mut numbers)).expect("room");
    }
    source.unload_blueprint(2).expect("not in use");
    graft(&mut source, 0, 1, 0.5);
    graft(&mut source, 2, 3, 0.75);
    let (states, graft_states) =
        (source.state().read().expect("a read"), source.state().read_graft().expect("a read"));
    let crc = crc32_of_state(&states, &graft_states);
    let x = inputs::<f32>(device, 60, 3);
    let expected = source.forward(&x).expect("a pass").to_vec().expect("a read");

    // Fewer slots: the two that are loaded lie elsewhere.
    let mut target = layer(device, 2);
    let before = snapshot(&target);
    let mut bad = states.clone();
    bad.alpha[0] = 0.5000001;
    let why = target.load_state(bad, graft_states.clone(), Some(crc)).expect_err("damaged");
    assert!(why.to_string().contains("CRC-32"), "{why}");
    let mut bad = states.clone();
    bad.blueprint_scales[1] = f32::NAN;
    target.load_state(bad, graft_states.clone(), None).expect_err("no number");
    let mut other = KasminaLayer::<f32>::builder(3, 24).build(device).expect("a layer");
    other.load_state(states.clone(), graft_states.clone(), Some(crc)).expect_err("another shape");
    let mut small = layer(device, 1);
    small.load_state(states.clone(), graft_states.clone(), Some(crc)).expect_err("no room");
    assert!(small.blueprints().is_empty());
    assert_eq!(snapshot(&target), before);

    target.load_state(states, graft_states, Some(crc)).expect("a good state");
    assert_eq!(target.blueprints(), [1, 3]);
    let (states, graft_states) =
        (target.state().read().expect("a read"), target.state().read_graft().expect("a read"));
    assert_eq!(crc32_of_state(&states, &graft_states), crc);
    target.verify_integrity().expect("just loaded");
    let y = target.forward(&x).expect("a pass").to_vec().expect("a read");
    assert_eq!(y, expected);
}
