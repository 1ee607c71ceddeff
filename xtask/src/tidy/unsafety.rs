//! Where `unsafe` and inline assembly may stand.

use super::{SourceFile, Violation, has_word};

/// The crates that touch memory or the driver, and libNVVM's loader.
const UNSAFE_FOLDERS: [&str; 8] = [
    "device/",
    "simt/",
    "gpu-kernels/",
    "macros/",
    "libcuda/",
    "host/src/driver",
    "kernel-builder/src/nvvm.rs",
    "kernel-builder/examples/",
];

pub(crate) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !file.is_under(&UNSAFE_FOLDERS) && !file.is_test() {
        let message = "`unsafe` stands in device, simt, gpu-kernels, macros, libcuda and host/src/driver only";
        let mut found = lines_with(file, file.tests_from, &["unsafe"], message);
        // A type that crosses the border says so by an unsafe trait; shared-types has nothing else unsafe.
        let is_type = |line: usize| file.code[line - 1].trim_start().starts_with("unsafe impl");
        found.retain(|violation| !(file.is_under(&["shared-types/"]) && is_type(violation.line)));
        violations.extend(found);
    }
    let is_wrapper = file.path.starts_with("device/") && is_nvptx(&file.path);
    if !is_wrapper && !file.is_under(&["macros/", "kernel-builder/examples/"]) {
        let message = "inline assembly stands in device/**/nvptx.rs and macros only: wrap the instruction there";
        let macros = ["asm!", "global_asm!"];
        violations.extend(lines_with(file, file.code.len(), &macros, message));
    }
    violations
}

/// `nvptx.rs`, or a file of a folder `nvptx/`.
fn is_nvptx(path: &str) -> bool {
    path.split('/').any(|part| part == "nvptx" || part == "nvptx.rs")
}

fn lines_with(file: &SourceFile, end: usize, words: &[&str], message: &str) -> Vec<Violation> {
    let named = |line: &str| words.iter().any(|word| has_word(line, word));
    file.code[..end]
        .iter()
        .enumerate()
        .filter(|(_, line)| named(line))
        .map(|(index, _)| file.violation(index, message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&SourceFile::new(path, text.into())).len()
    }

    #[test]
    fn unsafe_stands_where_memory_is_touched() {
        let code = "fn f() { unsafe { g() } }\n";
        assert_eq!(count("host/src/layer.rs", code), 1);
        assert_eq!(count("host/src/driver/module.rs", code), 0);
        assert_eq!(count("tests/tests/launch.rs", code), 0);
        assert_eq!(count("host/src/layer.rs", "// unsafe\nconst S: &str = \"unsafe\";\n"), 0);
        assert_eq!(
            count("host/src/layer.rs", &format!("#[cfg(test)]\nmod tests {{ {code} }}\n")),
            0
        );
    }

    #[test]
    fn shared_types_may_promise_a_layout() {
        let code = "unsafe impl Pod for View {}\n";
        assert_eq!(count("shared-types/src/view.rs", code), 0);
        assert_eq!(count("host/src/layer.rs", code), 1);
        assert_eq!(count("shared-types/src/view.rs", "unsafe { read(p) }\n"), 1);
    }

    #[test]
    fn assembly_stands_in_wrappers() {
        let code = "asm!(\"bar.sync 0;\");\n";
        assert_eq!(count("device/src/warp/nvptx.rs", code), 0);
        assert_eq!(count("device/src/warp/mod.rs", code), 1);
        assert_eq!(count("gpu-kernels/src/a.rs", "global_asm!(\"\");\n"), 1);
        assert_eq!(count("libcuda/src/lib.rs", "naked_asm!(\"jmp\");\n"), 0);
    }
}
