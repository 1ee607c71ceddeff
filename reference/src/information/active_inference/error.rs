//! What a Gaussian model refuses.

use thiserror::Error;

/// A model or an option that means nothing.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ActiveInferenceError {
    /// A model of no states or no observations.
    #[error("`J` is {rows} × {columns}; expected at least one observation and one state")]
    Empty {
        /// Observations.
        rows: usize,
        /// States.
        columns: usize,
    },
    /// An array of another length than the Jacobian asks for.
    #[error("`{array}` has {got} elements, expected {expected}, one for each {what} of `J`")]
    Length {
        /// The array.
        array: &'static str,
        /// `row` or `column`.
        what: &'static str,
        /// Rows or columns.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// A number that is NaN or infinite.
    #[error("`{array}[{index}]` is {got}; expected a finite number")]
    NotFinite {
        /// The array.
        array: &'static str,
        /// Where, in row-major order.
        index: usize,
        /// The number.
        got: f64,
    },
    /// A precision or a variance that is not above 0.
    #[error("`{array}[{index}]` is {got}; expected a number above 0")]
    NotPositive {
        /// The array.
        array: &'static str,
        /// Where.
        index: usize,
        /// The number.
        got: f64,
    },
    /// A step size with which the steps do not converge.
    #[error(
        "`kappa` is {got}; steps converge for 0 < κ < 2/λmax = {limit}; take 1/λmax, the default"
    )]
    Kappa {
        /// The step size.
        got: f64,
        /// What it must stay below.
        limit: f64,
    },
    /// A tolerance that stops nothing.
    #[error("`tolerance` is {got}; expected a finite number above 0")]
    Tolerance {
        /// The tolerance.
        got: f64,
    },
    /// The normal equations are not positive definite in f64.
    #[error(
        "the precision matrix is not positive definite at state {state}: J, precisions and prior variances differ \
         too much in size for f64; rescale the states"
    )]
    NotDefinite {
        /// The first state whose pivot is not above 0.
        state: usize,
    },
}
