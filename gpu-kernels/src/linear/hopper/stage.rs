//! The ring of stages: mbarriers, and the loads of one thread.

use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::DynamicShared;
use kasmina_device::wgmma::Major;
use kasmina_device::{cluster, thread, tma, warp};
use kasmina_types::TensorMapHandle;

use super::SPAN;
use super::shared_map::SharedMap;

/// Rows of an atom, and elements of m or n, of a box that is not along k.
const BOX: usize = 64;

/// The mbarriers of an instance.
#[derive(Clone, Copy)]
pub(crate) struct Barriers {
    first: usize,
    stages: usize,
}

/// Which stage comes next, and the parity of its phase.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    // 32 bits, for it lives all along.
    stage: u32,
    pub(crate) parity: bool,
}

impl Turn {
    pub(crate) const FIRST: Self = Self { stage: 0, parity: false };

    #[inline(always)]
    pub(crate) fn stage(&self) -> usize {
        self.stage as usize
    }

    #[inline(always)]
    pub(crate) fn advance(&mut self, stages: usize) {
        self.stage += 1;
        if self.stage == stages as u32 {
            self.stage = 0;
            self.parity = !self.parity;
        }
    }
}

impl Barriers {
    #[inline(always)]
    pub(crate) fn new(map: &SharedMap, stages: usize) -> Self {
        Self { first: map.barriers / 8, stages }
    }

    /// Where a stage's bytes are waited for.
    #[inline(always)]
    pub(crate) fn full(&self, stage: usize) -> Mbarrier {
        Mbarrier::of_dynamic(&DynamicShared::whole(), self.first + stage)
    }

    /// Where a stage is waited for until all warps are done with it.
    #[inline(always)]
    pub(crate) fn empty(&self, stage: usize) -> Mbarrier {
        Mbarrier::of_dynamic(&DynamicShared::whole(), self.first + self.stages + stage)
    }

    /// Says that the warp is done with a stage, in each of the `sharers` blocks of the cluster that load for each other.
    ///
    /// # Safety
    /// All lanes of each multiplying warp call it, once for each turn of the stage.
    #[inline(always)]
    pub(crate) unsafe fn release(&self, stage: usize, sharers: u32) {
        warp::sync_warp(warp::FULL_MASK);
        let lane = thread::lane_idx();
        // SAFETY: once a warp and turn, and block; no block of the cluster ends before all have met.
        unsafe {
            if sharers > 1 {
                if lane < sharers {
                    cluster::map_mbarrier(self.empty(stage), lane).arrive_reader();
                }
            } else if lane == 0 {
                self.empty(stage).arrive();
            }
        }
    }

    /// Begins them all, for `releasing` warps that release a stage.
    ///
    /// # Safety
    /// One thread of the block calls it, and a barrier follows before anyone uses them.
    #[inline(always)]
    pub(crate) unsafe fn init(&self, releasing: u32) {
        let mut stage = 0;
        while stage < self.stages {
            // SAFETY: the caller's contract.
            unsafe {
                self.full(stage).init(1);
                self.empty(stage).init(releasing);
            }
            stage += 1;
        }
        mbarrier::fence_init();
    }
}

/// Blocks of a cluster that load an operand's tile together, each a share of it for all.
#[derive(Clone, Copy)]
pub(crate) struct Sharing {
    /// Rows or columns of the tile before the block's share.
    first: usize,
    /// Rows or columns of a share.
    share: usize,
    /// A bit for each block, or 0 where there is but one.
    blocks: u16,
}

impl Sharing {
    /// Of a block that loads all `rows` of its tile.
    #[inline(always)]
    pub(crate) fn alone(rows: usize) -> Self {
        Self { first: 0, share: rows, blocks: 0 }
    }

    /// Of block `rank` of `blocks`, 1 or a power of two, that share a tile of `rows`.
    #[inline(always)]
    pub(crate) fn of(rows: usize, rank: u32, blocks: u32) -> Self {
        if blocks == 1 {
            return Self::alone(rows);
        }
        let share = rows >> blocks.trailing_zeros();
        Self { first: rank as usize * share, share, blocks: ((1 << blocks) - 1) as u16 }
    }
}

/// Loads a block's share of an operand's tile, for all that share it: rows or columns from `edge` on, 128 bytes of k
/// from `k` on, of problem `number`.
///
/// # Safety
/// As [`tma::load_3d`] or, where several share the tile, [`tma::load_3d_multicast`], for the share's spans of the tile
/// at byte `at`.
#[inline(always)]
pub(crate) unsafe fn load_tile<M: Major>(
    at: usize,
    map: TensorMapHandle,
    edge: u32,
    sharing: &Sharing,
    k: u32,
    number: u32,
    barrier: Mbarrier,
) {
    let shared = DynamicShared::<u8>::whole();
    let load = |from: usize, at_tensor: [i32; 3]| {
        let to = shared.place(at + from * SPAN);
        // SAFETY: the caller's contract.
        unsafe {
            if sharing.blocks == 0 {
                tma::load_3d(to, map, at_tensor, barrier);
            } else {
                tma::load_3d_multicast(to, map, at_tensor, barrier, sharing.blocks);
            }
        }
    };
    let place = |from: usize| (edge + from as u32) as i32;
    let mut from = sharing.first;
    if !M::TRANSPOSED {
        load(from, [k as i32, place(from), number as i32]);
        return;
    }
    let end = from + sharing.share;
    while from < end {
        load(from, [place(from), k as i32, number as i32]);
        from += BOX;
    }
}
