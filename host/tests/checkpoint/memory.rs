//! What a layer remembers beside its state.

use super::*;

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
