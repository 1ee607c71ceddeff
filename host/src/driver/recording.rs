//! Records launches instead of making them: how a program of a resident kernel comes about.
//!
//! A recording belongs to a thread. While it lasts, every launch of a kernel by this library's operations on that thread is
//! an operation of the program; what is no launch is refused.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;

use kasmina_types::Operation;
use kasmina_types::manifold::OPERATION_PARAMETER_BYTES;

use super::device::CudaDevice;
use crate::buffer::ResidentUse;
use crate::error::Error;

/// Whose memory a recording names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RecordedOn {
    Cuda(CudaDevice),
    Host,
}

/// What was recorded.
pub(crate) struct Recording {
    pub(crate) launches: Vec<RecordedLaunch>,
    /// None without launches.
    pub(crate) on: Option<RecordedOn>,
    /// The buffers' side of it.
    pub(crate) buffers: Arc<ResidentUse>,
}

/// A launch as it would have been.
#[derive(Clone)]
pub(crate) struct RecordedLaunch {
    pub(crate) kernel: &'static str,
    pub(crate) grid: u32,
    /// Whether its blocks wait for each other.
    pub(crate) cooperative: bool,
    /// The parameters; code and blocks are to be set.
    pub(crate) operation: Operation,
}

impl RecordedLaunch {
    /// Whether both would do the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kernel == other.kernel
            && self.grid == other.grid
            && self.cooperative == other.cooperative
            && self.operation.parameters == other.operation.parameters
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// Runs `work` and answers what it launched.
///
/// # Errors
/// What `work` answers, or a recording inside another.
pub(crate) fn record(work: impl FnOnce() -> Result<(), Error>) -> Result<Recording, Error> {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            CURRENT.take();
        }
    }

    if is_on() {
        return Err(Error::Recording { what: "a recording inside another" });
    }
    let (launches, buffers) = (Vec::new(), Arc::default());
    CURRENT.set(Some(Recording { launches, on: None, buffers }));
    let _ended = End;
    work()?;
    Ok(CURRENT.take().expect("the recording that was begun above"))
}

/// Whether the calling thread records.
pub(crate) fn is_on() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// The recording's hold on buffers, if the calling thread records.
pub(crate) fn current_use() -> Option<Arc<ResidentUse>> {
    CURRENT.with_borrow(|recording| recording.as_ref().map(|r| Arc::clone(&r.buffers)))
}

/// Refuses what is no launch while the calling thread records.
pub(crate) fn refuse(what: &'static str) -> Result<(), Error> {
    if is_on() { Err(Error::Recording { what }) } else { Ok(()) }
}

/// Records a launch, if the calling thread records.
///
/// # Errors
/// Parameters that an operation has no room for, or a second device.
pub(super) fn take_launch<P: Copy>(
    on: impl FnOnce() -> RecordedOn,
    kernel: &'static str,
    grid: u32,
    cooperative: bool,
    params: &P,
) -> Option<Result<(), Error>> {
    CURRENT.with_borrow_mut(|recording| {
        let recording = recording.as_mut()?;
        if size_of::<P>() > OPERATION_PARAMETER_BYTES || align_of::<P>() > 16 {
            return Some(Err(Error::NotResident { kernel }));
        }
        let on = on();
        if *recording.on.get_or_insert_with(|| on.clone()) != on {
            return Some(Err(Error::Recording { what: "a second device" }));
        }
        let mut operation = <Operation as bytemuck::Zeroable>::zeroed();
        // SAFETY: both are valid for the struct's bytes, and apart. Parameter structs have no implicit padding: all of their
        // bytes are initialised.
        unsafe {
            let bytes = ptr::from_ref(params).cast::<u8>();
            let to = operation.parameters.as_mut_ptr().cast::<u8>();
            ptr::copy_nonoverlapping(bytes, to, size_of::<P>());
        }
        let launch = RecordedLaunch { kernel, grid, cooperative, operation };
        recording.launches.push(launch);
        Some(Ok(()))
    })
}
