//! Modules of PTX, compiled by the driver, and the functions in them.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cust_raw::{CUfunction, CUfunction_attribute, CUjit_option, CUmodule};

use super::device::CudaDevice;
use super::error::{DriverError, code, describe};
use super::raw::driver_call;
use super::stream::Kept;

/// Room for each of the compiler's two logs.
const LOG_BYTES: usize = 64 * 1024;

/// A loaded module. Clones share it; it is unloaded when the last clone and the last of its functions are gone.
#[derive(Clone)]
pub struct Module {
    inner: Arc<Inner>,
}

struct Inner {
    raw: CUmodule,
    device: CudaDevice,
    name: String,
    info_log: String,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
}

/// A kernel of a module. Clones share it and keep the module loaded.
#[derive(Clone)]
pub struct Function {
    module: Arc<Inner>,
    entry: Arc<Entry>,
}

struct Entry {
    raw: CUfunction,
    name: String,
    attributes: FunctionAttributes,
    /// Dynamic shared memory that launches may ask for, in bytes; it only grows.
    dynamic_shared_limit: Mutex<u32>,
}

/// What the driver's compiler made of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionAttributes {
    /// 32-bit registers of a thread.
    pub registers: u32,
    /// Local memory of a thread, in bytes: spills, stack and arrays.
    pub local_bytes: u32,
    /// Static shared memory of a block, in bytes.
    pub static_shared_bytes: u32,
    /// Constant memory, in bytes.
    pub constant_bytes: u32,
    /// Threads of the largest block that the registers and the kernel's own bounds allow.
    pub max_threads_per_block: u32,
    /// Virtual architecture of the PTX, `70` for compute_70.
    pub ptx_version: u32,
    /// Architecture of the machine code, `90` for sm_90.
    pub binary_version: u32,
}

// SAFETY: module and function handles may be used from any thread; the driver locks them.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}
// SAFETY: as above; the limit is behind a mutex.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Module {
    /// Compiles and loads PTX text. `name` names it in errors.
    ///
    /// # Errors
    /// [`DriverError::ModuleLoad`] with the compiler's log, a NUL byte in the text, or exhausted memory.
    pub fn load(device: &CudaDevice, name: &str, ptx: &str) -> Result<Self, DriverError> {
        let ptx = c_string("PTX of the module", ptx)?;
        device.bind()?;
        let (mut info_log, mut error_log) = (vec![0u8; LOG_BYTES], vec![0u8; LOG_BYTES]);
        // The driver takes values that fit a pointer by value, and the buffers as pointers.
        let by_value = |value: usize| ptr::without_provenance_mut::<c_void>(value);
        let mut options = [
            CUjit_option::CU_JIT_INFO_LOG_BUFFER,
            CUjit_option::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            CUjit_option::CU_JIT_LOG_VERBOSE,
        ];
        let mut values = [
            info_log.as_mut_ptr().cast(),
            by_value(LOG_BYTES),
            error_log.as_mut_ptr().cast(),
            by_value(LOG_BYTES),
            by_value(1),
        ];
        let mut raw: CUmodule = ptr::null_mut();
        let loaded = device.without_residents(|| {
            // SAFETY: `ptx` ends in NUL, each log is writable for the size given, and there are as many options as
            // values; all outlive the call.
            unsafe {
                driver_call!(cuModuleLoadDataEx(
                    &mut raw,
                    ptx.as_ptr().cast(),
                    options.len() as u32,
                    options.as_mut_ptr(),
                    values.as_mut_ptr()
                ))
            }
        });
        match loaded {
            Ok(()) => {
                let (name, info_log) = (name.to_owned(), log_text(&info_log));
                let inner = Inner {
                    raw,
                    device: device.clone(),
                    name,
                    info_log,
                    entries: Mutex::default(),
                };
                Ok(Self { inner: Arc::new(inner) })
            }
            Err(error) if error.code() == Some(code::OUT_OF_MEMORY) => {
                Err(device.allocation_error(error, ptx.count_bytes()))
            }
            Err(DriverError::Call { code, .. }) => {
                let module = name.to_owned();
                Err(DriverError::ModuleLoad {
                    module,
                    name: describe(code).0,
                    log: log_text(&error_log),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The kernel `entry`; looked up once, then shared.
    ///
    /// # Errors
    /// [`DriverError::MissingEntry`], or a failed call.
    pub fn function(&self, entry: &str) -> Result<Function, DriverError> {
        let mut entries = self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match entries.get(entry) {
            Some(found) => Arc::clone(found),
            None => {
                let found = Arc::new(self.look_up(entry)?);
                entries.insert(entry.to_owned(), Arc::clone(&found));
                found
            }
        };
        Ok(Function { module: Arc::clone(&self.inner), entry: found })
    }

    /// The name that the caller gave.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What the compiler reported; empty where the driver took the module from its cache.
    pub fn info_log(&self) -> &str {
        &self.inner.info_log
    }

    fn look_up(&self, name: &str) -> Result<Entry, DriverError> {
        let c_name = c_string("kernel name", name)?;
        self.inner.device.bind()?;
        let mut raw: CUfunction = ptr::null_mut();
        // A module that is loaded lazily takes its function's code to the device here.
        let found = self.inner.device.without_residents(|| {
            // SAFETY: the module is loaded, the name ends in NUL and `raw` is writable.
            unsafe { driver_call!(cuModuleGetFunction(&mut raw, self.inner.raw, c_name.as_ptr())) }
        });
        match found {
            Err(error) if error.code() == Some(code::NOT_FOUND) => {
                return Err(DriverError::MissingEntry {
                    module: self.inner.name.clone(),
                    entry: name.to_owned(),
                });
            }
            found => found?,
        }
        use CUfunction_attribute::*;
        let read = |attribute| function_attribute(raw, attribute);
        let attributes = FunctionAttributes {
            registers: read(CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: read(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            static_shared_bytes: read(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            constant_bytes: read(CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES)?,
            max_threads_per_block: read(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            ptx_version: read(CU_FUNC_ATTRIBUTE_PTX_VERSION)?,
            binary_version: read(CU_FUNC_ATTRIBUTE_BINARY_VERSION)?,
        };
        let dynamic_shared_limit =
            Mutex::new(read(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)?);
        Ok(Entry { raw, name: name.to_owned(), attributes, dynamic_shared_limit })
    }
}

impl Function {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The GPU that it is loaded on.
    pub fn device(&self) -> &CudaDevice {
        &self.module.device
    }

    /// What the driver's compiler made of it.
    pub fn attributes(&self) -> FunctionAttributes {
        self.entry.attributes
    }

    /// Dynamic shared memory that a launch may have at most, in bytes: the device's opt-in limit less the static part.
    pub fn max_dynamic_shared_bytes(&self) -> u32 {
        let info = self.device().info();
        info.shared_bytes_per_block_optin.saturating_sub(self.entry.attributes.static_shared_bytes)
    }

    /// Opts in to `bytes` of dynamic shared memory a block where the kernel has not yet; it never opts out again.
    /// Launches and occupancy queries do it themselves.
    ///
    /// # Errors
    /// [`DriverError::LaunchConfig`] above [`Self::max_dynamic_shared_bytes`], or a failed call.
    pub fn allow_dynamic_shared(&self, bytes: u32) -> Result<(), DriverError> {
        let mut limit =
            self.entry.dynamic_shared_limit.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= *limit {
            return Ok(());
        }
        let most = self.max_dynamic_shared_bytes();
        if bytes > most {
            let (entry, what) = (self.name().to_owned(), "dynamic shared memory in bytes");
            return Err(DriverError::LaunchConfig {
                entry,
                what,
                limit: most.into(),
                got: bytes.into(),
            });
        }
        self.device().bind()?;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // All at once: the next, larger launch then costs nothing. The limit alone takes no memory from the L1 cache.
        // SAFETY: the function is loaded, as `self` holds its module.
        unsafe { driver_call!(cuFuncSetAttribute(self.entry.raw, attribute, most as c_int)) }?;
        *limit = most;
        Ok(())
    }

    pub(super) fn raw(&self) -> CUfunction {
        self.entry.raw
    }

    /// What keeps the kernel loaded.
    pub(super) fn kept(&self) -> Kept {
        self.module.clone()
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Module").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Function")
            .field("module", &self.module.name)
            .field("name", &self.entry.name)
            .field("attributes", &self.entry.attributes)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let raw = Handle(self.raw);
        // A kernel may still run.
        self.device.after_all_work(move |_| {
            let Handle(raw) = { raw };
            // SAFETY: the last owner is gone, no function is left, and nothing runs.
            let _ = unsafe { driver_call!(cuModuleUnload(raw)) };
        });
    }
}

/// A module without an owner, on its way to be unloaded.
struct Handle(CUmodule);

// SAFETY: as for `Inner`.
unsafe impl Send for Handle {}

fn function_attribute(
    raw: CUfunction,
    attribute: CUfunction_attribute,
) -> Result<u32, DriverError> {
    let mut value: c_int = 0;
    // SAFETY: the function is loaded and `value` is writable.
    unsafe { driver_call!(cuFuncGetAttribute(&mut value, attribute, raw)) }?;
    Ok(value.unsigned_abs())
}

fn c_string(what: &'static str, text: &str) -> Result<CString, DriverError> {
    CString::new(text)
        .map_err(|_| DriverError::NulByte { what, text: text.chars().take(64).collect() })
}

fn log_text(log: &[u8]) -> String {
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).trim_end().to_owned()
}
