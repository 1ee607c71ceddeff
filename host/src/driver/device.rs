//! GPUs: what they are, and the context that everything else lives in.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::fmt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use cust::context::Context;
use cust::device::Device;
use cust_raw::CUcontext;

use super::error::{DriverError, check, check_cust, code};
use super::quiet::Quiet;
use super::raw::{self, driver_call};
use super::residents::{Residence, Residents};
use super::version::DriverVersion;

/// The oldest compute capability that the kernels are built for.
pub const OLDEST_SUPPORTED: ComputeCapability = ComputeCapability { major: 7, minor: 0 };

/// A compute capability, as `9.0` for sm_90.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// What a GPU says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Position in the driver's list, from 0.
    pub ordinal: u32,
    /// Marketing name.
    pub name: String,
    /// PCI address, `domain:bus:device.function`.
    pub pci_id: String,
    /// Compute capability.
    pub compute_capability: ComputeCapability,
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Threads of a warp.
    pub warp_threads: u32,
    /// Threads that an SM holds at once.
    pub max_threads_per_sm: u32,
    /// Blocks that an SM holds at once.
    pub max_blocks_per_sm: u32,
    /// Threads of the largest block.
    pub max_threads_per_block: u32,
    /// Largest block in each dimension.
    pub max_block: [u32; 3],
    /// Largest grid in each dimension.
    pub max_grid: [u32; 3],
    /// 32-bit registers of an SM.
    pub registers_per_sm: u32,
    /// 32-bit registers that one block may take.
    pub registers_per_block: u32,
    /// Shared memory that a block may take without asking, in bytes.
    pub shared_bytes_per_block: u32,
    /// Shared memory that a block may take after opting in, in bytes.
    pub shared_bytes_per_block_optin: u32,
    /// Shared memory of an SM, in bytes.
    pub shared_bytes_per_sm: u32,
    /// Shared memory that the driver keeps of each block, in bytes.
    pub shared_bytes_reserved_per_block: u32,
    /// Level-two cache, in bytes.
    pub l2_bytes: u32,
    /// SM clock, in kHz.
    pub clock_khz: u32,
    /// Memory clock, in kHz.
    pub memory_clock_khz: u32,
    /// Width of the memory bus, in bits.
    pub memory_bus_bits: u32,
    /// Memory of the GPU, in bytes.
    pub total_memory_bytes: usize,
    /// Whether a grid can synchronise as a whole.
    pub cooperative_launch: bool,
    /// Whether blocks can form clusters.
    pub cluster_launch: bool,
    /// Whether tensor maps can be used.
    pub tensor_maps: bool,
}

/// A GPU and its context: the primary one, retained. Clones share it; every call works from any thread.
#[derive(Clone)]
pub struct CudaDevice {
    inner: Arc<Inner>,
}

struct Inner {
    context: CUcontext,
    /// The primary context, retained, if it is that.
    primary: Option<Context>,
    info: DeviceInfo,
    driver_version: DriverVersion,
    quiet: Quiet,
    residents: Residents,
    state: AtomicU8,
}

// SAFETY: a context may be used from any thread; everything else is.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// What became of a context. Handles of one that is lost do not reach the driver any more.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ContextState {
    /// It is as it should be.
    Alive = 0,
    /// A kernel failed: nothing runs in it any more.
    Failed = 1,
    /// A kernel runs in it that cannot be ended.
    Occupied = 2,
}

/// A GPU of the process.
#[derive(Default)]
struct Opened {
    /// One context for everybody, as the primary one is: they share the count of captures.
    inner: Weak<Inner>,
    /// Whether the primary context is occupied.
    is_occupied: bool,
}

static OPEN: Mutex<BTreeMap<u32, Opened>> = Mutex::new(BTreeMap::new());

/// Whether a context of the process is [occupied](ContextState::Occupied).
static ONE_IS_OCCUPIED: AtomicBool = AtomicBool::new(false);

/// Whether memory, or what else the driver waits for every context with, can be given back: beside a kernel that does not
/// end it would wait for ever.
pub(super) fn can_give_back() -> bool {
    !ONE_IS_OCCUPIED.load(Ordering::Acquire)
}

/// Memory of a GPU at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes that an allocation could still take.
    pub free_bytes: usize,
    /// Bytes of the GPU.
    pub total_bytes: usize,
}

impl CudaDevice {
    /// Opens GPU `ordinal`: retains its primary context, the one that other CUDA libraries of the process use as well. Where
    /// a kernel runs in that which cannot be ended, makes a context beside it.
    ///
    /// # Errors
    /// No driver, no GPU, an ordinal past the last, a GPU older than [`OLDEST_SUPPORTED`], or a failed call.
    pub fn new(ordinal: u32) -> Result<Self, DriverError> {
        initialise()?;
        let count = device_count()?;
        if ordinal >= count {
            return Err(DriverError::DeviceOutOfRange { ordinal, count });
        }
        let device = check_cust("cuDeviceGet", Device::get_device(ordinal))?;
        let info = DeviceInfo::read(ordinal, device)?;
        if info.compute_capability < OLDEST_SUPPORTED {
            let (device, got) = (info.name, info.compute_capability);
            return Err(DriverError::TooOld { device, required: OLDEST_SUPPORTED, got });
        }
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = open.entry(ordinal).or_default();
        if let Some(inner) = opened.inner.upgrade().filter(|inner| inner.is_alive()) {
            return Ok(Self { inner });
        }
        let (context, primary) = if opened.is_occupied {
            let mut context = null_mut();
            // SAFETY: the pointer is to a live local, and the device is the driver's.
            unsafe { driver_call!(cuCtxCreate_v2(&mut context, 0, device.as_raw())) }?;
            (context, None)
        } else {
            let primary = check_cust("cuDevicePrimaryCtxRetain", Context::new(device))?;
            (primary.as_raw(), Some(primary))
        };
        let inner = Arc::new(Inner {
            context,
            primary,
            info,
            driver_version: driver_version()?,
            quiet: Quiet::default(),
            residents: Residents::default(),
            state: AtomicU8::new(ContextState::Alive as u8),
        });
        opened.inner = Arc::downgrade(&inner);
        Ok(Self { inner })
    }

    /// Every GPU that the driver shows, supported or not, without a context.
    ///
    /// # Errors
    /// No driver, no GPU, or a failed call.
    pub fn enumerate() -> Result<Vec<DeviceInfo>, DriverError> {
        initialise()?;
        (0..device_count()?)
            .map(|ordinal| {
                DeviceInfo::read(ordinal, check_cust("cuDeviceGet", Device::get_device(ordinal))?)
            })
            .collect()
    }

    /// What the GPU says of itself, read once.
    pub fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// The driver's CUDA version.
    pub fn driver_version(&self) -> DriverVersion {
        self.inner.driver_version
    }

    /// Free and total memory now.
    ///
    /// # Errors
    /// A failed call.
    pub fn memory_info(&self) -> Result<MemoryInfo, DriverError> {
        self.bind()?;
        let (mut free_bytes, mut total_bytes) = (0, 0);
        // SAFETY: both pointers are to live locals, and the context is current.
        unsafe { driver_call!(cuMemGetInfo_v2(&mut free_bytes, &mut total_bytes)) }?;
        Ok(MemoryInfo { free_bytes, total_bytes })
    }

    /// Any attribute by its number in `CUdevice_attribute`, as the driver answers it.
    ///
    /// # Errors
    /// A number that the driver does not know.
    pub fn attribute(&self, number: i32) -> Result<i32, DriverError> {
        attribute(check_cust("cuDeviceGet", Device::get_device(self.inner.info.ordinal))?, number)
    }

    /// Waits for all work of the GPU's context.
    ///
    /// # Errors
    /// A failed call, the failure of earlier asynchronous work, or a capture in progress on any stream of the GPU,
    /// which such a wait would break.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.quiet().without_captures("synchronising a GPU", || self.synchronize_context())
    }

    /// The raw context (`CUcontext`), for other libraries. It lives as long as this device or a clone.
    pub fn as_raw_context(&self) -> *mut std::ffi::c_void {
        self.inner.context.cast()
    }

    /// Makes the context current on this thread: the first step of every call that needs one.
    pub(super) fn bind(&self) -> Result<(), DriverError> {
        if self.is_lost() {
            return Err(DriverError::ContextLost { device: self.inner.info.name.clone() });
        }
        // SAFETY: the context lives as long as `self`.
        unsafe { driver_call!(cuCtxSetCurrent(self.inner.context)) }
    }

    /// Gives the context up with everything in it. This device and all that was made on it answer
    /// [`DriverError::ContextLost`] from now on.
    ///
    /// A context in which a kernel runs cannot be destroyed: the driver waits for the kernel, in which the process ends
    /// before. Another context beside it works, and has its share of the GPU's time. One in which a kernel failed takes
    /// the whole process along: the driver refuses every call of it, in any context.
    pub(super) fn lose(&self, why: ContextState) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        // The first reason stays: of an occupied context every later call fails as well, while its kernel runs.
        let (alive, order) = (ContextState::Alive as u8, Ordering::AcqRel);
        let state = &self.inner.state;
        if state.compare_exchange(alive, why as u8, order, Ordering::Acquire).is_err() {
            return;
        }
        if why == ContextState::Occupied {
            ONE_IS_OCCUPIED.store(true, Ordering::Release);
            open.entry(self.inner.info.ordinal).or_default().is_occupied = true;
        }
    }

    /// Whether the context was given up.
    pub(crate) fn is_lost(&self) -> bool {
        !self.inner.is_alive()
    }

    /// Whether a kernel in it failed, so that nothing of it runs any more.
    pub(super) fn has_failed(&self) -> bool {
        self.inner.state.load(Ordering::Acquire) == ContextState::Failed as u8
    }

    /// Has a kernel that stays step aside where others need the whole device.
    pub(crate) fn add_resident(&self, residence: Weak<dyn Residence>) {
        self.inner.residents.add(residence);
    }

    /// Whether no kernel may be launched to stay, now.
    pub(crate) fn residents_are_away(&self) -> bool {
        self.inner.residents.are_away()
    }

    /// Does a job that the driver has wait for all kernels.
    pub(super) fn without_residents<T>(&self, job: impl FnOnce() -> T) -> T {
        self.inner.residents.without(job)
    }

    /// The gate between captures and waits for the whole context.
    pub(super) fn quiet(&self) -> &Quiet {
        &self.inner.quiet
    }

    /// Does `job` when all work of the context is done: now, or after the captures in progress. A failed wait means a
    /// lost context, in which nothing runs any more.
    pub(super) fn after_all_work(&self, job: impl FnOnce(&Self) + Send + 'static) {
        // Before the gate, which somebody may hold who waits for a kernel that does not end.
        if self.is_lost() || !can_give_back() {
            return;
        }
        let device = self.clone();
        self.quiet().when_quiet(move || {
            device.without_residents(|| {
                let _ = device.synchronize_context();
                // A lost context keeps what the job would give back.
                if !device.is_lost() && can_give_back() {
                    job(&device);
                }
            });
        });
    }

    fn synchronize_context(&self) -> Result<(), DriverError> {
        self.bind()?;
        // SAFETY: the context is current; the entry takes no argument.
        self.without_residents(|| unsafe { driver_call!(cuCtxSynchronize()) })
    }

    /// The error of a failed allocation of `requested_bytes`, with the memory that is left where it was exhausted.
    pub(super) fn allocation_error(
        &self,
        error: DriverError,
        requested_bytes: usize,
    ) -> DriverError {
        match (error.code(), self.memory_info()) {
            (Some(code::OUT_OF_MEMORY), Ok(MemoryInfo { free_bytes, total_bytes })) => {
                DriverError::OutOfMemory { requested_bytes, free_bytes, total_bytes }
            }
            _ => error,
        }
    }
}

impl Inner {
    fn is_alive(&self) -> bool {
        self.state.load(Ordering::Acquire) == ContextState::Alive as u8
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self.primary.take() {
            // The driver would wait for the kernel.
            Some(primary) if !self.is_alive() || !can_give_back() => std::mem::forget(primary),
            None if self.is_alive() && can_give_back() => {
                // SAFETY: made by `new`; the last owner is gone.
                let _ = unsafe { driver_call!(cuCtxDestroy_v2(self.context)) };
            }
            _ => {}
        }
    }
}

/// The same GPU in the same context.
impl PartialEq for CudaDevice {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for CudaDevice {}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceInfo { ordinal, name, .. } = &self.inner.info;
        formatter
            .debug_struct("CudaDevice")
            .field("ordinal", ordinal)
            .field("name", name)
            .finish_non_exhaustive()
    }
}

/// The CUDA version of the driver.
///
/// # Errors
/// No driver, or a failed call.
pub fn driver_version() -> Result<DriverVersion, DriverError> {
    kasmina_libcuda::load().map_err(|tried| DriverError::NoDriver { tried })?;
    let mut number: c_int = 0;
    // SAFETY: the pointer is to a live local.
    unsafe { driver_call!(cuDriverGetVersion(&mut number)) }?;
    Ok(DriverVersion::from_number(number.unsigned_abs()))
}

impl DeviceInfo {
    fn read(ordinal: u32, device: Device) -> Result<Self, DriverError> {
        let get = |number| attribute(device, number).map(i32::unsigned_abs);
        // Attributes that came with later drivers: an older one has no device with the feature.
        let has = |number| get(number).is_ok_and(|value| value != 0);
        let mut pci_id = [0 as c_char; 32];
        // SAFETY: the buffer is writable for the length given with it.
        unsafe { driver_call!(cuDeviceGetPCIBusId(pci_id.as_mut_ptr(), 32, device.as_raw())) }?;
        Ok(Self {
            ordinal,
            name: check_cust("cuDeviceGetName", device.name())?,
            pci_id: pci_id
                .iter()
                .take_while(|&&byte| byte != 0)
                .map(|&byte| byte as u8 as char)
                .collect(),
            compute_capability: ComputeCapability { major: get(75)?, minor: get(76)? },
            sm_count: get(16)?,
            warp_threads: get(10)?,
            max_threads_per_sm: get(39)?,
            max_blocks_per_sm: get(106)?,
            max_threads_per_block: get(1)?,
            max_block: [get(2)?, get(3)?, get(4)?],
            max_grid: [get(5)?, get(6)?, get(7)?],
            registers_per_sm: get(82)?,
            registers_per_block: get(12)?,
            shared_bytes_per_block: get(8)?,
            shared_bytes_per_block_optin: get(97)?,
            shared_bytes_per_sm: get(81)?,
            shared_bytes_reserved_per_block: get(111)?,
            l2_bytes: get(38)?,
            clock_khz: get(13)?,
            memory_clock_khz: get(36)?,
            memory_bus_bits: get(37)?,
            total_memory_bytes: check_cust("cuDeviceTotalMem", device.total_memory())?,
            cooperative_launch: has(95),
            cluster_launch: has(120),
            tensor_maps: has(127),
        })
    }
}

fn initialise() -> Result<(), DriverError> {
    static INITIALISED: OnceLock<Result<(), DriverError>> = OnceLock::new();
    INITIALISED
        .get_or_init(|| {
            kasmina_libcuda::load().map_err(|tried| DriverError::NoDriver { tried })?;
            match check_cust("cuInit", cust::init(cust::CudaFlags::empty())) {
                Err(error) if error.code() == Some(code::NO_DEVICE) => Err(DriverError::NoDevice),
                result => result,
            }
        })
        .clone()
}

fn device_count() -> Result<u32, DriverError> {
    match check_cust("cuDeviceGetCount", Device::num_devices())? {
        0 => Err(DriverError::NoDevice),
        count => Ok(count),
    }
}

fn attribute(device: Device, number: i32) -> Result<i32, DriverError> {
    let (name, entry) = raw::newer()?.device_attribute.get()?;
    let mut value = 0;
    // SAFETY: `value` is writable; the driver refuses numbers that it does not know.
    let code = unsafe { entry(&mut value, number, device.as_raw()) };
    check(name, code).map(|()| value)
}
