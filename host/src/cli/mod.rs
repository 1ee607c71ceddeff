//! The `kasmina` command: its arguments, and what is common to its subcommands.
//!
//! Every command exits with 0 if all passed, 1 if something failed, 2 for wrong usage and 3 if nothing
//! could run. `--json FILE` writes the result for programs, `--json -` to standard output, with
//! everything meant for people on standard error.

mod bench;
mod check;
mod device;
mod doctor;
mod infer;
mod inspect;
mod layer;
mod linear;
mod list;
mod main_job;
mod output;
mod plot;
mod stream;
mod trace;
mod transfer_entropy;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Everything passed.
    Pass = 0,
    /// Something failed.
    Fail = 1,
    /// The arguments or the input files are wrong.
    Usage = 2,
    /// Nothing could run: no device, say.
    Nothing = 3,
}

/// GPU kernels written in Rust, run and checked. Without a command: every kernel family on the
/// handwritten digits that ship with the project, compared with the f64 reference.
#[derive(Parser)]
#[command(name = "kasmina", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    main_job: main_job::Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare every kernel with the f64 reference on random ragged shapes
    Check(check::Arguments),
    /// Run the layer on files
    #[command(subcommand)]
    Layer(layer::Command),
    /// Feed batches through the layer at a rate, and say what they take
    Stream(stream::Arguments),
    /// Multiply matrices in a file, with bias, addition and activation
    Linear(linear::Arguments),
    /// Infer the states of a linear Gaussian model
    Infer(infer::Arguments),
    /// Say what this machine has, what it lacks, and how to get it
    Doctor(doctor::Arguments),
    /// List the kernels
    List(list::Arguments),
    /// Show a kernel's PTX and what it needs of a GPU
    Inspect(inspect::Arguments),
    /// Time the kernels
    Bench(bench::Arguments),
    /// Profile steps of the layer and write a trace of them for Perfetto
    Trace(trace::Arguments),
    /// Estimate transfer entropy between columns of a CSV file
    Te(transfer_entropy::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("KASMINA_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => main_job::run(&arguments.main_job),
        Some(Command::Check(arguments)) => check::run(&arguments),
        Some(Command::Layer(command)) => layer::run(&command),
        Some(Command::Stream(arguments)) => stream::run(&arguments),
        Some(Command::Linear(arguments)) => linear::run(&arguments),
        Some(Command::Infer(arguments)) => infer::run(&arguments),
        Some(Command::Doctor(arguments)) => doctor::run(&arguments),
        Some(Command::List(arguments)) => list::run(&arguments),
        Some(Command::Inspect(arguments)) => inspect::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Trace(arguments)) => trace::run(&arguments),
        Some(Command::Te(arguments)) => transfer_entropy::run(&arguments),
    };
    let status = result.unwrap_or_else(|failure| {
        // Nobody may be left to read it.
        let _ = writeln!(std::io::stderr(), "error: {}", failure.said());
        failure.status
    });
    ExitCode::from(status as u8)
}

/// An error that ends a command, with the status it ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    status: Status,
}

impl Failure {
    /// Wrong arguments or input files.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), status: Status::Usage }
    }

    /// The error and its causes, but for those that it tells itself.
    fn said(&self) -> String {
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        text
    }

    /// Nothing could run.
    pub(crate) fn nothing(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), status: Status::Nothing }
    }
}

/// What is neither: a failure.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), status: Status::Fail }
    }
}
