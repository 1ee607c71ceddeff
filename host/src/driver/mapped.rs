//! Host memory that the host and a running kernel see at the same time.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use bytemuck::Pod;

use super::device::CudaDevice;
use super::error::DriverError;
use super::pinned::{HostMemory, byte_len};
use super::raw::driver_call;
use super::stream::Stream;

/// `CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP`.
const PORTABLE_AND_MAPPED: u32 = 1 | 2;

/// `len` elements of page-locked host memory that a kernel can reach by a device address. Clones are the same memory.
///
/// There is no slice of it, as a kernel or another thread may write at any time: every access is by relaxed atomics of
/// the element's alignment, at most 64 bits wide, and words can be had as atomics for the other orders.
pub struct MappedBuffer<T> {
    memory: Arc<HostMemory>,
    device_address: u64,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> MappedBuffer<T> {
    /// `len` elements of zero bytes.
    ///
    /// # Errors
    /// Exhausted memory, or a failed call.
    pub fn zeroed(device: &CudaDevice, len: usize) -> Result<Self, DriverError> {
        let bytes = byte_len::<T>(len)?;
        let memory = HostMemory::zeroed(device, bytes, PORTABLE_AND_MAPPED)?;
        let mut device_address = 0;
        if bytes != 0 {
            // SAFETY: the memory was allocated as mapped, and the result is writable.
            unsafe {
                driver_call!(cuMemHostGetDevicePointer_v2(
                    &mut device_address,
                    memory.pointer.as_ptr(),
                    0
                ))
            }?;
        }
        Ok(Self { memory: Arc::new(memory), device_address, len, elements: PhantomData })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address by which a kernel reaches the memory; 0 for an empty buffer.
    pub fn device_address(&self) -> u64 {
        self.device_address
    }

    /// Element `index` as it is now. An element wider than its alignment or 64 bits may be torn by one who writes it.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn read(&self, index: usize) -> T {
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        match align_of::<T>() {
            1 => load::<AtomicU8>(self.words(index), bytes),
            2 => load::<AtomicU16>(self.words(index), bytes),
            4 => load::<AtomicU32>(self.words(index), bytes),
            _ => load::<AtomicU64>(self.words(index), bytes),
        }
        value
    }

    /// Sets element `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn write(&self, index: usize, value: T) {
        let bytes = bytemuck::bytes_of(&value);
        match align_of::<T>() {
            1 => store::<AtomicU8>(self.words(index), bytes),
            2 => store::<AtomicU16>(self.words(index), bytes),
            4 => store::<AtomicU32>(self.words(index), bytes),
            _ => store::<AtomicU64>(self.words(index), bytes),
        }
    }

    /// Keeps the memory alive for a graph that is being captured on `stream`.
    pub fn retain_for(&self, stream: &Stream) {
        stream.keep_for_graph(|| Arc::clone(&self.memory) as _);
    }

    /// The words of element `index`, by atomics that are no wider than the element's alignment.
    fn words<W: Word>(&self, index: usize) -> &[W] {
        assert!(index < self.len, "element {index} of a mapped buffer of {}", self.len);
        debug_assert!(align_of::<W>() <= align_of::<T>());
        let words = size_of::<T>() / size_of::<W>();
        // SAFETY: the index is below the length of the allocation, which lives as long as `self`; the words are aligned
        // as the element is. Every access of host code is by atomics of this one width.
        unsafe {
            let element = self.memory.pointer.cast::<T>().add(index);
            std::slice::from_raw_parts(element.cast().as_ptr(), words)
        }
    }
}

impl MappedBuffer<u32> {
    /// Copies the bytes from `offset` on, each from its word as it is then.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            *byte = self.read(at / 4).to_ne_bytes()[at % 4];
        }
    }

    /// Word `index` as an atomic, shared with kernels at system scope.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn atomic(&self, index: usize) -> &AtomicU32 {
        &self.words(index)[0]
    }
}

impl MappedBuffer<u64> {
    /// Word `index` as an atomic, shared with kernels at system scope.
    ///
    /// # Panics
    /// If `index` is not below [`Self::len`].
    pub fn atomic(&self, index: usize) -> &AtomicU64 {
        &self.words(index)[0]
    }
}

impl<T> Clone for MappedBuffer<T> {
    fn clone(&self) -> Self {
        let Self { device_address, len, .. } = *self;
        Self { memory: Arc::clone(&self.memory), device_address, len, elements: PhantomData }
    }
}

impl<T> fmt::Debug for MappedBuffer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MappedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// An atomic that elements are accessed by.
trait Word {
    fn load_into(&self, bytes: &mut [u8]);
    fn store_from(&self, bytes: &[u8]);
}

macro_rules! word {
    ($($atomic:ty)*) => {
        $(impl Word for $atomic {
            fn load_into(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.load(Ordering::Relaxed).to_ne_bytes());
            }

            fn store_from(&self, bytes: &[u8]) {
                self.store(bytemuck::pod_read_unaligned(bytes), Ordering::Relaxed);
            }
        })*
    };
}
word!(AtomicU8 AtomicU16 AtomicU32 AtomicU64);

fn load<W: Word>(words: &[W], bytes: &mut [u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(size_of::<W>())) {
        word.load_into(bytes);
    }
}

fn store<W: Word>(words: &[W], bytes: &[u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks_exact(size_of::<W>())) {
        word.store_from(bytes);
    }
}
