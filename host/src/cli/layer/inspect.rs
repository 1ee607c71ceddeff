//! `kasmina layer inspect`: what a checkpoint holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kasmina_types::blueprint::BLUEPRINT_NONE;
use kasmina_types::{BlendSchedule, BlueprintKind, SeedLifecycle};
use serde::Serialize;

use super::MOST_ROWS;
use crate::cli::output::{Json, check_outputs};
use crate::cli::{Failure, Status};
use crate::kasmina::checkpoint::{Checkpoint, CheckpointMetadata, Integrity};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Checkpoint, or plain state file as `kasmina layer forward` reads it
    checkpoint: PathBuf,
    /// Show every seed and blueprint, however many there are
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    json: Json,
}

/// The result for programs.
#[derive(Serialize)]
struct Inspection<'a> {
    file: &'a Path,
    /// 0 for a plain state file.
    schema_version: u32,
    project_version: &'a str,
    step: u64,
    epoch: u64,
    extra: &'a BTreeMap<String, String>,
    integrity: IntegrityRecord,
    num_seeds: usize,
    chunk_size: usize,
    num_blueprints: usize,
    /// Seeds in each state.
    states: BTreeMap<&'static str, usize>,
    seeds: Vec<Seed>,
    blueprints: Vec<Blueprint>,
}

#[derive(Serialize)]
struct IntegrityRecord {
    /// `ok`, `damaged`, or `unknown` of a file without a CRC.
    status: &'static str,
    crc32_recorded: Option<String>,
    crc32_computed: String,
}

#[derive(Serialize)]
struct Seed {
    seed: usize,
    state: &'static str,
    blueprint: u16,
    /// None without a blueprint.
    blueprint_type: Option<&'static str>,
    alpha: f32,
    alpha_target: f32,
    schedule: &'static str,
    ramp_epochs: u32,
    epochs_in_state: u32,
    embargo_epochs: u32,
    /// None before there is one.
    baseline_loss: Option<f32>,
    drift_count: u32,
    /// Whether the adaptive numerical mode is strict with it; none where the file does not say.
    unstable: Option<bool>,
    /// For adaptive clipping; none before there is one.
    running_norm: Option<f32>,
}

#[derive(Serialize)]
struct Blueprint {
    /// Its id, which is its row where the file does not say.
    blueprint: u16,
    /// None of 'none'.
    blueprint_type: Option<&'static str>,
    scale: f32,
    /// √Σw².
    weight_norm: f64,
    /// Seeds that hold it.
    seeds: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    check_outputs(&[Some(&arguments.checkpoint)], &arguments.json, &[])?;
    let (checkpoint, integrity) =
        Checkpoint::inspect(&arguments.checkpoint).map_err(Failure::usage)?;
    let inspection = Inspection::of(&arguments.checkpoint, &checkpoint, integrity);
    let json = &arguments.json;
    json.say(arguments.checkpoint.display())?;
    json.say(origin(&checkpoint.metadata))?;
    json.say(inspection.integrity.line())?;
    for (key, text) in inspection.extra {
        json.say(format!("{key}: {text}"))?;
    }
    json.say(format!(
        "{} seeds × {} columns, {} blueprints",
        inspection.num_seeds, inspection.chunk_size, inspection.num_blueprints
    ))?;
    say_seeds(arguments, &inspection)?;
    say_blueprints(arguments, &inspection)?;
    json.write(&inspection)?;
    Ok(if integrity.is_ok() { Status::Pass } else { Status::Fail })
}

fn origin(metadata: &CheckpointMetadata) -> String {
    let CheckpointMetadata { schema_version, project_version, step, epoch, .. } = metadata;
    if *schema_version == 0 {
        return "a plain state file, without metadata".into();
    }
    format!("schema {schema_version}, of kasmina {project_version}; step {step}, epoch {epoch}")
}

fn say_seeds(arguments: &Arguments, inspection: &Inspection<'_>) -> Result<(), Failure> {
    let json = &arguments.json;
    if !arguments.all && inspection.seeds.len() > MOST_ROWS {
        let mut table = json.table(["state", "seeds"]);
        for (state, count) in &inspection.states {
            table.add_row([(*state).to_owned(), count.to_string()]);
        }
        json.say(table)?;
        return json.say(format!("{} seeds; --all shows each", inspection.seeds.len()));
    }
    let mut table = json.table([
        "seed",
        "state",
        "blueprint",
        "type",
        "α",
        "target",
        "schedule",
        "ramp",
        "epochs",
        "embargo",
    ]);
    for seed in &inspection.seeds {
        table.add_row([
            seed.seed.to_string(),
            seed.state.to_owned(),
            seed.blueprint_type.map_or_else(|| "none".into(), |_| seed.blueprint.to_string()),
            seed.blueprint_type.unwrap_or_default().to_owned(),
            seed.alpha.to_string(),
            seed.alpha_target.to_string(),
            seed.schedule.to_owned(),
            seed.ramp_epochs.to_string(),
            seed.epochs_in_state.to_string(),
            seed.embargo_epochs.to_string(),
        ]);
    }
    json.say(table)
}

fn say_blueprints(arguments: &Arguments, inspection: &Inspection<'_>) -> Result<(), Failure> {
    let (json, blueprints) = (&arguments.json, &inspection.blueprints);
    if blueprints.is_empty() {
        return Ok(());
    }
    if !arguments.all && blueprints.len() > MOST_ROWS {
        let mut counts = BTreeMap::new();
        for blueprint in blueprints {
            *counts.entry(blueprint.type_name()).or_insert(0_usize) += 1;
        }
        let mut table = json.table(["type", "blueprints"]);
        for (kind, count) in counts {
            table.add_row([kind.to_owned(), count.to_string()]);
        }
        json.say(table)?;
        return json.say(format!("{} blueprints; --all shows each", blueprints.len()));
    }
    let mut table = json.table(["blueprint", "type", "scale", "norm of weights", "seeds"]);
    for blueprint in blueprints {
        table.add_row([
            blueprint.blueprint.to_string(),
            blueprint.type_name().to_owned(),
            blueprint.scale.to_string(),
            format!("{:.6}", blueprint.weight_norm),
            blueprint.seeds.to_string(),
        ]);
    }
    json.say(table)
}

impl IntegrityRecord {
    fn of(integrity: Integrity) -> Self {
        let status = match integrity.recorded {
            None => "unknown",
            Some(_) if integrity.is_ok() => "ok",
            Some(_) => "damaged",
        };
        Self {
            status,
            crc32_recorded: integrity.recorded.map(|crc| format!("{crc:08x}")),
            crc32_computed: format!("{:08x}", integrity.computed),
        }
    }

    fn line(&self) -> String {
        let computed = &self.crc32_computed;
        match &self.crc32_recorded {
            None => format!("CRC-32 {computed}; none recorded to compare it with"),
            Some(_) if self.status == "ok" => format!("CRC-32 {computed}, as recorded: ok"),
            Some(recorded) => format!(
                "CRC-32 {computed}, but {recorded} is recorded: DAMAGED, what follows may be wrong"
            ),
        }
    }
}

impl<'a> Inspection<'a> {
    fn of(file: &'a Path, checkpoint: &'a Checkpoint, integrity: Integrity) -> Self {
        let Checkpoint { states, metadata, layer, .. } = checkpoint;
        let seeds: Vec<_> = (0..states.num_seeds()).map(|s| Seed::of(checkpoint, s)).collect();
        let mut counts = BTreeMap::new();
        for seed in &seeds {
            *counts.entry(seed.state).or_insert(0) += 1;
        }
        let mut holders = vec![0; states.num_blueprints()];
        for &id in states.blueprint_id.iter().filter(|&&id| id != BLUEPRINT_NONE) {
            holders[usize::from(id)] += 1;
        }
        let blueprints = states.blueprint_weights.chunks_exact(states.chunk_size).enumerate();
        Self {
            file,
            schema_version: metadata.schema_version,
            project_version: &metadata.project_version,
            step: metadata.step,
            epoch: metadata.epoch,
            extra: &metadata.extra,
            integrity: IntegrityRecord::of(integrity),
            num_seeds: states.num_seeds(),
            chunk_size: states.chunk_size,
            num_blueprints: states.num_blueprints(),
            states: counts,
            seeds,
            blueprints: blueprints
                .map(|(row, weights)| Blueprint {
                    blueprint: layer.as_ref().map_or(row as u16, |m| m.blueprint_ids[row]),
                    blueprint_type: (row != usize::from(BLUEPRINT_NONE))
                        .then(|| type_name(states.blueprint_type[row])),
                    scale: states.blueprint_scales[row],
                    weight_norm: weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt(),
                    seeds: holders[row],
                })
                .collect(),
        }
    }
}

impl Blueprint {
    fn type_name(&self) -> &'static str {
        self.blueprint_type.unwrap_or("none")
    }
}

impl Seed {
    fn of(checkpoint: &Checkpoint, seed: usize) -> Self {
        let Checkpoint { states, graft, layer, .. } = checkpoint;
        let row = states.blueprint_id[seed];
        let held = (row != BLUEPRINT_NONE).then(|| usize::from(row));
        Self {
            seed,
            state: SeedLifecycle::from_u8(states.lifecycle[seed]).expect(CHECKED).name(),
            blueprint: checkpoint.blueprint_of(seed),
            blueprint_type: held.map(|id| type_name(states.blueprint_type[id])),
            alpha: states.alpha[seed],
            alpha_target: graft.alpha_target[seed],
            schedule: BlendSchedule::from_u8(graft.schedule[seed]).expect(CHECKED).name(),
            ramp_epochs: graft.ramp_epochs[seed],
            epochs_in_state: graft.epochs_in_state[seed],
            embargo_epochs: graft.embargo_epochs[seed],
            baseline_loss: Some(graft.baseline_loss[seed]).filter(|loss| !loss.is_nan()),
            drift_count: graft.drift_count[seed],
            unstable: layer.as_ref().map(|memory| memory.unstable[seed] == 1),
            running_norm: layer.as_ref().map(|m| m.running_norms[seed]).filter(|n| !n.is_nan()),
        }
    }
}

const CHECKED: &str = "the state was checked when it was read";

fn type_name(byte: u8) -> &'static str {
    BlueprintKind::from_u8(byte).expect(CHECKED).name()
}
