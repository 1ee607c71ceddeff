//! A ring of buffers in shared memory that one thread fills with bulk copies and several warps empty.
//!
//! Each stage has two mbarriers: *full* ends a phase when the bytes of its copies have come, *empty* when every
//! consuming warp has let go of it. [`Producer`] and [`Consumer`] keep stage and parity; a stage is had only by
//! waiting for it, and given back only by giving up what stands for it. What is forgotten is a deadlock, which
//! the executor reports. Needs compute capability 9.0.

use crate::mbarrier::{self, Mbarrier};
use crate::shared::Shared;
use crate::thread;
use crate::warp::{self, FULL_MASK};

/// The mbarriers of a ring of `STAGES` stages, in `2 · STAGES` words.
pub struct Pipeline<const STAGES: usize, const WORDS: usize> {
    words: Shared<u64, WORDS>,
}

/// The one thread that fills the stages, and where it is.
pub struct Producer<const STAGES: usize, const WORDS: usize> {
    words: Shared<u64, WORDS>,
    turn: Turn<STAGES>,
}

/// One of the warps that empty the stages, and where it is. Each lane has its own, all alike.
pub struct Consumer<const STAGES: usize, const WORDS: usize> {
    words: Shared<u64, WORDS>,
    turn: Turn<STAGES>,
}

/// A stage that is free and to be filled.
#[must_use = "its full barrier waits for the bytes that were announced"]
pub struct Filling {
    stage: usize,
    full: Mbarrier,
}

/// A stage that is filled and to be emptied.
#[must_use = "the producer waits until it is released"]
pub struct Filled {
    stage: usize,
    empty: Mbarrier,
}

/// Which stage comes next, and the parity of its phase.
struct Turn<const STAGES: usize> {
    stage: usize,
    parity: bool,
}

impl<const STAGES: usize> Turn<STAGES> {
    const FIRST: Self = Self { stage: 0, parity: false };

    #[inline(always)]
    fn advance(&mut self) {
        self.stage += 1;
        if self.stage == STAGES {
            self.stage = 0;
            self.parity = !self.parity;
        }
    }
}

impl<const STAGES: usize, const WORDS: usize> Pipeline<STAGES, WORDS> {
    /// Initialises the mbarriers for `consumers` consuming warps. Ends with a barrier of the block, which orders
    /// the initialisation before all uses.
    ///
    /// # Safety
    /// Every thread of the block calls it, from the same place, and `words` is used for nothing else.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn start(words: Shared<u64, WORDS>, consumers: u32) -> Self {
        const { assert!(STAGES > 0 && WORDS == 2 * STAGES, "two words a stage") };
        if thread::thread_idx_x() == 0 {
            let mut stage = 0;
            while stage < STAGES {
                // SAFETY: one thread initialises, before the barrier below.
                unsafe {
                    Mbarrier::of(&words, stage).init(1);
                    Mbarrier::of(&words, STAGES + stage).init(consumers);
                }
                stage += 1;
            }
            mbarrier::fence_init();
        }
        thread::sync_threads();
        Self { words }
    }

    /// The producer's side, for one thread of the block.
    #[inline(always)]
    pub fn producer(&self) -> Producer<STAGES, WORDS> {
        Producer { words: self.words, turn: Turn::FIRST }
    }

    /// A consumer's side, for each lane of each consuming warp.
    #[inline(always)]
    pub fn consumer(&self) -> Consumer<STAGES, WORDS> {
        Consumer { words: self.words, turn: Turn::FIRST }
    }
}

impl<const STAGES: usize, const WORDS: usize> Producer<STAGES, WORDS> {
    /// Waits until the next stage is empty and announces `bytes` of copies to it.
    ///
    /// # Safety
    /// One thread of the block fills. It then issues copies of `bytes` bytes in all, on [`Filling::barrier`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn fill(&mut self, bytes: u32) -> Filling {
        let Turn { stage, parity } = self.turn;
        let full = Mbarrier::of(&self.words, stage);
        // SAFETY: `Pipeline::start` initialised both. The phase before the first is over: at first all stages
        // are empty. The producer is the one arrival of a full barrier.
        unsafe {
            Mbarrier::of(&self.words, STAGES + stage).wait(!parity);
            full.arrive_expect_tx(bytes);
        }
        self.turn.advance();
        Filling { stage, full }
    }
}

impl<const STAGES: usize, const WORDS: usize> Consumer<STAGES, WORDS> {
    /// Waits until the next stage is filled.
    ///
    /// # Safety
    /// Every lane of the warp calls it, and later releases the stage.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn next(&mut self) -> Filled {
        let Turn { stage, parity } = self.turn;
        // SAFETY: `Pipeline::start` initialised it; the stage cannot be filled again before it is released.
        unsafe { Mbarrier::of(&self.words, stage).wait(parity) };
        self.turn.advance();
        Filled { stage, empty: Mbarrier::of(&self.words, STAGES + stage) }
    }
}

impl Filling {
    /// Which stage.
    #[inline(always)]
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// What its copies complete on.
    #[inline(always)]
    pub fn barrier(&self) -> Mbarrier {
        self.full
    }
}

impl Filled {
    /// Which stage.
    #[inline(always)]
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// Gives the stage back: one arrival for the warp, once all its lanes are here, so that their reads come
    /// before the next filling.
    ///
    /// # Safety
    /// Every lane of the warp calls it, and touches the stage no more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn release(self) {
        warp::sync_warp(FULL_MASK);
        if thread::lane_idx() == 0 {
            // SAFETY: `Pipeline::start` initialised it for one arrival of each consuming warp.
            unsafe { self.empty.arrive() };
        }
    }
}
