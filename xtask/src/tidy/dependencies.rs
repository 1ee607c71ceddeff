//! Which crate may depend on which, and who may name `cust`.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::{SourceFile, Violation, has_word};
use crate::error::XtaskError;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

pub(crate) fn check(root: &Path, files: &[SourceFile]) -> Result<Vec<Violation>, XtaskError> {
    const COMMAND: &str = "cargo metadata --no-deps --format-version=1";
    let failed = |reason: String| XtaskError::Run { command: COMMAND, reason };
    let output = Command::new("cargo")
        .args(COMMAND.split(' ').skip(1))
        .current_dir(root)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    let mut violations: Vec<Violation> = metadata
        .packages
        .iter()
        .flat_map(|package| package.dependencies.iter().map(move |dep| (package, dep)))
        .filter_map(|(package, dependency)| {
            let message = forbidden(&package.name, &dependency.name, dependency.kind.as_deref())?;
            Some(place(files, package, dependency, message))
        })
        .collect();
    violations.extend(files.iter().flat_map(names_cust));
    Ok(violations)
}

/// Why a dependency is not allowed. Tests may use more.
fn forbidden(package: &str, dependency: &str, kind: Option<&str>) -> Option<&'static str> {
    if kind == Some("dev") {
        return None;
    }
    let of_house = dependency == "kasmina" || dependency.starts_with("kasmina-");
    match package {
        "kasmina-kernels" => {
            const ALLOWED: [&str; 3] = ["kasmina-device", "kasmina-macros", "kasmina-types"];
            (of_house && !ALLOWED.contains(&dependency)).then_some(
                "gpu-kernels may depend on device, macros and shared-types only: kernels know no host",
            )
        }
        "kasmina-reference" => {
            const KERNEL_CODE: [&str; 4] =
                ["kasmina-kernels", "kasmina-device", "kasmina-macros", "kasmina-simt"];
            KERNEL_CODE.contains(&dependency).then_some(
                "reference imports no kernel code: what says what is right shares nothing with the kernels",
            )
        }
        "kasmina" | "kasmina-libcuda" => None,
        _ => matches!(dependency, "cust" | "cust_raw")
            .then_some("only host and libcuda depend on cust: use the host's driver module"),
    }
}

fn place(
    files: &[SourceFile],
    package: &Package,
    dependency: &Dependency,
    message: &str,
) -> Violation {
    let name = format!("name = \"{}\"", package.name);
    let manifest = files.iter().find(|file| {
        file.path.ends_with("Cargo.toml") && file.text.lines().any(|line| line == name)
    });
    let line = manifest.and_then(|file| {
        file.text.lines().position(|line| line.trim_start().starts_with(&dependency.name))
    });
    Violation {
        path: manifest.map_or_else(|| package.name.clone(), |file| file.path.clone()),
        line: line.map_or(1, |index| index + 1),
        message: format!("`{}`: {message}", dependency.name),
    }
}

fn names_cust(file: &SourceFile) -> Vec<Violation> {
    if file.is_under(&["host/src/driver", "libcuda/"]) {
        return Vec::new();
    }
    let named = |line: &&String| has_word(line, "cust") || has_word(line, "cust_raw");
    file.code
        .iter()
        .enumerate()
        .filter(|(_, line)| named(line))
        .map(|(index, _)| {
            file.violation(index, "only host/src/driver and libcuda name `cust`: move it there")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_depend_one_way() {
        for (package, dependency) in [
            ("kasmina-kernels", "kasmina"),
            ("kasmina-kernels", "kasmina-simt"),
            ("kasmina-reference", "kasmina-kernels"),
            ("kasmina-benches", "cust"),
        ] {
            assert!(forbidden(package, dependency, None).is_some(), "{package} -> {dependency}");
        }
        for (package, dependency, kind) in [
            ("kasmina-kernels", "kasmina-device", None),
            ("kasmina-kernels", "half", None),
            ("kasmina-kernels", "kasmina-simt", Some("dev")),
            ("kasmina-reference", "rayon", None),
            ("kasmina", "cust", None),
        ] {
            assert!(forbidden(package, dependency, kind).is_none(), "{package} -> {dependency}");
        }
    }

    #[test]
    fn cust_is_named_in_the_driver_only() {
        let text = "use cust::module::Module;\n// cust is fine here\nlet custom = 1;\n";
        let named = |path: &str| names_cust(&SourceFile::new(path, text.into())).len();
        assert_eq!(named("host/src/layer.rs"), 1);
        assert_eq!(named("host/src/driver/module.rs"), 0);
    }
}
