//! The CUDA driver, made safe: devices, streams, memory, modules, launches and graphs.
//!
//! This is the only place that names `cust`. The driver library is loaded at run time by `kasmina-libcuda`: without
//! one, [`CudaDevice::new`] answers [`DriverError::NoDriver`]. Every call works from any thread, as each makes the
//! device's primary context current first. Nothing here uses the legacy default stream.
//!
//! `cust` gives the device and its context. Streams, events, modules and memory are made of `cust_raw`'s calls:
//! `cust`'s own drop the non-blocking flag, hide the raw handle or the compiler's log, and put the driver's code into
//! an enum that newer drivers leave.

mod device;
mod error;
mod event;
mod graph;
mod launch;
pub(crate) mod launchers;
mod mapped;
mod memory;
mod module;
mod nvml;
mod nvtx;
mod occupancy;
mod pinned;
mod pool;
mod quiet;
mod raw;
pub(crate) mod recording;
pub(crate) mod residents;
mod stream;
mod tensor_map;
mod tensor_map_cache;
mod transfers;
mod version;

pub use device::{
    ComputeCapability, CudaDevice, DeviceInfo, MemoryInfo, OLDEST_SUPPORTED, driver_version,
};
pub use error::DriverError;
pub use event::Event;
pub use graph::{Graph, GraphExec};
pub use launch::{LaunchConfig, MAX_CLUSTER_BLOCKS, MAX_PARAMETER_BYTES, launch};
pub use mapped::MappedBuffer;
pub use memory::{CudaBuffer, PendingCopy};
pub use module::{Function, FunctionAttributes, Module};
pub use nvml::{GpuMeter, GpuReading};
pub use nvtx::{NVTX_VARIABLE, Nvtx, NvtxMissing};
pub use occupancy::SuggestedBlock;
pub use pinned::PinnedBuffer;
pub use pool::{MemoryPool, PoolStatistics};
pub use stream::Stream;
pub use tensor_map::{
    Interleave, L2Promotion, MAX_BOX, MAX_RANK, OutOfBoundsFill, Swizzle, TensorDataType,
    TensorMap, TensorMapError, TensorMapSpec,
};
pub use tensor_map_cache::{TensorMapCache, TensorMapStatistics};
pub use transfers::TransferStatistics;
pub use version::{DriverVersion, PtxVersion};
