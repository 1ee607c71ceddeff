//! Finds a rustc that has the source of `core`, which the device build compiles.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::CompilerError;

/// Names the rustc to use, before any search.
const RUSTC_VARIABLE: &str = "KASMINA_RUSTC";
/// Where Debian's `rustc-web` installs, beside rustup.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The way that led to a compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundBy {
    /// The environment variable `KASMINA_RUSTC`.
    Environment,
    /// `RUSTC` or the rustc of the path, as rustup installs it.
    Rustup,
    /// Debian's package `rustc-web`.
    Debian,
}

/// A rustc with the source of `core`, and what identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// The program.
    pub rustc: PathBuf,
    /// How it was found.
    pub found_by: FoundBy,
    /// The release, such as `1.96.0`.
    pub version: String,
    /// The commit of the compiler's source.
    pub commit: String,
    /// The version of its LLVM, such as `22.1.8`.
    pub llvm: String,
}

impl Compiler {
    /// Finds the first compiler with `core`'s source: `KASMINA_RUSTC`, the rustc of the path, Debian's.
    ///
    /// # Errors
    /// [`CompilerError::NoSource`] lists each compiler that was tried and what to install.
    pub fn find() -> Result<Compiler, CompilerError> {
        if let Some(rustc) = env::var_os(RUSTC_VARIABLE) {
            return Compiler::inspect(Path::new(&rustc), FoundBy::Environment);
        }
        let of_path = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let first = Compiler::inspect(Path::new(&of_path), FoundBy::Rustup);
        let Err(first) = first else { return first };
        Compiler::inspect(Path::new(DEBIAN_RUSTC), FoundBy::Debian)
            .map_err(|second| CompilerError::NoSource { tried: format!("{first}; {second}") })
    }

    fn inspect(rustc: &Path, found_by: FoundBy) -> Result<Compiler, CompilerError> {
        let verbose = query(rustc, &["-vV"])?;
        let field = |name: &'static str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
                .ok_or_else(|| CompilerError::Version { rustc: rustc.to_owned(), field: name })
        };
        let sysroot = PathBuf::from(query(rustc, &["--print", "sysroot"])?.trim());
        let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !core.is_file() {
            return Err(CompilerError::SourceMissing { rustc: rustc.to_owned(), core });
        }
        Ok(Compiler {
            rustc: rustc.to_owned(),
            found_by,
            version: field("release")?,
            commit: field("commit-hash")?,
            llvm: field("LLVM version")?,
        })
    }
}

fn query(rustc: &Path, arguments: &[&str]) -> Result<String, CompilerError> {
    let output = Command::new(rustc)
        .args(arguments)
        .output()
        .map_err(|source| CompilerError::Run { rustc: rustc.to_owned(), source })?;
    if !output.status.success() {
        return Err(CompilerError::Failed {
            rustc: rustc.to_owned(),
            arguments: arguments.join(" "),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
