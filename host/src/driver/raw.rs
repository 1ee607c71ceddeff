//! Calls into the driver, their return codes taken as integers, and the entries that `cust_raw` lacks.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use cust_raw::{CUfunction, CUresult, CUstream};

use super::error::DriverError;

/// A driver entry with its result type turned into the integer that it is in C.
///
/// `cust_raw` declares the result as a Rust enum of the codes of CUDA 11.4; a newer driver returns others, which that
/// enum must never hold.
pub(super) trait Coded {
    type Entry;
    fn coded(self) -> Self::Entry;
}

macro_rules! coded {
    ($($argument:ident)*) => {
        impl<$($argument),*> Coded for unsafe extern "C" fn($($argument),*) -> CUresult {
            type Entry = unsafe extern "C" fn($($argument),*) -> c_int;
            fn coded(self) -> Self::Entry {
                // SAFETY: both are C function pointers with the same arguments, and `CUresult` is a `repr(i32)` enum:
                // the calling convention returns both in the same register.
                unsafe { std::mem::transmute::<Self, Self::Entry>(self) }
            }
        }
    };
}
coded!();
coded!(A);
coded!(A B);
coded!(A B C);
coded!(A B C D);
coded!(A B C D E);
coded!(A B C D E F);
coded!(A B C D E F G H I J);
coded!(A B C D E F G H I J K);

/// Calls a driver entry by its C name: `Ok(())` or the [`DriverError`] of its code. Unsafe as the entry is.
macro_rules! driver_call {
    (@any $argument:expr) => { _ };
    ($name:ident($($argument:expr),* $(,)?)) => {{
        use $crate::driver::raw::Coded as _;
        let entry: unsafe extern "C" fn($($crate::driver::raw::driver_call!(@any $argument)),*) -> _ =
            ::cust_raw::$name;
        $crate::driver::error::check(stringify!($name), entry.coded()($($argument),*))
    }};
}
pub(super) use driver_call;

/// `CUlaunchConfig` of CUDA 11.8 and later.
#[repr(C)]
pub(super) struct LaunchConfigEx {
    pub(super) grid: [c_uint; 3],
    pub(super) block: [c_uint; 3],
    pub(super) dynamic_shared_bytes: c_uint,
    pub(super) stream: CUstream,
    pub(super) attributes: *mut LaunchAttribute,
    pub(super) attribute_count: c_uint,
}

/// `CUlaunchAttribute`: an id and a union of 64 bytes, of which the attributes used here take the first words.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LaunchAttribute {
    id: c_uint,
    padding: u32,
    value: LaunchAttributeValue,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct LaunchAttributeValue([u32; 16]);

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<LaunchConfigEx>() == 56);
    assert!(offset_of!(LaunchConfigEx, stream) == 32);
    assert!(offset_of!(LaunchConfigEx, attributes) == 40);
    assert!(offset_of!(LaunchConfigEx, attribute_count) == 48);
    assert!(size_of::<LaunchAttribute>() == 72);
    assert!(offset_of!(LaunchAttribute, value) == 8);
};

impl LaunchAttribute {
    /// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
    pub(super) fn cooperative() -> Self {
        Self::new(2, [1, 0, 0])
    }

    /// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`.
    pub(super) fn cluster(dimensions: [u32; 3]) -> Self {
        Self::new(4, dimensions)
    }

    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
    pub(super) fn overlapping() -> Self {
        Self::new(6, [1, 0, 0])
    }

    fn new(id: c_uint, words: [u32; 3]) -> Self {
        let mut value = [0; 16];
        value[..3].copy_from_slice(&words);
        Self { id, padding: 0, value: LaunchAttributeValue(value) }
    }
}

/// Entries that `cust_raw` lacks, or declares with an enum that cannot name newer attributes.
pub(super) struct NewerEntries {
    pub(super) error_name: Newer<ErrorText>,
    pub(super) error_string: Newer<ErrorText>,
    pub(super) device_attribute: Newer<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>,
    pub(super) launch_kernel_ex: Newer<
        unsafe extern "C" fn(
            *const LaunchConfigEx,
            CUfunction,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> c_int,
    >,
    pub(super) max_active_clusters:
        Newer<unsafe extern "C" fn(*mut c_int, CUfunction, *const LaunchConfigEx) -> c_int>,
    pub(super) tensor_map_encode_tiled: Newer<TensorMapEncodeTiled>,
}

/// `cuGetErrorName` and `cuGetErrorString`.
pub(super) type ErrorText = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// `cuTensorMapEncodeTiled`, its enums as the integers that they are.
pub(super) type TensorMapEncodeTiled = unsafe extern "C" fn(
    map: *mut c_void,
    data_type: c_uint,
    rank: u32,
    address: *mut c_void,
    dimensions: *const u64,
    strides: *const u64,
    box_dimensions: *const u32,
    element_strides: *const u32,
    interleave: c_uint,
    swizzle: c_uint,
    l2_promotion: c_uint,
    out_of_bounds_fill: c_uint,
) -> c_int;

/// An entry that only newer drivers have.
pub(super) struct Newer<F> {
    name: &'static CStr,
    since: &'static str,
    entry: Option<F>,
}

impl<F: Copy> Newer<F> {
    /// # Safety
    /// `F` is a C function pointer type with the signature of the entry.
    unsafe fn find(
        library: &kasmina_libcuda::Library,
        name: &'static CStr,
        since: &'static str,
    ) -> Self {
        // SAFETY: the caller says so.
        Self { name, since, entry: unsafe { library.symbol(name) } }
    }

    /// The entry's name, for the error of its call, and the entry.
    pub(super) fn get(&self) -> Result<(&'static str, F), DriverError> {
        let name = self.name.to_str().unwrap_or("an entry");
        self.entry
            .map(|entry| (name, entry))
            .ok_or(DriverError::OldDriver { entry: name, since: self.since })
    }
}

/// The newer entries of the loaded driver.
pub(super) fn newer() -> Result<&'static NewerEntries, DriverError> {
    static ENTRIES: OnceLock<NewerEntries> = OnceLock::new();
    let library = kasmina_libcuda::load().map_err(|tried| DriverError::NoDriver { tried })?;
    Ok(ENTRIES.get_or_init(|| {
        // SAFETY: each field declares its entry's signature as cuda.h does, enums as the integers that they are.
        unsafe {
            NewerEntries {
                error_name: Newer::find(library, c"cuGetErrorName", "6.0"),
                error_string: Newer::find(library, c"cuGetErrorString", "6.0"),
                device_attribute: Newer::find(library, c"cuDeviceGetAttribute", "2.0"),
                launch_kernel_ex: Newer::find(library, c"cuLaunchKernelEx", "11.8"),
                max_active_clusters: Newer::find(library, c"cuOccupancyMaxActiveClusters", "11.8"),
                tensor_map_encode_tiled: Newer::find(library, c"cuTensorMapEncodeTiled", "12.0"),
            }
        }
    }))
}
