//! What the plans of the forward and the backward pass share: the kernel, how the work is cut, and the grid.

use kasmina_kernels::instances::{PassInstance, TmaPassInstance};
use kasmina_types::blend_forward::BlendGeometry;
use kasmina_types::dtype::DType;

use super::geometry::{self, Batches, Reads};
use super::options::{BlendOptions, KernelInfo, Variant};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::{TensorMapCache, TensorMapStatistics};
use crate::error::Error;

/// Arrays of one kind whose tensor maps a plan keeps: more than anybody rotates.
const MAPS: usize = 64;

/// The kernel of a pass, with the parameters `P` or `Q`.
pub(crate) enum PassKernel<P: 'static, Q: 'static> {
    /// Threads load their rows.
    Plain(PassInstance<P>),
    /// The copy engine fetches them.
    Tma { instance: TmaPassInstance<Q>, maps: Box<TensorMapCache> },
}

impl<P, Q> PassKernel<P, Q> {
    pub(crate) fn lanes(&self) -> u32 {
        match self {
            Self::Plain(instance) => instance.lanes,
            Self::Tma { instance, .. } => instance.lanes,
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Plain(instance) => instance.dtype,
            Self::Tma { instance, .. } => instance.dtype,
        }
    }

    /// Readies the tensor maps for a launch on the device's stream.
    pub(crate) fn acquire_maps(&self, device: KernelDevice<'_>) -> Result<(), Error> {
        match (device, self) {
            (KernelDevice::Cuda(gpu), Self::Tma { maps, .. }) => Ok(maps.acquire(gpu.stream())?),
            _ => Ok(()),
        }
    }

    /// Says that what was launched since [`Self::acquire_maps`] is all that uses them.
    pub(crate) fn release_maps(&self, device: KernelDevice<'_>) -> Result<(), Error> {
        match (device, self) {
            (KernelDevice::Cuda(gpu), Self::Tma { maps, .. }) => Ok(maps.release(gpu.stream())?),
            _ => Ok(()),
        }
    }
}

/// The instance of a pass of which a block takes a seed.
pub(crate) struct BySeed<P: 'static> {
    pub(crate) instance: PassInstance<P>,
    /// The batches that it is faster for than the others.
    pub(crate) batches: Batches,
}

impl<P: Copy + Send + Sync> BySeed<P> {
    /// How it cuts `[batch, num_seeds, chunk_size]`, where it takes that: where it is faster, or its block is asked for.
    pub(crate) fn geometry(
        &self,
        kernels: KernelDevice<'_>,
        [batch, num_seeds, chunk_size]: [usize; 3],
        options: &BlendOptions,
    ) -> Result<Option<BlendGeometry>, Error> {
        let Self { instance, batches } = self;
        let (lanes, rows) = (instance.lanes, instance.rows);
        if !chunk_size.is_multiple_of(lanes as usize)
            || !options.fits(instance.kernel.bounds().block_threads)
        {
            return Ok(None);
        }
        let batches = if options.block_threads.is_some() { Batches::Any } else { *batches };
        let shape = [batch as u32, num_seeds as u32, chunk_size as u32 / lanes];
        let resident = kernels.resident_blocks(instance.kernel)?;
        Ok(geometry::cut_by_seed(shape, (lanes, rows), resident, batches))
    }
}

/// How a pass runs.
pub(crate) struct Pass<P: 'static, Q: 'static> {
    pub(crate) kernel: PassKernel<P, Q>,
    pub(crate) geometry: BlendGeometry,
    pub(crate) grid: u32,
}

impl<P: Copy + Send + Sync, Q: Copy + Send + Sync> Pass<P, Q> {
    /// Plans `[batch, num_seeds · chunk_size]` for the instance `tma` if there is one, else for one of `plain`, those
    /// of the widest access first, or for `by_seed` where it takes the shape.
    pub(crate) fn new(
        device: &Device,
        kernels: KernelDevice<'_>,
        shape: [usize; 3],
        plain: impl Iterator<Item = PassInstance<P>>,
        by_seed: BySeed<P>,
        tma: Option<(TmaPassInstance<Q>, Reads)>,
        options: &BlendOptions,
    ) -> Result<Self, Error> {
        let [batch, num_seeds, chunk_size] = shape;
        let (rows, seeds) = (batch as u32, num_seeds as u32);
        let vectors = |lanes: u32| (chunk_size / lanes as usize) as u32;
        let (kernel, geometry, resident) = match tma {
            Some((instance, reads)) => {
                let cut = |resident| {
                    let vector_bytes = instance.lanes * instance.dtype.size_bytes() as u32;
                    geometry::cut_into_boxes(
                        rows,
                        seeds,
                        vectors(instance.lanes),
                        instance.rows,
                        resident,
                        vector_bytes,
                        reads,
                    )
                };
                // A stage is as large however many blocks there are.
                let shared = tma_shared_bytes(&instance, &cut(1));
                let resident = kernels.resident_blocks_with_shared(instance.kernel, shared)?;
                let maps = TensorMapCache::new(device, instance.arrays as usize * MAPS)?;
                let maps = Box::new(maps);
                (PassKernel::Tma { instance, maps }, cut(resident), resident)
            }
            None => {
                if let Some(geometry) = by_seed.geometry(kernels, shape, options)? {
                    // A block a seed.
                    let kernel = PassKernel::Plain(by_seed.instance);
                    return Ok(Self { kernel, geometry, grid: seeds });
                }
                // The first that fits: the widest access.
                let instance = plain
                    .filter(|instance| options.fits(instance.kernel.bounds().block_threads))
                    .find(|instance| chunk_size.is_multiple_of(instance.lanes as usize))
                    .ok_or_else(|| options.block_size_error())?;
                let resident = kernels.resident_blocks(instance.kernel)?;
                let vectors = vectors(instance.lanes);
                let geometry = geometry::cut(rows, seeds, vectors, instance.rows, resident);
                (PassKernel::Plain(instance), geometry, resident)
            }
        };
        let tiles = u64::from(geometry.strips) * u64::from(geometry.slabs);
        let grid = options.grid(tiles, resident);
        Ok(Self { kernel, geometry, grid })
    }

    pub(crate) fn variant(&self) -> Variant {
        match &self.kernel {
            PassKernel::Plain(_) => Variant::Plain,
            PassKernel::Tma { instance, .. } if instance.bulk_stores => Variant::TmaBulkStores,
            PassKernel::Tma { .. } => Variant::Tma,
        }
    }

    pub(crate) fn tensor_maps(&self) -> Option<TensorMapStatistics> {
        match &self.kernel {
            PassKernel::Plain(_) => None,
            PassKernel::Tma { maps, .. } => Some(maps.statistics()),
        }
    }

    pub(crate) fn info(&self) -> KernelInfo {
        let (entry, bounds) = match &self.kernel {
            PassKernel::Plain(i) => (i.kernel.name(), i.kernel.bounds()),
            PassKernel::Tma { instance: i, .. } => (i.kernel.name(), i.kernel.bounds()),
        };
        let (block_threads, lanes) = (bounds.block_threads, self.kernel.lanes());
        KernelInfo { entry, block_threads, lanes, grid: self.grid }
    }
}

/// Dynamic shared memory of a block of the instance.
pub(crate) fn tma_shared_bytes<Q>(instance: &TmaPassInstance<Q>, g: &BlendGeometry) -> u32 {
    let vector_bytes = instance.lanes * instance.dtype.size_bytes() as u32;
    instance.arrays * instance.stages * g.stage_bytes(instance.rows, vector_bytes)
}
