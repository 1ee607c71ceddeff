//! What can be wrong with a checkpoint.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;

use super::SCHEMA_VERSION;
use crate::kasmina::StateError;
use crate::kasmina::files::{self, FileError};

/// Why a checkpoint was not written or not read. A layer and the files that were there are unchanged, but where it is
/// [`Unsynced`](CheckpointError::Unsynced).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read, is cut off, or has wrong tensors.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of a newer build.
    #[error(
        "{}: schema version {got}, but this build reads up to {SCHEMA_VERSION}; update it, or save \
         the checkpoint with an older one",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        got: u64,
    },
    /// Metadata that is missing or unreadable.
    #[error(
        "{}: metadata `{key}` is {}, expected {expected}; the file is damaged: take the checkpoint \
         before it",
        .path.display(), Found(.got)
    )]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What can stand there.
        expected: &'static str,
        /// What does.
        got: Option<String>,
    },
    /// Bytes that are not those that were written.
    #[error(
        "{}: the CRC-32 of the {part} is {got:08x}, expected {expected:08x}; the file is damaged: take \
         the checkpoint before it",
        .path.display()
    )]
    Crc {
        /// The file.
        path: PathBuf,
        /// Tensors or metadata.
        part: &'static str,
        /// As it was written.
        expected: u32,
        /// As it is.
        got: u32,
    },
    /// A state that means nothing is not written.
    #[error("checkpoint not written: {0}")]
    State(#[from] StateError),
    /// A key that the checkpoint itself uses.
    #[error("checkpoint not written: metadata `{key}` is the checkpoint's own; name it otherwise")]
    ReservedKey {
        /// The key.
        key: String,
    },
    /// The arrays do not make a file.
    #[error("checkpoint not written: {0}")]
    Encode(#[from] SafeTensorError),
    /// The system did not take the file.
    #[error("cannot write {}: {source}; what was there is unchanged", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is in its place, but its folder did not go to the disk.
    #[error("{}: {source}", .path.display())]
    Unsynced {
        /// The file.
        path: PathBuf,
        /// What that means, and the system's answer.
        source: io::Error,
    },
    /// A store that would keep nothing.
    #[error("a checkpoint store must keep at least 1 checkpoint, got 0")]
    KeepNone,
    /// The store's folder cannot be used.
    #[error("checkpoint folder {}: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No checkpoint of the folder can be read.
    #[error("{}: none of {} checkpoints can be read: {}", .folder.display(), .skipped.len(), List(.skipped))]
    NoneWhole {
        /// The store's folder.
        folder: PathBuf,
        /// All of them, the newest first.
        skipped: Vec<Skipped>,
    },
}

impl CheckpointError {
    /// Why a file was not written, or what is left to fear of one that was.
    pub(crate) fn of_write(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if files::is_in_place(&source) {
            return Self::Unsynced { path, source };
        }
        Self::Write { path, source }
    }
}

/// A checkpoint that recovery passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: CheckpointError,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The error names the file.
        self.why.fmt(f)
    }
}

struct Found<'a>(&'a Option<String>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, "{text:?}"),
            None => f.write_str("missing"),
        }
    }
}

struct List<'a>(&'a [Skipped]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, skipped) in self.0.iter().enumerate() {
            write!(f, "{}{skipped}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
