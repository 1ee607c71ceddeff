//! What a measurement can answer instead of times.

use std::io;
use std::path::PathBuf;

/// Why there is no measurement, or no report of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The device.
    #[error(transparent)]
    Device(#[from] crate::Error),
    /// A result that is wrong is not timed.
    #[error("{what}: relative error {error:.3e} against f64, at most {tolerance:.3e} is accepted")]
    WrongResult {
        /// Which part of the result.
        what: &'static str,
        /// The largest error; infinite where a value is not a number or a bit differs that must not.
        error: f64,
        /// The largest that is accepted.
        tolerance: f64,
    },
    /// No case has a name with the pattern in it.
    #[error("no case has `{pattern}` in its name; the cases are:\n  {}", .names.join("\n  "))]
    NoCase {
        /// What was asked for.
        pattern: String,
        /// What there is.
        names: Vec<String>,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{}, line {line}: expected {expected}, got {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Peers that ran on another GPU.
    #[error(
        "{}: the peers ran on {got}, the kernels on {expected}; measure both in one job on one GPU",
        .path.display()
    )]
    OtherDevice {
        /// The peers' file.
        path: PathBuf,
        /// The kernels' device.
        expected: String,
        /// The peers'.
        got: String,
    },
    /// A text that does not say where the tables go.
    #[error("{}: expected the lines `{begin}` and `{end}`, each once, in that order", .path.display())]
    Markers {
        /// The file.
        path: PathBuf,
        /// Before the tables.
        begin: &'static str,
        /// After them.
        end: &'static str,
    },
}
