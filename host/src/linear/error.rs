//! What a product refuses.

use kasmina_types::DType;

use super::precision::Precision;

/// Shapes, operands or options that mean nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinearError {
    /// Rows that overlap.
    #[error("linear: `{what}` is {got}, but a row has {expected} elements; rows must not overlap")]
    LeadingDimension {
        /// `lda` to `ldz`.
        what: &'static str,
        /// Elements of a row.
        expected: usize,
        /// The distance of rows.
        got: usize,
    },
    /// Problems of a batch that write to the same place.
    #[error(
        "linear: `strides.{what}` is {got}, but a matrix of the batch has {expected} elements; they must not overlap"
    )]
    Overlap {
        /// `d` or `z`.
        what: &'static str,
        /// From the first element of a matrix to its last, and one more.
        expected: usize,
        /// The stride.
        got: u64,
    },
    /// What is wrong with one problem of a group.
    #[error("problem {number} of the group: {source}")]
    InProblem {
        /// The problem.
        number: usize,
        /// What is wrong.
        source: Box<LinearError>,
    },
    /// Problems of a group that write to the same place.
    #[error(
        "linear: problems {first} and {second} of the group both write to some element of `{what}`; results must not overlap"
    )]
    GroupOverlap {
        /// `d` or `z`.
        what: &'static str,
        /// A problem.
        first: usize,
        /// Another.
        second: usize,
    },
    /// An operand that the plan of a group has no place for, or one that it asks for.
    #[error("linear: the group was planned with {planned} `{what}`, and there is {got}")]
    GroupOperand {
        /// The operand.
        what: &'static str,
        /// `a` or `no`.
        planned: &'static str,
        /// `one` or `none`.
        got: &'static str,
    },
    /// Scales by blocks, which groups do not have.
    #[error(
        "linear: groups of problems take one scale for each operand, or none; scales by blocks are for batches"
    )]
    GroupScales,
    /// A group that is captured into a graph with buffers for which its tensor maps cannot be made there.
    #[error(
        "linear: the tensor maps of a group for these buffers cannot be made while a graph is captured; run it once with them before"
    )]
    GroupCapture,
    /// An element type that cannot be computed with in this precision.
    #[error(
        "linear: elements of {dtype} have no precision `{precision}`, expected one of {expected}, or `auto`"
    )]
    Precision {
        /// The element type.
        dtype: DType,
        /// What was asked for.
        precision: Precision,
        /// What there is.
        expected: &'static str,
    },
    /// f32 that would have to be converted, where nothing converts it.
    #[error(
        "linear: operands of f32 are converted to {precision} by `Linear::forward` alone, neither in groups nor by `backward`; make operands of that type, or take f64, f32, tf32 or `auto`"
    )]
    Conversion {
        /// What was asked for.
        precision: Precision,
    },
    /// Results of a type that the sums do not go to.
    #[error("linear: products of {dtype} do not give {got}, expected {expected}")]
    Output {
        /// The element type of A and B.
        dtype: DType,
        /// That of the results.
        got: DType,
        /// What there is.
        expected: &'static str,
    },
    /// A factor without its operand, or an operand without its factor.
    #[error("linear: β is {beta}, and there is {c} `c`; give both, or neither")]
    Addition {
        /// β.
        beta: f64,
        /// `a` or `no`.
        c: &'static str,
    },
    /// Scales for elements other than fp8.
    #[error("linear: `scales` are for fp8, but the elements are {dtype}; multiply α instead")]
    Scales {
        /// The element type of A and B.
        dtype: DType,
    },
    /// A tolerance that holds no number.
    #[error("linear: `tolerance` is {got}, expected a number above 0")]
    Tolerance {
        /// The value.
        got: f64,
    },
    /// Options of adaptive precision that mean nothing.
    #[error("linear: `{setting}` is {got}, expected {expected} where the precision is adaptive")]
    Adaptive {
        /// The option.
        setting: &'static str,
        /// Its value.
        got: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A gradient that needs what is not there.
    #[error("linear_backward: {what}; {advice}")]
    Gradient {
        /// What is missing.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
}
