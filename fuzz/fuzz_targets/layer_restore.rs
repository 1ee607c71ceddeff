#![no_main]
//! A checkpoint's bytes: refused, or restored into a layer that goes on; or refused by the layer, which is
//! then as it was.

use kasmina::kasmina::checkpoint::{Checkpoint, crc32_of_state};
use kasmina::kasmina::{EpochReport, GradientClipping, KasminaLayer, LayerConfig, SeedEpoch};
use kasmina::{Buffer, Device};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = Checkpoint::from_bytes("fuzzed", bytes.to_vec()) else { return };
    let (seeds, chunk) = (read.states.num_seeds(), read.states.chunk_size);
    if seeds > 64 || chunk > 64 {
        return;
    }
    let config = LayerConfig {
        max_blueprints: 64,
        blueprint_budget_bytes: Some(16 * 4 * chunk),
        gradient_clip: GradientClipping::Adaptive { factor: 1.0, decay: 0.5 },
        enable_debug_assertions: true,
        ..LayerConfig::new(seeds, seeds * chunk)
    };
    let new = || KasminaLayer::<f32>::new(&Device::Cpu, config.clone()).expect("a configuration");
    let saved = |layer: &KasminaLayer<f32>| {
        let saved = layer.checkpoint(1).expect("the host's memory");
        saved.to_bytes().expect("what a layer is means something")
    };
    let mut layer = new();
    let before = saved(&layer);
    if layer.restore(&read).is_err() {
        assert_eq!(saved(&layer), before);
        return;
    }
    layer.verify_integrity().expect("just restored");
    assert_eq!(layer.epochs(), read.metadata.epoch);
    // What it is now can be restored, and then is the same.
    let after = saved(&layer);
    let again = Checkpoint::from_bytes("saved", after.clone()).expect("just written");
    let mut other = new();
    other.restore(&again).expect("it was the state of such a layer");
    assert_eq!(saved(&other), after);

    // It runs.
    let x = Buffer::from_slice(&Device::Cpu, &vec![0.5; seeds * chunk]).expect("memory");
    for layer in [&mut layer, &mut other] {
        let report = EpochReport::uniform(seeds, SeedEpoch { loss: 1.0, ..SeedEpoch::default() });
        layer.end_epoch(&report).expect("as many seeds");
        layer.forward(&x).expect("the row fits");
        layer.backward(&x, &x).expect("the row fits");
    }
    assert_eq!(saved(&layer), saved(&other));

    // Its arrays alone, with the right CRC and a wrong one.
    let crc = crc32_of_state(&read.states, &read.graft);
    let mut plain = new();
    assert!(plain.load_state(read.states.clone(), read.graft.clone(), Some(!crc)).is_err());
    assert_eq!(saved(&plain), before);
    plain.load_state(read.states, read.graft, Some(crc)).expect("fewer are loaded than were");
});
