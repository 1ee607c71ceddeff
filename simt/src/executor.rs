//! The host's side: how a grid is launched.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cluster::SplitMix;
use crate::context::LaunchFacts;
use crate::error::LaunchError;
use crate::gate;
use crate::standstill::Standstill;
use crate::worker::{ClusterOrder, Launch, LaunchResult};

const MAX_BLOCK_THREADS: u32 = 1024;
const MAX_BLOCK_DEPTH: u32 = 64;
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// What every GPU with clusters takes.
const MAX_CLUSTER_BLOCKS: u32 = 8;
/// What a block of a Hopper GPU may have.
const DEFAULT_SHARED_LIMIT: u32 = 227 * 1024;
const DEFAULT_SPIN_LIMIT: Duration = Duration::from_secs(10);
/// Threads of a launch that exist at a time: each has a stack, and each stack two memory mappings,
/// of which a Linux process has 65530.
const MAX_RESIDENT_THREADS: usize = 16 * 1024;

/// Extents of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Blocks of a cluster in x, y, z, which run at the same time: `[1; 3]` for none.
    pub cluster: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
}

/// Runs grids of threads on the CPU.
#[derive(Debug, Clone)]
pub struct Executor {
    checks: bool,
    seed: Option<u64>,
    shared_limit: u32,
    spin_limit: Duration,
    helped: bool,
}

/// What a launch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaunchStats {
    /// Blocks that ran.
    pub blocks: u64,
    /// Threads that ran.
    pub threads: u64,
    /// Block barriers that were completed, counted once a block.
    pub barriers: u64,
    /// Warp collectives that were completed, counted once a warp.
    pub warp_collectives: u64,
    /// How often a thread was switched to.
    pub resumes: u64,
    /// The most shared memory that a block used, static and dynamic.
    pub shared_bytes: usize,
}

impl Executor {
    /// Ascending order, 227 KiB of shared memory, a spin limit of 10 s, and the checking mode on
    /// unless the environment has `KASMINA_SIMT_CHECKS=0`.
    pub fn new() -> Self {
        Self {
            checks: std::env::var_os("KASMINA_SIMT_CHECKS").is_none_or(|value| value != "0"),
            seed: None,
            shared_limit: DEFAULT_SHARED_LIMIT,
            spin_limit: DEFAULT_SPIN_LIMIT,
            helped: true,
        }
    }

    /// Turns the checking mode on or off: races and uninitialised shared memory. Bounds, divergence
    /// and deadlock are always reported.
    #[must_use]
    pub fn checks(self, on: bool) -> Self {
        Self { checks: on, ..self }
    }

    /// Permutes the order of the blocks and of each block's threads; one seed, one order.
    #[must_use]
    pub fn shuffled(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// The most shared memory, static and dynamic, that a block may have.
    #[must_use]
    pub fn shared_limit(self, bytes: u32) -> Self {
        Self { shared_limit: bytes, ..self }
    }

    /// How long all threads of a block may do nothing but poll, while nothing else in the launch
    /// moves, before that is a deadlock.
    #[must_use]
    pub fn spin_limit(self, limit: Duration) -> Self {
        Self { spin_limit: limit, ..self }
    }

    /// Runs all blocks on the thread that launches, one of them (or one cluster) at a time: for a grid that stays, and would keep what it
    /// takes of rayon's pool from everybody else.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { helped: false, ..self }
    }

    /// Runs `body` in every thread of the grid and returns when all have ended.
    ///
    /// # Errors
    /// A geometry that no GPU takes, too much shared memory, a [`crate::Report`], or a panic of the
    /// kernel. Of several failing blocks, or clusters, the first in the order of the launch is returned; the
    /// grid's other work is then incomplete.
    pub fn launch(
        &self,
        name: &str,
        geometry: Geometry,
        body: &(dyn Fn() + Sync),
    ) -> Result<LaunchStats, LaunchError> {
        self.check_geometry(name, geometry)?;
        let facts = LaunchFacts {
            kernel: Arc::from(name),
            grid: geometry.grid,
            cluster: geometry.cluster,
            block: geometry.block,
            dynamic_shared: geometry.dynamic_shared_bytes as usize,
            shared_limit: self.shared_limit as usize,
            checks: self.checks,
        };
        let clusters = facts.clusters().iter().map(|&n| u64::from(n)).product::<u64>();
        let threads = geometry.block.iter().chain(&geometry.cluster).product::<u32>() as usize;
        let room = MAX_RESIDENT_THREADS / threads;
        let most = if self.helped { rayon::current_num_threads() } else { 1 };
        let workers = most.min(room).min(usize::try_from(clusters).unwrap_or(usize::MAX));
        let launch = Launch {
            facts,
            body,
            order: self.cluster_order(clusters),
            seed: self.seed,
            resident: room / workers,
            next: AtomicU64::new(0),
            standstill: Standstill::new(self.spin_limit, workers),
            failed_at: AtomicU64::new(u64::MAX),
            result: Mutex::new(LaunchResult::default()),
        };
        gate::run(&launch, workers - 1);
        let result = launch.result.into_inner().unwrap_or_else(PoisonError::into_inner);
        match result.error {
            None => Ok(result.stats),
            Some((_, error)) => Err(error),
        }
    }

    fn check_geometry(&self, name: &str, geometry: Geometry) -> Result<(), LaunchError> {
        let Geometry { grid, cluster, block, dynamic_shared_bytes } = geometry;
        let kernel = || Box::from(name);
        if grid.contains(&0) || block.contains(&0) {
            return Err(LaunchError::EmptyGeometry { kernel: kernel(), grid, block });
        }
        let threads: u128 = block.iter().map(|&n| u128::from(n)).product();
        if threads > u128::from(MAX_BLOCK_THREADS) || block[2] > MAX_BLOCK_DEPTH {
            let max_threads = MAX_BLOCK_THREADS;
            return Err(LaunchError::BlockTooLarge { kernel: kernel(), block, max_threads });
        }
        if grid.iter().zip(MAX_GRID).any(|(&blocks, max)| blocks > max) {
            return Err(LaunchError::GridTooLarge { kernel: kernel(), grid });
        }
        let blocks: u128 = cluster.iter().map(|&n| u128::from(n)).product();
        if !(1..=u128::from(MAX_CLUSTER_BLOCKS)).contains(&blocks)
            || grid.iter().zip(cluster).any(|(blocks, of)| !blocks.is_multiple_of(of))
        {
            let max_blocks = MAX_CLUSTER_BLOCKS;
            return Err(LaunchError::Cluster { kernel: kernel(), grid, cluster, max_blocks });
        }
        if dynamic_shared_bytes > self.shared_limit {
            return Err(LaunchError::SharedMemory {
                kernel: kernel(),
                needed_bytes: dynamic_shared_bytes as usize,
                dynamic_bytes: dynamic_shared_bytes as usize,
                limit_bytes: self.shared_limit as usize,
            });
        }
        Ok(())
    }

    fn cluster_order(&self, clusters: u64) -> ClusterOrder {
        let Some(seed) = self.seed else {
            return ClusterOrder { clusters, multiplier: 1, offset: 0 };
        };
        let mut random = SplitMix(seed);
        let offset = random.next() % clusters;
        let multiplier = loop {
            let candidate = random.next() % clusters;
            if gcd(candidate, clusters) == 1 {
                break candidate;
            }
        };
        ClusterOrder { clusters, multiplier, offset }
    }
}

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

impl LaunchStats {
    /// Adds what another block did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.threads += other.threads;
        self.barriers += other.barriers;
        self.warp_collectives += other.warp_collectives;
        self.resumes += other.resumes;
        self.shared_bytes = self.shared_bytes.max(other.shared_bytes);
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
