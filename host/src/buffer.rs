//! Memory on a device.

pub(crate) mod host;
mod resident;
mod statistics;
mod wide;

use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;
use kasmina_types::{In, Out};

use crate::device::{Device, Gpu};
use crate::driver::{CudaBuffer, Stream, recording};
use crate::error::Error;
use host::HostMemory;
use resident::Users;
pub(crate) use resident::{Access, ResidentUse};
pub use statistics::BufferStatistics;
#[cfg(test)]
pub(crate) use statistics::failures;
use statistics::{Counted, change, check_limit};

/// `len` elements in a device's memory: a GPU's, or the host's, aligned to 16 bytes.
///
/// On a GPU it comes from the device's pool and goes back to it when it is dropped.
pub struct Buffer<T: Pod> {
    storage: Storage<T>,
    users: Users,
    _counted: Counted,
}

enum Storage<T: Pod> {
    Host(HostMemory<T>),
    Cuda(Arc<Gpu>, CudaBuffer<T>),
}

impl<T: Pod> Buffer<T> {
    /// `len` elements of zero bytes.
    ///
    /// # Errors
    /// Memory exhausted: [`Error::OutOfMemory`] of the host's, or past
    /// [`BufferStatistics::limit_in_use`], and [`DriverError::OutOfMemory`](crate::driver::DriverError)
    /// of a GPU's; or a failed call.
    pub fn zeroed(device: &Device, len: usize) -> Result<Self, Error> {
        check_limit::<T>(len)?;
        if len > 0 {
            recording::refuse("a new buffer")?;
        }
        let storage = match device {
            Device::Cuda(gpu) => {
                Storage::Cuda(Arc::clone(gpu), gpu.pool().zeroed(gpu.stream(), len)?)
            }
            Device::Cpu | Device::Simt(_) => Storage::Host(HostMemory::zeroed(len)?),
        };
        Ok(Self::new(storage, len))
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// As [`Self::zeroed`].
    pub fn from_slice(device: &Device, values: &[T]) -> Result<Self, Error> {
        check_limit::<T>(values.len())?;
        recording::refuse("a new buffer")?;
        let storage = match device {
            Device::Cuda(gpu) => {
                Storage::Cuda(Arc::clone(gpu), gpu.pool().from_slice(gpu.stream(), values)?)
            }
            Device::Cpu | Device::Simt(_) => {
                let mut memory = HostMemory::zeroed(values.len())?;
                memory.as_mut_slice().copy_from_slice(values);
                Storage::Host(memory)
            }
        };
        change(|s| s.copies_in += 1);
        Ok(Self::new(storage, values.len()))
    }

    /// `len` elements of zero bytes that a GPU reaches over the bus, in page-locked memory of the host: for small results,
    /// which are then read without a copy of the driver's, and which are still there when the GPU's context is lost to a
    /// [failed kernel](crate::persistent). On other devices an ordinary buffer.
    ///
    /// # Errors
    /// As [`Self::zeroed`].
    pub fn mapped(device: &Device, len: usize) -> Result<Self, Error> {
        let Device::Cuda(gpu) = device else { return Self::zeroed(device, len) };
        check_limit::<T>(len)?;
        recording::refuse("a new buffer")?;
        let buffer = CudaBuffer::mapped(gpu.stream(), len)?;
        Ok(Self::new(Storage::Cuda(Arc::clone(gpu), buffer), len))
    }

    fn new(storage: Storage<T>, len: usize) -> Self {
        Self { storage, users: Users::default(), _counted: Counted::new::<T>(len) }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Host(memory) => memory.len,
            Storage::Cuda(_, buffer) => buffer.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `values` in; complete on return.
    ///
    /// # Errors
    /// Another length, or a failed call.
    pub fn copy_from_slice(&mut self, values: &[T]) -> Result<(), Error> {
        let _access = self.open()?;
        check_length("copy to a buffer", "values", self.len(), values.len())?;
        change(|s| s.copies_in += 1);
        match &mut self.storage {
            Storage::Host(memory) => memory.as_mut_slice().copy_from_slice(values),
            Storage::Cuda(gpu, buffer) => buffer.copy_from_slice(values, gpu.stream())?,
        }
        Ok(())
    }

    /// Copies `values` to the elements from `start` on, after what is queued before; complete on return.
    ///
    /// # Errors
    /// A range that is not inside, or a failed call.
    pub fn copy_range_from_slice(&mut self, start: usize, values: &[T]) -> Result<(), Error> {
        let _access = self.open()?;
        self.check_range(start, values.len())?;
        change(|s| s.copies_in += 1);
        match &mut self.storage {
            Storage::Host(memory) => {
                memory.as_mut_slice()[start..][..values.len()].copy_from_slice(values);
            }
            Storage::Cuda(gpu, buffer) => {
                buffer.copy_range_from_slice(start, values, gpu.stream())?;
            }
        }
        Ok(())
    }

    /// As [`Self::copy_range_from_slice`], of a range that nothing queued or captured touches yet: it waits for nothing,
    /// and is no part of a capture. On a GPU it is done on the stream `beside`.
    pub(crate) fn copy_unused_range_from_slice(
        &mut self,
        start: usize,
        values: &[T],
        beside: Option<&Stream>,
    ) -> Result<(), Error> {
        let _access = self.open()?;
        match (&mut self.storage, beside) {
            (Storage::Cuda(_, buffer), Some(stream)) => {
                change(|s| s.copies_in += 1);
                Ok(buffer.copy_unused_range_from_slice(start, values, stream)?)
            }
            _ => self.copy_range_from_slice(start, values),
        }
    }

    /// `len` elements from `start` on, once everything queued before is done.
    ///
    /// # Errors
    /// A range that is not inside, what the queued work ran into, the host's memory exhausted, or a failed
    /// call.
    pub fn range_to_vec(&self, start: usize, len: usize) -> Result<Vec<T>, Error> {
        let _access = self.open()?;
        self.check_range(start, len)?;
        self.count_copy_out()?;
        match &self.storage {
            Storage::Host(memory) => host::copy(&memory.as_slice()[start..][..len]),
            Storage::Cuda(gpu, buffer) => {
                let mut values = host::zeros(len)?;
                buffer.copy_range_to_slice(start, &mut values, gpu.stream())?;
                Ok(values)
            }
        }
    }

    /// The elements into `values`, once everything queued before is done: as [`Self::to_vec`], without asking for memory.
    ///
    /// # Errors
    /// Another length, what the queued work ran into, or a failed call.
    pub(crate) fn copy_to_slice(&self, values: &mut [T]) -> Result<(), Error> {
        let _access = self.open()?;
        check_length("copy from a buffer", "values", self.len(), values.len())?;
        self.count_copy_out()?;
        match &self.storage {
            Storage::Host(memory) => values.copy_from_slice(memory.as_slice()),
            Storage::Cuda(gpu, buffer) => buffer.copy_to_slice(values, gpu.stream())?,
        }
        Ok(())
    }

    /// Queues a copy of `source`, a buffer of the same length on the same device; nothing crosses to
    /// the host.
    ///
    /// # Errors
    /// Another length or device, or a failed call.
    pub fn copy_from_buffer(&mut self, source: &Self) -> Result<(), Error> {
        let _access = self.open()?;
        const OP: &str = "copy between buffers";
        check_length(OP, "source", self.len(), source.len())?;
        source.check_device(OP, "source", &self.device())?;
        let _access = source.open()?;
        change(|s| s.copies_on_device += 1);
        match (&mut self.storage, &source.storage) {
            (Storage::Host(to), Storage::Host(from)) => to.words.copy_from_slice(&from.words),
            (Storage::Cuda(gpu, to), Storage::Cuda(_, from)) => {
                to.copy_from_device(from, gpu.stream())?;
            }
            _ => unreachable!("`check_device` refuses a buffer of other memory"),
        }
        Ok(())
    }

    /// Fills every byte.
    ///
    /// # Errors
    /// A failed call.
    pub fn fill_bytes(&mut self, byte: u8) -> Result<(), Error> {
        let _access = self.open()?;
        match &mut self.storage {
            Storage::Host(memory) => memory.words.fill(u128::from_ne_bytes([byte; 16])),
            Storage::Cuda(gpu, buffer) => buffer.fill_bytes(byte, gpu.stream())?,
        }
        Ok(())
    }

    /// Queues filling every byte of `len` elements from `start` on; nothing crosses from the host.
    ///
    /// # Errors
    /// A range that is not inside, or a failed call.
    pub fn fill_range_bytes(&mut self, start: usize, len: usize, byte: u8) -> Result<(), Error> {
        let _access = self.open()?;
        self.check_range(start, len)?;
        match &mut self.storage {
            Storage::Host(memory) => {
                let range = &mut memory.as_mut_slice()[start..][..len];
                bytemuck::cast_slice_mut::<T, u8>(range).fill(byte);
            }
            Storage::Cuda(gpu, buffer) => {
                buffer.fill_range_bytes(start, len, byte, gpu.stream())?;
            }
        }
        Ok(())
    }

    /// The elements, once everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, the host's memory exhausted, or a failed call.
    pub fn to_vec(&self) -> Result<Vec<T>, Error> {
        let _access = self.open()?;
        self.count_copy_out()?;
        match &self.storage {
            Storage::Host(memory) => host::copy(memory.as_slice()),
            Storage::Cuda(gpu, buffer) => {
                let mut values = host::zeros(buffer.len())?;
                buffer.copy_to_slice(&mut values, gpu.stream())?;
                Ok(values)
            }
        }
    }

    /// The address of the first element in the device's memory, for other libraries.
    pub fn device_address(&self) -> u64 {
        match &self.storage {
            Storage::Host(memory) => memory.words.as_ptr() as u64,
            Storage::Cuda(_, buffer) => buffer.device_address(),
        }
    }

    /// The elements where they are, if they are in the host's memory and no program of a resident kernel uses them.
    pub fn as_host_slice(&self) -> Option<&[T]> {
        match &self.storage {
            Storage::Host(memory) if !self.users.are_there() => Some(memory.as_slice()),
            _ => None,
        }
    }

    /// As [`Self::as_host_slice`], to write.
    pub fn as_host_slice_mut(&mut self) -> Option<&mut [T]> {
        match &mut self.storage {
            Storage::Host(memory) if !self.users.are_there() => Some(memory.as_mut_slice()),
            _ => None,
        }
    }

    /// The buffer as a kernel reads it.
    pub(crate) fn view(&self) -> In<T> {
        let pointer = match &self.storage {
            Storage::Host(memory) => memory.words.as_ptr().cast(),
            Storage::Cuda(_, buffer) => buffer.device_address() as *const T,
        };
        In::new(pointer, self.len())
    }

    /// The buffer as a kernel writes it.
    pub(crate) fn view_mut(&mut self) -> Out<T> {
        let len = self.len();
        let pointer = match &mut self.storage {
            Storage::Host(memory) => memory.words.as_mut_ptr().cast(),
            Storage::Cuda(_, buffer) => buffer.device_address() as *mut T,
        };
        Out::new(pointer, len)
    }

    /// For what is no launch: refuses it in a program that is being recorded, else waits as [`Self::access`].
    fn open(&self) -> Result<Access, Error> {
        recording::refuse("a copy or a fill")?;
        Ok(self.users.access())
    }

    /// For a launch: registers the buffer with the program that is being recorded, if one is, or else waits for the items
    /// of programs that use it, and keeps them back while the result lives.
    pub(crate) fn access(&self) -> Access {
        match recording::current_use() {
            Some(user) => {
                let home = match &self.storage {
                    Storage::Cuda(_, buffer) => {
                        if buffer.is_mapped() {
                            user.reach_host();
                        }
                        Some(buffer.home())
                    }
                    Storage::Host(_) => None,
                };
                self.users.add(&user, home);
                Access::none()
            }
            None => self.users.access(),
        }
    }

    /// Keeps the memory for what is queued on `stream` next.
    pub(crate) fn acquire(&self, stream: &Stream) -> Result<(), Error> {
        match &self.storage {
            Storage::Host(_) => Ok(()),
            Storage::Cuda(_, buffer) => Ok(buffer.acquire(stream)?),
        }
    }

    /// Orders what comes next on the buffer's own stream after what is queued on `stream`.
    pub(crate) fn release(&self, stream: &Stream) -> Result<(), Error> {
        match &self.storage {
            Storage::Host(_) => Ok(()),
            Storage::Cuda(_, buffer) => Ok(buffer.release(stream)?),
        }
    }

    /// Where the memory is; for the host's, the CPU, whose buffers are the executor's too.
    fn device(&self) -> Device {
        match &self.storage {
            Storage::Host(_) => Device::Cpu,
            Storage::Cuda(gpu, _) => Device::Cuda(Arc::clone(gpu)),
        }
    }

    fn check_range(&self, start: usize, count: usize) -> Result<(), Error> {
        let end = start.saturating_add(count);
        if end <= self.len() {
            return Ok(());
        }
        let expected = format!("{end} or more, for the range from {start} of {count}");
        Err(Error::Length { op: "copy a range", buffer: "the buffer", expected, got: self.len() })
    }

    /// Refuses a buffer that the operation's device cannot reach.
    pub(crate) fn check_device(
        &self,
        op: &'static str,
        buffer: &'static str,
        device: &Device,
    ) -> Result<(), Error> {
        let own = self.device();
        if own.shares_memory_with(device) {
            // The CPU reads and writes buffers in place.
            return match device {
                Device::Cpu if self.users.are_there() => Err(Error::InUse { op, buffer }),
                _ => Ok(()),
            };
        }
        let (expected, got) = (device.to_string(), own.to_string());
        Err(Error::OtherDevice { op, buffer, expected, got })
    }
}

impl<T: Pod> Drop for Buffer<T> {
    fn drop(&mut self) {
        let nothing = Storage::Host(HostMemory::empty());
        self.users.bequeath(|| match std::mem::replace(&mut self.storage, nothing) {
            Storage::Host(memory) => Box::new(memory.words),
            Storage::Cuda(gpu, buffer) => Box::new((buffer.memory(), gpu)),
        });
    }
}

impl<T: Pod> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.storage {
            Storage::Host(_) => "host",
            Storage::Cuda(..) => "cuda",
        };
        write!(f, "Buffer<{}>[{}] on {place}", std::any::type_name::<T>(), self.len())
    }
}

/// Refuses an operand of the wrong length.
pub(crate) fn check_length(
    op: &'static str,
    buffer: &'static str,
    expected: usize,
    got: usize,
) -> Result<(), Error> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Length { op, buffer, expected: expected.to_string(), got })
}
