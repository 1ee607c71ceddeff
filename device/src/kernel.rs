//! A kernel as the host sees it: name, bounds and body, typed by its parameters.

use kasmina_simt::{Executor, Geometry, LaunchError, LaunchStats};

/// What `#[kernel(…)]` promises the compiler about every launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchBounds {
    /// Threads of a block.
    pub block_threads: u32,
    /// Blocks that the registers must leave room for on one multiprocessor.
    pub min_blocks_per_sm: u32,
    /// Blocks of a cluster along x, y and z, where the kernel is made for one.
    pub cluster: Option<[u32; 3]>,
    /// The architecture that the kernel needs, where the oldest is not enough: `90` for compute capability
    /// 9.0 and newer, `90a` for that one alone.
    pub arch: Option<&'static str>,
}

/// The handle that `#[kernel]` leaves on the host. `P` is the kernel's one parameter, a
/// `#[repr(C)]` struct that is passed by value: a launch with another type does not compile.
pub struct Kernel<P> {
    name: &'static str,
    bounds: LaunchBounds,
    body: unsafe fn(P),
}

impl<P: Copy + Send + Sync> Kernel<P> {
    /// What `#[kernel]` expands to.
    #[doc(hidden)]
    pub const fn new(name: &'static str, bounds: LaunchBounds, body: unsafe fn(P)) -> Self {
        assert!(bounds.block_threads.is_multiple_of(32) && bounds.block_threads <= 1024);
        Self { name, bounds, body }
    }

    /// The entry's name in the PTX.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The launch bounds.
    pub const fn bounds(&self) -> LaunchBounds {
        self.bounds
    }

    /// Runs the kernel's body under the executor, `grid_blocks` blocks along x, in the clusters that the kernel is made
    /// for, if any.
    ///
    /// # Errors
    /// What the executor found wrong with the kernel, or with the launch.
    ///
    /// # Safety
    /// The views in `params` are valid for the accesses that the kernel's contract names, in the
    /// host's memory, until the call returns.
    pub unsafe fn run(
        &self,
        executor: &Executor,
        grid_blocks: u32,
        dynamic_shared_bytes: u32,
        params: P,
    ) -> Result<LaunchStats, LaunchError> {
        let cluster = self.bounds.cluster;
        // SAFETY: the caller's contract.
        unsafe { self.run_clusters(executor, grid_blocks, cluster, dynamic_shared_bytes, params) }
    }

    /// As [`Self::run`], in clusters of the launch's choice along x, y and z.
    ///
    /// # Errors
    /// As [`Self::run`].
    ///
    /// # Safety
    /// As [`Self::run`].
    pub unsafe fn run_clusters(
        &self,
        executor: &Executor,
        grid_blocks: u32,
        cluster: Option<[u32; 3]>,
        dynamic_shared_bytes: u32,
        params: P,
    ) -> Result<LaunchStats, LaunchError> {
        let (grid, cluster) = ([grid_blocks, 1, 1], cluster.unwrap_or([1; 3]));
        let block = [self.bounds.block_threads, 1, 1];
        let geometry = Geometry { grid, cluster, block, dynamic_shared_bytes };
        // SAFETY: the caller's contract is the kernel's.
        executor.launch(self.name, geometry, &|| unsafe { (self.body)(params) })
    }
}
