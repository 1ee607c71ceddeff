//! The reductions' comparisons.

pub mod reduce;
