//! What can go wrong between this library and the CUDA driver, and what to do about it.

use std::ffi::{CStr, c_char, c_int};

use cust::error::CudaError;
use kasmina_libcuda::LoadError;

use super::device::ComputeCapability;
use super::raw;

/// An error of the CUDA driver layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// No driver library opened.
    #[error("no CUDA driver: {tried}\nThe CPU device needs none.")]
    NoDriver {
        /// Each name that was tried, and why it failed.
        tried: LoadError,
    },
    /// A driver without a GPU.
    #[error(
        "the CUDA driver finds no GPU; check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or take the CPU device"
    )]
    NoDevice,
    /// An ordinal past the last GPU.
    #[error("GPU {ordinal} was asked for, but the driver shows {count}; ordinals begin at 0")]
    DeviceOutOfRange {
        /// What was asked for.
        ordinal: u32,
        /// How many GPUs there are.
        count: u32,
    },
    /// A GPU older than the oldest that is supported.
    #[error(
        "{device} has compute capability {got}, but {required} or newer is needed; take the CPU device"
    )]
    TooOld {
        /// The GPU's name.
        device: String,
        /// The oldest supported.
        required: ComputeCapability,
        /// The GPU's own.
        got: ComputeCapability,
    },
    /// The driver is too old to have an entry.
    #[error("the CUDA driver lacks `{entry}`, which came with CUDA {since}; update the driver")]
    OldDriver {
        /// The entry's C name.
        entry: &'static str,
        /// The CUDA version that brought it.
        since: &'static str,
    },
    /// A call of the driver that answered an error.
    #[error("{call} answered {name} ({code}): {message}; {}", advice(*.code))]
    Call {
        /// The entry's C name.
        call: &'static str,
        /// The driver's error code.
        code: i32,
        /// The code's name.
        name: String,
        /// The driver's own words.
        message: String,
    },
    /// A context that was given up because a resident kernel had failed or did not end.
    #[error(
        "the context of {device} is lost, with every buffer in it: a resident kernel had failed or did not end; open the \
         device anew, or, where the driver refuses that, restart the process"
    )]
    ContextLost {
        /// The GPU's name.
        device: String,
    },
    /// A kernel that does not leave.
    #[error(
        "a kernel on {device} does not end before this process does; a context beside it shares the GPU's time with it"
    )]
    Unending {
        /// The GPU's name.
        device: String,
    },
    /// Device memory exhausted.
    #[error(
        "{requested_bytes} bytes were asked for, but {free_bytes} of {total_bytes} bytes of GPU memory are free; \
         lower the batch or free buffers"
    )]
    OutOfMemory {
        /// What was asked for.
        requested_bytes: usize,
        /// What the driver says is free.
        free_bytes: usize,
        /// What the GPU has.
        total_bytes: usize,
    },
    /// Page-locked host memory exhausted.
    #[error(
        "{requested_bytes} bytes of page-locked host memory could not be had; free some, or raise `ulimit -l`"
    )]
    OutOfHostMemory {
        /// What was asked for.
        requested_bytes: usize,
    },
    /// A buffer that the address space cannot hold.
    #[error(
        "{elements} elements of {element_bytes} bytes pass the address space; check the computed length"
    )]
    TooLarge {
        /// Elements asked for.
        elements: usize,
        /// Bytes of each.
        element_bytes: usize,
    },
    /// A module that the driver refused.
    #[error(
        "module `{module}` does not load ({name}); rebuild it for this GPU and driver. The compiler said:\n{log}"
    )]
    ModuleLoad {
        /// The name the caller gave to the module.
        module: String,
        /// The name of the driver's error code.
        name: String,
        /// The just-in-time compiler's error log.
        log: String,
    },
    /// A name that a module does not export.
    #[error(
        "module `{module}` has no entry `{entry}`; rebuild the module from the sources that declare it"
    )]
    MissingEntry {
        /// The module's name.
        module: String,
        /// The name that was looked for.
        entry: String,
    },
    /// A name that holds a NUL byte and so cannot reach the driver.
    #[error("{what} {text:?} holds a NUL byte; remove it")]
    NulByte {
        /// What the text is.
        what: &'static str,
        /// The text, cut at 64 characters.
        text: String,
    },
    /// A launch that the device or the kernel cannot take.
    #[error("launch of `{entry}`: {what} is {got}, but the limit is {limit}; choose a smaller one")]
    LaunchConfig {
        /// The kernel.
        entry: String,
        /// The quantity that is out of range, with its unit.
        what: &'static str,
        /// Its limit on this device for this kernel.
        limit: u64,
        /// What the launch asked for.
        got: u64,
    },
    /// A launch with a grid, block or cluster of no threads, or a grid that its cluster does not divide.
    #[error("launch of `{entry}`: {what} is {got:?}; {rule}")]
    LaunchShape {
        /// The kernel.
        entry: String,
        /// Grid, block or cluster.
        what: &'static str,
        /// Its dimensions.
        got: [u32; 3],
        /// What they have to obey.
        rule: &'static str,
    },
    /// The GPU lacks a feature.
    #[error("{device} has no {feature}; use a kernel variant that does without")]
    Unsupported {
        /// The GPU's name.
        device: String,
        /// The feature.
        feature: &'static str,
    },
    /// Two lengths that must agree.
    #[error(
        "{what}: {expected} elements expected, {got} given; pass slices and buffers of one length"
    )]
    Length {
        /// The operation.
        what: &'static str,
        /// Elements of the destination.
        expected: usize,
        /// Elements of the source.
        got: usize,
    },
    /// A buffer whose size in bytes does not fit an operation.
    #[error("{what}: {bytes} bytes is not a multiple of {unit}; pad the buffer")]
    Granularity {
        /// The operation.
        what: &'static str,
        /// Bytes of the buffer.
        bytes: usize,
        /// Bytes the operation works in.
        unit: usize,
    },
    /// Objects of two GPUs in one operation.
    #[error(
        "{what} belongs to GPU {got}, but the stream to GPU {expected}; copy it over, or use a stream of GPU {got}"
    )]
    WrongDevice {
        /// The object.
        what: &'static str,
        /// The stream's GPU.
        expected: u32,
        /// The object's GPU.
        got: u32,
    },
    /// An operation that needs the host to wait, inside a graph capture.
    #[error(
        "{what} needs the host to wait, which a stream that is being captured cannot; do it before the capture"
    )]
    Capturing {
        /// The operation.
        what: &'static str,
    },
    /// A captured graph that differs too much from the instantiated one.
    #[error(
        "the graph cannot be updated in place (driver reason {reason}); instantiate the new one instead"
    )]
    GraphUpdate {
        /// The driver's `CUgraphExecUpdateResult`.
        reason: i32,
    },
    /// A tensor map that breaks a rule of the hardware.
    #[error(transparent)]
    TensorMap(#[from] super::tensor_map::TensorMapError),
}

impl DriverError {
    /// The driver's code where the error is a failed call.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Call { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Codes that this layer tells apart.
pub(super) mod code {
    pub(crate) const OUT_OF_MEMORY: i32 = 2;
    pub(crate) const NO_DEVICE: i32 = 100;
    pub(crate) const NOT_FOUND: i32 = 500;
    pub(crate) const NOT_READY: i32 = 600;
    pub(crate) const COOPERATIVE_LAUNCH_TOO_LARGE: i32 = 720;
    pub(crate) const GRAPH_UPDATE_FAILURE: i32 = 910;
}

/// The result of a driver call from its code.
pub(super) fn check(call: &'static str, code: c_int) -> Result<(), DriverError> {
    if code == 0 {
        return Ok(());
    }
    let (name, message) = describe(code);
    Err(DriverError::Call { call, code, name, message })
}

/// The result of a call through `cust`, whose errors carry the driver's codes.
pub(super) fn check_cust<T>(
    call: &'static str,
    result: Result<T, CudaError>,
) -> Result<T, DriverError> {
    result.map_err(|error| {
        let code = error as i32;
        let (name, message) = describe(code);
        DriverError::Call { call, code, name, message }
    })
}

/// The driver's name of a code and its sentence about it.
pub(super) fn describe(code: c_int) -> (String, String) {
    let Ok(entries) = raw::newer() else {
        return ("no driver to name it".to_owned(), "no driver to explain it".to_owned());
    };
    let text = |entry: &raw::Newer<raw::ErrorText>| {
        let (_, entry) = entry.get().ok()?;
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: `text` is writable; the driver takes any code, and answers null for one it does not know.
        unsafe { entry(code, &mut text) };
        if text.is_null() {
            return None;
        }
        // SAFETY: the driver answers pointers to its own static, NUL-terminated texts.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    (
        text(&entries.error_name).unwrap_or_else(|| "an unnamed code".to_owned()),
        text(&entries.error_string).unwrap_or_else(|| "the driver has no text for it".to_owned()),
    )
}

fn advice(code: i32) -> &'static str {
    match code {
        3 | 4 | 201 => "open the device with CudaDevice::new before other calls",
        100 | 101 => "check `nvidia-smi` and CUDA_VISIBLE_DEVICES",
        209 | 218 | 222 => "rebuild the kernels for this GPU and driver",
        46 | 802..=804 => "check the driver's installation with `nvidia-smi`",
        701 => "use a smaller block or less shared memory",
        700..=719 => {
            "a kernel before this call failed and the context is lost: restart the process, \
             under compute-sanitizer to see which"
        }
        900..=908 => "keep synchronisation and other streams out of the capture",
        _ => "see the CUDA driver API's list of error codes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasmina_libcuda::Attempt;

    #[test]
    fn no_driver_lists_each_name_and_the_way_out() {
        let attempt = |name: &str| Attempt { name: name.into(), reason: "not found".to_owned() };
        let tried = LoadError { tried: vec![attempt("libcuda.so.1"), attempt("libcuda.so")] };
        let text = DriverError::NoDriver { tried }.to_string();
        for part in
            ["libcuda.so.1: not found", "libcuda.so: not found", "KASMINA_LIBCUDA", "CPU device"]
        {
            assert!(text.contains(part), "{part:?} is missing from {text:?}");
        }
    }

    #[test]
    fn codes_that_cust_does_not_know_are_kept() {
        let error = check("cuLaunchKernelEx", 912).unwrap_err();
        assert_eq!(error.code(), Some(912));
        assert!(error.to_string().starts_with("cuLaunchKernelEx answered "), "{error}");
    }

    #[test]
    fn success_is_no_error() {
        assert_eq!(check("cuInit", 0), Ok(()));
    }
}
