//! Host memory that the GPU can copy from and to while the host goes on.

use std::alloc::{self, Layout};
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Pod;

use super::device::{CudaDevice, can_give_back};
use super::error::{DriverError, code};
use super::raw::driver_call;

/// `CU_MEMHOSTREGISTER_PORTABLE`: pinned for every GPU of the process.
const PORTABLE: u32 = 1;

/// `len` elements of page-locked host memory, used as a slice.
pub struct PinnedBuffer<T> {
    memory: HostMemory,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> PinnedBuffer<T> {
    /// `len` elements of zero bytes.
    ///
    /// # Errors
    /// Exhausted memory, or a failed call.
    pub fn zeroed(device: &CudaDevice, len: usize) -> Result<Self, DriverError> {
        let memory = HostMemory::zeroed(device, byte_len::<T>(len)?, PORTABLE)?;
        Ok(Self { memory, len, elements: PhantomData })
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// Exhausted memory, or a failed call.
    pub fn from_slice(device: &CudaDevice, values: &[T]) -> Result<Self, DriverError> {
        let mut buffer = Self::zeroed(device, values.len())?;
        buffer.copy_from_slice(values);
        Ok(buffer)
    }
}

impl<T: Pod> Deref for PinnedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the memory holds `len` elements, page-aligned and zeroed when it was made; `Pod` takes any bytes, and
        // a copy in flight owns the whole buffer, so nothing else writes.
        unsafe { std::slice::from_raw_parts(self.memory.pointer.cast().as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for PinnedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.pointer.cast().as_ptr(), self.len) }
    }
}

impl<T> fmt::Debug for PinnedBuffer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PinnedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Page-locked host memory; zeroed when made. It is this process's own, registered with the driver, so that it is there
/// also when the context is not any more.
pub(super) struct HostMemory {
    pub(super) pointer: NonNull<c_void>,
    device: CudaDevice,
    /// None where there are no bytes.
    layout: Option<Layout>,
}

// SAFETY: the memory is ordinary host memory, owned by this value.
unsafe impl Send for HostMemory {}
// SAFETY: as above; shared access is what the owner's type allows.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    pub(super) fn zeroed(
        device: &CudaDevice,
        bytes: usize,
        flags: u32,
    ) -> Result<Self, DriverError> {
        let exhausted = || DriverError::OutOfHostMemory { requested_bytes: bytes };
        if bytes == 0 {
            return Ok(Self {
                pointer: NonNull::<Aligned>::dangling().cast(),
                device: device.clone(),
                layout: None,
            });
        }
        device.bind()?;
        // Whole pages: what is locked is nobody else's.
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(|_| exhausted())?;
        let layout = layout.pad_to_align();
        // SAFETY: the layout has a size.
        let pointer = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or_else(exhausted)?;
        let pointer = pointer.cast::<c_void>();
        // SAFETY: the memory is whole pages of this process, and the context is current.
        let registered =
            unsafe { driver_call!(cuMemHostRegister_v2(pointer.as_ptr(), layout.size(), flags)) };
        if let Err(error) = registered {
            // SAFETY: allocated above with this layout, and not registered.
            unsafe { alloc::dealloc(pointer.cast().as_ptr(), layout) };
            return Err(match error.code() {
                Some(code::OUT_OF_MEMORY) => exhausted(),
                _ => error,
            });
        }
        Ok(Self { pointer, device: device.clone(), layout: Some(layout) })
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        let Some(layout) = self.layout else { return };
        let released = match self.device.bind() {
            // It is left to the process.
            Ok(()) if !can_give_back() => return,
            Ok(()) => self.device.without_residents(|| {
                // SAFETY: this is the owner, which registered the memory.
                unsafe { driver_call!(cuMemHostUnregister(self.pointer.as_ptr())) }
            }),
            // Nothing runs there that could write.
            Err(DriverError::ContextLost { .. }) if self.device.has_failed() => Ok(()),
            Err(why) => Err(why),
        };
        // What the GPU may still write stays.
        if released.is_ok() {
            // SAFETY: allocated with this layout by `zeroed`; nobody refers to it any more.
            unsafe { alloc::dealloc(self.pointer.cast().as_ptr(), layout) };
        }
    }
}

/// Bytes of a page of the systems that CUDA runs on, where they are not larger: then what is registered shares a page.
const PAGE_BYTES: usize = 4096;

/// Where a buffer of no bytes points: aligned for any element.
#[repr(align(256))]
struct Aligned;

/// Bytes of `len` elements.
pub(super) fn byte_len<T>(len: usize) -> Result<usize, DriverError> {
    const {
        assert!(
            align_of::<T>() <= align_of::<Aligned>(),
            "the driver aligns allocations to 256 bytes"
        )
    };
    let too_many =
        DriverError::OutOfMemory { requested_bytes: usize::MAX, free_bytes: 0, total_bytes: 0 };
    len.checked_mul(size_of::<T>()).ok_or(too_many)
}
