//! Streams: queues of work on a GPU.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cust_raw::CUstream;

use super::device::CudaDevice;
use super::error::{DriverError, code};
use super::event::Event;
use super::raw::driver_call;
use super::transfers::{Direction, TransferCounters, TransferStatistics};

/// `CU_STREAM_NON_BLOCKING`: no hidden ordering with the legacy default stream.
const NON_BLOCKING: u32 = 1;

/// Something that work in flight needs alive.
pub(super) type Kept = Arc<dyn Any + Send + Sync>;

/// A queue of work, done in order. Clones are the same queue.
///
/// `cust`'s stream cannot be non-blocking and cannot hold a foreign handle, so this one is made of the raw calls.
#[derive(Clone)]
pub struct Stream {
    inner: Arc<Inner>,
}

struct Inner {
    raw: CUstream,
    device: CudaDevice,
    /// Unique in the process, as the driver's handles are not: it hands one out again after its stream is destroyed.
    id: u64,
    owned: bool,
    capturing: AtomicBool,
    /// What the work captured so far needs alive.
    kept: Mutex<Vec<Kept>>,
    transfers: TransferCounters,
}

// SAFETY: a `CUstream` may be used from any thread; the driver locks it.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Stream {
    /// A new non-blocking stream of the default priority.
    ///
    /// # Errors
    /// A failed call.
    pub fn new(device: &CudaDevice) -> Result<Self, DriverError> {
        Self::with_priority(device, 0)
    }

    /// A new non-blocking stream. Lower numbers are more urgent; the driver clamps to the device's range.
    ///
    /// # Errors
    /// A failed call.
    pub fn with_priority(device: &CudaDevice, priority: i32) -> Result<Self, DriverError> {
        device.bind()?;
        let mut raw: CUstream = ptr::null_mut();
        // SAFETY: `raw` is writable and the context is current.
        unsafe {
            driver_call!(cuStreamCreateWithPriority(&mut raw, NON_BLOCKING, priority as c_int))
        }?;
        Ok(Self::wrap(device, raw, true))
    }

    /// A stream that another library made, in the primary context of `device`. It is not destroyed here.
    ///
    /// # Safety
    /// `raw` is a `CUstream` of that context, and outlives this stream, its clones and the buffers made on them.
    pub unsafe fn from_raw(device: &CudaDevice, raw: *mut c_void) -> Self {
        Self::wrap(device, raw.cast(), false)
    }

    /// The GPU that the stream belongs to.
    pub fn device(&self) -> &CudaDevice {
        &self.inner.device
    }

    /// The raw handle (`CUstream`), for other libraries. It lives as long as this stream or a clone.
    pub fn as_raw(&self) -> *mut c_void {
        self.inner.raw.cast()
    }

    /// Waits until the work queued so far is done.
    ///
    /// # Errors
    /// A failed call, the failure of earlier asynchronous work, or a capture in progress.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.refuse_capture("synchronising a stream")?;
        self.inner.device.bind()?;
        // SAFETY: the stream is live and its context current.
        unsafe { driver_call!(cuStreamSynchronize(self.inner.raw)) }
    }

    /// Whether the work queued so far is done.
    ///
    /// # Errors
    /// A failed call, the failure of earlier asynchronous work, or a capture in progress.
    pub fn is_idle(&self) -> Result<bool, DriverError> {
        self.refuse_capture("asking a stream for its progress")?;
        self.inner.device.bind()?;
        // SAFETY: the stream is live and its context current.
        done(unsafe { driver_call!(cuStreamQuery(self.inner.raw)) })
    }

    /// Lets later work of this stream begin only after `event`.
    ///
    /// # Errors
    /// A failed call, or an event that was recorded in a capture that this stream is no part of.
    pub fn wait_event(&self, event: &Event) -> Result<(), DriverError> {
        self.inner.device.bind()?;
        // SAFETY: stream and event are live; the driver keeps the event's state for the wait even if it is destroyed.
        unsafe { driver_call!(cuStreamWaitEvent(self.inner.raw, event.raw(), 0)) }
    }

    /// Lets later work of this stream begin only after the work that `other` holds now.
    ///
    /// # Errors
    /// A failed call, or a capture on one of the two streams.
    pub fn wait_stream(&self, other: &Stream) -> Result<(), DriverError> {
        if self == other {
            return Ok(());
        }
        self.refuse_capture("waiting for another stream")?;
        other.refuse_capture("waiting for a stream that is captured")?;
        let event = Event::without_timing(&other.inner.device)?;
        event.record(other)?;
        self.wait_event(&event)
    }

    /// Whether work on this stream is being captured into a graph.
    pub fn is_capturing(&self) -> bool {
        self.inner.capturing.load(Ordering::Acquire)
    }

    /// The copies that were queued on this stream so far.
    pub fn transfers(&self) -> TransferStatistics {
        self.inner.transfers.read()
    }

    pub(super) fn count_transfer(&self, direction: Direction, bytes: usize) {
        self.inner.transfers.add(direction, bytes);
    }

    pub(super) fn raw(&self) -> CUstream {
        self.inner.raw
    }

    pub(super) fn id(&self) -> u64 {
        self.inner.id
    }

    pub(super) fn refuse_capture(&self, what: &'static str) -> Result<(), DriverError> {
        if self.is_capturing() { Err(DriverError::Capturing { what }) } else { Ok(()) }
    }

    /// Keeps `kept` alive for the graph being captured; false where nothing is captured.
    pub(super) fn keep_for_graph(&self, kept: impl FnOnce() -> Kept) -> bool {
        let capturing = self.is_capturing();
        if capturing {
            self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept());
        }
        capturing
    }

    /// Turns the keeping for a graph on or off, and gives back what was kept.
    pub(super) fn set_capturing(&self, capturing: bool) -> Vec<Kept> {
        self.inner.capturing.store(capturing, Ordering::Release);
        std::mem::take(&mut *self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refuses an object of another GPU.
    pub(super) fn same_device(
        &self,
        what: &'static str,
        device: &CudaDevice,
    ) -> Result<(), DriverError> {
        if device == self.device() {
            return Ok(());
        }
        let (expected, got) = (self.device().info().ordinal, device.info().ordinal);
        Err(DriverError::WrongDevice { what, expected, got })
    }

    fn wrap(device: &CudaDevice, raw: CUstream, owned: bool) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (capturing, kept) = (AtomicBool::new(false), Mutex::default());
        let (device, transfers) = (device.clone(), TransferCounters::default());
        Self { inner: Arc::new(Inner { raw, device, id, owned, capturing, kept, transfers }) }
    }
}

/// The same queue.
impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }
}

impl Eq for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Stream")
            .field("id", &self.inner.id)
            .field("device", &self.inner.device)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.owned && self.device.bind().is_ok() {
            // SAFETY: this is the last owner. The driver lets the work in flight end; an error leaves only the handle.
            let _ = unsafe { driver_call!(cuStreamDestroy_v2(self.raw)) };
        }
    }
}

/// Whether a query found the work done.
pub(super) fn done(query: Result<(), DriverError>) -> Result<bool, DriverError> {
    match query {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(code::NOT_READY) => Ok(false),
        Err(error) => Err(error),
    }
}
