//! What a product of matrices refuses.

use thiserror::Error;

/// Operands that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinearError {
    /// A's columns are not B's rows.
    #[error("`b`: expected {expected} rows, as many as `a` has columns, got {got}")]
    Inner {
        /// Columns of A.
        expected: usize,
        /// Rows of B.
        got: usize,
    },
    /// A bias that is not one value for each column.
    #[error("`bias`: expected {expected} elements, one for each column of the product, got {got}")]
    Bias {
        /// Columns of the product.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// A matrix of another shape than the product.
    #[error("`{matrix}`: expected the product's shape {expected:?}, got {got:?}")]
    Shape {
        /// `c`, `residual` or `grad_output`.
        matrix: &'static str,
        /// Rows and columns of the product.
        expected: (usize, usize),
        /// Its rows and columns.
        got: (usize, usize),
    },
}
