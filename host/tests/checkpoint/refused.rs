//! Damage, newer schemas, and states that mean nothing.

use super::*;

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
