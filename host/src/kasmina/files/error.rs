//! What can be wrong with a file of tensors.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensorError};

use crate::kasmina::StateError;

/// A file that the layer cannot be run on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system did not give it.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No safetensors file, or one with bytes that no tensor owns.
    #[error(
        "{}: not a whole safetensors file ({bytes} bytes): {source}; write it again",
        .path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
        /// What its header lacks.
        source: SafeTensorError,
    },
    /// A file that ends before its tensors do.
    #[error(
        "{}: truncated: tensor `{tensor}` ends at byte {expected}, but the file has {got} bytes; \
         copy it again",
        .path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The first tensor that is cut off.
        tensor: String,
        /// Where it ends.
        expected: usize,
        /// Where the file ends.
        got: usize,
    },
    /// A tensor that is not there.
    #[error("{}: tensor `{tensor}` is missing; the file has {found}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// Those that are there.
        found: String,
    },
    /// A tensor of another element type.
    #[error("{}: tensor `{tensor}` is {got}, expected {expected}", .path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// The type, or those, that will do.
        expected: String,
        /// Its type.
        got: Dtype,
    },
    /// A tensor of another shape.
    #[error(
        "{}: tensor `{tensor}` has shape {got:?}, expected [{expected}] ({why})",
        .path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// The extents that will do.
        expected: String,
        /// Its extents.
        got: Vec<usize>,
        /// Where the expectation comes from.
        why: &'static str,
    },
    /// Arrays that are no state.
    #[error("{}: {source}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: StateError,
    },
}
