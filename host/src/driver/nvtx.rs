//! NVTX: named ranges that Nsight Systems and other tools show above the GPU's work.
//!
//! The library is looked up at run time. Where it is missing, or where no tool listens, ranges cost next to nothing.
//! A tool is found by the library itself, through `NVTX_INJECTION64_PATH`, which the tool sets.

use std::ffi::{OsString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

/// The environment variable whose value is tried before the usual names.
pub const NVTX_VARIABLE: &str = "KASMINA_NVTX";

/// The library of CUDA 12 and older, and the one that came after it.
const USUAL_NAMES: [&str; 4] =
    ["libnvToolsExt.so.1", "libnvtx3interop.so.1", "libnvToolsExt.so", "libnvtx3interop.so"];

/// Bytes of a range's name, its NUL included; what is longer is cut.
const NAME_BYTES: usize = 64;

type Push = unsafe extern "C" fn(*const c_char) -> c_int;
type Pop = unsafe extern "C" fn() -> c_int;

/// The opened NVTX library. It stays open until the process ends.
#[derive(Debug)]
pub struct Nvtx {
    path: PathBuf,
    push: Push,
    pop: Pop,
}

/// No name opened an NVTX library: each name, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no NVTX library: {}", .tried.join("; "))]
pub struct NvtxMissing {
    /// What was tried, in order, with the dynamic loader's reason.
    pub tried: Vec<String>,
}

impl Nvtx {
    /// The library of this process, looked for once.
    ///
    /// # Errors
    /// Which names were tried, where none opened.
    pub fn find() -> Result<&'static Self, &'static NvtxMissing> {
        static FOUND: OnceLock<Result<Nvtx, NvtxMissing>> = OnceLock::new();
        FOUND.get_or_init(|| Self::open(&names())).as_ref()
    }

    /// The name that opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a range of the calling thread. Longer names than 63 bytes are cut.
    pub fn push(&self, name: &str) {
        let name = terminated(name);
        // SAFETY: the entry has this signature in every NVTX, reads up to the NUL, which `terminated` leaves in the
        // last byte at the latest, and copies what it keeps.
        unsafe { (self.push)(name.as_ptr().cast()) };
    }

    /// Ends the calling thread's innermost range; does nothing where there is none.
    pub fn pop(&self) {
        // SAFETY: the entry takes nothing; without a range it answers an error code.
        unsafe { (self.pop)() };
    }

    fn open(names: &[OsString]) -> Result<Self, NvtxMissing> {
        let mut tried = Vec::new();
        for name in names {
            match Self::open_one(name) {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{}: {why}", Path::new(name).display())),
            }
        }
        Err(NvtxMissing { tried })
    }

    fn open_one(name: &OsString) -> Result<Self, libloading::Error> {
        // SAFETY: opening runs the library's initialisers; the names are NVTX's own, or the user's choice.
        let library = unsafe { Library::new(name) }?;
        // SAFETY: `int nvtxRangePushA(const char*)` in every version of NVTX, and the library stays open below.
        let push = *unsafe { library.get::<Push>("nvtxRangePushA") }?;
        // SAFETY: `int nvtxRangePop(void)`, as above.
        let pop = *unsafe { library.get::<Pop>("nvtxRangePop") }?;
        // The two addresses must stay good.
        std::mem::forget(library);
        Ok(Self { path: name.into(), push, pop })
    }
}

fn names() -> Vec<OsString> {
    let own = std::env::var_os(NVTX_VARIABLE).filter(|name| !name.is_empty());
    own.into_iter().chain(USUAL_NAMES.map(OsString::from)).collect()
}

/// The name with its NUL, cut between characters to what fits.
fn terminated(name: &str) -> [u8; NAME_BYTES] {
    let mut end = name.len().min(NAME_BYTES - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; NAME_BYTES];
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_missing_library_names_what_was_tried() {
        let names = ["/no/such/libnvtx.so".into(), "libkasmina-no-such-nvtx.so.1".into()];
        let missing = Nvtx::open(&names).unwrap_err();
        assert_eq!(missing.tried.len(), 2);
        let text = missing.to_string();
        assert!(text.contains("/no/such/libnvtx.so: ") && text.contains("no-such-nvtx"), "{text}");
    }

    #[test]
    fn the_usual_names_are_tried_without_a_panic() {
        if let Err(missing) = Nvtx::find() {
            assert!(missing.tried.len() >= USUAL_NAMES.len(), "{missing}");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let cut = terminated(&"µ".repeat(40));
        assert_eq!((cut[61], cut[62], cut[63]), ("µ".as_bytes()[1], 0, 0));
        assert_eq!(terminated("step")[..5], *b"step\0");
    }

    /// Against a library made here: a stack of ranges that counts what it is told.
    #[test]
    fn ranges_reach_the_library() {
        const SOURCE: &str = r#"
            #include <string.h>
            static int depth, longest;
            int nvtxRangePushA(const char* name) {
                int length = (int)strlen(name);
                if (length > longest) longest = length;
                return depth++;
            }
            int nvtxRangePop(void) { return depth > 0 ? --depth : -1; }
            int state(void) { return 100 * longest + depth; }
        "#;
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("fake.c"), folder.path().join("libfake.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        if !built.is_ok_and(|status| status.success()) {
            // The linker that Rust needs is a C compiler almost everywhere.
            eprintln!("skipped: there is no `cc` to make a library with");
            return;
        }
        let nvtx = Nvtx::open(&["/no/such".into(), library.clone().into()]).unwrap();
        assert_eq!(nvtx.path(), library);
        // SAFETY: the library is the one above, already open.
        let fake = unsafe { Library::new(&library) }.unwrap();
        // SAFETY: `int state(void)` in the source above.
        let state = unsafe { fake.get::<Pop>("state") }.unwrap();
        // SAFETY: it reads two integers, on this thread alone.
        let read = || unsafe { state() };
        nvtx.push("step");
        nvtx.push("blend_forward");
        assert_eq!(read(), 1302);
        nvtx.pop();
        nvtx.push(&"x".repeat(1000));
        assert_eq!(read(), 6302);
        nvtx.pop();
        nvtx.pop();
        nvtx.pop();
        assert_eq!(read(), 6300);
    }
}
