//! What can go wrong, one enum for each module, and [`BuildError`] over them.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::lint::LintFinding;
use crate::target::{Target, Variant};

/// A failed build of kernels.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No usable compiler.
    #[error(transparent)]
    Compiler(#[from] CompilerError),
    /// The crate or its sources could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The compilation failed.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The compiler's PTX is not as expected.
    #[error("{variant}: {source}")]
    Ptx {
        /// The artifact.
        variant: Variant,
        /// What was found.
        source: PtxError,
    },
    /// The PTX failed the lint.
    #[error("{variant}: the PTX failed the lint:\n{}{}", lines(findings), place(ptx.as_deref()))]
    Lint {
        /// The artifact.
        variant: Variant,
        /// What has to be mended.
        findings: Vec<LintFinding>,
        /// Where the PTX was left.
        ptx: Option<PathBuf>,
    },
    /// libNVVM failed.
    #[error(transparent)]
    Nvvm(#[from] NvvmError),
    /// The manifest could not be written or read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A build-script helper ran outside a build script.
    #[error(
        "the variable {name} is not set: call this from a build script, which cargo sets it for"
    )]
    NotABuildScript {
        /// The missing variable.
        name: &'static str,
    },
    /// No target was asked for.
    #[error("no target was asked for: call `.target(Target::Sm80)` or another before `.build()`")]
    NoTarget,
}

fn place(ptx: Option<&Path>) -> String {
    ptx.map(|path| format!("\nthe lines are those of {}", path.display())).unwrap_or_default()
}

fn lines(findings: &[LintFinding]) -> String {
    findings.iter().map(LintFinding::to_string).collect::<Vec<_>>().join("\n")
}

/// The search for a compiler failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompilerError {
    /// No compiler with the source of `core`.
    #[error(
        "no rustc with the source of `core` was found ({tried}). Install one of: `rustup component add \
         rust-src`, or on Debian `apt-get install --no-install-recommends rustc-web rust-web-src`; or name a \
         rustc in KASMINA_RUSTC"
    )]
    NoSource {
        /// Why each candidate was refused.
        tried: String,
    },
    /// A rustc without the source of `core`.
    #[error("{rustc} has no source of `core` ({core} is missing)")]
    SourceMissing {
        /// The compiler.
        rustc: PathBuf,
        /// The file that was looked for.
        core: PathBuf,
    },
    /// A rustc that does not start.
    #[error("{rustc} does not start: {source}")]
    Run {
        /// The program.
        rustc: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A rustc that fails on a question.
    #[error("`{rustc} {arguments}` failed: {stderr}")]
    Failed {
        /// The program.
        rustc: PathBuf,
        /// Its arguments.
        arguments: String,
        /// What it said.
        stderr: String,
    },
    /// `rustc -vV` lacks a line.
    #[error("`{rustc} -vV` has no line `{field}: …`; name another rustc in KASMINA_RUSTC")]
    Version {
        /// The program.
        rustc: PathBuf,
        /// The missing field.
        field: &'static str,
    },
}

/// The kernel crate could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cargo does not start.
    #[error("cannot start cargo: {source}; put it on the PATH")]
    RunCargo {
        /// Why.
        source: io::Error,
    },
    /// `cargo metadata` failed.
    #[error("`cargo metadata` failed on {manifest}: {stderr}")]
    Metadata {
        /// The manifest.
        manifest: PathBuf,
        /// What cargo said.
        stderr: String,
    },
    /// `cargo metadata` answered in a form that is not known.
    #[error("`cargo metadata` gave JSON of an unknown form: {source}")]
    MetadataFormat {
        /// Where.
        source: serde_json::Error,
    },
    /// The manifest is a workspace without a package.
    #[error("{manifest} has no package: give the folder of the kernel crate, not of its workspace")]
    NoPackage {
        /// The manifest.
        manifest: PathBuf,
    },
    /// The package has no library.
    #[error("package {package} has no library target: kernels are compiled from `src/lib.rs`")]
    NoLibrary {
        /// The package.
        package: String,
    },
}

/// The compiler call failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Cargo does not start.
    #[error("cannot start cargo: {source}; put it on the PATH")]
    RunCargo {
        /// Why.
        source: io::Error,
    },
    /// The crate does not compile.
    #[error(
        "{package} does not compile for {target} with {rustc}: mend what the compiler says above"
    )]
    Rejected {
        /// The kernel crate.
        package: String,
        /// The GPU.
        target: Target,
        /// The compiler.
        rustc: PathBuf,
    },
    /// The output is not where rustc writes it.
    #[error(
        "cargo succeeded but {path} cannot be read: {source}; remove the target directory and retry"
    )]
    Output {
        /// The expected file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// PTX that is not of the expected form.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PtxError {
    /// No `.version` or `.target` line.
    #[error("the PTX has no `{directive}` line")]
    NoDirective {
        /// The directive.
        directive: &'static str,
    },
    /// A function whose text does not end.
    #[error("line {line}: the function `{name}` has no end")]
    OpenFunction {
        /// The function.
        name: String,
        /// Its line, from 1.
        line: usize,
    },
    /// A marker that does not parse.
    #[error(
        "line {line}: `{text}` is no launch-bounds marker; expected `// kasmina.kernel <entry> maxntid=<n> \
         minnctapersm=<n> [cluster=<x>,<y>,<z>] [arch=<architecture>] [spills]`"
    )]
    BadMarker {
        /// Its line, from 1.
        line: usize,
        /// The comment.
        text: String,
    },
    /// Two markers for one entry.
    #[error("the entry `{entry}` has two launch-bounds markers: kernel names must be unique")]
    DuplicateMarker {
        /// The entry.
        entry: String,
    },
    /// An entry in a module whose target lacks the entry's architecture.
    #[error(
        "the entry `{entry}` needs architecture {arch}, but the module is for {target}: leave it out there"
    )]
    Architecture {
        /// The entry.
        entry: String,
        /// What it declares.
        arch: String,
        /// The module's target.
        target: Target,
    },
    /// A marker whose entry is not in the module.
    #[error(
        "launch bounds are given for `{entry}`, which is no entry of the module: is the function `#[no_mangle]` \
         and public?"
    )]
    MarkerWithoutEntry {
        /// The entry.
        entry: String,
    },
    /// An entry without a marker.
    #[error("the entry `{entry}` has no launch bounds: write it with `#[kernel(block = …)]`")]
    EntryWithoutMarker {
        /// The entry.
        entry: String,
    },
    /// A path of the building machine is in the PTX.
    #[error(
        "line {line} carries a path of this machine: `{text}`; remove `file!()` from the kernels"
    )]
    MachinePath {
        /// The line, from 1.
        line: usize,
        /// The text.
        text: String,
    },
    /// A module without entries.
    #[error("the module has no entry: are the kernels reachable from the crate's root?")]
    NoEntry,
}

/// libNVVM could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NvvmError {
    /// The library was not found.
    #[error(
        "libNVVM was not found: install it with `pip install nvidia-nvvm`, or name the file in KASMINA_LIBNVVM"
    )]
    NotFound,
    /// The library does not load.
    #[error("{path} does not load: {source}")]
    Load {
        /// The library.
        path: PathBuf,
        /// Why.
        source: libloading::Error,
    },
    /// The target is older than libNVVM's current IR.
    #[error(
        "libNVVM takes this compiler's IR for sm_100 and newer, not for {target}: use LLVM's generator"
    )]
    Target {
        /// The GPU.
        target: Target,
    },
    /// A call failed.
    #[error("{call} failed with status {status}: {log}")]
    Call {
        /// The function of libNVVM.
        call: &'static str,
        /// Its result.
        status: i32,
        /// The program log.
        log: String,
    },
    /// The IR lacks the line that is replaced.
    #[error("the compiler's LLVM IR has no `target datalayout` line")]
    NoDataLayout,
    /// The IR calls libdevice, which is not there.
    #[error("the IR calls libdevice, but {path} cannot be read: {source}")]
    LibDevice {
        /// The bitcode file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// ptxas could not be used or refused the PTX.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PtxasError {
    /// No ptxas for the target.
    #[error(
        "no ptxas that knows {target} was found ({tried}): install it with `pip install {wheel}`, or name it in \
         {variable}"
    )]
    NotFound {
        /// The GPU.
        target: Target,
        /// The candidates and their releases.
        tried: String,
        /// The wheel that has it.
        wheel: &'static str,
        /// The variable that names it.
        variable: &'static str,
    },
    /// A file for ptxas could not be written, or it does not start.
    #[error("cannot run {ptxas}: {source}")]
    Run {
        /// The program.
        ptxas: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// ptxas refused the PTX.
    #[error("{ptxas} refused the PTX: {stderr}")]
    Refused {
        /// The program.
        ptxas: PathBuf,
        /// What it said.
        stderr: String,
    },
    /// The text is no PTX module.
    #[error(transparent)]
    Ptx(#[from] PtxError),
    /// The report lacks an entry.
    #[error("{ptxas} reported nothing on the entry `{entry}`")]
    NoReport {
        /// The program.
        ptxas: PathBuf,
        /// The entry.
        entry: String,
    },
}

/// The manifest could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file could not be read or written.
    #[error("cannot access {path}: {source}")]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no manifest.
    #[error("{path} is no manifest: {source}; write it again with `cargo xtask ptx`")]
    Format {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
    /// Another schema.
    #[error(
        "{path} has schema {got}, this builder reads {expected}: write it again with `cargo xtask ptx`"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// This builder's schema.
        expected: u32,
        /// The file's.
        got: u32,
    },
}
