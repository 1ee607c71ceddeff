//! What can go wrong when a trace is written.

use std::path::PathBuf;

use crate::error::Error;

/// A trace that is not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The times cannot be had.
    #[error(transparent)]
    Times(#[from] Error),
    /// The file cannot be written; what was at its place is still there.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
