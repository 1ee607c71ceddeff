//! Events: points in a stream's work that can be waited for and timed.

use std::ptr;

use cust_raw::CUevent;

use super::device::CudaDevice;
use super::error::DriverError;
use super::raw::driver_call;
use super::stream::{Stream, done};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;

/// A point in the work of a stream.
#[derive(Debug)]
pub struct Event {
    raw: CUevent,
    device: CudaDevice,
}

// SAFETY: a `CUevent` may be used from any thread; the driver locks it.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that can be timed.
    ///
    /// # Errors
    /// A failed call.
    pub fn new(device: &CudaDevice) -> Result<Self, DriverError> {
        Self::with_flags(device, 0)
    }

    /// An event that only orders work, which is cheaper.
    ///
    /// # Errors
    /// A failed call.
    pub fn without_timing(device: &CudaDevice) -> Result<Self, DriverError> {
        Self::with_flags(device, DISABLE_TIMING)
    }

    /// Marks the end of the work that `stream` holds now; an earlier mark is forgotten.
    ///
    /// # Errors
    /// A stream of another GPU, or a failed call.
    pub fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        stream.same_device("the event", &self.device)?;
        self.device.bind()?;
        // SAFETY: event and stream are live and of one context.
        unsafe { driver_call!(cuEventRecord(self.raw, stream.raw())) }
    }

    /// Waits until the marked work is done.
    ///
    /// # Errors
    /// A failed call, or the failure of earlier asynchronous work.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.device.bind()?;
        // SAFETY: the event is live.
        unsafe { driver_call!(cuEventSynchronize(self.raw)) }
    }

    /// Whether the marked work is done; true for an event that marks nothing.
    ///
    /// # Errors
    /// A failed call, or the failure of earlier asynchronous work.
    pub fn is_complete(&self) -> Result<bool, DriverError> {
        self.device.bind()?;
        // SAFETY: the event is live.
        done(unsafe { driver_call!(cuEventQuery(self.raw)) })
    }

    /// Milliseconds from `start` to this event, both recorded and complete.
    ///
    /// # Errors
    /// An event that is not recorded, not complete or without timing.
    pub fn elapsed_ms(&self, start: &Event) -> Result<f32, DriverError> {
        self.device.bind()?;
        let mut elapsed_ms = 0.0;
        // SAFETY: both events are live and the result is writable.
        unsafe { driver_call!(cuEventElapsedTime(&mut elapsed_ms, start.raw, self.raw)) }?;
        Ok(elapsed_ms)
    }

    pub(super) fn raw(&self) -> CUevent {
        self.raw
    }

    fn with_flags(device: &CudaDevice, flags: u32) -> Result<Self, DriverError> {
        device.bind()?;
        let mut raw: CUevent = ptr::null_mut();
        // SAFETY: `raw` is writable and the context is current.
        unsafe { driver_call!(cuEventCreate(&mut raw, flags)) }?;
        Ok(Self { raw, device: device.clone() })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: this is the owner; waits already queued on the event keep what they need. An error leaves only
            // the handle.
            let _ = unsafe { driver_call!(cuEventDestroy_v2(self.raw)) };
        }
    }
}
