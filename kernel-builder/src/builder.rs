//! [`KernelBuilder`]: from a folder with a kernel crate to linted PTX.

use std::collections::BTreeMap;
use std::env;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::compile::{Compilation, Emit};
use crate::compiler::Compiler;
use crate::error::{BuildError, NvvmError, PtxError};
use crate::launch_bounds::{self, LaunchBounds};
use crate::lint::{self, LintFinding};
use crate::nvvm::{self, Nvvm};
use crate::ptx::Module;
use crate::sources::KernelCrate;
use crate::target::{CodeGenerator, Target, Variant};

/// Compiles one kernel crate for a list of targets.
#[derive(Clone, Debug)]
pub struct KernelBuilder {
    crate_dir: PathBuf,
    variants: Vec<Variant>,
    target_dir: Option<PathBuf>,
    deny_warnings: bool,
}

/// The PTX of one variant, with launch bounds inserted and lint passed.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Target and code generator.
    pub variant: Variant,
    /// The text of the module.
    pub ptx: String,
    /// PTX version, such as `8.0`.
    pub ptx_version: String,
    /// The compiler flags that decided the code.
    pub flags: Vec<String>,
    /// The version of the code generator.
    pub generator_version: String,
    /// The entries by name.
    pub entries: BTreeMap<String, Entry>,
    /// Findings of the lint that are no errors.
    pub warnings: Vec<LintFinding>,
}

/// A kernel entry of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its declared launch bounds.
    pub bounds: LaunchBounds,
    /// Bytes of its parameter block.
    pub parameter_bytes: u32,
}

impl KernelBuilder {
    /// A builder for the kernel crate in `crate_dir`, the folder of its `Cargo.toml`.
    pub fn new(crate_dir: impl Into<PathBuf>) -> KernelBuilder {
        KernelBuilder {
            crate_dir: crate_dir.into(),
            variants: Vec::new(),
            target_dir: None,
            deny_warnings: false,
        }
    }

    /// Adds a target, compiled by LLVM.
    pub fn target(self, target: Target) -> KernelBuilder {
        self.variant(Variant { target, generator: CodeGenerator::LlvmNvptx })
    }

    /// Adds a target with a choice of the code generator.
    pub fn variant(mut self, variant: Variant) -> KernelBuilder {
        self.variants.push(variant);
        self
    }

    /// Where cargo's intermediate files go; `kasmina-kernels` in the workspace's target directory otherwise.
    pub fn target_dir(mut self, folder: impl Into<PathBuf>) -> KernelBuilder {
        self.target_dir = Some(folder.into());
        self
    }

    /// Makes warnings of the kernel crate errors.
    pub fn deny_warnings(mut self) -> KernelBuilder {
        self.deny_warnings = true;
        self
    }

    /// Finds the compiler and reads the crate, so that variants can be built one at a time.
    ///
    /// # Errors
    /// If there is no variant, no compiler, or the crate cannot be read.
    pub fn prepare(self) -> Result<PreparedBuild, BuildError> {
        if self.variants.is_empty() {
            return Err(BuildError::NoTarget);
        }
        let kernels = KernelCrate::read(&self.crate_dir)?;
        let compiler = Compiler::find()?;
        let target_dir =
            self.target_dir.unwrap_or_else(|| kernels.target_directory.join("kasmina-kernels"));
        Ok(PreparedBuild {
            compiler,
            kernels,
            target_dir,
            variants: self.variants,
            deny_warnings: self.deny_warnings,
        })
    }

    /// Builds every variant; the artifacts are in the order in which the variants were added.
    ///
    /// # Errors
    /// The first failure of [`KernelBuilder::prepare`] or [`PreparedBuild::build`].
    pub fn build(self) -> Result<Vec<Artifact>, BuildError> {
        let prepared = self.prepare()?;
        prepared.for_each(|variant| prepared.build(variant)).into_iter().collect()
    }
}

/// A builder that has its compiler and its sources.
#[derive(Clone, Debug)]
pub struct PreparedBuild {
    /// The compiler that builds.
    pub compiler: Compiler,
    /// The crate that is built.
    pub kernels: KernelCrate,
    /// The variants that were asked for.
    pub variants: Vec<Variant>,
    target_dir: PathBuf,
    deny_warnings: bool,
}

impl PreparedBuild {
    /// Runs `job` for every variant, as many at once as there are cores: code generation takes one core.
    /// The results are in the order of `variants`.
    pub fn for_each<T: Send>(&self, job: impl Fn(Variant) -> T + Sync) -> Vec<T> {
        let workers =
            thread::available_parallelism().map_or(1, NonZero::get).min(self.variants.len());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(&variant) = self.variants.get(index) else { return done };
                done.push((index, job(variant)));
            }
        };
        let mut results = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let results = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            results.flatten().collect::<Vec<_>>()
        });
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Builds one variant.
    ///
    /// # Errors
    /// If the crate does not compile, a launch-bounds marker does not match, libNVVM fails, a path of this
    /// machine is in the PTX, or the lint finds a duplicated barrier or an undeclared local array.
    pub fn build(&self, variant: Variant) -> Result<Artifact, BuildError> {
        let target = variant.target;
        let nvvm = match variant.generator {
            CodeGenerator::LlvmNvptx => None,
            CodeGenerator::LibNvvm if target.capability() < 100 => {
                return Err(NvvmError::Target { target }.into());
            }
            CodeGenerator::LibNvvm => Some(Nvvm::find()?),
        };
        let compilation = Compilation {
            compiler: &self.compiler,
            kernels: &self.kernels,
            target,
            emit: if nvvm.is_some() { Emit::LlvmIr } else { Emit::Ptx },
            deny_warnings: self.deny_warnings,
            target_dir: &self.target_dir.join(variant.suffix()),
        };
        let output = compilation.run()?;
        let (raw, generator_version) = match nvvm {
            None => (output, self.compiler.llvm.clone()),
            Some(nvvm) => {
                let text = nvvm.compile(&output, target)?;
                let version = nvvm::generator_version(&text);
                (text, version)
            }
        };
        self.finish(variant, &raw, compilation.flags(), generator_version)
    }

    fn finish(
        &self,
        variant: Variant,
        raw: &str,
        flags: Vec<String>,
        generator_version: String,
    ) -> Result<Artifact, BuildError> {
        let wrong = |source| BuildError::Ptx { variant, source };
        let (ptx, bounds) = launch_bounds::apply(raw, variant.target).map_err(wrong)?;
        self.refuse_machine_paths(&ptx).map_err(wrong)?;
        let module = Module::parse(&ptx).map_err(wrong)?;
        let report = lint::check(&module, &bounds);
        if !report.errors.is_empty() {
            // The findings name lines of it; where it cannot be written they still say what is wrong.
            let path = self.target_dir.join(format!("refused_{}.ptx", variant.suffix()));
            let ptx = std::fs::write(&path, &ptx).is_ok().then_some(path);
            return Err(BuildError::Lint { variant, findings: report.errors, ptx });
        }
        let ptx_version = module.version.to_owned();
        let entries = module
            .entries()
            .map(|entry| {
                let parameter_bytes = entry.parameter_bytes();
                let bounds = bounds[entry.name].clone();
                (entry.name.to_owned(), Entry { bounds, parameter_bytes })
            })
            .collect();
        let warnings = report.warnings;
        Ok(Artifact { variant, ptx, ptx_version, flags, generator_version, entries, warnings })
    }

    fn refuse_machine_paths(&self, ptx: &str) -> Result<(), PtxError> {
        let crate_dir = self.kernels.manifest_path.parent().map(PathBuf::from);
        let home = env::var_os("HOME").map(PathBuf::from);
        let folders: Vec<String> = [crate_dir, home, Some(self.target_dir.clone())]
            .into_iter()
            .flatten()
            .map(|folder| folder.to_string_lossy().into_owned())
            .filter(|folder| folder.len() > 1)
            .collect();
        for (index, line) in ptx.lines().enumerate() {
            if folders.iter().any(|folder| line.contains(folder)) {
                return Err(PtxError::MachinePath { line: index + 1, text: line.to_owned() });
            }
        }
        Ok(())
    }
}
