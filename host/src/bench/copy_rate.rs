//! The ceiling: how fast the device copies its own memory.

use std::sync::Arc;

use super::data;
use super::timer::{Cache, Lane, Mode, Subject};
use crate::device::Gpu;
use crate::driver::CudaBuffer;
use crate::error::Error;

/// Bytes of the source, less where the GPU has less than sixteen times as much.
const SOURCE_BYTES: usize = 1 << 30;

/// A copy from one large buffer of a GPU to another, to be timed in turn with what it is the ceiling of.
pub struct DeviceCopy {
    gpu: Arc<Gpu>,
    source: CudaBuffer<f32>,
    target: CudaBuffer<f32>,
}

impl DeviceCopy {
    /// Buffers of random numbers, far larger than the L2.
    ///
    /// # Errors
    /// Memory exhausted, or a failed call.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self, Error> {
        let elements = Self::elements(gpu.device().info().total_memory_bytes);
        let source: Vec<f32> = data::draw(0, elements);
        Ok(Self {
            source: gpu.pool().from_slice(gpu.stream(), &source)?,
            target: gpu.pool().zeroed(gpu.stream(), source.len())?,
            gpu: Arc::clone(gpu),
        })
    }

    /// Elements (f32) of the source on a GPU with so much memory.
    pub(super) fn elements(memory_bytes: usize) -> usize {
        SOURCE_BYTES.min(memory_bytes / 16) / size_of::<f32>()
    }

    /// Bytes that one copy reads and writes, together.
    pub fn bytes(&self) -> u64 {
        2 * self.source.byte_len() as u64
    }

    /// The copy as something to time, by events.
    pub fn subject(&mut self) -> Subject<'_> {
        let Self { gpu, source, target } = self;
        Subject {
            call: Box::new(|_| Ok(target.copy_from_device(source, gpu.stream())?)),
            sets: 1,
            lanes: vec![Lane { mode: Mode::Event, cache: Cache::Cold }],
        }
    }

    /// Whether the target has become the source.
    ///
    /// # Errors
    /// A failed call.
    pub fn is_right(&mut self) -> Result<bool, Error> {
        self.target.fill_bytes(0xFF, self.gpu.stream())?;
        self.target.copy_from_device(&self.source, self.gpu.stream())?;
        Ok(self.target.to_vec(self.gpu.stream())? == self.source.to_vec(self.gpu.stream())?)
    }
}
