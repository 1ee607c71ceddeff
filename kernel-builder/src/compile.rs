//! The compiler call: a kernel crate in, rustc's PTX or LLVM IR out, the same bytes on every machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::compiler::Compiler;
use crate::error::CompileError;
use crate::sources::{KernelCrate, cargo_program};
use crate::target::Target;

const TRIPLE: &str = "nvptx64-nvidia-cuda";

/// What rustc is asked to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emit {
    /// PTX, by LLVM's NVPTX back end.
    Ptx,
    /// LLVM IR as text, for another code generator.
    LlvmIr,
}

impl Emit {
    fn option(self) -> &'static str {
        match self {
            Emit::Ptx => "--emit=asm",
            Emit::LlvmIr => "--emit=llvm-ir",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Emit::Ptx => "s",
            Emit::LlvmIr => "ll",
        }
    }
}

/// One call of the compiler.
pub(crate) struct Compilation<'a> {
    pub(crate) compiler: &'a Compiler,
    pub(crate) kernels: &'a KernelCrate,
    pub(crate) target: Target,
    pub(crate) emit: Emit,
    pub(crate) deny_warnings: bool,
    /// Cargo's target directory of this call: one a variant, so that a repeated build is incremental.
    pub(crate) target_dir: &'a Path,
}

impl Compilation<'_> {
    /// Runs cargo and reads what rustc wrote. Diagnostics go to this process's stderr.
    pub(crate) fn run(&self) -> Result<String, CompileError> {
        let output = self.output_path();
        let status = self
            .command()
            .stdin(Stdio::null())
            .status()
            .map_err(|source| CompileError::RunCargo { source })?;
        if !status.success() {
            return Err(CompileError::Rejected {
                package: self.kernels.package.clone(),
                target: self.target,
                rustc: self.compiler.rustc.clone(),
            });
        }
        fs::read_to_string(&output).map_err(|source| CompileError::Output { path: output, source })
    }

    /// The flags that decide the code, as the manifest lists them.
    pub(crate) fn flags(&self) -> Vec<String> {
        // The target as a feature too: that is what `cfg(target_feature = "sm_80")` sees.
        let features =
            [Some(format!("+{}", self.target)), self.target.ptx_feature().map(str::to_owned)];
        let features: Vec<_> = features.into_iter().flatten().collect();
        let mut flags = vec![
            format!("-Ctarget-cpu={}", self.target),
            format!("-Ctarget-feature={}", features.join(",")),
        ];
        // Jump threading copies a barrier into both arms of a branch that threads take differently.
        flags.push("-Zmir-enable-passes=-JumpThreading".into());
        // Panic locations would carry the folders of this machine into the PTX.
        flags.push("-Zlocation-detail=none".into());
        flags
    }

    fn command(&self) -> Command {
        let mut command = Command::new(cargo_program());
        for (name, _) in env::vars_os() {
            if decides_the_build(&name) {
                command.env_remove(name);
            }
        }
        command
            .env("RUSTC", &self.compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            // Empty values switch off what a configuration file may set.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\x1f"))
            .envs(PROFILE)
            .args(["rustc", "--release", "--lib", "--crate-type=cdylib", "-Zbuild-std=core"])
            .args(["--target", TRIPLE])
            .arg("--manifest-path")
            .arg(&self.kernels.manifest_path)
            .arg("--target-dir")
            .arg(self.target_dir)
            // There is nothing to link: the output is what the code generator wrote.
            .args(["--", self.emit.option(), "-Clinker=true"]);
        if self.deny_warnings {
            command.arg("-Dwarnings");
        }
        command
    }

    fn output_path(&self) -> PathBuf {
        let file = format!("{}.{}", self.kernels.library, self.emit.extension());
        self.target_dir.join(TRIPLE).join("release/deps").join(file)
    }
}

/// The release profile of the device build, whatever the user's workspace says.
const PROFILE: [(&str, &str); 9] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
];

/// True for the variables of a calling cargo or user that would change the output; the ones that say
/// where crates come from stay.
fn decides_the_build(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    const KEPT: [&str; 5] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    if name.starts_with("CARGO") {
        return !KEPT.iter().any(|kept| name.starts_with(kept));
    }
    name == "RUSTC" || name.starts_with("RUSTC_") || name == "RUSTFLAGS"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_change_the_output_do_not_reach_the_device_build() {
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_TARGET_DIR"] {
            assert!(decides_the_build(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_REGISTRIES_MIRROR_INDEX", "PATH", "RUSTUP_TOOLCHAIN"] {
            assert!(!decides_the_build(OsStr::new(name)), "{name}");
        }
    }
}
