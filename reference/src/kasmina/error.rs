//! What the layer refuses.

use thiserror::Error;

/// A layer state or an input that the layer cannot run on.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A state array is as long as no layer of this many seeds or blueprints.
    #[error("`{tensor}`: expected {expected} elements, got {got}; give one for each {per}")]
    Length {
        /// Field name of the array.
        tensor: &'static str,
        /// What has one element each: a seed or a blueprint.
        per: &'static str,
        /// Number of seeds or blueprints.
        expected: usize,
        /// Length of the array.
        got: usize,
    },
    /// The width of the input is not seeds × chunk.
    #[error(
        "`input`: expected {expected} columns ({seeds} seeds of one chunk each), got {got}; \
         check the chunk size"
    )]
    InputWidth {
        /// Number of seeds.
        seeds: usize,
        /// Columns that the state calls for; for telemetry the next multiple of the number of seeds.
        expected: usize,
        /// Columns of the input.
        got: usize,
    },
    /// The gradient has other rows than the input.
    #[error("`grad_output`: expected {expected} rows as the input has, got {got}")]
    Rows {
        /// Rows of the input.
        expected: usize,
        /// Rows of the gradient.
        got: usize,
    },
    /// The layer has no seeds or its chunks have no columns.
    #[error("`{what}`: expected at least 1, got 0; a layer needs seeds with a chunk each")]
    Empty {
        /// `seeds` or `chunk_size`.
        what: &'static str,
    },
    /// A lifecycle code that no state has.
    #[error(
        "`lifecycle` of seed {seed}: expected 0 to 10, got {got}; use a code of the lifecycle table"
    )]
    Lifecycle {
        /// Index of the seed.
        seed: usize,
        /// The code.
        got: u8,
    },
    /// A blueprint id past the blueprints that are loaded.
    #[error(
        "`blueprint_id` of seed {seed}: expected less than {blueprints}, got {got}; \
         load that blueprint or use 0 for none"
    )]
    BlueprintId {
        /// Index of the seed.
        seed: usize,
        /// The id.
        got: u16,
        /// Number of blueprints.
        blueprints: usize,
    },
    /// A type code that no blueprint has.
    #[error(
        "`blueprint_type` of blueprint {blueprint}: expected 0 to 4, got {got}; use a code of the type table"
    )]
    BlueprintType {
        /// Index of the blueprint.
        blueprint: usize,
        /// The code.
        got: u8,
    },
    /// A blend factor that is not a number cannot be clipped.
    #[error("`alpha` of seed {seed}: expected a number, got NaN; set it to a value from 0 to 1")]
    Alpha {
        /// Index of the seed.
        seed: usize,
    },
}
