//! Why a command stopped.

use std::io;
use std::path::PathBuf;

use kasmina_kernel_builder::{BuildError, ManifestError, PtxasError};
use thiserror::Error;

/// Why a command stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum XtaskError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Ptxas(#[from] PtxasError),
    #[error("cannot access {path}: {source}")]
    Access { path: PathBuf, source: io::Error },
    #[error("cannot run `{command}`: {reason}")]
    Run { command: &'static str, reason: String },
    #[error("{count} problem(s), listed above")]
    Problems { count: usize },
}

impl XtaskError {
    /// For `map_err` on an access to `path`.
    pub(crate) fn access(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> XtaskError {
        let path = path.into();
        |source| XtaskError::Access { path, source }
    }
}
