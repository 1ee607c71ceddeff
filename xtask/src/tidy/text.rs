//! Rules of every file: its length, its documentation, no path of a machine.

use super::{SourceFile, Violation};

const MOST_LINES: usize = 600;
const MOST_TEST_LINES: usize = 800;
/// First folders of paths that exist on one machine only.
const MACHINE_FOLDERS: [&str; 4] = ["root", "work", "home", "Users"];

pub(crate) fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = machine_paths(file);
    if file.path.ends_with(".rs") {
        violations.extend(too_long(file));
        violations.extend(undocumented(file));
        violations.extend(unreasoned(file));
    }
    violations
}

fn too_long(file: &SourceFile) -> Option<Violation> {
    let is_generated = file.path.split('/').any(|part| part == "generated" || part == "ptx");
    let most = if file.is_test() { MOST_TEST_LINES } else { MOST_LINES };
    let lines = file.text.lines().count();
    (lines > most && !is_generated).then(|| {
        file.violation(
            most,
            format!("{lines} lines, {most} are allowed: split the file by what it does"),
        )
    })
}

fn undocumented(file: &SourceFile) -> Option<Violation> {
    let mut lines = file.text.lines().map(str::trim).enumerate();
    let first = lines.find(|(_, line)| !line.is_empty() && !line.starts_with("#!"));
    let (index, line) = first.unwrap_or((0, ""));
    (!line.starts_with("//!")).then(|| {
        file.violation(index, "the file does not begin with a `//!` that says what it is for")
    })
}

fn unreasoned(file: &SourceFile) -> Vec<Violation> {
    let opens = |line: &str| {
        ["#[allow(", "#![allow(", "#[expect(", "#![expect("]
            .iter()
            .any(|start| line.contains(start))
    };
    let reasoned = |index: usize| {
        // An attribute may run over a few lines.
        let lines = file.code[index..].iter();
        let end = lines.clone().position(|line| line.contains(")]")).unwrap_or(0);
        lines.take(end + 1).any(|line| line.contains("reason"))
    };
    (0..file.code.len())
        .filter(|&index| opens(&file.code[index]) && !reasoned(index))
        .map(|index| {
            file.violation(index, "a lint is silenced without a reason: add `reason = \"…\"`")
        })
        .collect()
}

fn machine_paths(file: &SourceFile) -> Vec<Violation> {
    let names_machine = |line: &str| {
        MACHINE_FOLDERS.iter().any(|folder| {
            line.match_indices(&format!("/{folder}/")).any(|(start, _)| {
                // Within a longer path the folder is a relative one.
                !line[..start]
                    .ends_with(|c: char| c.is_ascii_alphanumeric() || "._-}>~".contains(c))
            })
        })
    };
    file.text
        .lines()
        .enumerate()
        .filter(|(_, line)| names_machine(line))
        .map(|(index, _)| {
            file.violation(index, "a path of one machine: make it relative or read it at run time")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::new(path, text.into())).into_iter().map(|v| v.to_string()).collect()
    }

    #[test]
    fn files_have_an_end() {
        let lines = |count: usize| format!("//! Doc.\n{}", "\n".repeat(count - 1));
        assert!(messages("host/src/a.rs", &lines(600)).is_empty());
        assert!(messages("host/src/a.rs", &lines(601))[0].contains("601 lines"));
        assert!(messages("tests/tests/a.rs", &lines(800)).is_empty());
        assert!(messages("tests/tests/a.rs", &lines(801))[0].contains("801 lines"));
        assert!(messages("host/src/generated/a.rs", &lines(5000)).is_empty());
    }

    #[test]
    fn files_say_what_they_are_for() {
        assert!(messages("a/src/lib.rs", "#![no_std]\n//! Doc.\n").is_empty());
        assert!(messages("a/src/lib.rs", "\nuse a::b;\n")[0].starts_with("a/src/lib.rs:2: "));
    }

    #[test]
    fn silenced_lints_have_reasons() {
        let with = "//! Doc.\n#[expect(\n    dead_code,\n    reason = \"why\"\n)]\nfn f() {}\n";
        assert!(messages("a.rs", with).is_empty());
        let without = "//! Doc.\n#[allow(dead_code)]\n// reason: none\nfn f() {}\n";
        assert!(messages("a.rs", without)[0].starts_with("a.rs:2: "));
    }

    #[test]
    fn no_path_of_a_machine() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(messages("a.md", &format!("see `/{folder}/x`")).len(), 1, "{folder}");
            assert!(
                messages("a.md", &format!("https://example.org/{folder}/x")).is_empty(),
                "{folder}"
            );
        }
    }
}
