//! `kasmina layer step`: commands and epochs of a checkpoint.

mod changes;
mod commands;
mod config;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::changes::Change;
use self::commands::{CommandError, Commands};
use super::MOST_ROWS;
use crate::cli::device::Choice;
use crate::cli::output::{Json, check_outputs};
use crate::cli::{Failure, Status};
use crate::error::Error;
use crate::kasmina::checkpoint::Checkpoint;
use crate::kasmina::{EpochTable, KasminaLayer, Transition};

/// Epochs of one call: more would take hours, and a mistyped number should not.
const MOST_EPOCHS: i64 = 1_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Checkpoint, or plain state file as `kasmina layer forward` reads it
    #[arg(long, value_name = "CHECKPOINT")]
    state: PathBuf,
    /// Checkpoint to write, whole or not at all; it may be that of --state. A symbolic link is replaced,
    /// not followed
    #[arg(long, value_name = "CHECKPOINT")]
    output: PathBuf,
    /// The layer's configuration in JSON or TOML: transition rules, what germinated seeds begin with,
    /// the budget of the blueprints [default: the published rules, and room for the file's blueprints]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Epochs to end, schedules and transitions with them [default: as many as --loss or --metrics has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=MOST_EPOCHS))]
    epochs: Option<u32>,
    /// The loss of each epoch, or of all, for every seed
    #[arg(long, value_name = "L", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    #[arg(conflicts_with = "metrics")]
    loss: Vec<f32>,
    /// CSV file with the column `epoch`, from 0, and any of `seed`, `loss`, `drift`, `gradient_norm`,
    /// `reconstruction_loss`, `performance_gain`, `stability`, `error_rate`, `errors` and `improvement`; a
    /// row without a seed is of every seed, a later row overrides an earlier one
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    #[command(flatten)]
    commands: Commands,
    /// Epochs that a culled seed has to wait before it may be reset [default: that of --config, or 50]
    #[arg(long, value_name = "N")]
    embargo: Option<u32>,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    #[command(flatten)]
    json: Json,
}

/// The result for programs.
#[derive(Serialize)]
struct Summary<'a> {
    device: &'static str,
    epochs: usize,
    /// Epochs done since the checkpoint's beginning.
    epoch: u64,
    changes: Vec<Change>,
    /// What the rules did; commands are not among them.
    transitions: &'a [Passed],
    stood_still: StoodStill,
    output: &'a Path,
}

/// A transition, and the epoch at whose end it was.
#[derive(Serialize)]
struct Passed {
    epoch: u64,
    #[serde(flatten)]
    transition: Transition,
}

/// Grafting seeds that stood still, for what their schedule reads was not known.
#[derive(Clone, Copy, Default, Serialize)]
struct StoodStill {
    /// Epochs in which any did.
    epochs: u64,
    /// The most in one epoch.
    most_seeds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    check_files(arguments)?;
    let mut before = Checkpoint::load(&arguments.state).map_err(Failure::usage)?;
    let seeds = before.states.num_seeds();
    let epochs = arguments.epochs.map(|epochs| epochs as usize);
    let table = match &arguments.metrics {
        Some(path) => EpochTable::read(path, epochs, seeds),
        None => EpochTable::of_losses(&arguments.loss, epochs, seeds),
    }
    .map_err(Failure::usage)?;
    let mut config = config::of(arguments.config.as_deref(), &before)?;
    if let Some(embargo) = arguments.embargo {
        config.rules.embargo_epochs = embargo;
    }
    let device = arguments.device.device()?;

    config::name_rows(&mut before, &config);
    let mut layer = KasminaLayer::<f32>::new(&device, config).map_err(refusal)?;
    layer.restore(&before).map_err(refusal)?;
    arguments.commands.give(&mut layer).map_err(|why| match why {
        CommandError::Layer(error) => refusal(error),
        other => Failure::usage(other),
    })?;
    let (mut transitions, mut stood_still) = (Vec::new(), StoodStill::default());
    for epoch in 0..table.epochs() {
        let outcome = layer.end_epoch(&table.report(epoch))?;
        let epoch = outcome.epoch;
        let passed = outcome.transitions.into_iter();
        transitions.extend(passed.map(|transition| Passed { epoch, transition }));
        stood_still.epochs += u64::from(outcome.skipped > 0);
        stood_still.most_seeds = stood_still.most_seeds.max(outcome.skipped);
    }

    let mut after = layer.checkpoint(before.metadata.step)?;
    after.metadata.extra.clone_from(&before.metadata.extra);
    after.save(&arguments.output).map_err(Failure::usage)?;
    let summary = Summary {
        device: device.name(),
        epochs: table.epochs(),
        epoch: after.metadata.epoch,
        changes: changes::between(&before, &after),
        transitions: &transitions,
        stood_still,
        output: &arguments.output,
    };
    say(&arguments.json, seeds, &summary)?;
    arguments.json.write(&summary)?;
    Ok(Status::Pass)
}

/// The checkpoint may be that of --state; nothing else may replace an input.
fn check_files(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { state, output, config, metrics, json, .. } = arguments;
    check_outputs(&[Some(state)], json, &[])?;
    check_outputs(&[config.as_deref(), metrics.as_deref()], json, &[("--output", Some(output))])
}

/// What the layer refuses is wrong in the arguments or files; the rest is a failure.
fn refusal(error: Error) -> Failure {
    match error {
        Error::Layer(_) | Error::Config(_) | Error::State(_) => Failure::usage(error),
        other => other.into(),
    }
}

fn say(json: &Json, seeds: usize, summary: &Summary<'_>) -> Result<(), Failure> {
    let Summary { changes, transitions, stood_still, .. } = summary;
    if !changes.is_empty() {
        let mut table = json.table(["seed", "state", "blueprint", "α", "embargo"]);
        for change in &changes[..changes.len().min(MOST_ROWS)] {
            table.add_row(change.cells());
        }
        json.say(table)?;
    }
    if changes.len() > MOST_ROWS {
        json.say(format!("… and {} more seeds; --json has all", changes.len() - MOST_ROWS))?;
    }
    for Passed { epoch, transition } in &transitions[..transitions.len().min(MOST_ROWS)] {
        let Transition { seed, from, to, reason } = transition;
        json.say(format!("epoch {epoch}: seed {seed} {from} → {to}: {reason}"))?;
    }
    if transitions.len() > MOST_ROWS {
        let more = transitions.len() - MOST_ROWS;
        json.say(format!("… and {more} more transitions; --json has all"))?;
    }
    if stood_still.epochs > 0 {
        json.say(format!(
            "in {} epochs grafting seeds stood still, for what their schedules read was not given: \
             see --loss and --metrics",
            stood_still.epochs
        ))?;
    }
    let (changed, epochs) = (changes.len(), summary.epochs);
    let output = summary.output.display();
    json.say(format!("{changed} of {seeds} seeds changed in {epochs} epochs: {output}"))
}
