//! The instances of `fusion`: for each declared chain the fused kernel, and one for each stage.

use super::Table;
use crate::fusion::FUSIONS;

/// Threads of a block of `fusion`: those of `gemv`, whose templates chains with a matrix are made of.
pub const FUSION_BLOCK_THREADS: u32 = super::GEMV_BLOCK_THREADS;

/// Blocks of `fusion` that fit on a multiprocessor.
pub const FUSION_MIN_BLOCKS: u32 = super::GEMV_MIN_BLOCKS;

pub(super) const fn add(table: &mut Table) {
    let mut chain = 0;
    while chain < FUSIONS.len() {
        let declared = FUSIONS[chain];
        let (dtype, threads, blocks) = (declared.dtype, FUSION_BLOCK_THREADS, FUSION_MIN_BLOCKS);
        if let Some(entry) = declared.entry {
            table.add(entry, "fusion", dtype, 1, threads, blocks);
        }
        let mut stage = 0;
        while stage < declared.stages.len() {
            if let Some(entry) = declared.stages[stage].entry {
                table.add(entry, "fusion", dtype, 1, threads, blocks);
            }
            stage += 1;
        }
        chain += 1;
    }
}
