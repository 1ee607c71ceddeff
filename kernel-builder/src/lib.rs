//! Compiles a crate of Rust kernels to PTX.
//!
//! ```no_run
//! use kasmina_kernel_builder::{KernelBuilder, Target};
//!
//! let artifacts = KernelBuilder::new("kernels").target(Target::Sm80).target(Target::Sm90a).build()?;
//! for artifact in &artifacts {
//!     println!("{}: {} entries", artifact.variant, artifact.entries.len());
//! }
//! # Ok::<(), kasmina_kernel_builder::BuildError>(())
//! ```
//!
//! A build is: find a rustc with the source of `core` ([`Compiler`]); compile for `nvptx64-nvidia-cuda`
//! with LLVM's PTX back end or with libNVVM; insert the launch bounds that `#[kernel]` left as comments
//! ([`launch_bounds`]); lint the PTX ([`lint`]). [`Ptxas`] assembles an artifact and reports registers and
//! spills, and [`manifest`] keeps all of it as JSON. In a build script,
//! [`KernelBuilder::build_in_script`] does the whole; `examples/user-crate` shows it.
//!
//! Tools are looked for in `KASMINA_RUSTC`, `KASMINA_PTXAS`, `KASMINA_PTXAS_SM70` and `KASMINA_LIBNVVM`
//! first, then on the `PATH` and in `CUDA_HOME`, then among the wheels of the `python3` on the `PATH`.
//! [`probe`] says what was found.

mod build_script;
mod builder;
mod compile;
mod compiler;
mod error;
mod flow;
pub mod launch_bounds;
pub mod lint;
pub mod manifest;
mod nvvm;
pub mod occupancy;
mod probe;
pub mod ptx;
mod ptxas;
mod sources;
mod target;
mod tools;
mod uniformity;

pub use builder::{Artifact, Entry, KernelBuilder, PreparedBuild};
pub use compiler::{Compiler, FoundBy};
pub use error::{
    BuildError, CompileError, CompilerError, ManifestError, NvvmError, PtxError, PtxasError,
    SourceError,
};
pub use nvvm::Nvvm;
pub use probe::{Finding, Probe, probe};
pub use ptxas::{EntryUsage, Ptxas, PtxasReport};
pub use sources::{KernelCrate, sha256};
pub use target::{CodeGenerator, Target, Variant};
