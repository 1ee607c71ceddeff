//! Occupancy: how much of a kernel an SM, or the whole GPU, holds at once.

use std::ffi::c_int;

use super::error::{DriverError, check};
use super::launch::LaunchConfig;
use super::module::Function;
use super::raw::{self, driver_call};

/// The block size that fills an SM best, as the driver computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuggestedBlock {
    /// Threads of a block.
    pub threads: u32,
    /// Blocks that fill the GPU at this size.
    pub min_blocks: u32,
}

impl Function {
    /// Blocks of this kernel that one SM holds at once, at the block size and dynamic shared memory of `config`.
    ///
    /// # Errors
    /// A configuration that [`LaunchConfig::check`] refuses, or a failed call.
    pub fn max_active_blocks_per_sm(&self, config: LaunchConfig) -> Result<u32, DriverError> {
        self.prepare(config)?;
        let threads: u32 = config.block.iter().product();
        let shared = config.dynamic_shared_bytes as usize;
        let mut blocks: c_int = 0;
        // SAFETY: the function is loaded and the result is writable.
        unsafe {
            driver_call!(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                &mut blocks,
                self.raw(),
                threads as c_int,
                shared,
                0
            ))
        }?;
        Ok(blocks.unsigned_abs())
    }

    /// The block size of the highest occupancy at a fixed dynamic shared memory, in bytes.
    ///
    /// # Errors
    /// More shared memory than the device has, or a failed call.
    pub fn suggested_block(
        &self,
        dynamic_shared_bytes: u32,
    ) -> Result<SuggestedBlock, DriverError> {
        self.allow_dynamic_shared(dynamic_shared_bytes)?;
        self.device().bind()?;
        let (mut blocks, mut threads): (c_int, c_int) = (0, 0);
        let shared = dynamic_shared_bytes as usize;
        // SAFETY: the function is loaded, both results are writable, and no callback is given.
        unsafe {
            driver_call!(cuOccupancyMaxPotentialBlockSize(
                &mut blocks,
                &mut threads,
                self.raw(),
                None,
                shared,
                0
            ))
        }?;
        Ok(SuggestedBlock { threads: threads.unsigned_abs(), min_blocks: blocks.unsigned_abs() })
    }

    /// Clusters of this kernel that the GPU holds at once. A `config` without a cluster counts single blocks.
    ///
    /// # Errors
    /// A configuration that [`LaunchConfig::check`] refuses, a driver before CUDA 11.8, or a failed call.
    pub fn max_active_clusters(&self, config: LaunchConfig) -> Result<u32, DriverError> {
        self.prepare(config)?;
        let (name, entry) = raw::newer()?.max_active_clusters.get()?;
        let mut clusters: c_int = 0;
        config.with_attributes(None, |config| {
            // SAFETY: the function is loaded, the result is writable, and the configuration outlives the call.
            check(name, unsafe { entry(&mut clusters, self.raw(), config) })
        })?;
        Ok(clusters.unsigned_abs())
    }

    fn prepare(&self, config: LaunchConfig) -> Result<(), DriverError> {
        config.check(self)?;
        self.allow_dynamic_shared(config.dynamic_shared_bytes)?;
        self.device().bind()
    }
}
