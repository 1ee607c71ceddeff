//! Checkpoints: bits kept, damage refused, files written whole or not at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kept;
mod memory;
mod properties;
mod refused;
mod store;

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

/// Never a panic, never another state.
#[track_caller]
fn same_or_refused(original: &Checkpoint, mutated: Vec<u8>, what: impl Fn() -> String) {
    if let Ok(checkpoint) = read(mutated) {
        assert_eq!(bits(&checkpoint), bits(original), "{}", what());
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
