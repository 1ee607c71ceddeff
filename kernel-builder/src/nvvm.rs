//! libNVVM, NVIDIA's own code generator, loaded at run time.
//!
//! Its current IR is LLVM 22's for compute capability 10.0 and newer, so it takes rustc's text after two
//! edits: its own data layout, and the version of NVVM IR.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::Library;

use crate::error::NvvmError;
use crate::target::Target;
use crate::tools;

const VARIABLE: &str = "KASMINA_LIBNVVM";
const DATA_LAYOUT: &str = "target datalayout = \"e-p:64:64:64-i1:8:8-i8:8:8-i16:16:16-i32:32:32-i64:64:64-\
                           i128:128:128-f32:32:32-f64:64:64-v16:16:16-v32:32:32-v64:64:64-v128:128:128-n16:32:64\"";

type Program = *mut c_void;
type Create = unsafe extern "C" fn(*mut Program) -> c_int;
type AddModule = unsafe extern "C" fn(Program, *const c_char, usize, *const c_char) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type LlvmVersion = unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int;

/// A loaded libNVVM.
#[derive(Debug)]
pub struct Nvvm {
    library: Library,
    path: PathBuf,
}

impl Nvvm {
    /// Loads the file that `KASMINA_LIBNVVM` names, or the first of `CUDA_HOME` and the wheels that takes
    /// the IR of sm_100.
    ///
    /// # Errors
    /// If there is none, or the named one does not load.
    pub fn find() -> Result<Nvvm, NvvmError> {
        if let Some(path) = tools::from_variable(VARIABLE) {
            return Nvvm::load(path);
        }
        candidates()
            .into_iter()
            .filter_map(|path| Nvvm::load(path).ok())
            .find(|nvvm| nvvm.llvm_version(Target::Sm100).is_ok_and(|version| version > OLD_IR))
            .ok_or(NvvmError::NotFound)
    }

    /// The library file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The LLVM release whose IR it takes for `target`.
    ///
    /// # Errors
    /// If the library does not know the target.
    pub fn llvm_version(&self, target: Target) -> Result<i32, NvvmError> {
        let architecture = c_text(&compute_name(target));
        let mut version = 0;
        // SAFETY: the signature is that of nvvm.h; both pointers live over the call.
        let status = unsafe {
            self.symbol::<LlvmVersion>(c"nvvmLLVMVersion")?(architecture.as_ptr(), &mut version)
        };
        match status {
            0 => Ok(version),
            _ => Err(NvvmError::Call { call: "nvvmLLVMVersion", status, log: String::new() }),
        }
    }

    /// Compiles rustc's LLVM IR for `target` to PTX.
    ///
    /// # Errors
    /// If the IR is not of the expected form, libdevice is called but missing, or libNVVM refuses it.
    pub fn compile(&self, ir: &str, target: Target) -> Result<String, NvvmError> {
        let ir = edit(ir)?;
        let program = self.program()?;
        program.add(ir.as_bytes(), c"kernels")?;
        if ir.contains("@__nv_") {
            let path = self.libdevice();
            let bitcode =
                fs::read(&path).map_err(|source| NvvmError::LibDevice { path, source })?;
            program.add(&bitcode, c"libdevice")?;
        }
        program.compile(&c_text(&format!("-arch={}", compute_name(target))))
    }

    fn load(path: PathBuf) -> Result<Nvvm, NvvmError> {
        // SAFETY: libNVVM's initialisers have no precondition.
        match unsafe { Library::new(&path) } {
            Ok(library) => Ok(Nvvm { library, path }),
            Err(source) => Err(NvvmError::Load { path, source }),
        }
    }

    /// # Safety
    /// `T` is the function type that nvvm.h declares for `name`.
    unsafe fn symbol<T: Copy>(&self, name: &CStr) -> Result<T, NvvmError> {
        // SAFETY: the caller's contract.
        unsafe { self.library.get::<T>(name.to_bytes_with_nul()) }
            .map(|symbol| *symbol)
            .map_err(|source| NvvmError::Load { path: self.path.clone(), source })
    }

    fn program(&self) -> Result<OwnedProgram<'_>, NvvmError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the signature is that of nvvm.h; `handle` is written on success.
        let status = unsafe { self.symbol::<Create>(c"nvvmCreateProgram")?(&mut handle) };
        match status {
            0 => Ok(OwnedProgram { nvvm: self, handle }),
            _ => Err(NvvmError::Call { call: "nvvmCreateProgram", status, log: String::new() }),
        }
    }

    /// libdevice stands in one of two places beside the library: a wheel's or a toolkit's.
    fn libdevice(&self) -> PathBuf {
        let parent = self.path.parent().unwrap_or(Path::new(""));
        let toolkit = parent.join("../libdevice/libdevice.10.bc");
        if toolkit.is_file() { toolkit } else { parent.join("../nvvm/libdevice/libdevice.10.bc") }
    }
}

/// The IR that libNVVM takes for everything older than compute capability 10.0.
const OLD_IR: i32 = 7;

fn candidates() -> Vec<PathBuf> {
    const PLACES: [&str; 3] =
        ["lib/libnvvm.so.4", "nvvm/lib64/libnvvm.so.4", "nvvm/lib64/libnvvm.so"];
    let mut roots: Vec<PathBuf> = tools::cuda_home().into_iter().collect();
    roots.extend_from_slice(tools::wheel_folders());
    let files = roots.iter().flat_map(|root| PLACES.map(|place| root.join(place)));
    files.filter(|file| file.is_file()).collect()
}

/// The release that libNVVM's PTX names in its head: `// Cuda compilation tools, release 13.5, V13.5.37`.
pub(crate) fn generator_version(ptx: &str) -> String {
    let version = ptx.lines().find_map(|line| line.split_once("release ")?.1.split(", V").nth(1));
    version.unwrap_or("unknown").to_owned()
}

struct OwnedProgram<'a> {
    nvvm: &'a Nvvm,
    handle: Program,
}

impl OwnedProgram<'_> {
    fn add(&self, module: &[u8], name: &CStr) -> Result<(), NvvmError> {
        // SAFETY: the signature is that of nvvm.h; the module's bytes live over the call, which copies them.
        let status = unsafe {
            let add = self.nvvm.symbol::<AddModule>(c"nvvmAddModuleToProgram")?;
            add(self.handle, module.as_ptr().cast(), module.len(), name.as_ptr())
        };
        self.check("nvvmAddModuleToProgram", status)
    }

    fn compile(&self, option: &CStr) -> Result<String, NvvmError> {
        let options = [option.as_ptr()];
        // SAFETY: the signature is that of nvvm.h; one option is given and lives over the call.
        let status = unsafe {
            self.nvvm.symbol::<Compile>(c"nvvmCompileProgram")?(self.handle, 1, options.as_ptr())
        };
        self.check("nvvmCompileProgram", status)?;
        self.text(c"nvvmGetCompiledResultSize", c"nvvmGetCompiledResult")
    }

    /// Reads the result or the log: a size that counts the final zero, then the text.
    fn text(&self, size: &CStr, text: &CStr) -> Result<String, NvvmError> {
        let mut length = 0;
        // SAFETY: the signature is that of nvvm.h; `length` is written on success.
        let status = unsafe { self.nvvm.symbol::<Size>(size)?(self.handle, &mut length) };
        let mut bytes = vec![0_u8; length];
        if status == 0 && length > 0 {
            // SAFETY: the signature is that of nvvm.h; the buffer has the size that libNVVM asked for.
            unsafe { self.nvvm.symbol::<Text>(text)?(self.handle, bytes.as_mut_ptr().cast()) };
        }
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn check(&self, call: &'static str, status: c_int) -> Result<(), NvvmError> {
        if status == 0 {
            return Ok(());
        }
        let log = self.text(c"nvvmGetProgramLogSize", c"nvvmGetProgramLog")?;
        Err(NvvmError::Call { call, status, log: log.trim().to_owned() })
    }
}

impl Drop for OwnedProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: the signature is that of nvvm.h; the handle was created and is destroyed once.
        unsafe {
            if let Ok(destroy) = self.nvvm.symbol::<Create>(c"nvvmDestroyProgram") {
                destroy(&mut self.handle);
            }
        }
    }
}

fn compute_name(target: Target) -> String {
    format!("compute_{}", target.name().trim_start_matches("sm_"))
}

fn c_text(text: &str) -> CString {
    CString::new(text).expect("names of targets have no zero byte")
}

/// libNVVM's data layout in place of LLVM's, and the version of NVVM IR.
fn edit(ir: &str) -> Result<String, NvvmError> {
    let mut text = String::with_capacity(ir.len() + 256);
    let mut replaced = false;
    let mut last_node = 0;
    for line in ir.lines() {
        if line.starts_with("target datalayout") {
            text.push_str(DATA_LAYOUT);
            replaced = true;
        } else {
            text.push_str(line);
        }
        text.push('\n');
        let node =
            line.strip_prefix('!').and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        last_node = last_node.max(node.unwrap_or(0));
    }
    if !replaced {
        return Err(NvvmError::NoDataLayout);
    }
    let node = last_node + 1;
    text.push_str(&format!(
        "!nvvmir.version = !{{!{node}}}\n!{node} = !{{i32 2, i32 0, i32 3, i32 2}}\n"
    ));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_of_the_ir() {
        let ir = "target datalayout = \"e-i64:64\"\n!llvm.module.flags = !{!0}\n!0 = !{i32 1}\n!7 = !{i32 2}\n";
        let edited = edit(ir).unwrap();
        assert!(edited.starts_with(DATA_LAYOUT), "{edited}");
        assert!(edited.ends_with("!nvvmir.version = !{!8}\n!8 = !{i32 2, i32 0, i32 3, i32 2}\n"));
        assert!(matches!(edit("!0 = !{}\n"), Err(NvvmError::NoDataLayout)));
    }
}
