//! The manifest beside the artifacts: who made them, from what, and what each entry uses.
//!
//! It is plain JSON, so that a loader can read it without this crate:
//!
//! ```json
//! {
//!   "schema": 1,
//!   "builder": "0.1.0",
//!   "compiler": { "version": "1.96.0", "commit": "…", "llvm": "22.1.8", "found_by": "debian" },
//!   "source_sha256": "…",
//!   "artifacts": [{
//!     "file": "kasmina_sm_80.ptx", "target": "sm_80", "capability": 80,
//!     "generator": "llvm-nvptx", "generator_version": "22.1.8", "ptx_version": "7.0",
//!     "flags": ["-Ctarget-cpu=sm_80"], "sha256": "…",
//!     "entries": [{
//!       "name": "saxpy", "block": 256, "min_blocks": 4, "cluster": null, "arch": null,
//!       "may_spill": false,
//!       "parameter_bytes": 28,
//!       "usage": { "registers": 10, "spill_store_bytes": 0, "spill_load_bytes": 0,
//!                  "stack_bytes": 0, "shared_bytes": 0, "barriers": 0 }
//!     }]
//!   }]
//! }
//! ```
//!
//! `usage` is null where no ptxas was there to ask.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::builder::{Artifact, PreparedBuild};
use crate::compiler::FoundBy;
use crate::error::{BuildError, ManifestError};
use crate::ptxas::{EntryUsage, PtxasReport};
use crate::sources::sha256;

/// The form of the manifest that this builder writes and reads.
pub const SCHEMA: u32 = 1;

/// The manifest of a folder of artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of this file.
    pub schema: u32,
    /// The version of the builder that wrote it.
    pub builder: String,
    /// The compiler.
    pub compiler: CompilerRecord,
    /// SHA-256 over the sources of the kernel crate and its path dependencies.
    pub source_sha256: String,
    /// The artifacts, in the order in which they were built.
    pub artifacts: Vec<ArtifactRecord>,
}

/// What identifies a compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompilerRecord {
    /// Release of rustc.
    pub version: String,
    /// Commit of rustc.
    pub commit: String,
    /// Release of its LLVM.
    pub llvm: String,
    /// How it was found.
    pub found_by: FoundBy,
}

/// One PTX file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// File name, beside the manifest.
    pub file: String,
    /// The GPU, such as `sm_90a`.
    pub target: String,
    /// Its compute capability as one number, such as 90.
    pub capability: u32,
    /// `llvm-nvptx` or `libnvvm`.
    pub generator: String,
    /// Its version.
    pub generator_version: String,
    /// PTX version, such as `8.0`: the driver must know it.
    pub ptx_version: String,
    /// The compiler flags that decided the code.
    pub flags: Vec<String>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The entries, by name.
    pub entries: Vec<EntryRecord>,
}

impl fmt::Display for ArtifactRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (PTX {}, {})", self.target, self.ptx_version, self.generator)
    }
}

/// One kernel entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// The symbol.
    pub name: String,
    /// Threads of a block.
    pub block: u32,
    /// Blocks that an SM shall hold at least.
    pub min_blocks: u32,
    /// Blocks of a cluster, where declared.
    pub cluster: Option<[u32; 3]>,
    /// The architecture that it needs, where that is more than the oldest: `90` or `90a`.
    #[serde(default)]
    pub arch: Option<String>,
    /// The kernel declares that it may spill.
    pub may_spill: bool,
    /// Bytes of the parameter block.
    pub parameter_bytes: u32,
    /// What ptxas reported, if it was asked.
    pub usage: Option<EntryUsage>,
}

/// An artifact as it goes into a manifest.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its file name, beside the manifest.
    pub file: String,
    /// The artifact.
    pub artifact: Artifact,
    /// What ptxas said, where there was one.
    pub report: Option<PtxasReport>,
}

impl Manifest {
    /// The manifest of `artifacts`.
    ///
    /// # Errors
    /// If a source file cannot be read.
    pub fn new(build: &PreparedBuild, artifacts: &[Built]) -> Result<Manifest, BuildError> {
        Ok(Manifest {
            schema: SCHEMA,
            builder: env!("CARGO_PKG_VERSION").to_owned(),
            compiler: CompilerRecord {
                version: build.compiler.version.clone(),
                commit: build.compiler.commit.clone(),
                llvm: build.compiler.llvm.clone(),
                found_by: build.compiler.found_by,
            },
            source_sha256: build.kernels.hash()?,
            artifacts: artifacts.iter().map(record).collect(),
        })
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// If the file cannot be read, is no manifest, or has another schema.
    pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ManifestError::Access { path: path.to_owned(), source })?;
        let wrong = |source| ManifestError::Format { path: path.to_owned(), source };
        // The schema first: another schema may have other fields.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
        let got = value.get("schema").and_then(serde_json::Value::as_u64).unwrap_or(0) as u32;
        if got != SCHEMA {
            return Err(ManifestError::Schema { path: path.to_owned(), expected: SCHEMA, got });
        }
        serde_json::from_value(value).map_err(wrong)
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|source| ManifestError::Format { path: path.to_owned(), source })?;
        text.push('\n');
        fs::write(path, text)
            .map_err(|source| ManifestError::Access { path: path.to_owned(), source })
    }
}

fn record(built: &Built) -> ArtifactRecord {
    let Built { file, artifact, report } = built;
    let variant = artifact.variant;
    ArtifactRecord {
        file: file.clone(),
        target: variant.target.name().to_owned(),
        capability: variant.target.capability(),
        generator: variant.generator.name().to_owned(),
        generator_version: artifact.generator_version.clone(),
        ptx_version: artifact.ptx_version.clone(),
        flags: artifact.flags.clone(),
        sha256: sha256(artifact.ptx.as_bytes()),
        entries: artifact
            .entries
            .iter()
            .map(|(name, entry)| EntryRecord {
                name: name.clone(),
                block: entry.bounds.block,
                min_blocks: entry.bounds.min_blocks,
                cluster: entry.bounds.cluster,
                arch: entry.bounds.arch.clone(),
                may_spill: entry.bounds.may_spill,
                parameter_bytes: entry.parameter_bytes,
                usage: report.as_ref().and_then(|report| report.entries.get(name).copied()),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_the_file_and_another_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let mut manifest = Manifest {
            schema: SCHEMA,
            builder: "0.1.0".into(),
            compiler: CompilerRecord {
                version: "1.96.0".into(),
                commit: "c".into(),
                llvm: "22.1.8".into(),
                found_by: FoundBy::Debian,
            },
            source_sha256: sha256(b""),
            artifacts: Vec::new(),
        };
        manifest.write(&path).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest);
        manifest.schema = SCHEMA + 1;
        manifest.write(&path).unwrap();
        let error = Manifest::read(&path).unwrap_err();
        assert!(matches!(error, ManifestError::Schema { got: 2, .. }), "{error}");
    }
}
