//! What `kasmina layer step` is told to do with seeds.

use std::collections::BTreeMap;

use kasmina_types::blueprint::BLUEPRINT_NONE;
use kasmina_types::{BlendSchedule, SeedLifecycle};

use crate::error::Error;
use crate::kasmina::KasminaLayer;

/// Done in the order of the fields, of one field in the order given.
#[derive(clap::Args)]
pub(super) struct Commands {
    /// Give a dormant seed a blueprint; schedule, ramp and target are those of --config
    #[arg(long, value_name = "SEED=BLUEPRINT", value_parser = germination)]
    germinate: Vec<(usize, u16)>,
    /// Take a seed to another state, such as 3=TRAINING
    #[arg(long, value_name = "SEED=STATE", value_parser = transition)]
    set: Vec<(usize, SeedLifecycle)>,
    /// Set a seed's schedule; without SEED, that of each seed of --germinate and --set
    #[arg(long, value_name = "[SEED=]SCHEDULE", value_parser = schedule)]
    schedule: Vec<(Option<usize>, BlendSchedule)>,
    /// Set a seed's ramp length in epochs
    #[arg(long, value_name = "[SEED=]N", value_parser = ramp)]
    ramp: Vec<(Option<usize>, u32)>,
    /// Set the α that a seed's schedule stops at
    #[arg(long, value_name = "[SEED=]ALPHA", value_parser = target)]
    alpha_target: Vec<(Option<usize>, f32)>,
}

/// Why a layer was not told what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(
        "--{option} without a seed is of the seeds of --germinate and --set, and there are none; name it, as in 3={value}"
    )]
    NoSeed { option: &'static str, value: String },
    #[error(transparent)]
    Layer(#[from] Error),
}

impl Commands {
    /// Tells the layer.
    pub(super) fn give(&self, layer: &mut KasminaLayer<f32>) -> Result<(), CommandError> {
        for &(seed, blueprint) in &self.germinate {
            layer.germinate(seed, blueprint)?;
        }
        for &(seed, state) in &self.set {
            layer.command_transition(seed, state)?;
        }
        let mut changed = BTreeMap::<usize, (Option<BlendSchedule>, Option<u32>)>::new();
        for (seed, schedule) in self.of_seeds("schedule", &self.schedule)? {
            changed.entry(seed).or_default().0 = Some(schedule);
        }
        for (seed, ramp) in self.of_seeds("ramp", &self.ramp)? {
            changed.entry(seed).or_default().1 = Some(ramp);
        }
        for (seed, (schedule, ramp)) in changed {
            let now = layer.seed(seed)?;
            let (schedule, ramp) =
                (schedule.unwrap_or(now.schedule), ramp.unwrap_or(now.ramp_epochs));
            layer.set_schedule(seed, schedule, ramp)?;
        }
        for (seed, target) in self.of_seeds("alpha-target", &self.alpha_target)? {
            layer.set_alpha_target(seed, target)?;
        }
        Ok(())
    }

    /// The seeds of each value; of one without a seed, those that the other commands name.
    fn of_seeds<V: Copy + ToString>(
        &self,
        option: &'static str,
        values: &[(Option<usize>, V)],
    ) -> Result<Vec<(usize, V)>, CommandError> {
        let germinated = self.germinate.iter().map(|&(seed, _)| seed);
        let named: Vec<usize> = germinated.chain(self.set.iter().map(|&(seed, _)| seed)).collect();
        let mut all = Vec::new();
        for &(seed, value) in values {
            match seed {
                Some(seed) => all.push((seed, value)),
                None if named.is_empty() => {
                    return Err(CommandError::NoSeed { option, value: value.to_string() });
                }
                None => all.extend(named.iter().map(|&seed| (seed, value))),
            }
        }
        Ok(all)
    }
}

/// `SEED=BLUEPRINT`.
fn germination(text: &str) -> Result<(usize, u16), String> {
    let (seed, blueprint) = pair(text, "SEED=BLUEPRINT")?;
    match blueprint.parse() {
        Ok(BLUEPRINT_NONE) => Err("blueprint 0 means none; expected 1 or more".into()),
        Ok(blueprint) => Ok((seed, blueprint)),
        Err(why) => Err(format!("blueprint {blueprint:?}: {why}")),
    }
}

/// `SEED=STATE`.
fn transition(text: &str) -> Result<(usize, SeedLifecycle), String> {
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

/// `[SEED=]SCHEDULE`.
fn schedule(text: &str) -> Result<(Option<usize>, BlendSchedule), String> {
    of_seed(text, |name| {
        let plain = name.to_uppercase().replace('-', "_");
        let all = (0..=u8::MAX).map_while(BlendSchedule::from_u8);
        all.clone().find(|schedule| schedule.name() == plain).ok_or_else(|| {
            let names: Vec<_> = all.map(BlendSchedule::name).collect();
            format!("no schedule {name:?}; there are {}", names.join(", "))
        })
    })
}

/// `[SEED=]N`.
fn ramp(text: &str) -> Result<(Option<usize>, u32), String> {
    of_seed(text, |epochs| match epochs.parse() {
        Ok(0) => Err("a ramp has at least 1 epoch".into()),
        Ok(epochs) => Ok(epochs),
        Err(why) => Err(format!("ramp {epochs:?}: {why}")),
    })
}

/// `[SEED=]ALPHA`.
fn target(text: &str) -> Result<(Option<usize>, f32), String> {
    of_seed(text, |alpha| match alpha.parse() {
        Ok(target) if (0.0..=1.0).contains(&target) => Ok(target),
        Ok(target) => Err(format!("target {target}: expected 0 to 1")),
        Err(why) => Err(format!("target {alpha:?}: {why}")),
    })
}

fn of_seed<V>(
    text: &str,
    parse: impl Fn(&str) -> Result<V, String>,
) -> Result<(Option<usize>, V), String> {
    match text.split_once('=') {
        None => Ok((None, parse(text)?)),
        Some((seed, value)) => Ok((Some(number(seed)?), parse(value)?)),
    }
}

fn pair<'a>(text: &'a str, form: &str) -> Result<(usize, &'a str), String> {
    let (seed, value) = text.split_once('=').ok_or_else(|| format!("expected {form}"))?;
    Ok((number(seed)?, value))
}

fn number(seed: &str) -> Result<usize, String> {
    seed.parse().map_err(|why| format!("seed {seed:?}: {why}"))
}
