//! `kasmina` alone: every kernel family on the digits that ship with the project.

use super::check::{self, Run};
use super::device::Choice;
use super::output::Json;
use super::{Failure, Status};
use crate::verify::{self, Source};

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Where to run; without a GPU, `auto` is the executor and the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    #[command(flatten)]
    json: Json,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let (checks, json) = (verify::checks(), &arguments.json);
    let without_gpu = [Choice::Simt, Choice::Cpu];
    let run = Run {
        devices: check::devices_or_skip(arguments.device, &without_gpu, &checks, json)?,
        checks,
        source: Source::digits()?,
        json: &arguments.json,
    };
    check::report(
        &run,
        "1797 handwritten digits of 8 × 8 grey values, and for transfer entropy 202 quarters of growth, against the f64 reference",
    )
}
