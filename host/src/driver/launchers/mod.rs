//! The kernels' launchers: each checks its kernel's whole contract, then launches it, on a GPU or
//! under the executor. They are here, with the driver, because a launch is unsafe.

pub(crate) mod activation_norm;
pub(crate) mod activation_norm_backward;
pub(crate) mod active_inference;
pub(crate) mod axpby;
pub(crate) mod blend_backward;
pub(crate) mod blend_forward;
mod boxes;
pub(crate) mod dense_blend;
pub(crate) mod fusion;
pub(crate) mod gemv;
pub(crate) mod gradient_clip;
pub(crate) mod graft_schedule;
pub(crate) mod linear;
pub(crate) mod linear_grouped;
pub(crate) mod linear_hopper;
pub(crate) mod linear_repack;
pub(crate) mod linear_sample;
pub(crate) mod manifold;
pub(crate) mod manifold_echo;
pub(crate) mod parameter_gradients;
pub(crate) mod reduce;
pub(crate) mod state_update;
pub(crate) mod telemetry_reduce;
pub(crate) mod transfer_entropy;

use kasmina_device::Kernel;
use kasmina_simt::Executor;

use super::launch::{LaunchConfig, launch};
use super::recording::{self, RecordedOn};
use crate::device::{Device, Gpu};
use crate::error::Error;

/// A device that runs kernels.
#[derive(Clone, Copy)]
pub(crate) enum KernelDevice<'a> {
    /// A GPU.
    Cuda(&'a Gpu),
    /// The executor.
    Simt(&'a Executor),
}

/// Blocks that the executor is taken to hold at once: few, so that small cases cut work as large ones
/// do on a GPU, and the same on every machine.
const SIMT_RESIDENT_BLOCKS: u32 = 12;

impl<'a> KernelDevice<'a> {
    /// The device, if it runs kernels: the CPU does not.
    pub(crate) fn of(device: &'a Device) -> Option<Self> {
        match device {
            Device::Cuda(gpu) => Some(Self::Cuda(gpu)),
            Device::Simt(executor) => Some(Self::Simt(executor)),
            Device::Cpu => None,
        }
    }

    /// Whose memory its launches name.
    pub(crate) fn recorded_on(self) -> RecordedOn {
        match self {
            Self::Cuda(gpu) => RecordedOn::Cuda(gpu.device().clone()),
            Self::Simt(_) => RecordedOn::Host,
        }
    }

    /// Blocks of the kernel that run at once: the size of a persistent grid.
    pub(crate) fn resident_blocks<P: Copy + Send + Sync>(
        self,
        kernel: &Kernel<P>,
    ) -> Result<u32, Error> {
        match self {
            Self::Cuda(gpu) => Ok(gpu.kernel(kernel.name())?.resident_blocks),
            Self::Simt(_) => Ok(SIMT_RESIDENT_BLOCKS),
        }
    }

    /// As [`Self::resident_blocks`], with dynamic shared memory. Not less than 1: what does not fit at all is the
    /// launch's error.
    pub(crate) fn resident_blocks_with_shared<P: Copy + Send + Sync>(
        self,
        kernel: &Kernel<P>,
        dynamic_shared_bytes: u32,
    ) -> Result<u32, Error> {
        match self {
            Self::Cuda(gpu) => {
                let threads = kernel.bounds().block_threads;
                Ok(gpu.occupancy(kernel.name(), threads, dynamic_shared_bytes, 1)?.max(1))
            }
            Self::Simt(_) => Ok(SIMT_RESIDENT_BLOCKS),
        }
    }

    /// As [`Self::resident_blocks_with_shared`], but 0 where the device lacks the kernel, or the room for a block of it.
    pub(crate) fn blocks_with_room<P: Copy + Send + Sync>(
        self,
        kernel: &Kernel<P>,
        dynamic_shared_bytes: u32,
    ) -> Result<u32, Error> {
        self.clustered_blocks_with_room(kernel, dynamic_shared_bytes, 1)
    }

    /// As [`Self::blocks_with_room`], in clusters of `cluster` blocks.
    pub(crate) fn clustered_blocks_with_room<P: Copy + Send + Sync>(
        self,
        kernel: &Kernel<P>,
        dynamic_shared_bytes: u32,
        cluster: u32,
    ) -> Result<u32, Error> {
        if !self.supports(kernel) {
            return Ok(0);
        }
        match self {
            Self::Cuda(gpu) => {
                let function = gpu.kernel(kernel.name())?.function;
                if dynamic_shared_bytes > function.max_dynamic_shared_bytes() {
                    return Ok(0);
                }
                let threads = kernel.bounds().block_threads;
                gpu.occupancy(kernel.name(), threads, dynamic_shared_bytes, cluster)
            }
            Self::Simt(_) => Ok(SIMT_RESIDENT_BLOCKS / cluster * cluster),
        }
    }

    /// Whether blocks of a grid may wait for each other.
    pub(crate) fn launches_cooperatively(self) -> bool {
        match self {
            Self::Cuda(gpu) => gpu.device().info().cooperative_launch,
            Self::Simt(_) => true,
        }
    }

    /// Whether the device has the kernel: every one but those that a GPU is too old for.
    pub(crate) fn supports<P: Copy + Send + Sync>(self, kernel: &Kernel<P>) -> bool {
        match self {
            Self::Cuda(gpu) => gpu.has(kernel.name()),
            Self::Simt(_) => true,
        }
    }

    /// Launches `grid` blocks.
    ///
    /// # Safety
    /// The kernel's contract holds for `params` on this device, until the kernel ends; on a GPU each
    /// buffer behind `params` is acquired for the device's stream.
    unsafe fn launch<P: Copy + Send + Sync>(
        self,
        kernel: &'static Kernel<P>,
        grid: u32,
        params: P,
    ) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { self.launch_with_shared(kernel, grid, 0, params) }
    }

    /// As [`Self::launch`], with dynamic shared memory.
    ///
    /// # Safety
    /// As [`Self::launch`].
    unsafe fn launch_with_shared<P: Copy + Send + Sync>(
        self,
        kernel: &'static Kernel<P>,
        grid: u32,
        dynamic_shared_bytes: u32,
        params: P,
    ) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { self.launch_grid(kernel, grid, dynamic_shared_bytes, false, params) }
    }

    /// As [`Self::launch_with_shared`]; a cooperative grid is resident as a whole, or refused. The executor holds the
    /// blocks that wait for others.
    ///
    /// # Safety
    /// As [`Self::launch`].
    unsafe fn launch_grid<P: Copy + Send + Sync>(
        self,
        kernel: &'static Kernel<P>,
        grid: u32,
        dynamic_shared_bytes: u32,
        cooperative: bool,
        params: P,
    ) -> Result<(), Error> {
        let cluster = kernel.bounds().cluster;
        // SAFETY: the caller's contract.
        unsafe {
            self.launch_clusters(kernel, grid, cluster, dynamic_shared_bytes, cooperative, params)
        }
    }

    /// As [`Self::launch_grid`], with clusters of the launch's choice.
    ///
    /// # Safety
    /// As [`Self::launch`].
    unsafe fn launch_clusters<P: Copy + Send + Sync>(
        self,
        kernel: &'static Kernel<P>,
        grid: u32,
        cluster: Option<[u32; 3]>,
        dynamic_shared_bytes: u32,
        cooperative: bool,
        params: P,
    ) -> Result<(), Error> {
        let name = kernel.name();
        let recorded =
            recording::take_launch(|| self.recorded_on(), name, grid, cooperative, &params);
        if let Some(recorded) = recorded {
            return recorded;
        }
        match self {
            Self::Cuda(gpu) => {
                let function = gpu.kernel(kernel.name())?.function;
                let bounds = kernel.bounds();
                let linear = LaunchConfig::linear(grid, bounds.block_threads);
                // A grid that overlaps its predecessor may not be cooperative as well.
                let overlapping = gpu.overlaps_launches() && !cooperative;
                let config = LaunchConfig {
                    cluster,
                    overlapping,
                    cooperative,
                    dynamic_shared_bytes,
                    ..linear
                };
                // SAFETY: the entry is the handle's own, so `P` is its parameter; the rest is the
                // caller's contract.
                Ok(unsafe { launch(&function, config, gpu.stream(), &params) }?)
            }
            Self::Simt(executor) => {
                // SAFETY: the caller's contract.
                unsafe {
                    kernel.run_clusters(executor, grid, cluster, dynamic_shared_bytes, params)
                }?;
                Ok(())
            }
        }
    }
}

/// Acquires buffers for the device's stream, runs `$launch`, and releases them, on a GPU.
macro_rules! with_buffers {
    ($device:expr, [$($buffer:expr),* $(,)?], $launch:expr) => {{
        $(let _access = $buffer.access();)*
        if let $crate::driver::launchers::KernelDevice::Cuda(gpu) = $device {
            $($buffer.acquire(gpu.stream())?;)*
        }
        let launched = $launch;
        if let $crate::driver::launchers::KernelDevice::Cuda(gpu) = $device {
            $($buffer.release(gpu.stream())?;)*
        }
        launched
    }};
}
use with_buffers;
