//! Parameters of the telemetry of an input alone, and how rows are reduced in it.

use core::fmt;

use crate::telemetry::SeedTelemetry;
use crate::view::{In, Out};

/// How a seed's telemetry comes from the rows of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum ReductionStrategy {
    /// The figures of all values together, merged by Chan's form of Welford's update: what the forward
    /// pass's telemetry is.
    Hierarchical = 0,
    /// The figures of each row, then the mean of each figure over the rows.
    Mean = 1,
    /// The figures of each row, then the largest of each figure.
    Max = 2,
}

impl ReductionStrategy {
    /// Every strategy, in the order of its word.
    pub const ALL: [Self; 3] = [Self::Hierarchical, Self::Mean, Self::Max];

    /// The name as it stands in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hierarchical => "hierarchical",
            Self::Mean => "mean",
            Self::Max => "max",
        }
    }
}

impl fmt::Display for ReductionStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// 32-bit words reserved for one part of one seed in [`TelemetryReduce::partials`].
pub const TELEMETRY_REDUCE_PARTIAL_WORDS: usize = 8;

/// What the `telemetry_reduce_*` kernels take. A *team* of `2^team_shift` lanes takes a seed's chunk in a
/// row; the teams of a warp take neighbouring seeds, a *group*; the warps of a block take rows in turn
/// with those of the `slabs` blocks that share the group.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct TelemetryReduce {
    /// x, `[batch, num_seeds · chunk_size]`, row-major, 16-byte aligned.
    pub input: In<u8>,
    /// The telemetry.
    pub telemetry: SeedTelemetry,
    /// Scratch: the parts of each seed, `[num_seeds, slabs]` of [`TELEMETRY_REDUCE_PARTIAL_WORDS`].
    pub partials: Out<u32>,
    /// Scratch: blocks that have finished a group, `[groups]`, zero before and after.
    pub arrivals: Out<u32>,
    /// Rows.
    pub batch: u32,
    /// Seeds.
    pub num_seeds: u32,
    /// Columns of a seed.
    pub chunk_size: u32,
    /// Vectors of a chunk: `chunk_size` / lanes of the instance.
    pub chunk_vectors: u32,
    /// Lanes of a team as a power of two, 0 to 5: as many as a chunk has vectors, up to a warp.
    pub team_shift: u32,
    /// Groups of seeds.
    pub groups: u32,
    /// Blocks that share a group's rows.
    pub slabs: u32,
    /// [`ReductionStrategy`]: for the kernels of rows, `Mean` or `Max`.
    pub strategy: u32,
}

crate::assert_layout!(TelemetryReduce, size = 208, align = 16, {
    input: 0, telemetry: 16, partials: 144, arrivals: 160, batch: 176, num_seeds: 180,
    chunk_size: 184, chunk_vectors: 188, team_shift: 192, groups: 196, slabs: 200, strategy: 204,
});
