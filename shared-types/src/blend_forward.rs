//! Parameters of the layer's forward pass.
//!
//! For an active seed with a = clip(α, 0, 1) and blueprint T, `y = (1−a)·x + a·T(x)`; every other
//! seed, and one whose blueprint id is 0, is the identity, bit for bit. The five T stand at
//! [`BlueprintType`](crate::BlueprintType).

use crate::layer::Numerical;
use crate::telemetry::{SeedTelemetry, TelemetryPartial};
use crate::tensor_map::TensorMapHandle;
use crate::view::{In, Out};

/// How the columns of `[batch, hidden]` are cut among blocks.
///
/// A *strip* is what one block covers of a row: whole chunks of several seeds, or a part of one
/// seed's chunk. It is `strip_vectors` vectors wide, and the block's threads cover `row_lanes` of its
/// rows at a time. The rows are dealt out in turn to `slabs` blocks.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlendGeometry {
    /// Vectors of a chunk: `chunk_size` / lanes of the instance.
    pub chunk_vectors: u32,
    /// Vectors of a full strip.
    pub strip_vectors: u32,
    /// Seeds of a full strip; 1 where a chunk has several strips.
    pub strip_seeds: u32,
    /// Strips of a chunk; 1 where a strip has several seeds.
    pub chunk_strips: u32,
    /// Strips of a row.
    pub strips: u32,
    /// Blocks that share a strip's rows.
    pub slabs: u32,
    /// Rows that a block's threads cover side by side.
    pub row_lanes: u32,
    /// Where a block has a seed to itself, block b has seed b · `seed_stride` mod `num_seeds`; elsewhere 0.
    pub seed_stride: u32,
}

crate::assert_layout!(BlendGeometry, size = 32, align = 16, {
    chunk_vectors: 0, strip_vectors: 4, strip_seeds: 8, chunk_strips: 12,
    strips: 16, slabs: 20, row_lanes: 24, seed_stride: 28,
});

impl BlendGeometry {
    /// The same geometry, its divisors seen to be positive: a division that may be by zero brings a
    /// panic into the kernel.
    #[inline(always)]
    pub fn with_positive_divisors(self) -> Self {
        Self {
            chunk_vectors: self.chunk_vectors.max(1),
            strip_vectors: self.strip_vectors.max(1),
            chunk_strips: self.chunk_strips.max(1),
            strips: self.strips.max(1),
            ..self
        }
    }

    /// Vectors that a block takes together: `rows` rows of each of its threads.
    pub const fn group_vectors(&self, rows: u32) -> u32 {
        rows * self.row_lanes * self.strip_vectors
    }

    /// Bytes of the shared memory that holds such a group, at the alignment of a bulk copy.
    pub const fn stage_bytes(&self, rows: u32, vector_bytes: u32) -> u32 {
        (self.group_vectors(rows) * vector_bytes).next_multiple_of(128)
    }

    /// Partial records of one seed: one from each block that saw some of it.
    pub const fn parts(&self) -> u32 {
        self.slabs * self.chunk_strips
    }

    /// Whether a block sees whole seeds in all rows, each seed's vectors side by side in a warp: then the backward
    /// pass finishes their gradients itself.
    pub const fn finishes_seeds(&self) -> bool {
        self.parts() == 1 && self.chunk_vectors.is_power_of_two() && self.chunk_vectors <= 32
    }

    /// Groups of seeds whose parts are merged together.
    pub const fn groups(&self) -> u32 {
        self.strips / self.chunk_strips
    }
}

/// What the `blend_forward_*` kernels take. Input and output are elements of the instance's dtype.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct BlendForward<const COHERENT: bool = false> {
    /// x, `[batch, num_seeds · chunk_size]`, row-major, 16-byte aligned.
    pub input: In<u8, COHERENT>,
    /// y, as `input`.
    pub output: Out<u8>,
    /// [`SeedLifecycle`](crate::SeedLifecycle), `[num_seeds]`.
    pub lifecycle: In<u8, COHERENT>,
    /// Blueprint of each seed, 0 for none, `[num_seeds]`.
    pub blueprint_id: In<u16, COHERENT>,
    /// Blend factor α, clipped to \[0, 1\] where it is used, `[num_seeds]`.
    pub alpha: In<f32, COHERENT>,
    /// [`BlueprintType`](crate::BlueprintType), `[num_blueprints]`.
    pub blueprint_type: In<u8, COHERENT>,
    /// Where each blueprint's weights begin in `weights`, in elements, `[num_blueprints]`.
    pub blueprint_offset: In<u32, COHERENT>,
    /// Scale s, `[num_blueprints]`.
    pub blueprint_scale: In<f32, COHERENT>,
    /// Weights w, `chunk_size` for each blueprint.
    pub weights: In<f32, COHERENT>,
    /// The telemetry of the input.
    pub telemetry: SeedTelemetry,
    /// Scratch: the parts of each seed, `[num_seeds, parts]`.
    pub partials: Out<TelemetryPartial>,
    /// Scratch: blocks that have finished a group, `[groups]`, zero before and after.
    pub arrivals: Out<u32>,
    /// Flags of the adaptive numerical mode, `[num_seeds]`; a pass with telemetry and this mode sets
    /// them for the passes after it.
    pub unstable: Out<u8>,
    /// How the work is cut.
    pub geometry: BlendGeometry,
    /// What happens to the output of active seeds.
    pub numerical: Numerical,
    /// Rows.
    pub batch: u32,
    /// Seeds.
    pub num_seeds: u32,
    /// Columns of a seed.
    pub chunk_size: u32,
    /// Whether telemetry is gathered: 0 or 1. Without it nothing of it is read or written.
    pub gathers: u32,
}

crate::assert_layout!(BlendForward, size = 384, align = 16, {
    input: 0, output: 16, lifecycle: 32, blueprint_id: 48, alpha: 64, blueprint_type: 80,
    blueprint_offset: 96, blueprint_scale: 112, weights: 128, telemetry: 144, partials: 272,
    arrivals: 288, unstable: 304, geometry: 320, numerical: 352, batch: 368, num_seeds: 372,
    chunk_size: 376, gathers: 380,
});

/// What the `blend_forward_tma_*` kernels take. Chunks and strips are multiples of 16 bytes; a box of the map spans
/// a strip and `rows · row_lanes` rows, and neither is more than [`TMA_BOX`] elements.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct BlendForwardTma {
    /// What to compute.
    pub forward: BlendForward,
    /// The input as a matrix of [`TMA_ELEMENT_BYTES`] an element; its box is a group of rows of a strip.
    pub input_map: TensorMapHandle,
    /// Keeps the struct at a multiple of 16 bytes.
    pub _padding: u64,
}

crate::assert_layout!(BlendForwardTma, size = 400, align = 16, { forward: 0, input_map: 384 });

/// Most elements of a box along a dimension.
pub const TMA_BOX: u32 = 256;

/// Bytes of an element of the input's tensor map: the widest there is, for the widest box.
pub const TMA_ELEMENT_BYTES: u32 = 8;
