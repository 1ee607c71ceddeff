//! What is written is read again, bit for bit, and what other builds wrote.

use super::*;

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let checkpoint = small();
    let bytes = checkpoint.to_bytes().unwrap();
    assert_eq!(bytes, checkpoint.to_bytes().unwrap(), "the bytes depend on the run");
    let again = read(bytes.clone()).unwrap();
    assert_eq!(bits(&again), bits(&checkpoint));
    assert_eq!(again.metadata.schema_version, SCHEMA_WITHOUT_LINEAR);
    assert_eq!(again.metadata.project_version, env!("CARGO_PKG_VERSION"));
    let file = TensorFile::from_bytes("x", bytes).unwrap();
    let crc32 = format!("{:08x}", crc32_of_state(&checkpoint.states, &checkpoint.graft));
    assert_eq!(file.metadata("crc32"), Some(crc32.as_str()));
    assert_eq!(file.metadata("step"), Some("1200"));
}

/// The CRC as its documentation has it, from the bytes of the file and another implementation.
#[test]
fn the_crc_is_the_documented_one() {
    let checkpoint = small();
    let bytes = checkpoint.to_bytes().unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut stream = Vec::new();
    for (name, view) in &tensors {
        stream.extend(format!("{name}\0{}\0", view.dtype()).bytes());
        for word in std::iter::once(view.shape().len()).chain(view.shape().iter().copied()) {
            stream.extend((word as u64).to_le_bytes());
        }
        stream.extend(view.data());
    }
    let crc = !stream.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    assert_eq!(crc32_of_state(&checkpoint.states, &checkpoint.graft), crc);
}

/// A file that another program wrote by the documentation stays readable.
#[test]
fn a_file_of_schema_1_is_read() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let checkpoint = Checkpoint::load(&seeds.join("checkpoint/checkpoint.safetensors")).unwrap();
    assert_eq!((checkpoint.metadata.schema_version, checkpoint.metadata.step), (1, 5));
    assert_eq!(checkpoint.metadata.epoch, 2);
    assert_eq!(checkpoint.states.blueprint_id, [1, 2]);
    assert_eq!(checkpoint.states.blueprint_weights, [0.0, 0.0, 1.0, -1.0, 0.5, 2.0]);
    assert_eq!(checkpoint.graft.ramp_epochs, [30, 5]);
    assert!(checkpoint.graft.baseline_loss[0].is_nan());
    assert_eq!(crc32_of_state(&checkpoint.states, &checkpoint.graft), 0x9ada_9388);
    // What the fuzz targets begin with is read or refused.
    let mut files = 0;
    for target in fs::read_dir(seeds).unwrap() {
        for file in fs::read_dir(target.unwrap().path()).unwrap() {
            let _ = read(fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
    }
    assert!(files >= 7, "{files}");
}

/// So does one of schema 2, with what a layer remembers and LINEAR blueprints, after as many epochs as are counted.
#[test]
fn a_file_of_schema_2_is_read_and_a_layer_goes_on_from_it() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let checkpoint = Checkpoint::load(&seeds.join("layer_restore/several.safetensors")).unwrap();
    assert_eq!((checkpoint.metadata.schema_version, checkpoint.metadata.step), (2, u64::MAX));
    assert_eq!(checkpoint.linear.rows, [1, 4]);
    assert_eq!(checkpoint.linear.activations, [0, 1]);
    assert_eq!(checkpoint.linear.weights[17], 17.0 / 8.0 - 1.0);
    let memory = checkpoint.layer.as_ref().unwrap();
    assert_eq!(memory.blueprint_ids, [0, 2, 4, 6, 8]);
    assert_eq!(
        (&memory.blueprint_use[..], &memory.retired_ids[..]),
        (&[5, 4, 3, 2, 1][..], &[1, 3][..])
    );
    // It has one for each blueprint, as `layer_running_norms`; seeds begin without.
    assert_eq!(memory.running_norms.len(), 5);
    assert!(memory.running_norms.iter().all(|norm| norm.is_nan()));
    let again = read(checkpoint.to_bytes().unwrap()).unwrap();
    assert_eq!((bits(&again), again.crc32()), (bits(&checkpoint), checkpoint.crc32()));

    let matrices = 2 * 4 * 3 * 3;
    let builder = KasminaLayer::<f32>::builder(5, 15).linear_budget_bytes(matrices);
    let mut layer = builder.build(&Device::Cpu).unwrap();
    layer.restore(&checkpoint).unwrap();
    let report = EpochReport::uniform(5, SeedEpoch { loss: 1.0, ..SeedEpoch::default() });
    assert_eq!(layer.end_epoch(&report).unwrap().epoch, u64::MAX);
}

#[test]
fn every_array_and_extent_is_in_the_crc() {
    let Checkpoint { states, graft, .. } = small();
    let crc = crc32_of_state(&states, &graft);
    type Change = fn(&mut SeedStates, &mut GraftStates);
    let changes: [Change; 15] = [
        |s, _| s.lifecycle[0] = 1,
        |s, _| s.blueprint_id[0] = 1,
        |s, _| s.alpha[0] = -0.0,
        |s, _| s.blueprint_type[0] = 1,
        |s, _| s.blueprint_weights[5] = 3.25,
        |s, _| s.blueprint_scales[2] = 0.5,
        |s, _| s.chunk_size = 1,
        |_, g| g.schedule[0] = 1,
        |_, g| g.alpha_target[1] = 0.5,
        |_, g| g.ramp_epochs[1] = 31,
        |_, g| g.epochs_in_state[1] = 18,
        |_, g| g.baseline_loss[0] = f32::from_bits(0x7fc0_1235),
        |_, g| g.drift_history[8] = 0.5,
        |_, g| g.drift_count[0] = 1,
        |_, g| g.embargo_epochs[0] = 1,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let (mut states, mut graft) = (states.clone(), graft.clone());
        change(&mut states, &mut graft);
        assert_ne!(crc32_of_state(&states, &graft), crc, "change {i}");
    }
}

#[test]
fn a_plain_state_file_has_the_default_schedules() {
    let checkpoint = small();
    let bytes = checkpoint.to_bytes().unwrap();
    let states_only = |all: &mut Vec<Tensor<'_>>| {
        all.retain(|t| t.name.starts_with("blueprint") || ["lifecycle", "alpha"].contains(&t.name));
    };
    // Other writers leave metadata of their own.
    let foreign = |entries: &mut BTreeMap<String, String>| {
        entries.clear();
        entries.insert("format".into(), "pt".into());
    };
    let file = read(rebuilt(&bytes, states_only, foreign)).unwrap();
    assert_eq!(file.states, checkpoint.states);
    assert_eq!(format!("{:?}", file.graft), format!("{:?}", GraftStates::new(3)));
    assert_eq!((file.metadata.schema_version, file.metadata.step), (0, 0));
}

#[test]
fn a_layer_on_a_device_comes_back_bit_for_bit() {
    for device in [Device::Cpu, Device::simt()] {
        let checkpoint = small();
        let layer = checkpoint.to_layer(&device).unwrap();
        let mut again = Checkpoint::of_layer(&layer, 1200, 17).unwrap();
        again.metadata.extra = checkpoint.metadata.extra.clone();
        assert_eq!(bits(&again), bits(&checkpoint));
    }
}
