//! Making, loading and checking a layer's state.

use super::config::LayerConfig;
use super::error::{ConfigError, LayerError};
use super::registry::Registry;
use super::{KasminaLayer, LayerElement};
use crate::buffer::host;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::checkpoint::crc32_of_state;
use crate::kasmina::{GraftStates, LayerState, SeedStates};

impl<T: LayerElement> KasminaLayer<T> {
    /// Puts a state in the place of the layer's, for example one from a checkpoint. A blueprint counts as
    /// loaded if a seed holds it, or anything of it is not 0.
    ///
    /// With a `crc`, what [`crc32_of_state`] gave when the state was saved, the state is checked against
    /// it, unless `enable_integrity_checks` is off.
    ///
    /// # Errors
    /// A state that means nothing, of another shape, of another CRC, or with more blueprints than ids or
    /// budget hold; memory exhausted, or a failed call. The layer is then as it was.
    pub fn load_state(
        &mut self,
        states: SeedStates,
        graft: GraftStates,
        crc: Option<u32>,
    ) -> Result<(), Error> {
        states.check()?;
        graft.check(states.num_seeds())?;
        let (config, chunk_size) = (&self.config, self.state.chunk_size());
        for (what, expected, got) in [
            ("num_seeds", config.num_seeds, states.num_seeds()),
            ("chunk_size", chunk_size, states.chunk_size),
        ] {
            if expected != got {
                let why = format!("`{what}` is {got}, the layer's is {expected}");
                return Err(LayerError::OtherShape { why }.into());
            }
        }
        if states.num_blueprints() > config.max_blueprints {
            let (got, most) = (states.num_blueprints(), config.max_blueprints);
            let why = format!("{got} blueprints, and `max_blueprints` is {most}");
            return Err(LayerError::OtherShape { why }.into());
        }
        if let (Some(expected), true) = (crc, config.enable_integrity_checks) {
            let (layer, got) = (config.name.clone(), crc32_of_state(&states, &graft));
            if got != expected {
                return Err(LayerError::Integrity { layer, expected, got }.into());
            }
        }
        let registry = self.registry.with_loaded(&present(&states))?;
        let clipped = self.clip_activations()?;
        let state = place(&self.device, states, &graft, &registry, config.max_blueprints)?;
        self.guard = self.guard_of(&state)?;
        self.state = state;
        self.registry = registry;
        // Sized by the arena, which is as large as before; what it holds is of the old state.
        self.training = None;
        self.performance.keep_clipped(clipped);
        Ok(())
    }

    /// The CRC-32 of the whole state as it is now: what [`Self::load_state`] checks.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn checksum(&self) -> Result<u32, Error> {
        Ok(crc32_of_state(&self.state.read()?, &self.state.read_graft()?))
    }

    /// Reads the state back and compares it with the CRC-32 that the last command left, as every command
    /// does before it changes anything. Parameters are not in it, for an optimiser changes them between any
    /// two steps.
    ///
    /// # Errors
    /// [`LayerError::Integrity`] where something else than the layer changed it;
    /// [`LayerError::TurnedOff`]; or a failed call.
    pub fn verify_integrity(&self) -> Result<(), Error> {
        if self.guard.is_none() {
            let (what, option) = ("the CRC of the state", "enable_integrity_checks");
            return Err(LayerError::TurnedOff { what, option }.into());
        }
        self.found().map(drop)
    }

    /// What `enable_debug_assertions` checks before each pass.
    pub(crate) fn assert_state(&self) -> Result<(), Error> {
        if self.config.enable_debug_assertions {
            self.state.read()?.check()?;
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
    place(device, states, &graft, registry, config.max_blueprints)
}

/// The ids that mean something.
fn present(states: &SeedStates) -> Vec<u16> {
    let rows = states.blueprint_weights.chunks_exact(states.chunk_size);
    (0..)
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

/// The state in an arena of the registry's slots, in which exactly its blueprints are.
fn place(
    device: &Device,
    mut states: SeedStates,
    graft: &GraftStates,
    registry: &Registry,
    max_blueprints: usize,
) -> Result<LayerState, Error> {
    let chunk_size = states.chunk_size;
    let mut arena = host::zeros((registry.slots() + 1) * chunk_size)?;
    let mut offsets = vec![0; max_blueprints];
    for id in registry.ids() {
        let start = registry.slot(id)? * chunk_size;
        let row = &states.blueprint_weights[usize::from(id) * chunk_size..][..chunk_size];
        arena[start..][..chunk_size].copy_from_slice(row);
        offsets[usize::from(id)] = start as u32;
    }
    states.blueprint_type.resize(max_blueprints, 0);
    states.blueprint_scales.resize(max_blueprints, 0.0);
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
