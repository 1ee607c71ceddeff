//! The parts of `forward_wgmma`: which tile a block has, its loads, its products, and its results.

pub(super) mod band;
pub(super) mod multiply;
pub(super) mod multiply_scaled;
pub(super) mod parts;
pub(super) mod schedule;
pub(super) mod shared_map;
pub(super) mod stage;
pub(super) mod store;

use kasmina_device::wgmma::{Element, Tf32};
use kasmina_types::tiles::LINEAR_WGMMA_K_BYTES;

/// Bytes of k of a tile in shared memory: a row of it.
pub(super) const SPAN: usize = LINEAR_WGMMA_K_BYTES as usize;

/// Products along the k of a tile.
const STEPS: usize = 4;

const _: () = assert!(STEPS * Tf32::K * 4 == SPAN, "a product takes 32 bytes of k");

/// Elements of k of a tile.
pub(super) const fn tile_k<E: Element>() -> usize {
    STEPS * E::K
}
