//! The ring of stages: mbarriers, and the loads of one thread.

use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::DynamicShared;
use kasmina_device::tma;
use kasmina_device::wgmma::Major;
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
    pub(crate) stage: usize,
    pub(crate) parity: bool,
}

impl Turn {
    pub(crate) const FIRST: Self = Self { stage: 0, parity: false };

    #[inline(always)]
    pub(crate) fn advance(&mut self, stages: usize) {
        self.stage += 1;
        if self.stage == stages {
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

    /// Where the warps of a cluster meet, once each.
    #[inline(always)]
    pub(crate) fn met(&self, meeting: usize) -> Mbarrier {
        Mbarrier::of_dynamic(&DynamicShared::whole(), self.first + 2 * self.stages + meeting)
    }

    /// Begins them all, for `warps` consuming warps here and `all` in the cluster.
    ///
    /// # Safety
    /// One thread of the block calls it, and a barrier follows before anyone uses them.
    #[inline(always)]
    pub(crate) unsafe fn init(&self, warps: u32, all: u32) {
        let mut stage = 0;
        while stage < self.stages {
            // SAFETY: the caller's contract.
            unsafe {
                self.full(stage).init(1);
                self.empty(stage).init(warps);
            }
            stage += 1;
        }
        // SAFETY: as above.
        unsafe {
            self.met(0).init(all);
            self.met(1).init(all);
        }
        mbarrier::fence_init();
    }
}

/// Loads an operand's tile: `rows` rows or columns from `edge` on, 128 bytes of k from `k` on, of
/// problem `number`.
///
/// # Safety
/// As [`tma::load_3d`], for `rows` spans from byte `at` on.
#[inline(always)]
pub(crate) unsafe fn load_tile<M: Major>(
    at: usize,
    map: TensorMapHandle,
    (edge, rows): (u32, usize),
    k: u32,
    number: u32,
    barrier: Mbarrier,
) {
    let shared = DynamicShared::<u8>::whole();
    if !M::TRANSPOSED {
        // SAFETY: the caller's contract.
        unsafe {
            tma::load_3d(shared.place(at), map, [k as i32, edge as i32, number as i32], barrier);
        }
        return;
    }
    let mut from = 0;
    while from < rows {
        let x = (edge + from as u32) as i32;
        // SAFETY: the caller's contract.
        unsafe {
            let to = shared.place(at + from * SPAN);
            tma::load_3d(to, map, [x, k as i32, number as i32], barrier);
        }
        from += BOX;
    }
}
