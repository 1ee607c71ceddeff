//! Which columns a block covers: whole chunks of several seeds, or a part of one seed's.

use kasmina_device::warp;
use kasmina_types::LayerPass;

/// Threads of a block.
pub(crate) const BLOCK: usize = 256;
/// Warps of a block.
pub(crate) const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;

/// One strip of a row.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    /// The seeds whose telemetry is merged together.
    pub(crate) group: u32,
    /// Which part of the chunk, where a chunk has several.
    pub(crate) share: u32,
    pub(crate) first_seed: u32,
    pub(crate) seeds: u32,
    /// First vector within the chunk.
    pub(crate) first_vector: u32,
    pub(crate) vectors: u32,
}

impl Strip {
    /// Strip number `strip` of a row.
    #[inline(always)]
    pub(crate) fn of<const C: bool>(p: &impl LayerPass<C>, strip: u32) -> Self {
        let g = p.geometry();
        let (group, share) = (strip / g.chunk_strips, strip % g.chunk_strips);
        let first_seed = group * g.strip_seeds;
        let seeds = g.strip_seeds.min(p.num_seeds() - first_seed);
        let first_vector = share * g.strip_vectors;
        let vectors = if g.chunk_strips == 1 {
            seeds * g.chunk_vectors
        } else {
            g.strip_vectors.min(g.chunk_vectors - first_vector)
        };
        Self { group, share, first_seed, seeds, first_vector, vectors }
    }
}
