//! Checkpoints: bits kept, damage refused, files written whole or not at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kasmina::Device;
use kasmina::kasmina::checkpoint::{
    Checkpoint, CheckpointError, CheckpointStore, LayerMemory, SCHEMA_VERSION,
    SCHEMA_WITHOUT_LINEAR, crc32_of_state,
};
use kasmina::kasmina::files::{Dtype, FileError, Tensor, TensorFile, encode};
use kasmina::kasmina::{EpochReport, GraftStates, KasminaLayer, SeedEpoch, SeedStates, StateError};
use proptest::prelude::*;
use rayon::prelude::*;

fn small() -> Checkpoint {
    let states = SeedStates {
        lifecycle: vec![0, 3, 7],
        blueprint_id: vec![0, 1, 2],
        alpha: vec![0.0, 0.25, -0.0],
        blueprint_type: vec![0, 1, 4],
        blueprint_weights: vec![0.0, 0.0, 1.5, -2.5, f32::MIN_POSITIVE / 4.0, 3.0],
        blueprint_scales: vec![1.0, 2.0, -0.5],
        chunk_size: 2,
    };
    let mut graft = GraftStates::new(3);
    graft.schedule = vec![0, 1, 2];
    graft.epochs_in_state = vec![5, 17, 90];
    graft.baseline_loss = vec![f32::from_bits(0x7fc0_1234), 0.5, f32::NAN];
    graft.drift_history[7] = 0.125;
    graft.drift_count = vec![0, 3, 8];
    graft.embargo_epochs = vec![0, 0, 4];
    let mut checkpoint = Checkpoint::new(states, graft, 1200, 17);
    checkpoint.metadata.extra.insert("run".into(), "a \"quoted\" näme".into());
    checkpoint
}

/// Everything, with floats as bits: NaN is equal to itself, and −0 differs from 0.
fn bits(checkpoint: &Checkpoint) -> impl PartialEq + std::fmt::Debug {
    let (s, g) = (&checkpoint.states, &checkpoint.graft);
    let floats = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    (
        (s.lifecycle.clone(), s.blueprint_id.clone(), floats(&s.alpha), s.chunk_size),
        (s.blueprint_type.clone(), floats(&s.blueprint_weights), floats(&s.blueprint_scales)),
        (g.schedule.clone(), floats(&g.alpha_target), g.ramp_epochs.clone()),
        (g.epochs_in_state.clone(), floats(&g.baseline_loss), floats(&g.drift_history)),
        (g.drift_count.clone(), g.embargo_epochs.clone(), checkpoint.metadata.clone()),
    )
}

fn read(bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::from_bytes("the file", bytes)
}

/// A file with the same tensors and other metadata.
fn with_metadata(bytes: &[u8], change: impl Fn(&mut BTreeMap<String, String>)) -> Vec<u8> {
    rebuilt(bytes, |_| {}, change)
}

/// A file with other tensors and metadata; whatever CRCs it has stay as they are.
fn rebuilt(
    bytes: &[u8],
    tensors: impl Fn(&mut Vec<Tensor<'_>>),
    metadata: impl Fn(&mut BTreeMap<String, String>),
) -> Vec<u8> {
    let file = TensorFile::from_bytes("x", bytes.to_vec()).unwrap();
    let mut entries =
        file.metadata_entries().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
    let read = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let all = read.tensors();
    let mut views: Vec<_> = all
        .iter()
        .map(|(name, view)| Tensor {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().into(),
        })
        .collect();
    tensors(&mut views);
    metadata(&mut entries);
    encode(&views, &entries).unwrap()
}

fn plain(entries: &mut BTreeMap<String, String>) {
    entries.clear();
}

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

/// Never a panic, never another state.
#[track_caller]
fn same_or_refused(original: &Checkpoint, mutated: Vec<u8>, what: impl Fn() -> String) {
    if let Ok(checkpoint) = read(mutated) {
        assert_eq!(bits(&checkpoint), bits(original), "{}", what());
    }
}

#[test]
fn every_other_byte_is_refused_or_means_the_same() {
    let checkpoint = small();
    let bytes = checkpoint.to_bytes().unwrap();
    (0..bytes.len()).into_par_iter().for_each(|at| {
        for other in 1..=255 {
            let mut mutated = bytes.clone();
            mutated[at] ^= other;
            same_or_refused(&checkpoint, mutated, || format!("byte {at} ^ {other:#x}"));
        }
    });
}

#[test]
fn every_cut_and_every_bit_of_the_data_is_refused() {
    let bytes = small().to_bytes().unwrap();
    for length in 0..bytes.len() {
        let why = read(bytes[..length].to_vec()).expect_err("a file that is cut off");
        assert!(matches!(why, CheckpointError::File(_)), "{length}: {why}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(read(longer), Err(CheckpointError::File(FileError::Format { .. }))));
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in data..bytes.len() {
        for bit in 0..8 {
            let mut mutated = bytes.clone();
            mutated[at] ^= 1 << bit;
            let why = read(mutated).expect_err("a flipped bit");
            assert!(matches!(why, CheckpointError::Crc { part: "tensors", .. }), "{at}: {why}");
        }
    }
}

#[test]
fn damaged_metadata_is_named() {
    let bytes = small().to_bytes().unwrap();
    for key in
        ["schema_version", "project_version", "step", "epoch", "crc32", "metadata_crc32", "run"]
    {
        for text in [None, Some(""), Some("-1"), Some("no")] {
            let damaged = with_metadata(&bytes, |entries| match text {
                None => drop(entries.remove(key)),
                Some(text) => drop(entries.insert(key.into(), text.into())),
            });
            let why = read(damaged).expect_err(key);
            match &why {
                CheckpointError::Metadata { key: named, .. } => assert_eq!(*named, key, "{why}"),
                CheckpointError::Crc { part, .. } => assert_eq!(*part, "metadata", "{why}"),
                _ => panic!("{key} {text:?}: {why}"),
            }
            assert!(why.to_string().contains("the file"), "{why}");
        }
    }
    // Another step under a CRC that is not its own.
    let moved = with_metadata(&bytes, |entries| drop(entries.insert("step".into(), "1201".into())));
    assert!(matches!(read(moved), Err(CheckpointError::Crc { part: "metadata", .. })));
}

#[test]
fn a_newer_schema_is_refused_whatever_else_it_has() {
    let bytes = small().to_bytes().unwrap();
    for newer in [u64::from(SCHEMA_VERSION) + 1, u64::from(u32::MAX) + 2, u64::MAX] {
        let file = with_metadata(&bytes, |entries| {
            entries.clear();
            entries.insert("schema_version".into(), newer.to_string());
        });
        let why = read(file).expect_err("a newer schema");
        assert!(matches!(why, CheckpointError::Newer { got, .. } if got == newer), "{why}");
        let said = why.to_string();
        for part in ["the file", &newer.to_string(), "up to 2", "update"] {
            assert!(said.contains(part), "{said}");
        }
    }
}

#[test]
fn wrong_tensors_are_named_in_plain_state_files_too() {
    let bytes = small().to_bytes().unwrap();
    let names = TensorFile::from_bytes("x", bytes.clone()).unwrap().names();
    assert_eq!(names.len(), 14);
    const STATES: [&str; 6] = [
        "lifecycle",
        "blueprint_id",
        "alpha",
        "blueprint_type",
        "blueprint_weights",
        "blueprint_scales",
    ];
    for name in &names {
        let is = |tensor: &Tensor<'_>| tensor.name == name;
        let missing = read(rebuilt(&bytes, |all| all.retain(|t| !is(t)), plain));
        if STATES.contains(&name.as_str()) {
            let why = missing.expect_err(name);
            assert!(matches!(&why, CheckpointError::File(FileError::Missing { tensor, .. })
                if tensor == name));
        } else {
            let checkpoint = missing.unwrap();
            assert_eq!(checkpoint.metadata.schema_version, 0);
        }
        let retyped = rebuilt(
            &bytes,
            |all| {
                let tensor = all.iter_mut().find(|t| is(t)).unwrap();
                tensor.dtype = match tensor.dtype {
                    Dtype::U8 => Dtype::I8,
                    Dtype::U16 => Dtype::F16,
                    Dtype::U32 => Dtype::F32,
                    _ => Dtype::I32,
                };
            },
            plain,
        );
        let why = read(retyped).expect_err(name);
        assert!(matches!(&why, CheckpointError::File(FileError::Dtype { tensor, .. })
            if tensor == name));
        let reshaped =
            rebuilt(&bytes, |all| all.iter_mut().find(|t| is(t)).unwrap().shape.push(1), plain);
        let why = read(reshaped).expect_err(name);
        assert!(matches!(&why, CheckpointError::File(FileError::Shape { tensor, .. })
            if tensor == name));
        assert!(why.to_string().contains("the file"), "{why}");
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
fn states_that_mean_nothing_are_neither_written_nor_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    small().save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let mut broken = small();
    broken.states.alpha[1] = f32::NAN;
    let why = broken.save(&path).expect_err("a NaN");
    assert!(matches!(why, CheckpointError::State(StateError::NotFinite { array: "alpha", .. })));
    let mut broken = small();
    broken.graft.ramp_epochs[2] = 0;
    assert!(matches!(broken.save(&path), Err(CheckpointError::State(_))));
    let mut named = small();
    named.metadata.extra.insert("crc32".into(), "00000000".into());
    assert!(matches!(named.save(&path), Err(CheckpointError::ReservedKey { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    // As plain state files, which no CRC protects.
    let bytes = small().to_bytes().unwrap();
    for (name, raw) in [("lifecycle", vec![0, 11, 7]), ("schedule", vec![0, 4, 2])] {
        let wrong = rebuilt(
            &bytes,
            |all| {
                let tensor = all.iter_mut().find(|t| t.name == name).unwrap();
                tensor.bytes = raw.clone().into();
            },
            plain,
        );
        let why = read(wrong).expect_err(name);
        assert!(matches!(why, CheckpointError::File(FileError::State { .. })), "{why}");
        assert!(why.to_string().contains(&format!("`{name}[1]`")), "{why}");
    }
}

#[test]
fn layers_too_wide_to_count_are_refused() {
    let mut states = SeedStates { lifecycle: vec![0; 32], ..SeedStates::default() };
    (states.blueprint_id, states.alpha) = (vec![0; 32], vec![0.0; 32]);
    states.chunk_size = 1 << 60;
    let why = states.check().expect_err("2^65 columns");
    assert!(matches!(why, StateError::TooManyColumns { num_seeds: 32, .. }), "{why}");
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

/// [`small`] as a layer's, whose ids are not its rows.
fn of_layer() -> Checkpoint {
    let mut memory = LayerMemory::new(3, vec![0, 4, 900]);
    memory.blueprint_use = vec![0, 2, 1];
    memory.retired_ids = vec![7, 5];
    memory.unstable = vec![0, 1, 0];
    memory.running_norms = vec![f32::NAN, 0.5, f32::from_bits(0x7fc0_4321)];
    memory.gradient_norms = Some(vec![0.25, f32::NAN, f32::INFINITY]);
    Checkpoint { layer: Some(memory), ..small() }
}

#[test]
fn what_a_layer_remembers_is_kept_and_in_the_crc() {
    let whole = of_layer();
    let bytes = whole.to_bytes().unwrap();
    let again = read(bytes.clone()).unwrap();
    assert_eq!(bits(&again), bits(&whole));
    assert_eq!(format!("{:?}", again.layer), format!("{:?}", whole.layer));
    assert_eq!(again.to_bytes().unwrap(), bytes);
    assert_eq!(again.blueprint_of(2), 900);
    let file = TensorFile::from_bytes("x", bytes.clone()).unwrap();
    assert_eq!(file.names().len(), 20);
    assert_eq!(file.metadata("crc32"), Some(format!("{:08x}", whole.crc32()).as_str()));
    assert_ne!(whole.crc32(), small().crc32());
    let Checkpoint { states, graft, .. } = small();
    assert_eq!(small().crc32(), crc32_of_state(&states, &graft));
    // An array that goes, and each flipped bit, is found.
    for name in file.names().iter().filter(|name| name.starts_with("layer_")) {
        let without = rebuilt(&bytes, |all| all.retain(|t| t.name != name), |_| {});
        let why = read(without).expect_err(name);
        assert!(matches!(why, CheckpointError::Crc { part: "tensors", .. }), "{name}: {why}");
    }
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in data..bytes.len() {
        let mut mutated = bytes.clone();
        mutated[at] ^= 1;
        assert!(matches!(read(mutated), Err(CheckpointError::Crc { .. })), "{at}");
    }
}

#[test]
fn what_a_layer_remembers_is_left_out_or_right() {
    let bytes = of_layer().to_bytes().unwrap();
    // In a plain state file, which no CRC protects: only the ids must be there.
    let only = |keep: &'static str| {
        rebuilt(
            &bytes,
            move |all| all.retain(|t| !t.name.starts_with("layer_") || t.name == keep),
            plain,
        )
    };
    assert_eq!(read(only("none")).unwrap().layer, None);
    let ids = read(only("layer_blueprint_ids")).unwrap().layer.unwrap();
    assert_eq!(format!("{ids:?}"), format!("{:?}", LayerMemory::new(3, vec![0, 4, 900])));
    let why = read(only("layer_unstable")).expect_err("no ids");
    assert!(why.to_string().contains("`layer_blueprint_ids` is missing"), "{why}");
    for (name, raw, said) in [
        ("layer_blueprint_ids", vec![0_u8, 0, 4, 0, 4, 0], "`layer_blueprint_ids[2]` is 4"),
        ("layer_blueprint_ids", vec![1, 0, 4, 0, 5, 0], "`layer_blueprint_ids[0]` is 1"),
        ("layer_retired_ids", vec![4, 0, 5, 0], "`layer_retired_ids[0]` is 4"),
        ("layer_unstable", vec![0, 2, 0], "`layer_unstable[1]` is 2"),
        ("layer_unstable", vec![0, 1], "`layer_unstable` has shape [2], expected [3]"),
    ] {
        let wrong = rebuilt(
            &bytes,
            |all| {
                let tensor = all.iter_mut().find(|t| t.name == name).unwrap();
                tensor.shape = vec![raw.len() * tensor.shape[0] / tensor.bytes.len()];
                tensor.bytes = raw.clone().into();
            },
            plain,
        );
        let why = read(wrong).expect_err(said).to_string();
        assert!(why.contains(said), "{said:?} is not in {why}");
    }
    let mut broken = of_layer();
    broken.layer.as_mut().unwrap().running_norms[0] = -1.0;
    assert!(matches!(broken.to_bytes(), Err(CheckpointError::State(StateError::Range { .. }))));
    // The state of a device keeps ids and flags.
    let state = of_layer().to_layer(&Device::Cpu).unwrap();
    let again = Checkpoint::of_layer(&state, 0, 0).unwrap();
    assert_eq!(again.layer.unwrap().unstable, [0, 1, 0]);
}

#[test]
fn a_store_removes_what_a_killed_process_left() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (".kasmina-unfinished-x1y2z3", 2, false),
        (".kasmina-unfinished-nowabc", 0, true),
        (".tmpAbCdEf", 2, true),
        ("kasmina-unfinished-x1y2z3", 2, true),
    ];
    for (name, hours, _) in files {
        let file = fs::File::create(folder.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600 * hours + 60)).unwrap();
    }
    fs::create_dir(folder.path().join(".kasmina-unfinished-folder")).unwrap();
    let store = CheckpointStore::new(folder.path(), 2).unwrap();
    for (name, _, stays) in files {
        assert_eq!(folder.path().join(name).exists(), stays, "{name}");
    }
    assert!(folder.path().join(".kasmina-unfinished-folder").is_dir());
    assert!(store.checkpoints().unwrap().is_empty());
    // What a save is called before it is whole: a process that may write 512 bytes and is killed.
    let bytes = small().to_bytes().unwrap();
    fs::write(folder.path().join("c"), &bytes).unwrap();
    let killed = std::process::Command::new("sh")
        .args(["-c", "ulimit -c 0; ulimit -f 1; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kasmina")])
        .args(["layer", "step", "--device", "cpu", "--state"])
        .arg(folder.path().join("c"))
        .arg("--output")
        .arg(folder.path().join("out"))
        .output()
        .unwrap();
    assert_eq!(killed.status.code(), None, "{killed:?}");
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter_map(|name| name.into_string().ok()).collect();
    let unfinished = left.iter().filter(|name| name.starts_with(".kasmina-unfinished-"));
    // The folder, the file of now, and what the process left.
    assert_eq!(unfinished.count(), 3, "{left:?}");
    assert!(!left.contains(&"out".to_owned()), "{left:?}");
}

fn steps(store: &CheckpointStore) -> Vec<u64> {
    let files = store.checkpoints().unwrap();
    files.iter().map(|path| Checkpoint::load(path).unwrap().metadata.step).collect()
}

#[test]
fn a_store_keeps_the_last_and_leaves_other_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path().join("run/checkpoints"), 3).unwrap();
    assert!(store.recover().unwrap().is_none() && store.latest().unwrap().is_none());
    let inside = folder.path().join("run/checkpoints");
    for other in ["checkpoint-x-step-1.safetensors", "checkpoint-1.safetensors", "notes"] {
        fs::write(inside.join(other), "not ours").unwrap();
    }
    for step in [10, 20, 30, 40, 50] {
        store.save(step, &small()).unwrap();
    }
    assert_eq!(steps(&store), [30, 40, 50]);
    // After a return to step 30 the newest is the last one saved.
    store.save(35, &small()).unwrap();
    assert_eq!(steps(&store), [40, 50, 35]);
    let latest = store.latest().unwrap().unwrap();
    assert!(latest.to_str().unwrap().ends_with("-000006-step-35.safetensors"), "{latest:?}");
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 6);
    assert!(matches!(CheckpointStore::new(&inside, 0), Err(CheckpointError::KeepNone)));
    let file = inside.join("notes");
    assert!(matches!(CheckpointStore::new(file, 1), Err(CheckpointError::Folder { .. })));
}

#[test]
fn recovery_passes_over_damaged_files_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), 4).unwrap();
    let paths: Vec<_> = (1..=4).map(|step| store.save(step, &small()).unwrap()).collect();
    let whole = fs::read(&paths[3]).unwrap();
    fs::write(&paths[3], &whole[..whole.len() - 5]).unwrap();
    let mut flipped = fs::read(&paths[2]).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&paths[2], flipped).unwrap();
    let recovered = store.recover().unwrap().unwrap();
    assert_eq!((recovered.checkpoint.metadata.step, &recovered.path), (2, &paths[1]));
    let [cut, damaged] = &recovered.skipped[..] else { panic!("{:?}", recovered.skipped) };
    assert_eq!((&cut.path, &damaged.path), (&paths[3], &paths[2]));
    assert!(matches!(cut.why, CheckpointError::File(FileError::Truncated { .. })), "{cut}");
    assert!(matches!(damaged.why, CheckpointError::Crc { .. }), "{damaged}");
    for path in &paths[..2] {
        fs::write(path, "").unwrap();
    }
    let why = store.recover().expect_err("no checkpoint is whole");
    let CheckpointError::NoneWhole { skipped, .. } = &why else { panic!("{why}") };
    assert_eq!(skipped.len(), 4);
    assert!(why.to_string().contains("none of 4") && why.to_string().contains("step-1"), "{why}");
}

#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let checkpoint = small();
    let why = checkpoint.save(Path::new("/dev/full")).expect_err("no space");
    assert!(matches!(why, CheckpointError::Write { .. }), "{why}");
    assert!(why.to_string().contains("/dev/full"), "{why}");
    assert!(Path::new("/dev/full").metadata().is_ok_and(|found| !found.is_file()));
    let folder = tempfile::tempdir().unwrap();
    for nowhere in [folder.path().join("no/such/folder/x"), folder.path().to_owned()] {
        let why = checkpoint.save(&nowhere).expect_err("no place for a file");
        assert!(matches!(why, CheckpointError::Write { .. }), "{why}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn states() -> impl Strategy<Value = Checkpoint> {
    let finite = || any::<f32>().prop_filter("finite", |v| v.is_finite());
    (1..6_usize, 0..4_usize, 1..7_usize).prop_flat_map(move |(s, p, c)| {
        use prop::collection::vec;
        let loss =
            prop_oneof![finite(), any::<u32>().prop_map(|b| f32::from_bits(b | 0x7fc0_0000))];
        let seeds = (
            vec(0..11_u8, s),
            vec(0..p.max(1) as u16, s),
            vec(finite(), s),
            vec(0..4_u8, s),
            vec(0.0..=1.0_f32, s),
            vec(1..u32::MAX, s),
        );
        let counts = vec(any::<u32>(), 3 * s);
        let drifts = (vec(loss, s), vec(finite(), 5 * s));
        let blueprints = (vec(0..5_u8, p), vec(finite(), p * c), vec(finite(), p));
        let metadata =
            (any::<u64>(), any::<u64>(), prop::collection::btree_map("x[^\0]{0,3}", ".*", 0..3));
        (seeds, counts, drifts, blueprints, metadata).prop_map(
            move |(seeds, counts, drifts, blueprints, metadata)| {
                let (lifecycle, blueprint_id, alpha, schedule, alpha_target, ramp_epochs) = seeds;
                let (blueprint_type, blueprint_weights, blueprint_scales) = blueprints;
                let (baseline_loss, drift_history) = drifts;
                let states = SeedStates {
                    lifecycle,
                    blueprint_id,
                    alpha,
                    blueprint_type,
                    blueprint_weights,
                    blueprint_scales,
                    chunk_size: c,
                };
                let graft = GraftStates {
                    schedule,
                    alpha_target,
                    ramp_epochs,
                    epochs_in_state: counts[..s].to_vec(),
                    baseline_loss,
                    drift_history,
                    drift_count: counts[s..2 * s].to_vec(),
                    embargo_epochs: counts[2 * s..].to_vec(),
                };
                let (step, epoch, extra) = metadata;
                let mut checkpoint = Checkpoint::new(states, graft, step, epoch);
                checkpoint.metadata.extra = extra;
                checkpoint
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_checkpoint_comes_back_bit_for_bit(checkpoint in states()) {
        let bytes = checkpoint.to_bytes().unwrap();
        let again = read(bytes).unwrap();
        prop_assert_eq!(bits(&again), bits(&checkpoint));
    }

    #[test]
    fn any_mutation_is_refused_or_means_the_same(
        checkpoint in states(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = checkpoint.to_bytes().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        same_or_refused(&checkpoint, bytes, || "changed bytes".into());
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(bytes).is_err());
    }
}
