//! What a command says: to people, to programs, and into files.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
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

/// Prints; a reader that has gone, such as `head`, is not an error.
fn print_to(mut stream: impl Write, text: &str) -> Result<(), Failure> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_file(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    files::write_file(path, contents).with_context(|| format!("cannot write {}", path.display()))
}
