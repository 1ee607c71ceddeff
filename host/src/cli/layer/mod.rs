//! `kasmina layer`: the morphogenetic layer on safetensors files.

mod forward;

use super::{Failure, Status};
use crate::kasmina::files::Dtype;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Run the forward pass and write its output and telemetry
    Forward(forward::Arguments),
}

pub(crate) fn run(command: &Command) -> Result<Status, Failure> {
    match command {
        Command::Forward(arguments) => forward::run(arguments),
    }
}

/// The name of a layer's element type.
fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        _ => "bf16",
    }
}
