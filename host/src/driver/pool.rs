//! A caching allocator: freed blocks are kept by size class and used again without a call of the driver.
//!
//! A block that was freed on a stream is used again at once on the same stream, whose order makes that sound, and on
//! another stream only after an event shows that the work before the free is done.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use super::device::CudaDevice;
use super::error::DriverError;
use super::event::Event;
use super::memory::{Allocation, CudaBuffer, driver_allocate, driver_free};
use super::pinned::byte_len;
use super::stream::Stream;

/// The smallest class; the driver aligns to as much.
const SMALLEST_CLASS_BYTES: usize = 512;
/// From here on classes are a fixed step apart, so that a large buffer wastes little.
const LARGE_BYTES: usize = 64 << 20;
/// The step of large classes: the driver's own page.
const LARGE_STEP_BYTES: usize = 2 << 20;

/// A pool of device memory. Clones are the same pool; it lives until its last buffer is gone.
#[derive(Clone)]
pub struct MemoryPool {
    memory: Arc<PoolMemory>,
}

/// What a pool has done. Bytes count whole classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStatistics {
    /// Bytes of live buffers.
    pub in_use_bytes: usize,
    /// The most there were of them.
    pub peak_in_use_bytes: usize,
    /// Bytes taken from the driver: live and cached.
    pub reserved_bytes: usize,
    /// The most there were of them.
    pub peak_reserved_bytes: usize,
    /// Buffers asked for.
    pub allocations: u64,
    /// Of these, answered from the cache.
    pub reuses: u64,
    /// Of these, answered by the driver.
    pub driver_allocations: u64,
    /// Times the cache was given back to the driver.
    pub trims: u64,
}

impl MemoryPool {
    /// An empty pool on `device`.
    pub fn new(device: &CudaDevice) -> Self {
        let core = Mutex::new(Core::new(DriverMemory { device: device.clone() }));
        Self { memory: Arc::new(PoolMemory { core, device: device.clone() }) }
    }

    /// `len` elements of unspecified bytes, at home on `stream`.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`] after the cache was given back in vain, a stream of another GPU, or a failed call.
    pub fn uninit<T: Pod>(
        &self,
        stream: &Stream,
        len: usize,
    ) -> Result<CudaBuffer<T>, DriverError> {
        stream.same_device("the pool", &self.memory.device)?;
        let bytes = byte_len::<T>(len)?;
        let address = if bytes == 0 { 0 } else { self.memory.lock().take(bytes, stream.id())? };
        let pool = Some(Arc::clone(&self.memory));
        Ok(CudaBuffer::from_allocation(
            Allocation { address, bytes, home: stream.clone(), pool, host: None },
            len,
        ))
    }

    /// `len` elements of zero bytes, filled on `stream`.
    ///
    /// # Errors
    /// As [`Self::uninit`].
    pub fn zeroed<T: Pod>(
        &self,
        stream: &Stream,
        len: usize,
    ) -> Result<CudaBuffer<T>, DriverError> {
        let mut buffer = self.uninit(stream, len)?;
        buffer.fill_bytes(0, stream)?;
        Ok(buffer)
    }

    /// A copy of `values`, complete on return.
    ///
    /// # Errors
    /// As [`Self::uninit`], and a capture on `stream`.
    pub fn from_slice<T: Pod>(
        &self,
        stream: &Stream,
        values: &[T],
    ) -> Result<CudaBuffer<T>, DriverError> {
        let mut buffer = self.uninit(stream, values.len())?;
        buffer.copy_from_slice(values, stream)?;
        Ok(buffer)
    }

    /// What the pool has done so far.
    pub fn statistics(&self) -> PoolStatistics {
        self.memory.lock().statistics
    }

    /// Gives every cached block back to the driver, waiting for the work that still uses it; answers the bytes.
    pub fn trim(&self) -> usize {
        self.memory.lock().trim()
    }
}

impl fmt::Debug for MemoryPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryPool")
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

/// A pool as its buffers hold it.
pub(super) struct PoolMemory {
    core: Mutex<Core<DriverMemory>>,
    device: CudaDevice,
}

impl PoolMemory {
    /// Takes back a block whose every use is ordered before this point of `home`.
    pub(super) fn give_back(&self, address: u64, bytes: usize, home: &Stream) {
        // Without an event, because `home` is captured or lost, the block stays with its stream.
        let fence = match home.is_capturing() {
            true => None,
            false => Event::without_timing(&self.device)
                .and_then(|event| event.record(home).map(|()| event))
                .ok(),
        };
        self.lock().give(address, bytes, home.id(), fence);
    }

    fn lock(&self) -> MutexGuard<'_, Core<DriverMemory>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a pool's blocks come from.
trait Backend {
    /// A point in a stream's work.
    type Fence;
    fn allocate(&self, bytes: usize) -> Result<u64, DriverError>;
    /// Frees a block after `fence`, or after all work where there is none.
    fn free(&self, address: u64, fence: Option<Self::Fence>);
    fn has_passed(&self, fence: &Self::Fence) -> bool;
}

struct DriverMemory {
    device: CudaDevice,
}

impl Backend for DriverMemory {
    type Fence = Event;

    fn allocate(&self, bytes: usize) -> Result<u64, DriverError> {
        driver_allocate(&self.device, bytes)
    }

    fn free(&self, address: u64, fence: Option<Event>) {
        match fence {
            // A failed wait means a lost context, in which nothing runs any more.
            Some(fence) => {
                let _ = fence.synchronize();
                driver_free(&self.device, address);
            }
            None => self.device.after_all_work(move |device| driver_free(device, address)),
        }
    }

    fn has_passed(&self, fence: &Event) -> bool {
        fence.is_complete().unwrap_or(false)
    }
}

/// The bookkeeping, apart from the GPU.
struct Core<B: Backend> {
    backend: B,
    cached: BTreeMap<usize, Vec<Block<B::Fence>>>,
    statistics: PoolStatistics,
}

struct Block<F> {
    address: u64,
    stream: u64,
    fence: Option<F>,
}

impl<B: Backend> Core<B> {
    fn new(backend: B) -> Self {
        Self { backend, cached: BTreeMap::new(), statistics: PoolStatistics::default() }
    }

    fn take(&mut self, bytes: usize, stream: u64) -> Result<u64, DriverError> {
        let class = class_bytes(bytes);
        let address = match self.take_cached(class, stream) {
            Some(address) => {
                self.statistics.reuses += 1;
                address
            }
            None => {
                let address = self.take_from_driver(class)?;
                self.statistics.driver_allocations += 1;
                self.statistics.reserved_bytes += class;
                address
            }
        };
        let statistics = &mut self.statistics;
        statistics.allocations += 1;
        statistics.in_use_bytes += class;
        statistics.peak_in_use_bytes = statistics.peak_in_use_bytes.max(statistics.in_use_bytes);
        statistics.peak_reserved_bytes =
            statistics.peak_reserved_bytes.max(statistics.reserved_bytes);
        Ok(address)
    }

    fn give(&mut self, address: u64, bytes: usize, stream: u64, fence: Option<B::Fence>) {
        let class = class_bytes(bytes);
        self.statistics.in_use_bytes -= class;
        self.cached.entry(class).or_default().push(Block { address, stream, fence });
    }

    fn trim(&mut self) -> usize {
        let mut freed_bytes = 0;
        for (class, blocks) in std::mem::take(&mut self.cached) {
            for Block { address, fence, .. } in blocks {
                self.backend.free(address, fence);
                freed_bytes += class;
            }
        }
        self.statistics.reserved_bytes -= freed_bytes;
        self.statistics.trims += 1;
        freed_bytes
    }

    /// The block of the same stream that was freed last, whose lines may still be in the cache; otherwise one of
    /// another stream that is done with it.
    fn take_cached(&mut self, class: usize, stream: u64) -> Option<u64> {
        let Self { backend, cached, .. } = self;
        let blocks = cached.get_mut(&class)?;
        let passed = |block: &Block<B::Fence>| {
            block.fence.as_ref().is_some_and(|fence| backend.has_passed(fence))
        };
        let position = blocks
            .iter()
            .rposition(|block| block.stream == stream)
            .or_else(|| blocks.iter().position(passed));
        position.map(|position| blocks.remove(position).address)
    }

    fn take_from_driver(&mut self, class: usize) -> Result<u64, DriverError> {
        match self.backend.allocate(class) {
            Err(DriverError::OutOfMemory { .. }) if self.trim() > 0 => self.backend.allocate(class),
            answer => answer,
        }
    }
}

impl<B: Backend> Drop for Core<B> {
    fn drop(&mut self) {
        self.trim();
    }
}

/// The bytes that a request of `bytes` takes: quarters of powers of two, then whole pages. At most a quarter is waste.
fn class_bytes(bytes: usize) -> usize {
    let step = match bytes {
        ..=SMALLEST_CLASS_BYTES => return SMALLEST_CLASS_BYTES,
        LARGE_BYTES.. => LARGE_STEP_BYTES,
        _ => (1 << bytes.ilog2()) / 4,
    };
    // A request near the end of the address space is the driver's to refuse.
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
