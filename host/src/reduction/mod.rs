//! Reductions of arrays, whole or by segment, on any device.

mod reduce;
mod segments;

pub use reduce::{Reduce, ReduceElement};
pub use segments::{SegmentOffsets, Segments};
