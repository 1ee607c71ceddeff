#![no_main]
//! A checkpoint's bytes: refused, or restored into a layer that goes on; or refused by the layer, which is
//! then as it was.

mod files;

use kasmina::kasmina::checkpoint::{Checkpoint, crc32_of_state};
use kasmina::kasmina::{
    Blueprint, EpochReport, GradientClipping, KasminaLayer, LayerConfig, SeedEpoch,
};
use kasmina::types::BlueprintType;
use kasmina::{Buffer, Device};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|bytes: &mut [u8], size: usize, most: usize, seed: u32| {
    files::mutate(bytes, size, most, seed, 1)
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = files::checkpoint(bytes.to_vec()) else { return };
    let (seeds, chunk) = (read.states.num_seeds(), read.states.chunk_size);
    if seeds > 64 || chunk > 64 {
        return;
    }
    // Where there are LINEAR blueprints, there is no clipping.
    let (gradient_clip, linear_budget_bytes) = match read.linear.is_empty() {
        true => (GradientClipping::Adaptive { factor: 1.0, decay: 0.5 }, 0),
        false => (GradientClipping::None, 4 * 4 * chunk * chunk),
    };
    let config = LayerConfig {
        max_blueprints: 64,
        blueprint_budget_bytes: Some(4 * 4 * chunk),
        gradient_clip,
        linear_budget_bytes,
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
        let epoch = SeedEpoch { loss: 1.0, drift: 0.5, ..SeedEpoch::default() };
        layer.end_epoch(&EpochReport::uniform(seeds, epoch)).expect("as many seeds");
        layer.forward(&x).expect("the row fits");
        layer.backward(&x, &x).expect("the row fits");
    }
    assert_eq!(saved(&layer), saved(&other));

    // The next blueprints get the same ids, and the same ones go for them.
    let blueprint = Blueprint { kind: BlueprintType::Scale, weights: vec![0.5; chunk], scale: 1.0 };
    for _ in 0..4 {
        let [one, another] = [&mut layer, &mut other]
            .map(|layer| layer.load_blueprint(&blueprint).map_err(|why| why.to_string()));
        assert_eq!(one, another);
        if let Ok(loaded) = one {
            let [one, another] = [&mut layer, &mut other]
                .map(|layer| layer.germinate(0, loaded.id).map_err(|why| why.to_string()));
            assert_eq!(one, another);
        }
    }
    assert_eq!(saved(&layer), saved(&other));

    // Its arrays alone, with the right CRC and a wrong one.
    let crc = crc32_of_state(&read.states, &read.graft);
    let mut plain = new();
    assert!(plain.load_state(read.states.clone(), read.graft.clone(), Some(!crc)).is_err());
    assert_eq!(saved(&plain), before);
    if !read.linear.is_empty() {
        return;
    }
    plain.load_state(read.states, read.graft, Some(crc)).expect("fewer are loaded than were");
});
