//! One OS thread's share of a launch: it runs clusters, mostly of one block, to their end and holds those that only
//! poll.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cluster::{Cluster, Outcome};
use crate::context::LaunchFacts;
use crate::error::LaunchError;
use crate::executor::LaunchStats;
use crate::standstill::Standstill;
use crate::workspace::Workspace;

/// A launch that is being run.
pub(crate) struct Launch<'k> {
    pub(crate) facts: LaunchFacts,
    pub(crate) body: &'k (dyn Fn() + Sync),
    pub(crate) order: ClusterOrder,
    pub(crate) seed: Option<u64>,
    /// Clusters that one worker may hold at a time, as occupancy limits them on a GPU.
    pub(crate) resident: usize,
    /// The position in the order of the next cluster to start.
    pub(crate) next: AtomicU64,
    pub(crate) standstill: Standstill,
    /// The lowest position of a cluster that failed. Those before it still run to their end, so that
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

/// A bijection from positions to linear indices of clusters.
pub(crate) struct ClusterOrder {
    pub(crate) clusters: u64,
    pub(crate) multiplier: u64,
    pub(crate) offset: u64,
}

impl Launch<'_> {
    /// Runs clusters until none is left.
    pub(crate) fn work(&self) {
        let mut held: VecDeque<(u64, Cluster<'_>)> = VecDeque::new();
        let mut stats = LaunchStats::default();
        let worker = self.standstill.join();
        loop {
            let started = if held.len() < self.resident { self.start_next() } else { None };
            let Some((position, mut cluster)) = started.or_else(|| held.pop_front()) else { break };
            if cluster.is_new() {
                self.standstill.is_busy(worker);
            }
            match cluster.run(&|moved| self.pulse(position, moved)) {
                Outcome::Finished(ran) => {
                    stats.add(&ran);
                    cluster.into_workspace().give_back();
                }
                Outcome::Polling if self.standstill.note_polling(worker) => {
                    self.fail(position, cluster.spun_out().into());
                    cluster.into_workspace().give_back();
                }
                // What it polls for may have been the work of the cluster that failed.
                Outcome::Polling | Outcome::Yielding if self.is_pointless(u64::MAX) => {
                    cluster.into_workspace().give_back();
                }
                Outcome::Polling => {
                    held.push_back((position, cluster));
                    std::thread::yield_now();
                }
                Outcome::Yielding => held.push_back((position, cluster)),
                Outcome::Abandoned => cluster.into_workspace().give_back(),
                Outcome::Failed(error) => {
                    self.fail(position, error);
                    cluster.into_workspace().give_back();
                }
            }
        }
        self.standstill.leave(worker);
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        result.stats.add(&stats);
    }

    fn start_next(&self) -> Option<(u64, Cluster<'_>)> {
        if self.next.load(Ordering::Relaxed) >= self.order.clusters {
            return None;
        }
        let position = self.next.fetch_add(1, Ordering::Relaxed);
        if position >= self.order.clusters || self.is_pointless(position) {
            return None;
        }
        let index = self.order.cluster_at(position);
        let [width, height, _] = self.facts.clusters().map(u64::from);
        let place = [index % width, index / width % height, index / (width * height)];
        match self.workspace() {
            Ok(workspace) => {
                let place = place.map(|i| i as u32);
                let cluster = Cluster::start(&self.facts, place, self.seed, workspace, self.body);
                Some((position, cluster))
            }
            Err(error) => {
                self.fail(position, error);
                None
            }
        }
    }

    fn workspace(&self) -> Result<Workspace, LaunchError> {
        let threads: u32 = self.facts.block.iter().chain(&self.facts.cluster).product();
        Workspace::take(threads as usize).map_err(|source: io::Error| LaunchError::Stacks {
            kernel: Box::from(&*self.facts.kernel),
            threads,
            source,
        })
    }

    /// Notes whether threads moved, and answers whether the cluster at this position is still wanted.
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

impl ClusterOrder {
    /// The linear index of the cluster at a position.
    fn cluster_at(&self, position: u64) -> u64 {
        let product = u128::from(position) * u128::from(self.multiplier);
        ((product + u128::from(self.offset)) % u128::from(self.clusters)) as u64
    }
}
