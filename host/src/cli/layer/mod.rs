//! `kasmina layer`: the morphogenetic layer on safetensors files.

mod backward;
mod forward;
mod inspect;
mod step;

use super::{Failure, Status};
use crate::kasmina::files::Dtype;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Run the forward pass and write its output and telemetry
    Forward(forward::Arguments),
    /// Run the backward pass and write the gradients
    Backward(backward::Arguments),
    /// Show a checkpoint: its seeds, its blueprints, and whether it is whole
    Inspect(inspect::Arguments),
    /// Take a checkpoint's seeds through transitions and epochs, and write what comes of it
    Step(step::Arguments),
}

pub(crate) fn run(command: &Command) -> Result<Status, Failure> {
    match command {
        Command::Forward(arguments) => forward::run(arguments),
        Command::Backward(arguments) => backward::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Step(arguments) => step::run(arguments),
    }
}

/// Rows of a table that is still read; longer ones are summed up.
const MOST_ROWS: usize = 40;

/// The name of a layer's element type.
pub(super) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        _ => "bf16",
    }
}
