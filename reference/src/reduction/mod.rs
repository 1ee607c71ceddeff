//! Reductions of a whole array and of its segments.

mod reduce;

pub use reduce::{Element, ReduceError, max, mean, min, segmented, sum, try_segmented, variance};
