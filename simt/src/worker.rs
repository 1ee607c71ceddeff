//! One OS thread's share of a launch: it runs blocks to their end and holds those that only poll.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::block::{Block, Outcome};
use crate::context::LaunchFacts;
use crate::error::LaunchError;
use crate::executor::LaunchStats;
use crate::standstill::Standstill;
use crate::workspace::Workspace;

/// A launch that is being run.
pub(crate) struct Launch<'k> {
    pub(crate) facts: LaunchFacts,
    pub(crate) body: &'k (dyn Fn() + Sync),
    pub(crate) order: BlockOrder,
    pub(crate) seed: Option<u64>,
    /// Blocks that one worker may hold at a time, as occupancy limits them on a GPU.
    pub(crate) resident: usize,
    /// The position in the order of the next block to start.
    pub(crate) next: AtomicU64,
    pub(crate) standstill: Standstill,
    /// The lowest position of a block that failed. Blocks before it still run to their end, so that
    /// the same launch returns the same error.
    pub(crate) failed_at: AtomicU64,
    pub(crate) result: Mutex<LaunchResult>,
}

/// What the workers found together.
#[derive(Default)]
pub(crate) struct LaunchResult {
    pub(crate) stats: LaunchStats,
    pub(crate) error: Option<(u64, LaunchError)>,
}

/// A bijection from positions to linear block indices.
pub(crate) struct BlockOrder {
    pub(crate) blocks: u64,
    pub(crate) multiplier: u64,
    pub(crate) offset: u64,
}

impl Launch<'_> {
    /// Runs blocks until none is left.
    pub(crate) fn work(&self) {
        let mut held: VecDeque<(u64, Block<'_>)> = VecDeque::new();
        let mut stats = LaunchStats::default();
        let worker = self.standstill.join();
        loop {
            let started = if held.len() < self.resident { self.start_next() } else { None };
            let Some((position, mut block)) = started.or_else(|| held.pop_front()) else { break };
            if block.is_new() {
                self.standstill.is_busy(worker);
            }
            match block.run(&|moved| self.pulse(position, moved)) {
                Outcome::Finished(block_stats) => {
                    stats.add(&block_stats);
                    block.into_workspace().give_back();
                }
                Outcome::Polling if self.standstill.note_polling(worker) => {
                    self.fail(position, block.spun_out().into());
                    block.into_workspace().give_back();
                }
                // What it polls for may have been the work of the block that failed.
                Outcome::Polling | Outcome::Yielding if self.is_pointless(u64::MAX) => {
                    block.into_workspace().give_back();
                }
                Outcome::Polling => {
                    held.push_back((position, block));
                    std::thread::yield_now();
                }
                Outcome::Yielding => held.push_back((position, block)),
                Outcome::Abandoned => block.into_workspace().give_back(),
                Outcome::Failed(error) => {
                    self.fail(position, error);
                    block.into_workspace().give_back();
                }
            }
        }
        self.standstill.leave(worker);
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        result.stats.add(&stats);
    }

    fn start_next(&self) -> Option<(u64, Block<'_>)> {
        if self.next.load(Ordering::Relaxed) >= self.order.blocks {
            return None;
        }
        let position = self.next.fetch_add(1, Ordering::Relaxed);
        if position >= self.order.blocks || self.is_pointless(position) {
            return None;
        }
        let index = self.order.block_at(position);
        let [width, height, _] = self.facts.grid.map(u64::from);
        let place = [index % width, index / width % height, index / (width * height)];
        match self.workspace() {
            Ok(workspace) => {
                let place = place.map(|i| i as u32);
                let block = Block::start(&self.facts, place, self.seed, workspace, self.body);
                Some((position, block))
            }
            Err(error) => {
                self.fail(position, error);
                None
            }
        }
    }

    fn workspace(&self) -> Result<Workspace, LaunchError> {
        let threads: u32 = self.facts.block.iter().product();
        Workspace::take(threads as usize).map_err(|source: io::Error| LaunchError::Stacks {
            kernel: Box::from(&*self.facts.kernel),
            threads,
            source,
        })
    }

    /// Notes whether threads moved, and answers whether the block at this position is still wanted.
    fn pulse(&self, position: u64, moved: bool) -> bool {
        if moved {
            self.standstill.note_move();
        }
        !self.is_pointless(position)
    }

    fn is_pointless(&self, position: u64) -> bool {
        self.failed_at.load(Ordering::Relaxed) < position
    }

    fn fail(&self, position: u64, error: LaunchError) {
        self.failed_at.fetch_min(position, Ordering::Relaxed);
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        if result.error.as_ref().is_none_or(|(first, _)| position < *first) {
            result.error = Some((position, error));
        }
    }
}

impl BlockOrder {
    /// The linear index of the block at a position.
    fn block_at(&self, position: u64) -> u64 {
        let product = u128::from(position) * u128::from(self.multiplier);
        ((product + u128::from(self.offset)) % u128::from(self.blocks)) as u64
    }
}
