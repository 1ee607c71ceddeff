//! Launches: a grid, checked against the device and the kernel before the driver sees it.

use std::ffi::c_void;
use std::ptr;

use super::error::{DriverError, check, code};
use super::module::Function;
use super::raw::{self, LaunchAttribute, LaunchConfigEx, driver_call};
use super::stream::Stream;

/// Bytes that the parameters of a kernel may take on every device.
pub const MAX_PARAMETER_BYTES: usize = 4096;

/// Blocks that a cluster may have on every device that has clusters.
pub const MAX_CLUSTER_BLOCKS: u32 = 8;

/// The geometry of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub dynamic_shared_bytes: u32,
    /// Blocks of a cluster in x, y and z, for compute capability 9.0 and newer.
    pub cluster: Option<[u32; 3]>,
    /// Whether the grid synchronises as a whole, so that all of it must be resident at once.
    pub cooperative: bool,
    /// Whether the grid may be placed while the kernel before it on the stream still ends (programmatic
    /// dependent launch), for compute capability 9.0 and newer. The kernel itself then waits for its
    /// predecessor before its first access: those that `#[kernel]` made for such a target do.
    pub overlapping: bool,
}

impl LaunchConfig {
    /// A one-dimensional grid of `blocks` blocks of `threads` threads.
    pub const fn linear(blocks: u32, threads: u32) -> Self {
        let (grid, block) = ([blocks, 1, 1], [threads, 1, 1]);
        Self {
            grid,
            block,
            dynamic_shared_bytes: 0,
            cluster: None,
            cooperative: false,
            overlapping: false,
        }
    }

    /// Checks the launch as [`launch`] does, without launching.
    ///
    /// # Errors
    /// [`DriverError::LaunchShape`], [`DriverError::LaunchConfig`] or [`DriverError::Unsupported`].
    pub fn check(&self, function: &Function) -> Result<(), DriverError> {
        let info = function.device().info();
        let beyond = |what, got: u64, limit: u64| match got > limit {
            true => Err(DriverError::LaunchConfig {
                entry: function.name().to_owned(),
                what,
                limit,
                got,
            }),
            false => Ok(()),
        };
        let shape = |what, got, rule| DriverError::LaunchShape {
            entry: function.name().to_owned(),
            what,
            got,
            rule,
        };
        let unsupported = |feature| DriverError::Unsupported { device: info.name.clone(), feature };

        let dimensions = [
            ("the grid", self.grid),
            ("the block", self.block),
            ("the cluster", self.cluster_or_one()),
        ];
        for (what, dimensions) in dimensions {
            if dimensions.contains(&0) {
                return Err(shape(what, dimensions, "no dimension may be 0"));
            }
        }
        for axis in 0..3 {
            let grid = ["grid x in blocks", "grid y in blocks", "grid z in blocks"][axis];
            beyond(grid, self.grid[axis].into(), info.max_grid[axis].into())?;
            let block = ["block x in threads", "block y in threads", "block z in threads"][axis];
            beyond(block, self.block[axis].into(), info.max_block[axis].into())?;
        }
        let threads = product(self.block);
        beyond("threads of a block", threads, function.attributes().max_threads_per_block.into())?;
        let shared = u64::from(self.dynamic_shared_bytes);
        beyond(
            "dynamic shared memory in bytes",
            shared,
            function.max_dynamic_shared_bytes().into(),
        )?;

        if let Some(cluster) = self.cluster {
            if !info.cluster_launch {
                return Err(unsupported("clusters"));
            }
            beyond("blocks of a cluster", product(cluster), MAX_CLUSTER_BLOCKS.into())?;
            if (0..3).any(|axis| !self.grid[axis].is_multiple_of(cluster[axis])) {
                return Err(shape(
                    "the grid",
                    self.grid,
                    "each dimension must be a multiple of the cluster's",
                ));
            }
        }
        if self.cooperative && !info.cooperative_launch {
            return Err(unsupported("cooperative launch"));
        }
        if self.overlapping && info.compute_capability.major < 9 {
            return Err(unsupported("programmatic dependent launch"));
        }
        Ok(())
    }

    fn cluster_or_one(&self) -> [u32; 3] {
        self.cluster.unwrap_or([1; 3])
    }

    /// The driver's form, for the entries that take attributes.
    pub(super) fn with_attributes<R>(
        &self,
        stream: Option<&Stream>,
        call: impl FnOnce(&LaunchConfigEx) -> R,
    ) -> R {
        let mut attributes = [LaunchAttribute::cluster(self.cluster_or_one()); 3];
        let mut count = 1;
        let flags = [
            (self.cooperative, LaunchAttribute::cooperative()),
            (self.overlapping, LaunchAttribute::overlapping()),
        ];
        for (_, attribute) in flags.into_iter().filter(|&(asked, _)| asked) {
            attributes[count] = attribute;
            count += 1;
        }
        call(&LaunchConfigEx {
            grid: self.grid,
            block: self.block,
            dynamic_shared_bytes: self.dynamic_shared_bytes,
            stream: stream.map_or(ptr::null_mut(), Stream::raw),
            attributes: attributes.as_mut_ptr(),
            attribute_count: count as u32,
        })
    }
}

/// Queues `function` on `stream` with `params` as its one parameter, passed by value. It returns before the kernel
/// runs; a failure of the kernel shows at a later call.
///
/// # Errors
/// Everything that [`LaunchConfig::check`] refuses, parameters above [`MAX_PARAMETER_BYTES`], a stream of another GPU,
/// a cooperative grid that is not resident at once, or a failed call.
///
/// # Safety
/// - `P` is the kernel's only parameter, of the same size and layout, or the kernel has none.
/// - The launch obeys the kernel's contract: geometry, shared memory, and each pointer in `params` valid for what the
///   kernel does with it until the kernel ends.
/// - Each buffer reached through `params` had `acquire(stream)` before this call and has `release(stream)` after it.
pub unsafe fn launch<P: Copy>(
    function: &Function,
    config: LaunchConfig,
    stream: &Stream,
    params: &P,
) -> Result<(), DriverError> {
    if size_of::<P>() > MAX_PARAMETER_BYTES {
        let (limit, got) = (MAX_PARAMETER_BYTES as u64, size_of::<P>() as u64);
        let (entry, what) = (function.name().to_owned(), "parameters in bytes");
        return Err(DriverError::LaunchConfig { entry, what, limit, got });
    }
    stream.same_device("the kernel", function.device())?;
    config.check(function)?;
    function.allow_dynamic_shared(config.dynamic_shared_bytes)?;
    stream.device().bind()?;
    stream.keep_for_graph(|| function.kept());

    let LaunchConfig {
        grid: [gx, gy, gz], block: [bx, by, bz], dynamic_shared_bytes: shared, ..
    } = config;
    let (raw, queue) = (function.raw(), stream.raw());
    // The driver copies the parameters during the call and writes nothing through the pointers.
    let mut arguments = [ptr::from_ref(params).cast_mut().cast::<c_void>()];
    let arguments = arguments.as_mut_ptr();
    let launched = if config.cluster.is_some() || config.overlapping {
        let (name, entry) = raw::newer()?.launch_kernel_ex.get()?;
        config.with_attributes(Some(stream), |config| {
            // SAFETY: function and stream are live; the configuration and its attributes outlive the call; `params` is
            // the kernel's parameter, as the caller says.
            check(name, unsafe { entry(config, raw, arguments, ptr::null_mut()) })
        })
    } else if config.cooperative {
        // SAFETY: function and stream are live; `params` is the kernel's parameter, as the caller says.
        unsafe {
            driver_call!(cuLaunchCooperativeKernel(
                raw, gx, gy, gz, bx, by, bz, shared, queue, arguments
            ))
        }
    } else {
        let extra = ptr::null_mut();
        // SAFETY: function and stream are live; `params` is the kernel's parameter, as the caller says.
        unsafe {
            driver_call!(cuLaunchKernel(
                raw, gx, gy, gz, bx, by, bz, shared, queue, arguments, extra
            ))
        }
    };
    match launched {
        Err(error) if error.code() == Some(code::COOPERATIVE_LAUNCH_TOO_LARGE) => {
            let resident =
                function.max_active_blocks_per_sm(config)? * function.device().info().sm_count;
            let (entry, what) = (function.name().to_owned(), "blocks of a cooperative grid");
            Err(DriverError::LaunchConfig {
                entry,
                what,
                limit: resident.into(),
                got: product(config.grid),
            })
        }
        launched => launched,
    }
}

fn product(dimensions: [u32; 3]) -> u64 {
    // Saturating: three dimensions of 32 bits can pass 64, and every limit is far below.
    dimensions
        .into_iter()
        .fold(1, |product: u64, dimension| product.saturating_mul(dimension.into()))
}
