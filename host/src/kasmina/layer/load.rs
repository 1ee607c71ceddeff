//! Making, loading and checking a layer's state.

use kasmina_types::blueprint::BLUEPRINT_NONE;

use super::config::LayerConfig;
use super::error::{ConfigError, LayerError};
use super::guard::Guard;
use super::registry::Registry;
use super::ring::TelemetryRing;
use super::{KasminaLayer, LayerElement, Training};
use crate::buffer::host;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::checkpoint::{
    Checkpoint, LayerMemory, LinearStates, SCHEMA_VERSION, crc32_of_state,
};
use crate::kasmina::dense::DenseStore;
use crate::kasmina::{GraftStates, LayerState, SeedStates};

/// What a layer that was restored has of the backward passes before it, until it makes its own.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// By seed, for adaptive clipping; NaN for none.
    pub(crate) running_norms: Option<Vec<f32>>,
    /// By seed.
    pub(crate) gradient_norms: Option<Vec<f32>>,
}

/// What takes the place of a layer's state, made before anything of the layer changes.
struct Replacement<T: LayerElement> {
    state: LayerState,
    registry: Registry,
    dense: DenseStore<T>,
    guard: Guard,
    /// What was clipped until now, which stays counted.
    clipped: u64,
}

impl<T: LayerElement> KasminaLayer<T> {
    /// The whole layer after `step` steps, once everything queued before is done, for
    /// [`Checkpoint::save`] or a [`CheckpointStore`](crate::kasmina::checkpoint::CheckpointStore). It has
    /// the rows of the blueprints that are loaded, so its size follows from them and from the seeds.
    ///
    /// The matrices of LINEAR blueprints are saved as f32, which has every number of f16 and bf16.
    /// What it does not have is the telemetry in the ring, the counts of reports, and the gradients: take
    /// it after an optimiser's step. Weights of f32 are saved as they are, whatever the type of the inputs.
    ///
    /// ```
    /// use kasmina::Device;
    /// use kasmina::kasmina::checkpoint::{Checkpoint, CheckpointStore};
    /// use kasmina::kasmina::KasminaLayer;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("kasmina-doc-{}", std::process::id()));
    /// let layer = KasminaLayer::<f32>::builder(2, 8).build(&Device::Cpu)?;
    /// let store = CheckpointStore::new(&folder, 3)?;
    /// store.save(100, &layer.checkpoint(100)?)?;
    ///
    /// let mut again = KasminaLayer::<f32>::new(&Device::Cpu, layer.config().clone())?;
    /// let recovered = store.recover()?.expect("one was saved");
    /// again.restore(&recovered.checkpoint)?;
    /// assert_eq!(again.checksum()?, layer.checksum()?);
    /// # std::fs::remove_dir_all(folder)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn checkpoint(&self, step: u64) -> Result<Checkpoint, Error> {
        let (states, ids) = self.state.read_loaded()?;
        let mut checkpoint = Checkpoint::new(states, self.state.read_graft()?, step, self.epochs);
        let (running, gradient_norms) = match &self.training {
            Some(Training { gradients, clip }) => {
                (Some(clip.running_norms()?), Some(gradients.gradient_norm.to_vec()?))
            }
            None => (self.carried.running_norms.clone(), self.carried.gradient_norms.clone()),
        };
        checkpoint.linear = self.linear_states(&ids)?;
        if !checkpoint.linear.is_empty() {
            checkpoint.metadata.schema_version = SCHEMA_VERSION;
        }
        checkpoint.layer = Some(LayerMemory {
            blueprint_use: self.registry.use_ranks(&ids),
            retired_ids: self.registry.retired(),
            unstable: self.state.unstable.to_vec()?,
            running_norms: running.unwrap_or_else(|| vec![f32::NAN; self.config.num_seeds]),
            gradient_norms,
            blueprint_ids: ids,
        });
        Ok(checkpoint)
    }

    /// Puts a checkpoint in the place of the layer's state. A layer of the same configuration goes on from
    /// there bit for bit as the one did that was saved: seeds, schedules, epochs, blueprints under their
    /// ids, which of them goes first, flags of the adaptive mode, running norms of the clipping. The ring
    /// of telemetry is empty then, and there are no gradients until the next backward pass.
    ///
    /// Without a [`LayerMemory`], as in a plain state file, the rows are ids, and a blueprint counts as
    /// loaded if a seed holds it or anything of it is not 0; no seed is unstable, and there are no norms.
    ///
    /// # Errors
    /// A checkpoint that means nothing or is of another shape, ids past `max_blueprints`, or more blueprints or matrices
    /// than the budgets hold; memory exhausted, or a failed call. The layer is then as it was.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        checkpoint.check()?;
        let Checkpoint { states, graft, metadata, layer, linear } = checkpoint;
        self.check_shape(states)?;
        let rows = (0..states.num_blueprints() as u32).map(|row| row as u16);
        let ids = layer.as_ref().map_or_else(|| rows.collect(), |m| m.blueprint_ids.clone());
        let registry = match layer {
            Some(memory) => {
                self.check_ids(memory)?;
                self.registry.restored(&memory.by_use(), &memory.retired_ids)?
            }
            None => self.registry.restored(&present(states), &[])?,
        };
        let mut new = self.replacement(states.clone(), &ids, graft, registry, linear)?;
        let mut carried = Carried::default();
        if let Some(memory) = layer {
            new.state.unstable.copy_from_slice(&memory.unstable)?;
            carried.running_norms = Some(memory.running_norms.clone());
            carried.gradient_norms.clone_from(&memory.gradient_norms);
        }
        let ring = TelemetryRing::new(&self.device, self.config.num_seeds, self.ring.capacity())?;
        self.take(new);
        (self.ring, self.carried, self.epochs) = (ring, carried, metadata.epoch);
        Ok(())
    }

    /// Puts a state in the place of the layer's, without what a checkpoint has beside it: see
    /// [`Self::restore`]. Its rows of blueprints are ids. A blueprint counts as loaded if a seed holds it,
    /// or anything of it is not 0.
    ///
    /// With a `crc`, what [`crc32_of_state`] gave when the state was saved, the state is checked against
    /// it, unless `enable_integrity_checks` is off.
    ///
    /// # Errors
    /// A state that means nothing or has a LINEAR blueprint, of another shape, of another CRC, or with more blueprints than ids or
    /// budget hold; memory exhausted, or a failed call. The layer is then as it was.
    pub fn load_state(
        &mut self,
        states: SeedStates,
        graft: GraftStates,
        crc: Option<u32>,
    ) -> Result<(), Error> {
        states.check()?;
        graft.check(states.num_seeds())?;
        self.check_shape(&states)?;
        if let (Some(expected), true) = (crc, self.config.enable_integrity_checks) {
            let (layer, got) = (self.config.name.clone(), crc32_of_state(&states, &graft));
            if got != expected {
                return Err(LayerError::Integrity { layer, expected, got }.into());
            }
        }
        let ids: Vec<u16> = (0..states.num_blueprints() as u32).map(|row| row as u16).collect();
        let registry = self.registry.with_loaded(&present(&states))?;
        let none = LinearStates::default();
        let new = self.replacement(states, &ids, &graft, registry, &none)?;
        self.take(new);
        Ok(())
    }

    fn check_shape(&self, states: &SeedStates) -> Result<(), LayerError> {
        let (config, chunk_size) = (&self.config, self.state.chunk_size());
        for (what, expected, got) in [
            ("num_seeds", config.num_seeds, states.num_seeds()),
            ("chunk_size", chunk_size, states.chunk_size),
        ] {
            if expected != got {
                let why = format!("`{what}` is {got}, the layer's is {expected}");
                return Err(LayerError::OtherShape { why });
            }
        }
        let (got, most) = (states.num_blueprints(), config.max_blueprints);
        if got > most {
            let why = format!("{got} blueprints, and `max_blueprints` is {most}");
            return Err(LayerError::OtherShape { why });
        }
        Ok(())
    }

    fn check_ids(&self, memory: &LayerMemory) -> Result<(), LayerError> {
        let most = self.config.max_blueprints;
        let mut ids = memory.blueprint_ids.iter().chain(&memory.retired_ids);
        match ids.find(|&&id| usize::from(id) >= most) {
            None => Ok(()),
            Some(id) => {
                let why = format!("it knows a blueprint {id}, and `max_blueprints` is {most}");
                Err(LayerError::OtherShape { why })
            }
        }
    }

    fn replacement(
        &self,
        states: SeedStates,
        ids: &[u16],
        graft: &GraftStates,
        registry: Registry,
        linear: &LinearStates,
    ) -> Result<Replacement<T>, Error> {
        let dense = self.replaced_matrices(ids, linear)?;
        let most = self.config.max_blueprints;
        let state = place(&self.device, states, ids, graft, &registry, most)?;
        let guard = self.guard_of(&state)?;
        Ok(Replacement { state, registry, dense, guard, clipped: self.clip_activations()? })
    }

    fn take(&mut self, new: Replacement<T>) {
        (self.state, self.registry, self.guard) = (new.state, new.registry, new.guard);
        self.dense = new.dense;
        // Sized by the arena, which is as large as before; what it holds is of the old state.
        self.training = None;
        self.carried = Carried::default();
        self.performance.keep_clipped(new.clipped);
    }

    /// The CRC-32 of the whole layer as it is now: [`Checkpoint::crc32`] of its [`Self::checkpoint`], which
    /// a file of it has as `crc32`.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn checksum(&self) -> Result<u32, Error> {
        Ok(self.checkpoint(0)?.crc32())
    }

    /// Reads the state back and compares it with the CRC-32 that the last command left, as every command
    /// does before it changes anything. Parameters are not in it, for an optimiser changes them between any
    /// two steps.
    ///
    /// # Errors
    /// [`LayerError::Integrity`] where something else than the layer changed it;
    /// [`LayerError::TurnedOff`]; or a failed call.
    pub fn verify_integrity(&self) -> Result<(), Error> {
        if self.guard == Guard::Off {
            let (what, option) = ("the CRC of the state", "enable_integrity_checks");
            return Err(LayerError::TurnedOff { what, option }.into());
        }
        self.found().map(drop)
    }

    /// What `enable_debug_assertions` checks before each pass.
    pub(crate) fn assert_state(&self) -> Result<(), Error> {
        if self.config.enable_debug_assertions {
            self.state.read_loaded()?.0.check_with_linear()?;
            self.state.read_graft()?.check(self.config.num_seeds)?;
        }
        Ok(())
    }
}

/// The state of a new layer, its arena as large as the budget.
pub(crate) fn empty_state(
    device: &Device,
    config: &LayerConfig,
    registry: &Registry,
) -> Result<LayerState, Error> {
    let (seeds, chunk_size) = (config.num_seeds, config.chunk_size());
    let weights = (registry.slots() + 1).saturating_mul(chunk_size);
    if weights > u32::MAX as usize {
        let option = "blueprint_budget_bytes";
        let (got, expected) = (
            format!("room for {weights} weights"),
            "at most 2³² weights: lower it, or `max_blueprints`".into(),
        );
        return Err(ConfigError::Value { option, got, expected }.into());
    }
    let states = SeedStates {
        lifecycle: host::zeros(seeds)?,
        blueprint_id: host::zeros(seeds)?,
        alpha: host::zeros(seeds)?,
        chunk_size,
        ..SeedStates::default()
    };
    let LayerConfig { schedule, ramp_epochs, alpha_target, .. } = *config;
    let graft = GraftStates::of_schedule(seeds, schedule, ramp_epochs, alpha_target)?;
    place(device, states, &[], &graft, registry, config.max_blueprints)
}

/// The ids that mean something.
fn present(states: &SeedStates) -> Vec<u16> {
    let rows = states.blueprint_weights.chunks_exact(states.chunk_size);
    (0..=u16::MAX)
        .zip(rows)
        .skip(1)
        .filter(|&(id, row)| {
            states.blueprint_type[usize::from(id)] != 0
                || states.blueprint_scales[usize::from(id)] != 0.0
                || row.iter().any(|&weight| weight != 0.0)
                || states.blueprint_id.contains(&id)
        })
        .map(|(id, _)| id)
        .collect()
}

/// The state in an arena of the registry's slots, in which exactly its blueprints are. The rows of
/// `states` are of the blueprints `ids`.
fn place(
    device: &Device,
    mut states: SeedStates,
    ids: &[u16],
    graft: &GraftStates,
    registry: &Registry,
    max_blueprints: usize,
) -> Result<LayerState, Error> {
    let chunk_size = states.chunk_size;
    let mut arena = host::zeros((registry.slots() + 1) * chunk_size)?;
    let mut offsets = vec![0; max_blueprints];
    let (mut types, mut scales) = (vec![0; max_blueprints], vec![0.0; max_blueprints]);
    for (row, &id) in ids.iter().enumerate() {
        let at = usize::from(id);
        (types[at], scales[at]) = (states.blueprint_type[row], states.blueprint_scales[row]);
        let Ok(slot) = registry.slot(id) else { continue };
        let start = slot * chunk_size;
        let weights = &states.blueprint_weights[row * chunk_size..][..chunk_size];
        arena[start..][..chunk_size].copy_from_slice(weights);
        offsets[at] = start as u32;
    }
    for held in &mut states.blueprint_id {
        *held = ids.get(usize::from(*held)).copied().unwrap_or(BLUEPRINT_NONE);
    }
    (states.blueprint_type, states.blueprint_scales) = (types, scales);
    LayerState::in_arena(device, &states, graft, &offsets, &arena)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kasmina::{Blueprint, KasminaLayer};
    use kasmina_types::BlueprintType;

    fn layer() -> KasminaLayer<f32> {
        let mut layer = KasminaLayer::builder(2, 8).build(&Device::Cpu).expect("a layer");
        let blueprint =
            Blueprint { kind: BlueprintType::MlpExpansion, weights: vec![1.0; 4], scale: 1.0 };
        let id = layer.load_blueprint(&blueprint).expect("room").id;
        layer.germinate(1, id).expect("DORMANT");
        layer
    }

    /// A bit of any array that something else than the layer flips is found.
    #[test]
    fn foreign_changes_are_found() {
        type Spoil = fn(&mut LayerState) -> Result<(), Error>;
        let spoils: [(&str, Spoil); 6] = [
            ("lifecycle", |s| s.lifecycle.copy_range_from_slice(1, &[2])),
            ("blueprint_id", |s| s.blueprint_id.copy_range_from_slice(0, &[1])),
            ("alpha", |s| s.alpha.copy_range_from_slice(0, &[f32::MIN_POSITIVE])),
            ("ramp_epochs", |s| s.graft.ramp_epochs.copy_range_from_slice(1, &[31])),
            ("blueprint_type", |s| s.blueprint_type.copy_range_from_slice(1, &[4])),
            ("blueprint_offset", |s| s.blueprint_offset.copy_range_from_slice(1, &[0])),
        ];
        for (array, spoil) in spoils {
            let mut layer = layer();
            layer.verify_integrity().expect("nothing has changed");
            spoil(&mut layer.state).expect("a copy");
            let why = layer.verify_integrity().expect_err(array);
            assert!(matches!(why, Error::Layer(LayerError::Integrity { .. })), "{array}: {why}");
        }
    }

    /// What an optimiser changes is its own.
    #[test]
    fn parameters_are_an_optimisers() {
        let mut layer = layer();
        layer.state.weights.copy_range_from_slice(4, &[9.0]).expect("a copy");
        layer.verify_integrity().expect("parameters are not covered");
    }

    /// With debug assertions a pass finds a code that is none; without them it has no reason to look.
    #[test]
    fn debug_assertions_look_at_the_state() {
        let config = LayerConfig { enable_debug_assertions: true, ..LayerConfig::new(2, 8) };
        let mut layer = KasminaLayer::<f32>::new(&Device::Cpu, config).expect("a layer");
        let x = crate::Buffer::zeroed(&Device::Cpu, 8).expect("memory");
        layer.forward(&x).map(drop).expect("a good state");
        layer.state.lifecycle.copy_range_from_slice(0, &[11]).expect("a copy");
        let why = layer.forward(&x).map(drop).expect_err("no such state").to_string();
        assert!(why.contains("lifecycle[0]"), "{why}");
    }
}
