//! NVML: at which clocks a GPU runs, what it draws, and what holds its clocks back.
//!
//! The library comes with the driver and is looked up at run time. A reading waits for no work of the GPU, so that it can be
//! taken while a kernel runs.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

use super::CudaDevice;

const USUAL_NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
/// `NVML_CLOCK_SM`.
const CLOCK_SM: c_int = 1;
/// `NVML_FI_DEV_POWER_INSTANT`, in milliwatts; the older call answers a mean over a second.
const FIELD_POWER_INSTANT: c_uint = 186;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const VALUE_UNSIGNED: c_int = 1;

type Handle = *mut c_void;
type Init = unsafe extern "C" fn() -> c_int;
type ByPciId = unsafe extern "C" fn(*const c_char, *mut Handle) -> c_int;
type ClockInfo = unsafe extern "C" fn(Handle, c_int, *mut c_uint) -> c_int;
type Unsigned = unsafe extern "C" fn(Handle, *mut c_uint) -> c_int;
type Signed = unsafe extern "C" fn(Handle, *mut c_int) -> c_int;
type Long = unsafe extern "C" fn(Handle, *mut u64) -> c_int;
type FieldValues = unsafe extern "C" fn(Handle, c_int, *mut FieldValue) -> c_int;

/// `nvmlFieldValue_t`.
#[repr(C)]
struct FieldValue {
    field: c_uint,
    scope: c_uint,
    timestamp: i64,
    latency_us: i64,
    value_type: c_int,
    status: c_int,
    /// A union; of an unsigned value the first four bytes.
    value: [c_uint; 2],
}

/// The opened library. It stays open until the process ends.
#[derive(Debug)]
struct Nvml {
    by_pci_id: ByPciId,
    clock_info: ClockInfo,
    power_usage: Unsigned,
    performance_state: Signed,
    limits: Long,
    /// Of newer drivers.
    field_values: Option<FieldValues>,
}

/// What reads one GPU's clocks and power.
#[derive(Debug)]
pub struct GpuMeter {
    nvml: &'static Nvml,
    handle: Handle,
}

/// A GPU at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuReading {
    /// Clock of the multiprocessors, in MHz.
    pub sm_mhz: u32,
    /// Power drawn, in mW: at that moment where the driver tells, else a mean over a second.
    pub power_mw: u32,
    /// Performance state: 0, the fastest, to 15.
    pub power_state: u32,
    /// What holds the clocks, a bit for each reason: NVML's `nvmlClocksEventReason…`.
    pub limits: u64,
}

impl GpuMeter {
    /// The meter of a GPU; `None` where there is no NVML, or it does not know the GPU.
    pub fn new(device: &CudaDevice) -> Option<Self> {
        static FOUND: OnceLock<Option<Nvml>> = OnceLock::new();
        let nvml = FOUND.get_or_init(|| USUAL_NAMES.into_iter().find_map(Nvml::open)).as_ref()?;
        Self::of(nvml, &device.info().pci_id)
    }

    fn of(nvml: &'static Nvml, pci_id: &str) -> Option<Self> {
        let pci_id = CString::new(pci_id).ok()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the id ends in NUL, and the library, which has been initialised, writes one handle.
        let status = unsafe { (nvml.by_pci_id)(pci_id.as_ptr(), &raw mut handle) };
        (status == 0).then_some(Self { nvml, handle })
    }

    /// The GPU now; `None` where the driver does not tell.
    pub fn read(&self) -> Option<GpuReading> {
        let Self { nvml, handle } = *self;
        let (mut sm_mhz, mut power_state, mut limits) = (0, 0, 0);
        // SAFETY: the handle is the library's, and each call writes one value of the type that it is given.
        let status = unsafe {
            [
                (nvml.clock_info)(handle, CLOCK_SM, &raw mut sm_mhz),
                (nvml.performance_state)(handle, &raw mut power_state),
                (nvml.limits)(handle, &raw mut limits),
            ]
        };
        let power_mw = self.instant_power().or_else(|| self.mean_power())?;
        let power_state = u32::try_from(power_state).ok()?;
        (status == [0; 3]).then_some(GpuReading { sm_mhz, power_mw, power_state, limits })
    }

    fn instant_power(&self) -> Option<u32> {
        let mut field = FieldValue {
            field: FIELD_POWER_INSTANT,
            scope: 0,
            timestamp: 0,
            latency_us: 0,
            value_type: 0,
            status: 0,
            value: [0; 2],
        };
        // SAFETY: the handle is the library's, which fills in the one field.
        let status = unsafe { self.nvml.field_values?(self.handle, 1, &raw mut field) };
        let known = (status, field.status, field.value_type) == (0, 0, VALUE_UNSIGNED);
        known.then_some(field.value[0])
    }

    fn mean_power(&self) -> Option<u32> {
        let mut power_mw = 0;
        // SAFETY: the handle is the library's, which writes one value.
        let status = unsafe { (self.nvml.power_usage)(self.handle, &raw mut power_mw) };
        (status == 0).then_some(power_mw)
    }
}

impl Nvml {
    fn open(name: &str) -> Option<Self> {
        // SAFETY: opening runs the library's initialisers; the names are NVML's own.
        let library = unsafe { Library::new(name) }.ok()?;
        // SAFETY: the entries have these signatures in every NVML, and the library stays open below.
        let found = unsafe {
            let init = *library.get::<Init>("nvmlInit_v2").ok()?;
            let found = Self {
                by_pci_id: *library.get("nvmlDeviceGetHandleByPciBusId_v2").ok()?,
                clock_info: *library.get("nvmlDeviceGetClockInfo").ok()?,
                power_usage: *library.get("nvmlDeviceGetPowerUsage").ok()?,
                performance_state: *library.get("nvmlDeviceGetPerformanceState").ok()?,
                limits: *library.get("nvmlDeviceGetCurrentClocksThrottleReasons").ok()?,
                field_values: library.get("nvmlDeviceGetFieldValues").ok().map(|entry| *entry),
            };
            (init() == 0).then_some(found)?
        };
        // The addresses must stay good.
        std::mem::forget(library);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_missing_library_is_none() {
        assert!(Nvml::open("/no/such/libnvidia-ml.so.1").is_none());
    }

    /// Against a library made here, whose one GPU draws other power at the moment than in the mean.
    #[test]
    fn readings_are_what_the_library_answers() {
        const SOURCE: &str = r#"
            #include <string.h>
            static int ready;
            struct field { unsigned id, scope; long long at, took; int type, status; unsigned value[2]; };
            int nvmlInit_v2(void) { ready = 1; return 0; }
            int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** handle) {
                *handle = &ready;
                return ready && strcmp(id, "0000:01:00.0") == 0 ? 0 : 6;
            }
            int nvmlDeviceGetClockInfo(void* h, int kind, unsigned* mhz) { *mhz = kind == 1 ? 1755 : 0; return 0; }
            int nvmlDeviceGetPowerUsage(void* h, unsigned* mw) { *mw = 300000; return 0; }
            int nvmlDeviceGetPerformanceState(void* h, int* state) { *state = 2; return 0; }
            int nvmlDeviceGetCurrentClocksThrottleReasons(void* h, unsigned long long* bits) { *bits = 4; return 0; }
            int nvmlDeviceGetFieldValues(void* h, int count, struct field* field) {
                field->status = field->id == 186 && count == 1 ? 0 : 3;
                field->type = 1;
                field->value[0] = 650500;
                return 0;
            }
        "#;
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("fake.c"), folder.path().join("libfake.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no `cc` to make a library with");
            return;
        }
        let nvml: &'static Nvml =
            Box::leak(Box::new(Nvml::open(library.to_str().unwrap()).unwrap()));
        assert!(GpuMeter::of(nvml, "0000:02:00.0").is_none());
        let meter = GpuMeter::of(nvml, "0000:01:00.0").unwrap();
        let reading = GpuReading { sm_mhz: 1755, power_mw: 650_500, power_state: 2, limits: 4 };
        assert_eq!(meter.read(), Some(reading));
        assert_eq!(meter.mean_power(), Some(300_000));
    }
}
