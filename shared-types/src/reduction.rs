//! Parameters of the reductions.

use core::fmt;

use crate::view::{In, Out};

/// What a segment is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReduceOp {
    /// Σx; 0 for no elements.
    Sum,
    /// The largest; NaN if one is.
    Max,
    /// The smallest; NaN if one is.
    Min,
    /// Σx / n.
    Mean,
    /// Σ(x − mean)² / n: of the population.
    Variance,
}

impl ReduceOp {
    /// Every operation.
    pub const ALL: [Self; 5] = [Self::Sum, Self::Max, Self::Min, Self::Mean, Self::Variance];

    /// The name as it stands in kernel names, reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Min => "min",
            Self::Mean => "mean",
            Self::Variance => "variance",
        }
    }
}

impl fmt::Display for ReduceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the `reduce_*` kernels take: segments of one array, each reduced to one value.
///
/// A *team* (a block, or a warp, as the instance says) takes a segment, or one of `parts` shares of
/// it. Where a segment has several, each team leaves its state in `partials`, and the last to arrive
/// merges them in their order.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct ReduceSegments {
    /// The elements, 16-byte aligned.
    pub input: In<u8>,
    /// One result for each segment, in the operation's output type.
    pub output: Out<u8>,
    /// Where each segment begins, and where the last ends, `[segments + 1]`, ascending; empty where
    /// all have `uniform_length`.
    pub offsets: In<u64>,
    /// Scratch: [`REDUCE_PARTIAL_BYTES`] for each part of each segment; empty where `parts` is 1.
    pub partials: Out<u8>,
    /// Scratch: teams that have finished a segment, `[segments]`, zero before and after.
    pub arrivals: Out<u32>,
    /// Segments.
    pub segments: u32,
    /// Shares of a segment; 1 for warp teams.
    pub parts: u32,
    /// Elements of each segment, where `offsets` is empty.
    pub uniform_length: u64,
}

crate::assert_layout!(ReduceSegments, size = 96, align = 16, {
    input: 0, output: 16, offsets: 32, partials: 48, arrivals: 64, segments: 80, parts: 84, uniform_length: 88,
});

/// Bytes reserved for one part's state in [`ReduceSegments::partials`]: the widest, a variance in
/// f64, has three words of eight.
pub const REDUCE_PARTIAL_BYTES: usize = 32;
