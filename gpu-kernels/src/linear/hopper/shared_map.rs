//! Where what is in the block's dynamic shared memory.

use super::SPAN;

/// Bytes of a box of results: 64 rows of 128 bytes.
pub(crate) const BOX_BYTES: usize = 64 * SPAN;

/// Columns of a band of staged sums; a band is 64 rows.
pub(crate) const BAND: usize = 64;

/// Bytes that a warpgroup stages results in: two boxes, or a band of sums.
pub(crate) const STAGING_BYTES: usize = BAND * BAND * 4;

const _: () = assert!(STAGING_BYTES == 2 * BOX_BYTES);

/// The parts of shared memory of an instance, in bytes from its beginning.
#[derive(Clone, Copy)]
pub(crate) struct SharedMap {
    /// Bytes of the first operand's tile.
    pub(crate) first_bytes: usize,
    /// Bytes of a stage: both operands' tiles.
    pub(crate) stage_bytes: usize,
    /// Where the warpgroups' places for results begin.
    pub(crate) staging: usize,
    /// Where the tile's bias is, f32, once for each warpgroup.
    pub(crate) bias: usize,
    /// Where the mbarriers are: full ones, empty ones.
    pub(crate) barriers: usize,
    /// Where the last block to come says so.
    pub(crate) last: usize,
    /// Bytes of all of it.
    pub(crate) bytes: usize,
}

impl SharedMap {
    /// Of `groups` warpgroups with `registers` sums a thread and so many stages.
    pub(crate) const fn new(groups: usize, registers: usize, stages: usize) -> Self {
        let first_bytes = groups * 64 * SPAN;
        let stage_bytes = first_bytes + 2 * registers * SPAN;
        let staging = stages * stage_bytes;
        assert!(stage_bytes.is_multiple_of(8 * SPAN), "boxes begin where the swizzle does");
        let bias = staging + groups * STAGING_BYTES;
        let barriers = bias + groups * 2 * registers * 4;
        let last = barriers + 2 * stages * 8;
        Self { first_bytes, stage_bytes, staging, bias, barriers, last, bytes: last + 8 }
    }
}

/// What a block of compute capability 9.0 may have.
const MOST_BYTES: usize = 227 * 1024;

const _: () = assert!(SharedMap::new(2, 128, 4).bytes <= MOST_BYTES);
const _: () = assert!(SharedMap::new(2, 64, 6).bytes <= MOST_BYTES);
