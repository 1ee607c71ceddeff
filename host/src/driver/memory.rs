//! Buffers of GPU memory and the copies in and out of them.
//!
//! A buffer has a home stream: the one it was made on. Work on another stream is bracketed by [`CudaBuffer::acquire`]
//! and [`CudaBuffer::release`], so that everything which touches the buffer is ordered with its home, where its memory
//! is given back. The copies and fills here do it themselves; kernel launches need it from the caller.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;

use bytemuck::Pod;

use super::device::{CudaDevice, can_give_back};
use super::error::DriverError;
use super::event::Event;
use super::mapped::MappedBuffer;
use super::pinned::{PinnedBuffer, byte_len};
use super::pool::PoolMemory;
use super::raw::driver_call;
use super::stream::Stream;
use super::transfers::Direction;

/// `len` elements of GPU memory.
pub struct CudaBuffer<T> {
    allocation: Arc<Allocation>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> CudaBuffer<T> {
    /// `len` elements of unspecified bytes, from the driver. Buffers that come and go are cheaper from a
    /// [`MemoryPool`](super::MemoryPool).
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`], or a failed call.
    pub fn uninit(stream: &Stream, len: usize) -> Result<Self, DriverError> {
        Ok(Self::from_allocation(Allocation::direct(stream, byte_len::<T>(len)?)?, len))
    }

    /// `len` elements of zero bytes, filled on `stream`.
    ///
    /// # Errors
    /// As [`Self::uninit`].
    pub fn zeroed(stream: &Stream, len: usize) -> Result<Self, DriverError> {
        let mut buffer = Self::uninit(stream, len)?;
        buffer.fill_bytes(0, stream)?;
        Ok(buffer)
    }

    /// A copy of `values`, complete on return.
    ///
    /// # Errors
    /// As [`Self::uninit`], and a capture on `stream`.
    pub fn from_slice(stream: &Stream, values: &[T]) -> Result<Self, DriverError> {
        let mut buffer = Self::uninit(stream, values.len())?;
        buffer.copy_from_slice(values, stream)?;
        Ok(buffer)
    }

    /// `len` elements of zero bytes in page-locked host memory that the GPU reaches over the bus. They are copied out
    /// without a call of the driver, also after the context is gone.
    ///
    /// # Errors
    /// Exhausted memory, or a failed call.
    pub fn mapped(stream: &Stream, len: usize) -> Result<Self, DriverError> {
        let bytes = byte_len::<T>(len)?;
        let host = MappedBuffer::zeroed(stream.device(), bytes.div_ceil(size_of::<u32>()))?;
        let (address, home) = (host.device_address(), stream.clone());
        let allocation = Allocation { address, bytes, home, pool: None, host: Some(host) };
        Ok(Self::from_allocation(allocation, len))
    }

    /// Whether it is memory of the host.
    pub fn is_mapped(&self) -> bool {
        self.allocation.host.is_some()
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the elements.
    pub fn byte_len(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The device address, aligned to 256 bytes; 0 for an empty buffer.
    pub fn device_address(&self) -> u64 {
        self.allocation.address
    }

    /// What keeps the memory, without the type of its elements.
    pub(crate) fn memory(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.allocation) as _
    }

    /// The stream that the buffer was made on.
    pub fn home(&self) -> &Stream {
        &self.allocation.home
    }

    /// Orders later work of `stream` after what the home stream holds, and keeps the memory alive for a graph that is
    /// being captured. Costs nothing on the home stream.
    ///
    /// # Errors
    /// A stream of another GPU, a capture on the home stream that `stream` is no part of, or a failed call.
    pub fn acquire(&self, stream: &Stream) -> Result<(), DriverError> {
        self.allocation.acquire(stream)
    }

    /// Orders later work of the home stream after what `stream` holds. Costs nothing on the home stream.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub fn release(&self, stream: &Stream) -> Result<(), DriverError> {
        self.allocation.release(stream)
    }

    /// Copies `values` in; complete on return.
    ///
    /// # Errors
    /// [`DriverError::Length`], a capture on `stream`, or a failed call.
    pub fn copy_from_slice(&mut self, values: &[T], stream: &Stream) -> Result<(), DriverError> {
        same_len("copy from a slice", self.len, values.len())?;
        stream.refuse_capture("a copy from a slice")?;
        let queued = self.queue(stream, |address, bytes| {
            // SAFETY: source and destination hold `bytes` bytes; the source is borrowed until the wait below.
            unsafe {
                driver_call!(cuMemcpyHtoDAsync_v2(
                    address,
                    values.as_ptr().cast(),
                    bytes,
                    stream.raw()
                ))
            }
        });
        stream.count_transfer(Direction::HostToDevice, self.byte_len());
        // Also where the call failed: what it queued must not outlive the borrow.
        let waited = stream.synchronize();
        queued.and(waited)
    }

    /// Copies `values` to the elements from `start` on; complete on return, and ordered after what is queued.
    ///
    /// # Errors
    /// [`DriverError::Length`] for a range that is not inside, a capture on `stream`, or a failed call.
    pub fn copy_range_from_slice(
        &mut self,
        start: usize,
        values: &[T],
        stream: &Stream,
    ) -> Result<(), DriverError> {
        let offset = self.check_range("copy from a slice to a range", start, values.len())?;
        stream.refuse_capture("a copy from a slice")?;
        let queued = self.queue(stream, |address, _| {
            // SAFETY: the range of `size_of_val(values)` bytes is inside the allocation by `check_range`; the source
            // is borrowed until the wait below.
            unsafe {
                driver_call!(cuMemcpyHtoDAsync_v2(
                    address + offset,
                    values.as_ptr().cast(),
                    size_of_val(values),
                    stream.raw()
                ))
            }
        });
        stream.count_transfer(Direction::HostToDevice, size_of_val(values));
        // Also where the call failed: what it queued must not outlive the borrow.
        let waited = stream.synchronize();
        queued.and(waited)
    }

    /// As [`Self::copy_range_from_slice`], on the stream `beside`, and ordered after nothing: also while the home stream
    /// is captured, where the copy is not captured but done.
    ///
    /// # Errors
    /// [`DriverError::Length`] for a range that is not inside, a capture on `beside`, or a failed call.
    pub(crate) fn copy_unused_range_from_slice(
        &mut self,
        start: usize,
        values: &[T],
        beside: &Stream,
    ) -> Result<(), DriverError> {
        let offset = self.check_range("copy from a slice to a range", start, values.len())?;
        beside.same_device("the buffer", self.home().device())?;
        beside.refuse_capture("a copy from a slice")?;
        beside.device().bind()?;
        // SAFETY: the range of `size_of_val(values)` bytes is inside the allocation by `check_range`; the source is
        // borrowed until the wait below.
        let queued = unsafe {
            driver_call!(cuMemcpyHtoDAsync_v2(
                self.device_address() + offset,
                values.as_ptr().cast(),
                size_of_val(values),
                beside.raw()
            ))
        };
        beside.count_transfer(Direction::HostToDevice, size_of_val(values));
        // Also where the call failed: what it queued must not outlive the borrow.
        let waited = beside.synchronize();
        queued.and(waited)
    }

    /// Copies the elements from `start` on out to `values`; complete on return.
    ///
    /// # Errors
    /// As [`Self::copy_range_from_slice`].
    pub fn copy_range_to_slice(
        &self,
        start: usize,
        values: &mut [T],
        stream: &Stream,
    ) -> Result<(), DriverError> {
        let offset = self.check_range("copy from a range to a slice", start, values.len())?;
        stream.refuse_capture("a copy to a slice")?;
        if let Some(host) = &self.allocation.host {
            return self.read_mapped(host, offset as usize, values, stream);
        }
        let queued = self.queue(stream, |address, _| {
            // SAFETY: as in `copy_range_from_slice`, with source and destination exchanged; `Pod` takes any bytes.
            unsafe {
                driver_call!(cuMemcpyDtoHAsync_v2(
                    values.as_mut_ptr().cast(),
                    address + offset,
                    size_of_val(values),
                    stream.raw()
                ))
            }
        });
        stream.count_transfer(Direction::DeviceToHost, size_of_val(values));
        // Also where the call failed: what it queued must not outlive the borrow.
        let waited = stream.synchronize();
        queued.and(waited)
    }

    /// Copies the elements out to `values`; complete on return.
    ///
    /// # Errors
    /// As [`Self::copy_from_slice`].
    pub fn copy_to_slice(&self, values: &mut [T], stream: &Stream) -> Result<(), DriverError> {
        same_len("copy to a slice", values.len(), self.len)?;
        stream.refuse_capture("a copy to a slice")?;
        if let Some(host) = &self.allocation.host {
            return self.read_mapped(host, 0, values, stream);
        }
        let queued = self.queue(stream, |address, bytes| {
            // SAFETY: source and destination hold `bytes` bytes; the destination is borrowed until the wait below, and
            // `Pod` takes any bytes.
            unsafe {
                driver_call!(cuMemcpyDtoHAsync_v2(
                    values.as_mut_ptr().cast(),
                    address,
                    bytes,
                    stream.raw()
                ))
            }
        });
        stream.count_transfer(Direction::DeviceToHost, self.byte_len());
        // Also where the call failed: what it queued must not outlive the borrow.
        let waited = stream.synchronize();
        queued.and(waited)
    }

    /// Copies from byte `offset` of mapped memory, once the work before is done. When the context is gone, nothing works.
    fn read_mapped(
        &self,
        host: &MappedBuffer<u32>,
        offset: usize,
        values: &mut [T],
        stream: &Stream,
    ) -> Result<(), DriverError> {
        match self.allocation.acquire(stream).and_then(|()| stream.synchronize()) {
            Ok(()) | Err(DriverError::ContextLost { .. }) => {}
            Err(why) => return Err(why),
        }
        host.read_bytes(offset, bytemuck::cast_slice_mut(values));
        Ok(())
    }

    /// The elements as a vector; complete on return.
    ///
    /// # Errors
    /// As [`Self::copy_from_slice`].
    pub fn to_vec(&self, stream: &Stream) -> Result<Vec<T>, DriverError> {
        let mut values = vec![T::zeroed(); self.len];
        self.copy_to_slice(&mut values, stream)?;
        Ok(values)
    }

    /// Queues a copy of `source` into this buffer. The pinned buffer comes back from [`PendingCopy::wait`].
    ///
    /// # Errors
    /// As [`Self::copy_from_slice`]; the pinned buffer is then dropped.
    pub fn copy_from_pinned(
        &mut self,
        source: PinnedBuffer<T>,
        stream: &Stream,
    ) -> Result<PendingCopy<T>, DriverError> {
        same_len("copy from pinned memory", self.len, source.len())?;
        stream.count_transfer(Direction::HostToDevice, self.byte_len());
        self.queue_pinned(source, stream, |pinned, address, bytes| {
            // SAFETY: source and destination hold `bytes` bytes; the pending copy owns the one and shares the other
            // until it has waited.
            unsafe {
                driver_call!(cuMemcpyHtoDAsync_v2(
                    address,
                    pinned.as_ptr().cast(),
                    bytes,
                    stream.raw()
                ))
            }
        })
    }

    /// Queues a copy of this buffer into `destination`, which comes back filled from [`PendingCopy::wait`].
    ///
    /// # Errors
    /// As [`Self::copy_from_slice`]; the pinned buffer is then dropped.
    pub fn copy_to_pinned(
        &self,
        destination: PinnedBuffer<T>,
        stream: &Stream,
    ) -> Result<PendingCopy<T>, DriverError> {
        same_len("copy to pinned memory", destination.len(), self.len)?;
        stream.count_transfer(Direction::DeviceToHost, self.byte_len());
        self.queue_pinned(destination, stream, |pinned, address, bytes| {
            // SAFETY: as in `copy_from_pinned`, with source and destination exchanged; `Pod` takes any bytes.
            unsafe {
                driver_call!(cuMemcpyDtoHAsync_v2(
                    pinned.as_mut_ptr().cast(),
                    address,
                    bytes,
                    stream.raw()
                ))
            }
        })
    }

    /// Queues a copy of `source`, a buffer of the same GPU and length.
    ///
    /// # Errors
    /// [`DriverError::Length`], [`DriverError::WrongDevice`], or a failed call.
    pub fn copy_from_device(
        &mut self,
        source: &CudaBuffer<T>,
        stream: &Stream,
    ) -> Result<(), DriverError> {
        same_len("copy on the device", self.len, source.len)?;
        stream.count_transfer(Direction::OnDevice, self.byte_len());
        source.queue(stream, |from, _| {
            self.queue(stream, |to, bytes| {
                // SAFETY: both are live allocations of `bytes` bytes of the stream's GPU, ordered with their homes.
                unsafe { driver_call!(cuMemcpyDtoDAsync_v2(to, from, bytes, stream.raw())) }
            })
        })
    }

    /// Queues setting every byte to `byte`.
    ///
    /// # Errors
    /// A failed call.
    pub fn fill_bytes(&mut self, byte: u8, stream: &Stream) -> Result<(), DriverError> {
        self.queue(stream, |address, bytes| {
            // SAFETY: the allocation holds `bytes` bytes; `Pod` takes any bytes.
            unsafe { driver_call!(cuMemsetD8Async(address, byte, bytes, stream.raw())) }
        })
    }

    /// Queues setting every byte of `count` elements from `start` on to `byte`.
    ///
    /// # Errors
    /// [`DriverError::Length`] for a range that is not inside, or a failed call.
    pub fn fill_range_bytes(
        &mut self,
        start: usize,
        count: usize,
        byte: u8,
        stream: &Stream,
    ) -> Result<(), DriverError> {
        let offset = self.check_range("filling a range", start, count)?;
        let bytes = count * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        self.queue(stream, |address, _| {
            // SAFETY: the range of `bytes` bytes is inside the allocation by `check_range`; `Pod` takes any bytes.
            unsafe { driver_call!(cuMemsetD8Async(address + offset, byte, bytes, stream.raw())) }
        })
    }

    /// Queues setting every 32-bit word to `word`.
    ///
    /// # Errors
    /// [`DriverError::Granularity`] for a buffer that is not whole words, or a failed call.
    pub fn fill_words(&mut self, word: u32, stream: &Stream) -> Result<(), DriverError> {
        let bytes = self.byte_len();
        if !bytes.is_multiple_of(4) {
            return Err(DriverError::Granularity { what: "filling by words", bytes, unit: 4 });
        }
        self.queue(stream, |address, bytes| {
            // SAFETY: the allocation holds `bytes / 4` aligned words; `Pod` takes any bytes.
            unsafe { driver_call!(cuMemsetD32Async(address, word, bytes / 4, stream.raw())) }
        })
    }

    pub(super) fn from_allocation(allocation: Allocation, len: usize) -> Self {
        Self { allocation: Arc::new(allocation), len, elements: PhantomData }
    }

    /// The byte offset of `start`, if `count` elements from there on are inside.
    fn check_range(
        &self,
        what: &'static str,
        start: usize,
        count: usize,
    ) -> Result<u64, DriverError> {
        let end = start.saturating_add(count);
        if end > self.len {
            return Err(DriverError::Length { what, expected: self.len, got: end });
        }
        Ok((start * size_of::<T>()) as u64)
    }

    /// Queues work on the buffer's address and bytes, ordered with its home stream; nothing where it is empty.
    fn queue(
        &self,
        stream: &Stream,
        work: impl FnOnce(u64, usize) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        self.acquire(stream)?;
        if self.byte_len() != 0 {
            stream.device().bind()?;
            work(self.device_address(), self.byte_len())?;
        }
        self.release(stream)
    }

    fn queue_pinned(
        &self,
        mut pinned: PinnedBuffer<T>,
        stream: &Stream,
        work: impl FnOnce(&mut PinnedBuffer<T>, u64, usize) -> Result<(), DriverError>,
    ) -> Result<PendingCopy<T>, DriverError> {
        stream.refuse_capture("a copy that owns pinned memory")?;
        let done = Event::without_timing(stream.device())?;
        let queued = self.queue(stream, |address, bytes| work(&mut pinned, address, bytes));
        if let Err(error) = queued.and_then(|()| done.record(stream)) {
            // The copy may be in flight with nothing to wait for it by: its memory must never be used again.
            mem::forget(pinned);
            return Err(error);
        }
        Ok(PendingCopy { pinned: Some(pinned), done, _allocation: Arc::clone(&self.allocation) })
    }
}

impl<T> fmt::Debug for CudaBuffer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CudaBuffer")
            .field("len", &self.len)
            .field("home", &self.allocation.home)
            .finish_non_exhaustive()
    }
}

/// An asynchronous copy. It owns the pinned side and shares the device side until it is done; dropping it waits.
#[must_use = "dropping a pending copy waits for it"]
#[derive(Debug)]
pub struct PendingCopy<T> {
    /// Present until `wait` or the drop takes it.
    pinned: Option<PinnedBuffer<T>>,
    done: Event,
    _allocation: Arc<Allocation>,
}

impl<T> PendingCopy<T> {
    /// Waits, and gives the pinned buffer back.
    ///
    /// # Errors
    /// The failure of asynchronous work; the pinned buffer is then leaked, as the GPU may still use it.
    pub fn wait(mut self) -> Result<PinnedBuffer<T>, DriverError> {
        self.done.synchronize()?;
        Ok(self.pinned.take().expect("only `wait` and the drop take it"))
    }

    /// Whether [`Self::wait`] would return at once.
    ///
    /// # Errors
    /// The failure of asynchronous work.
    pub fn is_complete(&self) -> Result<bool, DriverError> {
        self.done.is_complete()
    }
}

impl<T> Drop for PendingCopy<T> {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.take()
            && self.done.synchronize().is_err()
        {
            mem::forget(pinned);
        }
    }
}

/// A piece of device memory with the stream that its life is ordered by.
pub(super) struct Allocation {
    pub(super) address: u64,
    pub(super) bytes: usize,
    pub(super) home: Stream,
    /// The pool to give it back to; the driver where there is none.
    pub(super) pool: Option<Arc<PoolMemory>>,
    /// The memory, where it is the host's.
    pub(super) host: Option<MappedBuffer<u32>>,
}

impl Allocation {
    fn direct(home: &Stream, bytes: usize) -> Result<Self, DriverError> {
        let address = if bytes == 0 { 0 } else { driver_allocate(home.device(), bytes)? };
        Ok(Self { address, bytes, home: home.clone(), pool: None, host: None })
    }

    /// See [`CudaBuffer::acquire`].
    pub(super) fn acquire(self: &Arc<Self>, stream: &Stream) -> Result<(), DriverError> {
        stream.same_device("the buffer", self.home.device())?;
        // What a graph touches is ordered with its home at each launch of the graph.
        if stream.keep_for_graph(|| Arc::clone(self) as _) {
            Ok(())
        } else {
            stream.wait_stream(&self.home)
        }
    }

    /// See [`CudaBuffer::release`].
    pub(super) fn release(&self, stream: &Stream) -> Result<(), DriverError> {
        if stream.is_capturing() { Ok(()) } else { self.home.wait_stream(stream) }
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Allocation").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.address == 0 {
            return;
        }
        if let Some(host) = self.host.take() {
            // As below; the driver has nothing to be given back.
            if self.home.synchronize().is_err() {
                self.home.device().after_all_work(move |_| drop(host));
            }
            return;
        }
        match &self.pool {
            Some(pool) => pool.give_back(self.address, self.bytes, &self.home),
            None => {
                // All work on the memory is ordered before this point of its home, unless that is captured or lost.
                let (device, address) = (self.home.device(), self.address);
                match self.home.synchronize() {
                    Ok(()) => driver_free(device, address),
                    Err(_) => device.after_all_work(move |device| driver_free(device, address)),
                }
            }
        }
    }
}

/// `bytes` bytes, not zero, from the driver.
pub(super) fn driver_allocate(device: &CudaDevice, bytes: usize) -> Result<u64, DriverError> {
    device.bind()?;
    let mut address = 0;
    // SAFETY: `address` is writable and the context is current.
    let allocated = unsafe { driver_call!(cuMemAlloc_v2(&mut address, bytes)) };
    allocated.map(|()| address).map_err(|error| device.allocation_error(error, bytes))
}

/// Gives memory of [`driver_allocate`] back. A failure leaks it, which is sound.
pub(super) fn driver_free(device: &CudaDevice, address: u64) {
    if can_give_back() && device.bind().is_ok() {
        let _ = device.without_residents(|| {
            // SAFETY: the callers own `address`, which came from `driver_allocate`, and have waited for its uses.
            unsafe { driver_call!(cuMemFree_v2(address)) }
        });
    }
}

fn same_len(what: &'static str, expected: usize, got: usize) -> Result<(), DriverError> {
    if expected == got { Ok(()) } else { Err(DriverError::Length { what, expected, got }) }
}
