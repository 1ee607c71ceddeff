//! `cargo xtask tidy`: the rules that ARCHITECTURE.md states, each finding with its place and its mend.

mod dependencies;
mod kernels;
mod lexer;
mod text;
mod unsafety;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::conclude;
use crate::error::XtaskError;

/// A file of the repository.
pub(crate) struct SourceFile {
    /// Its path from the workspace's root, with `/`.
    path: String,
    text: String,
    /// The lines of a Rust file with comments and the content of strings blanked; none for another file.
    code: Vec<String>,
    /// The index of the line from which on a Rust file is its test module.
    tests_from: usize,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    path: String,
    /// From 1.
    line: usize,
    message: String,
}

/// Checks every file that git tracks or would track.
pub(crate) fn run(root: &Path) -> Result<(), XtaskError> {
    let files = read_files(root)?;
    let mut violations = dependencies::check(root, &files)?;
    violations.extend(kernels::check(&files));
    for file in &files {
        violations.extend(text::check(file));
        violations.extend(unsafety::check(file));
    }
    violations.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    println!("{} files checked", files.len());
    conclude(&violations.iter().map(Violation::to_string).collect::<Vec<_>>())
}

fn read_files(root: &Path) -> Result<Vec<SourceFile>, XtaskError> {
    const COMMAND: &str = "git ls-files --cached --others --exclude-standard";
    let failed = |reason: String| XtaskError::Run { command: COMMAND, reason };
    let output = Command::new("git")
        .args(COMMAND.split(' ').skip(1))
        .current_dir(root)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let mut files = Vec::new();
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        // A deleted file may still be listed, and data files are not text.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        files.push(SourceFile::new(path, text));
    }
    Ok(files)
}

impl SourceFile {
    fn new(path: &str, text: String) -> SourceFile {
        let code: Vec<String> = if path.ends_with(".rs") {
            lexer::blank(&text).lines().map(str::to_owned).collect()
        } else {
            Vec::new()
        };
        let tests_from =
            code.iter().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(code.len());
        SourceFile { path: path.to_owned(), text, code, tests_from }
    }

    fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// True for a file that holds nothing but tests.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    fn is_kernel(&self) -> bool {
        self.path.starts_with("gpu-kernels/src/")
            && self.code.iter().any(|line| line.trim_start().starts_with("#[kernel"))
    }

    fn violation(&self, index: usize, message: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line: index + 1, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// The places where `word` stands alone in a line of code.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_alone() {
        assert!(has_word("unsafe { x }", "unsafe") && has_word("(unsafe)", "unsafe"));
        assert!(!has_word("unsafe_op", "unsafe") && !has_word("an_unsafe", "unsafe"));
    }

    #[test]
    fn a_violation_names_file_and_line() {
        let file = SourceFile::new("a/b.rs", String::new());
        assert_eq!(file.violation(2, "mend it").to_string(), "a/b.rs:3: mend it");
    }
}
