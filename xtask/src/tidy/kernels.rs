//! Rules of kernel files: their documentation, no cfg, and a reference of the same name.

use super::{SourceFile, Violation, has_word};

const HEADINGS: [&str; 6] =
    ["# Math", "# Layout", "# Traffic", "# Launch", "# Determinism", "# Source"];

pub(crate) fn check(files: &[SourceFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.is_kernel()) {
        violations.extend(missing_headings(file));
        violations.extend(cfgs(file));
        // A variant that fetches through the copy engine computes what the plain kernel does.
        let reference =
            file.path.replacen("gpu-kernels/", "reference/", 1).replace("_tma.rs", ".rs");
        if !files.iter().any(|other| other.path == reference) {
            let message =
                format!("the kernel has no reference of the same name: write {reference}");
            violations.push(file.violation(0, message));
        }
    }
    violations
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
    fn a_variant_has_the_reference_of_its_operation() {
        let files = [
            SourceFile::new("gpu-kernels/src/a/k_tma.rs", GOOD.into()),
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
