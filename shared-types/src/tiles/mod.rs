//! The table of kernel instances: the only list of them. The kernels are made from it, and the host
//! chooses from it.

mod dense;
mod fusion;
mod gemv;
mod information;
mod kasmina;
mod linear;
pub mod manifold;
mod normalization;
mod reduction;

pub use dense::{DENSE_BLOCK_THREADS, DENSE_COLUMNS, DENSE_ROWS};
pub use fusion::{FUSION_BLOCK_THREADS, FUSION_MIN_BLOCKS};
pub use gemv::{GEMV_BLOCK_THREADS, GEMV_MIN_BLOCKS};
pub use information::{
    ACTIVE_INFERENCE_BLOCK_THREADS, INFERENCE_STAGE_BLOCK_THREADS, SMALL_INFERENCE_BLOCK_THREADS,
    SMALL_INFERENCE_STATES,
};
pub use kasmina::{TELEMETRY_REDUCE_BLOCK_THREADS, TELEMETRY_REDUCE_MIN_BLOCKS};
pub use linear::{
    LINEAR_ABSMAX_BLOCK_THREADS, LINEAR_BACKWARD_BLOCK_THREADS, LINEAR_BACKWARD_COLUMNS,
    LINEAR_BACKWARD_ROWS, LINEAR_MMA_BLOCK_THREADS, LINEAR_MMA_K_BYTES, LINEAR_MMA_STAGES,
    LINEAR_REPACK_BLOCK_THREADS, LINEAR_REPACK_TILE, LINEAR_SAMPLE_BLOCK_THREADS,
    LINEAR_SIMT_BLOCK_THREADS, LINEAR_SIMT_TILE, LINEAR_WGMMA_K_BYTES,
};
pub use normalization::{
    NORM_BACKWARD_MIN_BLOCKS, NORM_BLOCK_THREADS, NORM_FORWARD_MIN_BLOCKS, NORM_MERGE_COLUMNS,
};
pub use reduction::{REDUCE_BLOCK_THREADS, REDUCE_MIN_BLOCKS};

use crate::dtype::DType;

/// One kernel instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Name of the entry in the PTX.
    pub entry: &'static str,
    /// The kernel family: the name of the operation's file.
    pub family: &'static str,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access.
    pub lanes: u32,
    /// Threads of a block.
    pub block_threads: u32,
    /// Blocks that fit on a multiprocessor, at least.
    pub min_blocks_per_sm: u32,
    /// The least compute capability whose modules have the entry: 90 for 9.0.
    pub min_capability: u32,
    /// Whether the modules for that compute capability have it alone, not those for newer ones.
    pub that_capability_alone: bool,
}

impl Tile {
    /// Whether the modules for this compute capability have the entry.
    pub const fn runs_on(&self, capability: u32) -> bool {
        if self.that_capability_alone {
            self.min_capability == capability
        } else {
            self.min_capability <= capability
        }
    }
}

/// The least compute capability that any module is for.
pub const OLDEST_CAPABILITY: u32 = 70;

/// Every instance, in the order of the systems and families.
pub static TILES: &[Tile] = ALL.tiles.split_at(ALL.used).0;

const ALL: Table = {
    let mut table = Table::new();
    kasmina::add(&mut table);
    dense::add(&mut table);
    reduction::add(&mut table);
    normalization::add(&mut table);
    information::add(&mut table);
    gemv::add(&mut table);
    linear::add(&mut table);
    fusion::add(&mut table);
    manifold::add(&mut table);
    table
};

/// Room for the table, and how much of it is used.
struct Table {
    tiles: [Tile; 512],
    used: usize,
}

impl Table {
    const fn new() -> Self {
        let none = Tile {
            entry: "",
            family: "",
            dtype: DType::F32,
            lanes: 0,
            block_threads: 0,
            min_blocks_per_sm: 0,
            min_capability: OLDEST_CAPABILITY,
            that_capability_alone: false,
        };
        Self { tiles: [none; 512], used: 0 }
    }

    /// Adds an instance that every target has.
    const fn add(
        &mut self,
        entry: &'static str,
        family: &'static str,
        dtype: DType,
        lanes: u32,
        block_threads: u32,
        min_blocks_per_sm: u32,
    ) {
        let min_capability = OLDEST_CAPABILITY;
        self.tiles[self.used] = Tile {
            entry,
            family,
            dtype,
            lanes,
            block_threads,
            min_blocks_per_sm,
            min_capability,
            that_capability_alone: false,
        };
        self.used += 1;
    }

    /// Says what the last instance needs.
    const fn needs(&mut self, capability: u32) {
        self.tiles[self.used - 1].min_capability = capability;
    }

    /// As [`Self::needs`], where newer architectures lack it.
    const fn needs_exactly(&mut self, capability: u32) {
        self.needs(capability);
        self.tiles[self.used - 1].that_capability_alone = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_once_and_after_family_and_dtype() {
        assert_eq!(
            TILES.len(),
            7 + 8
                + 7
                + 3
                + 6
                + 8
                + 3
                + 3
                + 50
                + 16
                + 6
                + 4
                + 13
                + 32
                + 6
                + 5
                + 4
                + 26
                + 12
                + 13
                + 24
                + 38
                + 22
                + 3
                + 3
                + 1
                + 4
                + 1
                + 5
        );
        for (i, tile) in TILES.iter().enumerate() {
            assert!(tile.entry.starts_with(tile.family), "{}", tile.entry);
            // A resident kernel has operations of several types.
            let is_typed = tile.entry.split('_').any(|part| part == tile.dtype.name());
            assert!(is_typed || tile.family.starts_with("manifold"), "{}", tile.entry);
            assert!(
                tile.block_threads % 32 == 0 && tile.lanes as usize * tile.dtype.size_bytes() <= 16
            );
            assert!(TILES[..i].iter().all(|other| other.entry != tile.entry), "{}", tile.entry);
        }
    }
}
