//! Maintainer's commands: build and check the PTX artifacts, report on them, look for tools, keep the house
//! tidy. Run them as `cargo xtask <command>`.

mod artifacts;
mod check;
mod doctor;
mod error;
mod packed;
mod pitfalls;
mod ptx_report;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::XtaskError;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Maintainer's commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build gpu-kernels for every target and write gpu-kernels/ptx/ with its manifest
    Ptx,
    /// Rebuild the artifacts and compare them with the committed ones; lint them
    Check,
    /// Tabulate registers, spills, shared memory and occupancy; fail on new spills
    PtxReport {
        /// Build this target afresh, leave its PTX under target/, and report on that
        #[arg(long, value_name = "TARGET")]
        fresh: Option<String>,
        /// Only entries whose names contain this
        #[arg(long, value_name = "PATTERN", default_value = "")]
        only: String,
    },
    /// Say which tools are there and how to get the missing ones
    Doctor,
    /// Check the rules of the house
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ptx => artifacts::write(),
        Command::Check => check::run(),
        Command::PtxReport { fresh: Some(target), only } => ptx_report::fresh(&target, &only),
        Command::PtxReport { fresh: None, only } => ptx_report::run(&only),
        Command::Doctor => doctor::run(),
        Command::Tidy => tidy::run(&workspace_root()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: this package's parent.
fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Where the artifacts are versioned.
fn ptx_folder() -> PathBuf {
    workspace_root().join("gpu-kernels/ptx")
}

/// Prints problems, one a line; an error if there are any.
fn conclude(problems: &[String]) -> Result<(), XtaskError> {
    for problem in problems {
        println!("problem: {problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => Err(XtaskError::Problems { count }),
    }
}
