//! The last checkpoints of a run, in a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{CheckpointError, Skipped};
use super::{Checkpoint, CheckpointMetadata};
use crate::kasmina::files::UNFINISHED;

const PREFIX: &str = "checkpoint-";
const STEP: &str = "-step-";
const SUFFIX: &str = ".safetensors";

/// A file that nothing was written to for so long is not being written any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder with the last checkpoints of one run, `checkpoint-NUMBER-step-STEP.safetensors`. The number
/// counts the saves, so that after a return to an earlier step the newest is the last one saved, not
/// the one that got farthest. One process at a time saves; other files of the folder are left alone.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: PathBuf,
    keep_last: usize,
}

/// The newest checkpoint that can be read.
#[derive(Debug)]
pub struct Recovered {
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// Its file.
    pub path: PathBuf,
    /// Newer ones that cannot be read, the newest first, and why.
    pub skipped: Vec<Skipped>,
}

impl CheckpointStore {
    /// A store in `folder`, which is made if it is not there, of the last `keep_last` checkpoints. Files
    /// that a save left unfinished in it (`.kasmina-unfinished-…`) are removed if nothing was written to
    /// them for an hour: those of a process that was killed, and of none that still writes.
    ///
    /// # Errors
    /// A folder that cannot be made, or a store of none.
    pub fn new(folder: impl Into<PathBuf>, keep_last: usize) -> Result<Self, CheckpointError> {
        let folder = folder.into();
        if keep_last == 0 {
            return Err(CheckpointError::KeepNone);
        }
        match fs::create_dir_all(&folder) {
            Ok(()) => {
                sweep(&folder);
                Ok(Self { folder, keep_last })
            }
            Err(source) => Err(CheckpointError::Folder { path: folder, source }),
        }
    }

    /// Saves a checkpoint as that of `step`, and then removes the oldest of more than are to be kept.
    ///
    /// # Errors
    /// As [`Checkpoint::save`]: the checkpoints before are all still there. An old one that cannot be
    /// removed: the new one is saved.
    pub fn save(&self, step: u64, checkpoint: &Checkpoint) -> Result<PathBuf, CheckpointError> {
        let mut found = self.found()?;
        let number = found.last().map_or(1, |&(number, _)| number.saturating_add(1));
        let path = self.folder.join(format!("{PREFIX}{number:06}{STEP}{step}{SUFFIX}"));
        let metadata = CheckpointMetadata { step, ..checkpoint.metadata.clone() };
        Checkpoint { metadata, ..checkpoint.clone() }.save(&path)?;
        found.push((number, path.clone()));
        let too_many = found.len().saturating_sub(self.keep_last);
        for (_, old) in found.drain(..too_many) {
            if let Err(source) = fs::remove_file(&old)
                && source.kind() != io::ErrorKind::NotFound
            {
                return Err(CheckpointError::Folder { path: old, source });
            }
        }
        Ok(path)
    }

    /// The checkpoints' files, the oldest first.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        Ok(self.found()?.into_iter().map(|(_, path)| path).collect())
    }

    /// The newest checkpoint's file, whether or not it can be read.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn latest(&self) -> Result<Option<PathBuf>, CheckpointError> {
        Ok(self.found()?.pop().map(|(_, path)| path))
    }

    /// The newest checkpoint that can be read, and which newer ones cannot; none in a folder without
    /// checkpoints.
    ///
    /// # Errors
    /// A folder that cannot be read; [`CheckpointError::NoneWhole`] where there are checkpoints, but
    /// none that can be read.
    pub fn recover(&self) -> Result<Option<Recovered>, CheckpointError> {
        let mut skipped = Vec::new();
        for (_, path) in self.found()?.into_iter().rev() {
            match Checkpoint::load(&path) {
                Ok(checkpoint) => return Ok(Some(Recovered { checkpoint, path, skipped })),
                Err(why) => {
                    tracing::warn!(%why, "passed over a checkpoint");
                    skipped.push(Skipped { path, why });
                }
            }
        }
        if skipped.is_empty() {
            return Ok(None);
        }
        Err(CheckpointError::NoneWhole { folder: self.folder.clone(), skipped })
    }

    /// The checkpoints with their numbers, the oldest first.
    fn found(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        let failed = |source| CheckpointError::Folder { path: self.folder.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(number) = number_of(&path) {
                found.push((number, path));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Removes what was left unfinished. What cannot be removed is in nobody's way.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED));
        // Not that of a link's target.
        let Ok(found) = entry.metadata() else { continue };
        let age = found.modified().ok().and_then(|when| when.elapsed().ok());
        if ours && found.is_file() && age.is_some_and(|age| age > ABANDONED) {
            let path = entry.path();
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed an unfinished file"),
                Err(why) => tracing::warn!(path = %path.display(), %why, "an unfinished file"),
            }
        }
    }
}

/// The number in a checkpoint's name; none of another file.
fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let (number, step) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once(STEP)?;
    step.parse::<u64>().ok()?;
    number.parse().ok()
}
