//! Where operations run.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kasmina_simt::Executor;
use kasmina_types::tiles::{TILES, Tile};

use crate::artifacts::{self, Artifact, ArtifactRecord};
use crate::driver::{
    ComputeCapability, CudaDevice, DriverError, Function, LaunchConfig, MemoryPool, Module, Stream,
    recording,
};
use crate::error::Error;

/// A device: a GPU, the CPU, or the executor, which runs the GPU's kernels on the CPU and checks them.
/// Clones are the same device.
#[derive(Clone)]
#[non_exhaustive]
pub enum Device {
    /// A GPU.
    Cuda(Arc<Gpu>),
    /// The CPU, through the reference mathematics in f32 (f64 for f64), in parallel.
    Cpu,
    /// The executor.
    Simt(Executor),
}

/// A GPU with the artifact of this library's kernels that suits it, the stream that operations are
/// queued on, and the pool that buffers come from. A kernel is loaded when it is first asked for.
pub struct Gpu {
    device: CudaDevice,
    stream: Stream,
    pool: MemoryPool,
    artifact: &'static Artifact,
    kernels: Mutex<HashMap<String, LoadedKernel>>,
    occupancies: Mutex<HashMap<OccupancyKey, u32>>,
}

/// What an occupancy depends on: the entry, dynamic shared memory in bytes, and blocks of a cluster.
type OccupancyKey = (&'static str, u32, u32);

/// A kernel in the driver's hands.
#[derive(Clone)]
pub(crate) struct LoadedKernel {
    pub(crate) function: Function,
    /// Blocks of its own size that the whole GPU holds at once.
    pub(crate) resident_blocks: u32,
}

impl Device {
    /// GPU 0 where there is one that can be used, else the CPU.
    pub fn auto() -> Self {
        Self::cuda(0).unwrap_or_else(|why| {
            tracing::debug!(%why, "no GPU; using the CPU");
            Self::Cpu
        })
    }

    /// A GPU by its number in the driver's list.
    ///
    /// # Errors
    /// No driver, no such GPU, a GPU too old, or a module that does not load; each says what to do.
    pub fn cuda(ordinal: u32) -> Result<Self, Error> {
        Ok(Self::Cuda(Arc::new(Gpu::new(ordinal)?)))
    }

    /// The executor with its defaults.
    pub fn simt() -> Self {
        Self::Simt(Executor::new())
    }

    /// The name as it stands in reports and on the command line: `cuda`, `cpu` or `simt`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cuda(_) => "cuda",
            Self::Cpu => "cpu",
            Self::Simt(_) => "simt",
        }
    }

    /// Waits until everything queued on the device is done.
    ///
    /// # Errors
    /// What the queued work ran into.
    pub fn synchronize(&self) -> Result<(), Error> {
        match self {
            Self::Cuda(gpu) => Ok(gpu.stream.synchronize()?),
            Self::Cpu | Self::Simt(_) => Ok(()),
        }
    }

    /// Refuses to go on inside the capture of a graph.
    pub(crate) fn refuse_capture(&self, op: &'static str) -> Result<(), Error> {
        if self.is_capturing() { Err(Error::Capturing { op }) } else { Ok(()) }
    }

    /// Whether what is queued goes into a graph, or into a program of a resident kernel.
    pub(crate) fn is_capturing(&self) -> bool {
        recording::is_on() || matches!(self, Self::Cuda(gpu) if gpu.stream.is_capturing())
    }

    /// Whether buffers of one are buffers of the other.
    pub(crate) fn shares_memory_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cuda(a), Self::Cuda(b)) => a.device == b.device,
            (Self::Cuda(_), _) | (_, Self::Cuda(_)) => false,
            _ => true,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(gpu) => {
                write!(f, "{}, {}", gpu.device.info().name, gpu.artifact())
            }
            Self::Cpu => f.write_str("the CPU"),
            Self::Simt(_) => f.write_str("the executor on the CPU"),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Gpu {
    fn new(ordinal: u32) -> Result<Self, Error> {
        let device = CudaDevice::new(ordinal)?;
        let capability = device.info().compute_capability;
        let newest = device.driver_version().max_ptx_version();
        let mut refused = None;
        for artifact in artifacts::candidates(capability, newest) {
            let (stream, pool) = (Stream::new(&device)?, MemoryPool::new(&device));
            let device = device.clone();
            let gpu = Self {
                device,
                stream,
                pool,
                artifact,
                kernels: Mutex::default(),
                occupancies: Mutex::default(),
            };
            // One kernel says whether the driver takes the artifact's version and target.
            let Some(first) = artifact.record.entries.last() else { continue };
            match gpu.kernel(&first.name) {
                Ok(_) => return Ok(gpu),
                Err(Error::Driver(why @ DriverError::ModuleLoad { .. })) => {
                    tracing::warn!(file = artifact.record.file, %why, "refused; trying the next");
                    refused = Some(why);
                }
                Err(why) => return Err(why),
            }
        }
        if let Some(why) = refused {
            return Err(why.into());
        }
        let carried: Vec<_> = artifacts::all().iter().map(|a| a.record.to_string()).collect();
        Err(Error::NoArtifact {
            gpu: device.info().name.clone(),
            capability: capability.to_string(),
            ptx: newest.to_string(),
            carried: carried.join(", "),
        })
    }

    /// The GPU and its driver.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// The stream that operations are queued on; capture it to make a graph of them. While it is being
    /// captured, no other thread may use this device: open another one for that thread.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The pool that buffers come from.
    pub fn pool(&self) -> &MemoryPool {
        &self.pool
    }

    /// The artifact that kernels are loaded from.
    pub fn artifact(&self) -> &'static ArtifactRecord {
        &self.artifact.record
    }

    /// Whether a kernel may be placed while the one before it ends: those of the artifact then wait for
    /// their predecessor themselves.
    pub(crate) fn overlaps_launches(&self) -> bool {
        self.artifact.record.capability >= 90
    }

    /// Whether the GPU can run a kernel of the tile table: its artifact has the entry. One that needs a newer GPU has
    /// none in the artifacts of older ones.
    pub fn supports(&self, tile: &Tile) -> bool {
        self.has(tile.entry)
    }

    /// As [`Self::supports`], by the entry's name.
    pub(crate) fn has(&self, entry: &str) -> bool {
        self.artifact.record.entries.iter().any(|listed| listed.name == entry)
    }

    /// A kernel, loaded if it is not yet.
    ///
    /// # Errors
    /// [`Error::Capability`] for one that the GPU is too old for, an entry that the artifact lacks, or one that the
    /// driver refuses.
    pub fn function(&self, entry: &str) -> Result<Function, Error> {
        Ok(self.kernel(entry)?.function)
    }

    /// Blocks of `entry`, with `block_threads` each, that the GPU holds at once in clusters of `cluster`; 0 where an SM
    /// does not hold one. The driver is asked once.
    pub(crate) fn occupancy(
        &self,
        entry: &'static str,
        block_threads: u32,
        dynamic_shared_bytes: u32,
        cluster: u32,
    ) -> Result<u32, Error> {
        let key = (entry, dynamic_shared_bytes, cluster);
        let known = || self.occupancies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&blocks) = known().get(&key) {
            return Ok(blocks);
        }
        let function = self.kernel(entry)?.function;
        let linear = LaunchConfig::linear(cluster, block_threads);
        let blocks = if cluster > 1 {
            let config =
                LaunchConfig { dynamic_shared_bytes, cluster: Some([cluster, 1, 1]), ..linear };
            function.max_active_clusters(config)? * cluster
        } else {
            let config = LaunchConfig { dynamic_shared_bytes, ..linear };
            function.max_active_blocks_per_sm(config)? * self.device.info().sm_count
        };
        known().insert(key, blocks);
        Ok(blocks)
    }

    /// As [`Self::function`], with its occupancy.
    pub(crate) fn kernel(&self, entry: &str) -> Result<LoadedKernel, Error> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(entry) {
            return Ok(kernel.clone());
        }
        let record = &self.artifact.record;
        let info = self.device.info();
        let own = info.compute_capability;
        let needs = TILES.iter().find(|tile| tile.entry == entry).map(|tile| tile.min_capability);
        if let Some(needs) = needs.filter(|&needs| needs > own.major * 10 + own.minor) {
            let needs = ComputeCapability { major: needs / 10, minor: needs % 10 };
            let (kernel, device) = (entry.to_owned(), info.name.clone());
            return Err(Error::Capability { kernel, needs, device, got: own });
        }
        let missing =
            || DriverError::MissingEntry { module: record.file.clone(), entry: entry.into() };
        let listed = record.entries.iter().find(|e| e.name == entry).ok_or_else(missing)?;
        let ptx = self.artifact.module_of(entry).ok_or_else(missing)?;
        let module = Module::load(&self.device, &format!("{}:{entry}", record.file), &ptx)?;
        let function = module.function(entry)?;
        let per_sm = function.max_active_blocks_per_sm(LaunchConfig::linear(1, listed.block))?;
        let resident_blocks = per_sm * self.device.info().sm_count;
        let kernel = LoadedKernel { function, resident_blocks };
        kernels.insert(entry.to_owned(), kernel.clone());
        Ok(kernel)
    }
}
