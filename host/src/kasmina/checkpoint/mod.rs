//! Checkpoints: a layer's whole state in a safetensors file, written whole or not at all, and read
//! whole or refused.
//!
//! The file has the state's arrays under their field names, those of a layer's [`LayerMemory`] and of its
//! [`LinearStates`], and metadata: `schema_version`, `project_version`, `step`, `epoch`, whatever else was given, `crc32` over
//! all tensors ([`Checkpoint::crc32`]) and `metadata_crc32` over the other metadata. A file without
//! `schema_version` and CRCs is a plain state file: its arrays are read as they are, and schedules that it
//! lacks are the defaults.
//!
//! Of the blueprints a layer's checkpoint has those that are loaded, however many ids and whatever budget
//! the layer has: row r of `blueprint_type`, `blueprint_weights` and `blueprint_scales` is the blueprint
//! `layer_blueprint_ids[r]`, row 0 is 'none', and a seed's `blueprint_id` is a row. So the passes read it
//! as they read a plain state file.

mod arrays;
mod error;
mod linear;
mod memory;
mod metadata;
mod store;

use std::path::{Path, PathBuf};

pub use arrays::crc32_of_state;
pub(crate) use arrays::{crc32_of_tensors, seed_tensors};
pub use error::{CheckpointError, Skipped};
pub use linear::LinearStates;
pub use memory::LayerMemory;
pub use metadata::{CheckpointMetadata, SCHEMA_VERSION, SCHEMA_WITHOUT_LINEAR};
pub use store::{CheckpointStore, Recovered};

use super::files::{Tensor, TensorFile, encode, write_file};
use super::{GraftStates, LayerState, SeedStates, StateError};
use crate::device::Device;
use crate::error::Error;

/// A layer's whole state, and when it was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What each seed is, and the blueprints.
    pub states: SeedStates,
    /// The schedules.
    pub graft: GraftStates,
    /// When it was taken, and by what.
    pub metadata: CheckpointMetadata,
    /// What a layer remembers beside that; none of a state that is no layer's, and of old files.
    pub layer: Option<LayerMemory>,
    /// The matrices of its LINEAR blueprints.
    pub linear: LinearStates,
}

/// Whether a file's bytes are those that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integrity {
    /// The CRC-32 of the tensors in the file's metadata; none in a plain state file.
    pub recorded: Option<u32>,
    /// The CRC-32 of the tensors as they are.
    pub computed: u32,
}

impl Integrity {
    /// Whether nothing is known to be wrong.
    pub fn is_ok(&self) -> bool {
        self.recorded.is_none_or(|recorded| recorded == self.computed)
    }
}

impl Checkpoint {
    /// A checkpoint of plain arrays, taken after `step` steps in epoch `epoch`.
    pub fn new(states: SeedStates, graft: GraftStates, step: u64, epoch: u64) -> Self {
        let (metadata, linear) = (CheckpointMetadata::new(step, epoch), LinearStates::default());
        Self { states, graft, metadata, layer: None, linear }
    }

    /// A checkpoint of a state on a device, once everything queued before is done. Of an arena it has the
    /// blueprints that are loaded. For a [`KasminaLayer`](super::KasminaLayer) take its own
    /// [`checkpoint`](super::KasminaLayer::checkpoint), which knows more than its state does.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn of_layer(state: &LayerState, step: u64, epoch: u64) -> Result<Self, Error> {
        let (states, ids) = state.read_loaded()?;
        let unstable = state.unstable.to_vec()?;
        let mut checkpoint = Self::new(states, state.read_graft()?, step, epoch);
        if ids.len() < state.num_blueprints() || unstable.contains(&1) {
            let num_seeds = state.num_seeds();
            checkpoint.layer = Some(LayerMemory { unstable, ..LayerMemory::new(num_seeds, ids) });
        }
        Ok(checkpoint)
    }

    /// The state on a device, its blueprints numbered by their rows. A layer takes
    /// [`restore`](super::KasminaLayer::restore).
    ///
    /// # Errors
    /// As [`LayerState::new`].
    pub fn to_layer(&self, device: &Device) -> Result<LayerState, Error> {
        self.check()?;
        let mut state = LayerState::with_graft(device, self.states.clone(), self.graft.clone())?;
        if let Some(memory) = &self.layer {
            state.unstable.copy_from_slice(&memory.unstable)?;
        }
        Ok(state)
    }

    /// Checks lengths, codes, ids and numbers of all arrays.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), StateError> {
        self.states.check_with_linear()?;
        self.linear.check(&self.states)?;
        self.graft.check(self.states.num_seeds())?;
        self.layer.as_ref().map_or(Ok(()), |memory| memory.check(&self.states))
    }

    /// The id of the blueprint that a seed holds, 0 for none: of its row, where the rows are not the ids.
    ///
    /// # Panics
    /// No such seed, or a checkpoint that [`Self::check`] refuses.
    pub fn blueprint_of(&self, seed: usize) -> u16 {
        let row = self.states.blueprint_id[seed];
        let ids = self.layer.as_ref().and_then(|memory| memory.blueprint_ids.get(usize::from(row)));
        ids.copied().unwrap_or(row)
    }

    /// The CRC-32 of all arrays, which the file has as `crc32`: [`crc32_of_state`], and then in the same
    /// way the arrays of [`LayerMemory`], all in the order of the names.
    pub fn crc32(&self) -> u32 {
        crc32_of_tensors(&self.tensors())
    }

    fn tensors(&self) -> Vec<Tensor<'_>> {
        let mut tensors = arrays::tensors(&self.states, &self.graft);
        tensors.extend(self.layer.iter().flat_map(LayerMemory::tensors));
        tensors.extend(self.linear.tensors(self.states.chunk_size));
        tensors.sort_by_key(|tensor| tensor.name);
        tensors
    }

    /// The bytes of the file; the same checkpoint gives the same bytes. Its project version is this build's, its schema
    /// [`SCHEMA_VERSION`] where it has a LINEAR blueprint, else [`SCHEMA_WITHOUT_LINEAR`], which older builds read.
    ///
    /// # Errors
    /// A state that means nothing, or metadata under a reserved key.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        self.check()?;
        let tensors = self.tensors();
        let schema = if self.linear.is_empty() { SCHEMA_WITHOUT_LINEAR } else { SCHEMA_VERSION };
        let metadata = self.metadata.to_entries(schema, crc32_of_tensors(&tensors))?;
        Ok(encode(&tensors, &metadata)?)
    }

    /// Writes the file whole or not at all: beside its place, to the disk, then into it.
    ///
    /// # Errors
    /// As [`Self::to_bytes`], and [`CheckpointError::Write`] for a full disk or a folder that cannot be
    /// written: what was at `path` before still is. Or [`CheckpointError::Unsynced`]: the checkpoint is there.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        write_file(path, &self.to_bytes()?)
            .map_err(|source| CheckpointError::of_write(path, source))
    }

    /// Reads a checkpoint or a plain state file.
    ///
    /// # Errors
    /// A file that cannot be read, is newer, cut off, damaged, or holds wrong tensors or no state.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        Self::of_file(&TensorFile::read(path)?)
    }

    /// As [`Self::load`], of a file's bytes; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        Self::of_file(&TensorFile::from_bytes(name, bytes)?)
    }

    /// As [`Self::load`], but tensors with a wrong CRC are read all the same, if they make a state.
    ///
    /// # Errors
    /// As [`Self::load`]. Where tensors with a wrong CRC make no state, the CRC is the error.
    pub fn inspect(path: &Path) -> Result<(Self, Integrity), CheckpointError> {
        let file = TensorFile::read(path)?;
        let (metadata, integrity) = verify(&file)?;
        match Self::of_arrays(&file, metadata) {
            Ok(checkpoint) => Ok((checkpoint, integrity)),
            Err(wrong) => {
                require(&file, integrity)?;
                Err(wrong)
            }
        }
    }

    fn of_file(file: &TensorFile) -> Result<Self, CheckpointError> {
        let (metadata, integrity) = verify(file)?;
        require(file, integrity)?;
        Self::of_arrays(file, metadata)
    }

    fn of_arrays(
        file: &TensorFile,
        metadata: Option<CheckpointMetadata>,
    ) -> Result<Self, CheckpointError> {
        let states = SeedStates::read_with_linear(file)?;
        let linear = LinearStates::read(file, &states)?;
        let graft = arrays::read_graft(file, states.num_seeds(), metadata.is_some())?;
        let layer = LayerMemory::read(file, &states)?;
        let metadata = metadata.unwrap_or_else(CheckpointMetadata::none);
        Ok(Self { states, graft, metadata, layer, linear })
    }
}

/// The part of a checkpoint or of a plain state file that the forward and backward passes read.
///
/// # Errors
/// As [`Checkpoint::load`]; but the schedules' arrays are not looked at.
pub fn load_states(path: &Path) -> Result<SeedStates, CheckpointError> {
    states_of(&TensorFile::read(path)?)
}

/// As [`load_states`], of a file in memory.
///
/// # Errors
/// As [`load_states`].
pub fn states_of(file: &TensorFile) -> Result<SeedStates, CheckpointError> {
    let (_, integrity) = verify(file)?;
    require(file, integrity)?;
    Ok(SeedStates::read(file)?)
}

/// Reads the metadata, if it is a checkpoint's, and the CRC of the tensors.
fn verify(file: &TensorFile) -> Result<(Option<CheckpointMetadata>, Integrity), CheckpointError> {
    let computed = arrays::crc32_of_file(file);
    let (metadata, recorded) = match CheckpointMetadata::read(file)? {
        Some((metadata, recorded)) => (Some(metadata), Some(recorded)),
        None => (None, None),
    };
    Ok((metadata, Integrity { recorded, computed }))
}

fn require(file: &TensorFile, integrity: Integrity) -> Result<(), CheckpointError> {
    match integrity.recorded {
        Some(expected) if expected != integrity.computed => Err(CheckpointError::Crc {
            path: file.path().to_owned(),
            part: "tensors",
            expected,
            got: integrity.computed,
        }),
        _ => Ok(()),
    }
}
