//! Host memory that the GPU can copy from and to while the host goes on.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use bytemuck::Pod;

use super::device::CudaDevice;
use super::error::{DriverError, code};
use super::raw::driver_call;

/// `CU_MEMHOSTALLOC_PORTABLE`: pinned for every GPU of the process.
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

/// Page-locked host memory of the driver; zeroed when made.
pub(super) struct HostMemory {
    pub(super) pointer: NonNull<c_void>,
    device: CudaDevice,
    owned: bool,
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
        if bytes == 0 {
            // The driver allocates nothing of no size.
            return Ok(Self {
                pointer: NonNull::<Aligned>::dangling().cast(),
                device: device.clone(),
                owned: false,
            });
        }
        device.bind()?;
        let mut pointer: *mut c_void = ptr::null_mut();
        // SAFETY: `pointer` is writable and the context is current.
        let allocated = unsafe { driver_call!(cuMemHostAlloc(&mut pointer, bytes, flags)) };
        allocated.map_err(|error| match error.code() {
            Some(code::OUT_OF_MEMORY) => DriverError::OutOfHostMemory { requested_bytes: bytes },
            _ => error,
        })?;
        let pointer = NonNull::new(pointer).expect("the driver answers success with a pointer");
        // SAFETY: the driver gave `bytes` bytes that nothing else knows yet.
        unsafe { pointer.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { pointer, device: device.clone(), owned: true })
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if self.owned && self.device.bind().is_ok() {
            // SAFETY: this is the owner and the pointer is the driver's; an error leaks the memory, which is sound.
            let _ = unsafe { driver_call!(cuMemFreeHost(self.pointer.as_ptr())) };
        }
    }
}

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
