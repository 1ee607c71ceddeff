//! Checkpoints: a layer's whole state in a safetensors file, written whole or not at all, and read
//! whole or refused.
//!
//! The file has the state's arrays under their field names, and metadata: `schema_version`,
//! `project_version`, `step`, `epoch`, whatever else was given, `crc32` over the tensors
//! ([`crc32_of_state`]) and `metadata_crc32` over the other metadata. A file without `schema_version`
//! and CRCs is a plain state file: its arrays are read as they are, and schedules that it lacks are the
//! defaults.

mod arrays;
mod error;
mod metadata;
mod store;

use std::path::{Path, PathBuf};

pub use arrays::crc32_of_state;
pub(crate) use arrays::{crc32_of_tensors, seed_tensors};
pub use error::{CheckpointError, Skipped};
pub use metadata::{CheckpointMetadata, SCHEMA_VERSION};
pub use store::{CheckpointStore, Recovered};

use super::files::{TensorFile, encode, write_file};
use super::{GraftStates, LayerState, SeedStates};
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
        Self { states, graft, metadata: CheckpointMetadata::new(step, epoch) }
    }

    /// A checkpoint of a layer on a device, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn of_layer(layer: &LayerState, step: u64, epoch: u64) -> Result<Self, Error> {
        Ok(Self::new(layer.read()?, layer.read_graft()?, step, epoch))
    }

    /// The state on a device.
    ///
    /// # Errors
    /// As [`LayerState::new`].
    pub fn to_layer(&self, device: &Device) -> Result<LayerState, Error> {
        LayerState::with_graft(device, self.states.clone(), self.graft.clone())
    }

    /// The bytes of the file; the same checkpoint gives the same bytes. Its schema and project version
    /// are this build's.
    ///
    /// # Errors
    /// A state that means nothing, or metadata under a reserved key.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        self.states.check()?;
        self.graft.check(self.states.num_seeds())?;
        let crc32 = crc32_of_state(&self.states, &self.graft);
        let metadata = self.metadata.to_entries(crc32)?;
        Ok(encode(&arrays::tensors(&self.states, &self.graft), &metadata)?)
    }

    /// Writes the file whole or not at all: beside its place, to the disk, then into it.
    ///
    /// # Errors
    /// As [`Self::to_bytes`], and [`CheckpointError::Write`] for a full disk or a folder that cannot be
    /// written. What was at `path` before still is.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        write_file(path, &self.to_bytes()?)
            .map_err(|source| CheckpointError::Write { path: path.to_owned(), source })
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
        let states = SeedStates::read(file)?;
        let graft = arrays::read_graft(file, states.num_seeds(), metadata.is_some())?;
        Ok(Self { states, graft, metadata: metadata.unwrap_or_else(CheckpointMetadata::none) })
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
