//! `kasmina layer step`: transitions and epochs of a checkpoint.

mod changes;
mod metrics;

use std::path::{Path, PathBuf};

use kasmina_types::blueprint::BLUEPRINT_NONE;
use kasmina_types::seed_state::field;
use kasmina_types::{SeedLifecycle, StateUpdate};
use serde::Serialize;

use self::changes::Change;
use self::metrics::Metrics;
use super::MOST_ROWS;
use crate::cli::device::Choice;
use crate::cli::output::Json;
use crate::cli::{Failure, Status};
use crate::kasmina::checkpoint::Checkpoint;
use crate::kasmina::{EpochBuffers, GraftSchedule, LayerState, StateUpdates};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Checkpoint, or plain state file as `kasmina layer forward` reads it
    #[arg(long, value_name = "CHECKPOINT")]
    state: PathBuf,
    /// Checkpoint to write; it may be that of --state
    #[arg(long, value_name = "CHECKPOINT")]
    output: PathBuf,
    /// Epochs to run the schedules for [default: as many as --loss or --metrics has]
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// The loss of each epoch, or of all, for every seed
    #[arg(long, value_name = "L", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    #[arg(conflicts_with = "metrics")]
    loss: Vec<f32>,
    /// CSV file with the column `epoch`, from 0, and any of `seed`, `loss`, `drift` and
    /// `gradient_norm`; a row without a seed is of every seed, a later row overrides an earlier one
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Give a dormant seed a blueprint; done before --set
    #[arg(long, value_name = "SEED=BLUEPRINT", value_parser = germination)]
    germinate: Vec<(u32, u16)>,
    /// Take a seed to another state, such as 3=TRAINING; in the order given, before the epochs
    #[arg(long, value_name = "SEED=STATE", value_parser = transition)]
    set: Vec<(u32, SeedLifecycle)>,
    /// Epochs that a seed culled by --set has to wait before it may be reset
    #[arg(long, value_name = "N", default_value_t = 50)]
    embargo: u32,
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
    /// Of each epoch, the grafting seeds that stood still, for what their schedule reads was not known.
    stood_still: Vec<u32>,
    output: &'a Path,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let before = Checkpoint::load(&arguments.state).map_err(Failure::usage)?;
    let seeds = before.states.num_seeds();
    let epochs = arguments.epochs.map(|epochs| epochs as usize);
    let metrics = match &arguments.metrics {
        Some(path) => Metrics::read(path, epochs, seeds),
        None => Metrics::of_losses(&arguments.loss, epochs, seeds),
    }
    .map_err(Failure::usage)?;
    let device = arguments.device.device()?;

    let mut layer = before.to_layer(&device)?;
    let updates = arguments.updates();
    let report = StateUpdates::new(&device, updates.len())?.apply(&mut layer, &updates)?;
    if let Some(refusal) = report.refusals(&updates).next() {
        return Err(Failure::usage(refusal));
    }
    let mut schedule = GraftSchedule::new(&device, seeds)?;
    let mut brings = EpochBuffers::new(&device, seeds)?;
    let mut stood_still = Vec::new();
    for epoch in 0..metrics.epochs() {
        brings.write(&metrics.epoch(epoch))?;
        schedule.run(&mut layer, &brings)?;
        stood_still.push(schedule.skipped()?);
    }

    let after = arguments.write(&before, &layer, metrics.epochs() as u64)?;
    let changes = changes::between(&before, &after);
    say(arguments, seeds, &changes, &stood_still)?;
    arguments.json.write(&Summary {
        device: device.name(),
        epochs: metrics.epochs(),
        epoch: after.metadata.epoch,
        changes,
        stood_still,
        output: &arguments.output,
    })?;
    Ok(Status::Pass)
}

impl Arguments {
    /// Germinations and transitions, with what goes with them.
    fn updates(&self) -> Vec<StateUpdate> {
        let germinate = self.germinate.iter().map(|&(seed, blueprint)| StateUpdate {
            // A new life begins at α = 0.
            mask: field::LIFECYCLE | field::BLUEPRINT_ID | field::ALPHA,
            lifecycle: SeedLifecycle::Germinated as u32,
            blueprint_id: blueprint.into(),
            ..StateUpdate::of(seed)
        });
        let set = self.set.iter().map(|&(seed, state)| StateUpdate {
            mask: field::LIFECYCLE
                | match state {
                    SeedLifecycle::Culled => field::EMBARGO_EPOCHS,
                    // A seed that is reset gives its blueprint back.
                    SeedLifecycle::Dormant => field::BLUEPRINT_ID | field::ALPHA,
                    _ => 0,
                },
            lifecycle: state as u32,
            blueprint_id: BLUEPRINT_NONE.into(),
            embargo_epochs: self.embargo,
            ..StateUpdate::of(seed)
        });
        germinate.chain(set).collect()
    }

    /// Writes the checkpoint of what the layer has become.
    fn write(
        &self,
        before: &Checkpoint,
        layer: &LayerState,
        epochs: u64,
    ) -> Result<Checkpoint, Failure> {
        let epoch = before.metadata.epoch.saturating_add(epochs);
        let mut after = Checkpoint::of_layer(layer, before.metadata.step, epoch)?;
        after.metadata.extra.clone_from(&before.metadata.extra);
        after.save(&self.output).map_err(Failure::usage)?;
        Ok(after)
    }
}

fn say(
    arguments: &Arguments,
    seeds: usize,
    changes: &[Change],
    stood_still: &[u32],
) -> Result<(), Failure> {
    let json = &arguments.json;
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
    let still = stood_still.iter().filter(|&&seeds| seeds > 0).count();
    if still > 0 {
        json.say(format!(
            "in {still} epochs grafting seeds stood still, for what their schedules read was not given: \
             see --loss and --metrics"
        ))?;
    }
    let output = arguments.output.display();
    let (changed, epochs) = (changes.len(), stood_still.len());
    json.say(format!("{changed} of {seeds} seeds changed in {epochs} epochs: {output}"))
}

/// `SEED=BLUEPRINT`.
fn germination(text: &str) -> Result<(u32, u16), String> {
    let (seed, blueprint) = pair(text, "SEED=BLUEPRINT")?;
    match blueprint.parse() {
        Ok(BLUEPRINT_NONE) => Err("blueprint 0 means none; expected 1 or more".into()),
        Ok(blueprint) => Ok((seed, blueprint)),
        Err(why) => Err(format!("blueprint {blueprint:?}: {why}")),
    }
}

/// `SEED=STATE`.
fn transition(text: &str) -> Result<(u32, SeedLifecycle), String> {
    let (seed, name) = pair(text, "SEED=STATE")?;
    let plain = name.to_uppercase().replace('-', "_");
    let state = SeedLifecycle::ALL.into_iter().find(|state| state.name() == plain);
    match state {
        Some(SeedLifecycle::Germinated) => {
            Err("a seed germinates with a blueprint: --germinate SEED=BLUEPRINT".into())
        }
        Some(state) => Ok((seed, state)),
        None => {
            let names = SeedLifecycle::ALL.map(SeedLifecycle::name).join(", ");
            Err(format!("no state {name:?}; there are {names}"))
        }
    }
}

fn pair<'a>(text: &'a str, form: &str) -> Result<(u32, &'a str), String> {
    let (seed, value) = text.split_once('=').ok_or_else(|| format!("expected {form}"))?;
    let seed = seed.parse().map_err(|why| format!("seed {seed:?}: {why}"))?;
    Ok((seed, value))
}
