//! What a command says: to people, to programs, and into files.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{LineStyle, Table};
use serde::Serialize;

use super::Failure;
use crate::kasmina::files;

/// Where the result for programs goes.
#[derive(clap::Args)]
pub(crate) struct Json {
    /// Write the result for programs to FILE, or with `-` to standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Json {
    /// Prints a line for people: on standard output, unless programs read that.
    pub(crate) fn say(&self, line: impl std::fmt::Display) -> Result<(), Failure> {
        let text = format!("{line}\n");
        if self.takes_stdout() {
            print_to(io::stderr(), &text)
        } else {
            print_to(io::stdout(), &text)
        }
    }

    /// A table for [`Self::say`]; coloured where a terminal shows it.
    pub(crate) fn table<const N: usize>(&self, header: [&str; N]) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none())).set_header(header);
        let terminal = if self.takes_stdout() {
            table.use_stderr();
            io::stderr().is_terminal()
        } else {
            io::stdout().is_terminal()
        };
        if !terminal {
            table.force_no_tty();
        }
        table
    }

    /// Writes the result, if it was asked for.
    pub(crate) fn write(&self, result: &impl Serialize) -> Result<(), Failure> {
        let Some(path) = &self.json else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(result)?;
        text.push('\n');
        if self.takes_stdout() {
            return print_to(io::stdout(), &text);
        }
        write_file(path, text.as_bytes()).map_err(Failure::usage)
    }

    fn takes_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }
}

/// As [`check_outputs`], of one input and a picture.
pub(crate) fn check_files(input: &Path, json: &Json, svg: Option<&Path>) -> Result<(), Failure> {
    check_outputs(&[Some(input)], json, &[("--svg", svg)])
}

/// Refuses to write where nothing can be written, over an input, or two results into one file: before anything is
/// computed.
pub(crate) fn check_outputs(
    inputs: &[Option<&Path>],
    json: &Json,
    outputs: &[(&'static str, Option<&Path>)],
) -> Result<(), Failure> {
    let json = json.json.as_deref().filter(|path| *path != Path::new("-"));
    let named = |&(option, path): &(&'static str, Option<&Path>)| Some((option, path?.to_owned()));
    let all = [("--json", json)];
    let all: Vec<(&str, PathBuf)> = all.iter().chain(outputs).filter_map(named).collect();
    let refused = |option: &str, path: &Path, why: &str| {
        Err(Failure::usage(anyhow!("{option} {}: {why}", path.display())))
    };
    for (position, (option, path)) in all.iter().enumerate() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return refused(option, path, "the folder does not exist; make it first");
        }
        if path.is_dir() {
            return refused(option, path, "is a folder; expected a file to write");
        }
        if inputs.iter().flatten().any(|input| same_file(path, input)) {
            return refused(
                option,
                path,
                "is the input, which it would replace; name another file",
            );
        }
        if let Some((other, _)) = all[..position].iter().find(|(_, other)| same_file(other, path)) {
            return refused(
                option,
                path,
                &format!("is the file of {other}, too; name another file"),
            );
        }
    }
    Ok(())
}

/// Whether two paths lead to one file, which may not be there yet.
fn same_file(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| {
        path.canonicalize().ok().or_else(|| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
            Some(folder.join(path.file_name()?))
        })
    };
    whole(a).is_some_and(|a| whole(b) == Some(a))
}

/// Prints; a reader that has gone, such as `head`, is not an error.
fn print_to(mut stream: impl Write, text: &str) -> Result<(), Failure> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A number with so many places; 0 has no sign where nothing else is shown of it.
pub(crate) fn fixed(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|byte| matches!(byte, b'0' | b'.')) => digits.to_owned(),
        _ => text,
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_file(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    files::write_file(path, contents).map_err(|why| {
        let path = path.display();
        let said = if files::is_in_place(&why) {
            path.to_string()
        } else {
            format!("cannot write {path}")
        };
        anyhow::Error::from(why).context(said)
    })
}

#[cfg(test)]
mod tests {
    use super::fixed;

    #[test]
    fn nothing_has_no_sign() {
        let shown = [-1e-9, -0.0, 0.0, 1e-9, -6e-7, -12.0, f64::NEG_INFINITY];
        let expected =
            ["0.000000", "0.000000", "0.000000", "0.000000", "-0.000001", "-12.000000", "-inf"];
        assert_eq!(shown.map(|value| fixed(value, 6)), expected);
        assert_eq!(fixed(-0.4, 0), "0");
    }
}
