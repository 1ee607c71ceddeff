//! libcuda loaded at run time: every symbol that `cust_raw` binds, as a trampoline.
//!
//! A program that links this crate beside `cust` builds without a CUDA toolkit and starts without a CUDA driver. The
//! library is opened by [`load`], or by the first `cuInit`. Until then every other entry answers
//! `CUDA_ERROR_NOT_INITIALIZED`; without a driver every entry answers `CUDA_ERROR_NO_DEVICE`; an entry that the
//! driver lacks answers `CUDA_ERROR_NOT_FOUND`.
//!
//! # Using it from another workspace
//! `cust_raw`'s build script stops where it finds no toolkit. Give it a folder with an empty archive, as this
//! workspace's `.cargo/config.toml` does: `lib64/libcuda.a` holding the eight bytes `!<arch>\n`, and
//!
//! ```toml
//! [env]
//! CUDA_LIBRARY_PATH = { value = "path/to/folder", relative = true }
//! ```
//!
//! Name this crate once (`use kasmina_libcuda as _;`) so that the linker is given its symbols.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("kasmina-libcuda knows the calling conventions of x86_64 and aarch64 Linux only");

mod symbols;

use std::error::Error;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The environment variable whose value is tried before the usual names.
pub const NAME_VARIABLE: &str = "KASMINA_LIBCUDA";

const USUAL_NAMES: [&str; 3] = ["libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"];

/// Opens libcuda and fills the trampolines; later calls answer as the first did.
///
/// Tries the value of `KASMINA_LIBCUDA` if it is set, then `libcuda.so.1`, `libcuda.so` and
/// `/usr/lib/wsl/lib/libcuda.so.1`.
///
/// # Errors
/// [`LoadError`] where no name opened a library that has `cuInit`.
pub fn load() -> Result<&'static Library, LoadError> {
    static LOADED: OnceLock<Result<Library, LoadError>> = OnceLock::new();
    LOADED.get_or_init(open_first).as_ref().map_err(Clone::clone)
}

/// The names that [`load`] tries in this process, in order.
pub fn names_tried() -> Vec<PathBuf> {
    std::env::var_os(NAME_VARIABLE)
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .into_iter()
        .chain(USUAL_NAMES.map(PathBuf::from))
        .collect()
}

/// The opened driver library. It stays open until the process ends.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    handle: libloading::Library,
}

impl Library {
    /// The name that opened, as it was tried.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An entry by its exported name, for those that `cust_raw` lacks; `None` where the driver is too old to have it.
    ///
    /// # Safety
    /// `T` is the type of a C function pointer that has the signature of the entry.
    pub unsafe fn symbol<T: Copy>(&self, name: &CStr) -> Option<T> {
        // SAFETY: the caller says that `T` has the entry's signature, and the library is never closed.
        let symbol = unsafe { self.handle.get::<T>(name) };
        symbol.ok().map(|symbol| *symbol)
    }
}

/// No name opened a CUDA driver library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no CUDA driver library could be loaded; install the NVIDIA driver or set {NAME_VARIABLE} to its libcuda.so.1. \
     Tried:{}",
    .tried.iter().map(|attempt| format!("\n  {}: {}", attempt.name.display(), attempt.reason)).collect::<String>()
)]
pub struct LoadError {
    /// Each name, in the order of the attempts.
    pub tried: Vec<Attempt>,
}

/// One name that did not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The name as it was given to the dynamic loader.
    pub name: PathBuf,
    /// What the dynamic loader said.
    pub reason: String,
}

fn open_first() -> Result<Library, LoadError> {
    let mut tried = Vec::new();
    for path in names_tried() {
        match open(&path) {
            Ok(handle) => {
                // SAFETY: each slot is reached through a trampoline that leaves arguments and return address as they
                // are, so the target sees the call of the entry it was looked up for.
                symbols::fill(|name| unsafe {
                    handle.get::<*mut core::ffi::c_void>(name).ok().map(|entry| *entry)
                });
                return Ok(Library { path, handle });
            }
            Err(error) => tried.push(Attempt { name: path, reason: reason(&error) }),
        }
    }
    symbols::fill_without_driver();
    Err(LoadError { tried })
}

fn open(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: opening runs the library's initialisers; the names are the driver's own, or the user's choice.
    let handle = unsafe { libloading::Library::new(path) }?;
    // SAFETY: the address is only tested for presence.
    unsafe { handle.get::<*mut core::ffi::c_void>("cuInit") }?;
    Ok(handle)
}

/// The dynamic loader's own words, which are the source of the error where it had any.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| source.to_string())
}
