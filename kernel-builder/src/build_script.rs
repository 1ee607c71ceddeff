//! For a user's own build script: compile the kernels and hand their PTX to the crate.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::builder::{Artifact, KernelBuilder};
use crate::error::{BuildError, ManifestError};

impl KernelBuilder {
    /// Builds in a build script: writes `<package>_<variant>.ptx` to `OUT_DIR`, tells cargo which sources to
    /// watch, and sets the variable `<PACKAGE>_<VARIANT>_PTX` to the file, so that the crate can say
    /// `include_str!(env!("MY_KERNELS_SM_80_PTX"))`. Warnings of the lint become cargo warnings.
    ///
    /// # Errors
    /// As [`KernelBuilder::build`]; also outside a build script, or if a file cannot be written.
    pub fn build_in_script(self) -> Result<Vec<Artifact>, BuildError> {
        let out_dir = env::var_os("OUT_DIR")
            .map(PathBuf::from)
            .ok_or(BuildError::NotABuildScript { name: "OUT_DIR" })?;
        let prepared = self.target_dir(out_dir.join("kasmina-kernels")).prepare()?;
        for path in prepared.kernels.files.values() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
        for name in ["KASMINA_RUSTC", "KASMINA_LIBNVVM"] {
            println!("cargo:rerun-if-env-changed={name}");
        }
        let artifacts = prepared
            .for_each(|variant| prepared.build(variant))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        for artifact in &artifacts {
            let variant = artifact.variant;
            let stem = format!("{}_{}", prepared.kernels.library, variant.suffix());
            let path = out_dir.join(format!("{stem}.ptx"));
            fs::write(&path, &artifact.ptx)
                .map_err(|source| ManifestError::Access { path: path.clone(), source })?;
            println!("cargo:rustc-env={}_PTX={}", stem.to_uppercase(), path.display());
            for warning in &artifact.warnings {
                println!("cargo:warning={variant}: {warning}");
            }
        }
        Ok(artifacts)
    }
}
