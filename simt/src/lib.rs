//! A CPU executor that runs GPU kernels thread by thread and reports their mistakes.
//!
//! A kernel is any `Fn() + Sync`; every thread of the grid runs it. Inside, the functions of [`rt`]
//! answer who the thread is and let it meet others: at barriers, in warp collectives, in shared
//! memory. Each thread is a coroutine, a block is run whole by one OS thread, and so is a cluster of blocks,
//! all of them at the same time; blocks and clusters run in parallel on rayon's pool.
//!
//! ```
//! use kasmina_simt::{Executor, Geometry, rt};
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! let sum = AtomicU32::new(0);
//! let (grid, block) = ([2, 1, 1], [64, 1, 1]);
//! let geometry = Geometry { grid, cluster: [1; 3], block, dynamic_shared_bytes: 0 };
//! let stats = Executor::new().launch("count", geometry, &|| {
//!     let lanes = rt::warp_exchange(u32::MAX, 1);
//!     if rt::linear_thread() % 32 == 0 {
//!         sum.fetch_add(lanes.iter().sum::<u64>() as u32, Ordering::Relaxed);
//!     }
//! })?;
//! assert_eq!((sum.into_inner(), stats.threads), (128, 128));
//! # Ok::<(), kasmina_simt::LaunchError>(())
//! ```
//!
//! # What is reported
//! | [`Report`] | when | checking mode only |
//! |---|---|---|
//! | `BarrierDivergence` | a barrier that some thread of the block cannot reach | no |
//! | `Deadlock` | lanes wait in a warp collective for lanes that never come, threads wait for an mbarrier's phase that never ends, or at a cluster's barrier that some thread does not reach, or all live threads spin | no |
//! | `OutOfBounds` | an access outside its view, or not aligned | no |
//! | `UninitialisedShared` | a read of shared memory that nobody wrote | yes |
//! | `Race` | two threads of a block, or of a cluster, on one byte, one writing, nothing ordering them | yes |
//! | `MissingProxyFence` | a bulk copy of what ordinary stores wrote, with no proxy fence between | yes |
//! | `Mbarrier` | an mbarrier that is not initialised, or takes more arrivals or bytes than it can | no |
//! | `Wgmma` | a product of a warpgroup that misses its fence, its wait, or some of its threads | no |
//! | `Cluster` | shared memory of a block that is not in the cluster or has left, a mask that names one, a barrier of the cluster that is waited for without having come | no |
//! | `Cluster` | shared memory of a block that nothing shows to have begun, or that nothing keeps from leaving first | yes |
//! | `UnfinishedCopy` | all threads left while a bulk copy used the block's shared memory | no |
//!
//! # What orders two accesses
//! Each thread carries a vector clock, so the rule is happens-before, whatever order the threads
//! happened to run in: block barriers, named barriers (their participants), warp collectives (the
//! lanes of the mask) and atomics (one on a word orders what its thread did before it, before what a
//! later atomic's thread on the same word does after it, as release and acquire do), barriers of the cluster (what
//! was before a thread came, and what follows a thread's waiting), and mbarriers (who
//! arrives in a phase, and the bulk copies that complete it, come before who waits for it; of other blocks only who
//! releases to the cluster, before who acquires from it, and else a copy may overwrite what they read). A bulk copy runs
//! beside the threads, after what its issuer did before. So does each warp's quarter of a warpgroup's product, after
//! what all lanes of the warp know, and before who of the warp waits for its group.
//! Memory is finite, so races can be missed, never invented: a 4-byte word remembers its four most
//! telling accesses, and the global shadow the last 4 MiB that a cluster touched. Races between
//! blocks that are in no cluster together are not looked for, and a thread that loops without [`rt::spin`] is never interrupted.

mod bulk;
mod clock;
mod clocks;
mod cluster;
mod context;
mod copy_async;
mod diagnose;
mod error;
mod executor;
mod gate;
mod mbarrier;
mod neighbours;
mod report;
mod shadow;
mod shared;
mod standstill;
mod sync;
mod thread_side;
mod wgmma;
mod worker;
mod workspace;

pub use error::LaunchError;
pub use executor::{Executor, Geometry, LaunchStats};
pub use report::{
    Access, ClusterFault, MbarrierFault, Report, Space, Touch, Wait, Waiting, WgmmaFault,
};

/// What a running kernel calls. Outside of a kernel each of these panics.
pub mod rt {
    pub use crate::bulk::{
        Piece, bulk_commit, bulk_load, bulk_load_multicast, bulk_store, bulk_wait, proxy_fence,
    };
    pub use crate::copy_async::{copy_async, copy_async_commit, copy_async_wait};
    pub use crate::mbarrier::{
        mbarrier_arrive, mbarrier_arrive_cluster, mbarrier_init, mbarrier_invalidate,
        mbarrier_test, mbarrier_wait, mbarrier_wait_cluster,
    };
    pub use crate::neighbours::{
        cluster_arrive, cluster_dim, cluster_idx, cluster_rank, cluster_wait, map_shared,
    };
    pub use crate::report::{Access, Space};
    pub use crate::thread_side::{
        access_cluster, access_global, access_shared, active_lanes, barrier, barrier_count,
        block_dim, block_idx, clock, dynamic_shared, grid_dim, linear_thread, named_barrier,
        named_barrier_count, shared_static, spin, thread_idx, warp_exchange, warp_sync, within,
    };
    pub use crate::wgmma::{
        Accumulators, CHUNK_BYTES, Multiply, Product, Share, wgmma, wgmma_commit, wgmma_fence,
        wgmma_fences, wgmma_take, wgmma_wait,
    };
}
