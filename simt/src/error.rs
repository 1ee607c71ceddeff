//! Why a launch did not complete.

use crate::report::{Report, Triple};

/// Why a launch did not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A grid or block dimension is zero.
    #[error(
        "kernel `{kernel}`: every grid and block dimension must be at least 1, got grid {} and block {}; \
         skip the launch when there is no work",
        Triple(*grid), Triple(*block)
    )]
    EmptyGeometry {
        /// The kernel's name.
        kernel: Box<str>,
        /// Blocks in x, y, z.
        grid: [u32; 3],
        /// Threads of a block in x, y, z.
        block: [u32; 3],
    },
    /// More threads in a block than a GPU takes.
    #[error(
        "kernel `{kernel}`: a block has at most {max_threads} threads, and at most 64 in z, got {}; \
         use a smaller block and more of them",
        Triple(*block)
    )]
    BlockTooLarge {
        /// The kernel's name.
        kernel: Box<str>,
        /// Threads of a block in x, y, z.
        block: [u32; 3],
        /// The most that a block may have.
        max_threads: u32,
    },
    /// More blocks than a GPU takes.
    #[error(
        "kernel `{kernel}`: a grid has at most 2147483647 blocks in x and 65535 in y and z, got {}; \
         put the long dimension in x or loop inside the kernel",
        Triple(*grid)
    )]
    GridTooLarge {
        /// The kernel's name.
        kernel: Box<str>,
        /// Blocks in x, y, z.
        grid: [u32; 3],
    },
    /// Clusters that no GPU takes, or that do not divide the grid.
    #[error(
        "kernel `{kernel}`: a cluster has 1 to {max_blocks} blocks and divides the grid, got clusters of {} in a grid of {}; \
         use smaller clusters, or round the grid up",
        Triple(*cluster), Triple(*grid)
    )]
    Cluster {
        /// The kernel's name.
        kernel: Box<str>,
        /// Blocks in x, y, z.
        grid: [u32; 3],
        /// Blocks of a cluster in x, y, z.
        cluster: [u32; 3],
        /// The most that a cluster may have.
        max_blocks: u32,
    },
    /// Static and dynamic shared memory together exceed the limit.
    #[error(
        "kernel `{kernel}`: a block needs at least {needed_bytes} bytes of shared memory ({dynamic_bytes} of \
         them dynamic) and may have {limit_bytes}; use a smaller tile or fewer stages"
    )]
    SharedMemory {
        /// The kernel's name.
        kernel: Box<str>,
        /// What the block had asked for when it passed the limit.
        needed_bytes: usize,
        /// How much of it is dynamic.
        dynamic_bytes: usize,
        /// The executor's limit.
        limit_bytes: usize,
    },
    /// The operating system gave no memory for the threads' stacks.
    #[error(
        "kernel `{kernel}`: no stacks for {threads} threads: {source}; \
         raise vm.max_map_count or run fewer launches at once"
    )]
    Stacks {
        /// The kernel's name.
        kernel: Box<str>,
        /// Threads of a block.
        threads: u32,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The kernel did something that is wrong on a GPU.
    #[error(transparent)]
    Report(#[from] Report),
    /// The kernel panicked.
    #[error("kernel `{kernel}`, block {}, thread {}: panicked: {message}", Triple(*block), Triple(*thread))]
    Panic {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Thread index in x, y, z.
        thread: [u32; 3],
        /// The panic's message.
        message: String,
    },
}
