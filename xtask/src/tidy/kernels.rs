//! Rules of kernel files: their documentation, no cfg, and a reference.

use super::{SourceFile, Violation, has_word};

const HEADINGS: [&str; 6] =
    ["# Math", "# Layout", "# Traffic", "# Launch", "# Determinism", "# Source"];

pub(crate) fn check(files: &[SourceFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.is_kernel()) {
        violations.extend(missing_headings(file));
        violations.extend(cfgs(file));
        let reference = file.path.replacen("gpu-kernels/", "reference/", 1);
        let known = |other: &SourceFile| other.path == reference || names_reference(file, other);
        if !files.iter().any(known) {
            let message = format!(
                "the kernel has no reference: write {reference}, or name the one of its operation \
                 under `# Source`"
            );
            violations.push(file.violation(0, message));
        }
    }
    violations
}

/// Whether the kernel's documentation names the function that `other` is the file of, as
/// `kasmina_reference::folder::name`.
fn names_reference(kernel: &SourceFile, other: &SourceFile) -> bool {
    let Some(path) = other.path.strip_prefix("reference/src/").and_then(|p| p.strip_suffix(".rs"))
    else {
        return false;
    };
    let name = format!("`kasmina_reference::{}`", path.replace('/', "::"));
    kernel.text.lines().any(|line| line.starts_with("//!") && line.contains(&name))
}

fn missing_headings(file: &SourceFile) -> Vec<Violation> {
    let docs: Vec<&str> =
        file.text.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim).collect();
    HEADINGS
        .iter()
        .filter(|heading| !docs.contains(heading))
        .map(|heading| {
            file.violation(0, format!("the module's documentation lacks `//! {heading}`"))
        })
        .collect()
}

fn cfgs(file: &SourceFile) -> Vec<Violation> {
    let has_cfg = |line: &str| has_word(line, "cfg") || has_word(line, "cfg_attr");
    file.code
        .iter()
        .enumerate()
        .filter(|(_, line)| has_cfg(line))
        .map(|(index, _)| {
            file.violation(
                index,
                "a kernel file has no cfg: let a facility of `device` make the difference",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "//! One.\n//!\n//! # Math\n//! # Layout\n//! # Traffic\n//! # Launch\n//! # \
                        Determinism\n//! # Source\n#[kernel(block = 256)]\npub unsafe fn k() {}\n";

    fn violations(kernel: &str, with_reference: bool) -> Vec<Violation> {
        let mut files = vec![SourceFile::new("gpu-kernels/src/a/k.rs", kernel.into())];
        if with_reference {
            files.push(SourceFile::new("reference/src/a/k.rs", String::new()));
        }
        check(&files)
    }

    #[test]
    fn a_kernel_needs_its_headings_and_its_reference() {
        assert_eq!(violations(GOOD, true), []);
        assert_eq!(violations(GOOD, false).len(), 1);
        let without = GOOD.replace("//! # Traffic\n", "");
        assert!(violations(&without, true)[0].message.contains("# Traffic"));
    }

    #[test]
    fn a_kernel_may_name_the_reference_of_its_operation() {
        let part = GOOD.replace("# Source\n", "# Source\n//! `kasmina_reference::a::k`.\n");
        let files = [
            SourceFile::new("gpu-kernels/src/a/k_part.rs", part),
            SourceFile::new("reference/src/a/k.rs", String::new()),
        ];
        assert_eq!(check(&files), []);
        assert_eq!(check(&files[..1]).len(), 1);
    }

    #[test]
    fn a_kernel_file_has_no_cfg() {
        let with = format!("{GOOD}#[cfg(test)]\nmod tests {{}}\n");
        assert_eq!(violations(&with, true)[0].line, 11);
        let helper = SourceFile::new("gpu-kernels/src/a/mod.rs", "#[cfg(test)]\nmod t;\n".into());
        assert_eq!(check(&[helper]), []);
    }
}
