//! What a kernel crate is made of: its package, its path dependencies, and a hash over their files.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::SourceError;

/// A kernel crate as cargo sees it on the device target.
#[derive(Clone, Debug)]
pub struct KernelCrate {
    /// The manifest of the package.
    pub manifest_path: PathBuf,
    /// The package name.
    pub package: String,
    /// The library's name, with underscores: what rustc names its output after.
    pub library: String,
    /// Cargo's target directory of the workspace.
    pub target_directory: PathBuf,
    /// The source files of the crate and of its path dependencies, by `package/path in the package`.
    pub files: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<CargoTarget>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

impl KernelCrate {
    /// Asks cargo about the crate in `crate_dir`.
    ///
    /// # Errors
    /// If cargo fails, if the folder holds no library package, or if a source file cannot be listed.
    pub fn read(crate_dir: &Path) -> Result<KernelCrate, SourceError> {
        let manifest = crate_dir.join("Cargo.toml");
        let manifest_path = manifest
            .canonicalize()
            .map_err(|source| SourceError::Read { path: manifest, source })?;
        let metadata = metadata(&manifest_path)?;
        let package = metadata
            .packages
            .iter()
            .find(|package| package.manifest_path == manifest_path)
            .ok_or_else(|| SourceError::NoPackage { manifest: manifest_path.clone() })?;
        let library = package
            .targets
            .iter()
            .find(|target| target.kind.iter().any(|kind| kind.ends_with("lib")))
            .ok_or_else(|| SourceError::NoLibrary { package: package.name.clone() })?;
        let mut files = BTreeMap::new();
        for (name, folder) in metadata.path_packages(&package.id) {
            for path in package_files(folder)? {
                let relative =
                    path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(format!("{name}/{relative}"), path);
            }
        }
        Ok(KernelCrate {
            package: package.name.clone(),
            library: library.name.replace('-', "_"),
            target_directory: metadata.target_directory.clone(),
            files,
            manifest_path,
        })
    }

    /// SHA-256 over the name, length and content of each file in order, as hex.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn hash(&self) -> Result<String, SourceError> {
        let mut hasher = Sha256::new();
        for (name, path) in &self.files {
            let content = fs::read(path)
                .map_err(|source| SourceError::Read { path: path.clone(), source })?;
            hasher.update(name.as_bytes());
            hasher.update([0]);
            hasher.update((content.len() as u64).to_le_bytes());
            hasher.update(&content);
        }
        Ok(hex(&hasher.finalize()))
    }
}

/// SHA-256 of some bytes, as hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cargo that runs this build, or the one of the path.
pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn metadata(manifest_path: &Path) -> Result<Metadata, SourceError> {
    let output = Command::new(cargo_program())
        .args(["metadata", "--format-version=1", "--filter-platform=nvptx64-nvidia-cuda"])
        .arg("--manifest-path")
        .arg(manifest_path)
        .output()
        .map_err(|source| SourceError::RunCargo { source })?;
    if !output.status.success() {
        return Err(SourceError::Metadata {
            manifest: manifest_path.to_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(|source| SourceError::MetadataFormat { source })
}

impl Metadata {
    /// Name and folder of the package `root` and of the path packages that it is built from.
    fn path_packages<'a>(&'a self, root: &'a str) -> Vec<(&'a str, &'a Path)> {
        let packages: BTreeMap<&str, &Package> =
            self.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let nodes: BTreeMap<&str, &Node> =
            self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            let Some(package) = packages.get(id).filter(|package| package.source.is_none()) else {
                continue;
            };
            if !seen.insert(id) {
                continue;
            }
            found.extend(
                package.manifest_path.parent().map(|folder| (package.name.as_str(), folder)),
            );
            let dependencies = nodes.get(id).map_or(&[][..], |node| &node.deps);
            let built = |dependency: &&NodeDependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
            };
            pending.extend(dependencies.iter().filter(built).map(|dep| dep.pkg.as_str()));
        }
        found
    }
}

fn package_files(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let mut files = vec![folder.join("Cargo.toml")];
    let script = folder.join("build.rs");
    if script.is_file() {
        files.push(script);
    }
    list_rust_files(&folder.join("src"), &mut files)?;
    Ok(files)
}

fn list_rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    let failed = |source| SourceError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            list_rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_content_and_name_but_not_on_the_folder() {
        let make = |file: &str, content: &str| {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("src")).unwrap();
            let manifest = "[workspace]\n[package]\nname = \"k\"\nedition = \"2024\"\n";
            fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
            fs::write(folder.path().join("src/lib.rs"), "").unwrap();
            fs::write(folder.path().join("src").join(file), content).unwrap();
            KernelCrate::read(folder.path()).unwrap().hash().unwrap()
        };
        let first = make("a.rs", "one");
        assert_eq!(first, make("a.rs", "one"));
        assert_ne!(first, make("a.rs", "two"));
        assert_ne!(first, make("b.rs", "one"));
    }
}
