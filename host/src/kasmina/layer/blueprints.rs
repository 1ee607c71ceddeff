//! Loading, replacing and evicting blueprints while the layer runs.
//!
//! The copies are queued on the stream that the passes run on, so a pass that is in flight still reads
//! what was there when it was queued.

use kasmina_types::seed_state::field;
use kasmina_types::{BlueprintKind, BlueprintType, SeedLifecycle, StateUpdate};

use super::config::GradientClipping;
use super::error::LayerError;
use super::guard::Found;
use super::registry::{Blueprint, LoadedBlueprint, Placement, RegistryStatistics};
use super::{KasminaLayer, LayerElement, Training};
use crate::error::Error;

impl<T: LayerElement> KasminaLayer<T> {
    /// Loads a blueprint into the arena. Where the budget is used up, the one goes that was used least
    /// recently of those that no seed uses; a seed that is not DORMANT uses its blueprint.
    ///
    /// # Errors
    /// Weights or a type that do not fit the layer, a budget that is used up by blueprints in use, or a
    /// state that something else changed, which change nothing; or a failed call, after which the one that
    /// was to go may be gone.
    pub fn load_blueprint(&mut self, blueprint: &Blueprint) -> Result<LoadedBlueprint, Error> {
        let weights = self.check_blueprint(blueprint)?;
        let mut found = self.found()?;
        let users = found.users(&self.state)?;
        let placement = self.registry.place(|id| user_of(&users, id).is_some())?;
        self.make_room(&mut found, &placement, &users)?;
        let (entry, scale) = ((placement.id, placement.slot), blueprint.scale);
        self.write_blueprint(&mut found, entry, blueprint.kind as u8, &weights, scale)?;
        Ok(self.registry.record(placement))
    }

    /// Lets the blueprint go that is to, if one is.
    pub(super) fn make_room(
        &mut self,
        found: &mut Found,
        placement: &Placement,
        users: &[(SeedLifecycle, u16)],
    ) -> Result<(), Error> {
        let Some(victim) = placement.evicts else { return Ok(()) };
        // First, so that one of which a failed call left a part counts as gone.
        self.registry.evict(victim);
        self.clear(found, victim, placement.slot, users)
    }

    /// Puts another blueprint in the place of one that is loaded. It keeps its id, and the seeds that use
    /// it go on with the new one. Where gradients are clipped adaptively, their running norms begin anew, and
    /// the call waits for what is queued.
    ///
    /// # Errors
    /// An id that is not loaded, weights or a type that do not fit the layer, a state that something else
    /// changed, or a failed call.
    pub fn replace_blueprint(&mut self, id: u16, blueprint: &Blueprint) -> Result<(), Error> {
        let weights = self.check_blueprint(blueprint)?;
        let slot = self.registry.slot(id)?;
        let mut found = self.found()?;
        let users = match self.config.gradient_clip {
            GradientClipping::Adaptive { .. } => found.users(&self.state)?,
            _ => Vec::new(),
        };
        // A matrix that it had goes.
        self.dense.forget(id);
        let scale = blueprint.scale;
        self.write_blueprint(&mut found, (id, slot), blueprint.kind as u8, &weights, scale)?;
        self.registry.replaced(id);
        for (seed, (_, held)) in users.into_iter().enumerate() {
            if held == id {
                self.forget_running_norm(seed)?;
            }
        }
        Ok(())
    }

    /// Gives a blueprint's place back.
    ///
    /// # Errors
    /// An id that is not loaded, or that a seed uses; a state that something else changed; or a failed
    /// call.
    pub fn unload_blueprint(&mut self, id: u16) -> Result<(), Error> {
        let slot = self.registry.slot(id)?;
        let mut found = self.found()?;
        let users = found.users(&self.state)?;
        if let Some((seed, lifecycle)) = user_of(&users, id) {
            return Err(LayerError::InUse { id, seed, lifecycle }.into());
        }
        self.registry.give_up(id);
        self.clear(&mut found, id, slot, &users)
    }

    /// Marks a blueprint as used just now, so that others go first.
    ///
    /// # Errors
    /// An id that is not loaded.
    pub fn touch_blueprint(&mut self, id: u16) -> Result<(), Error> {
        self.registry.slot(id)?;
        self.registry.touch(id);
        Ok(())
    }

    /// A loaded blueprint as it is on the device, once everything queued before is done.
    ///
    /// # Errors
    /// An id that is not loaded, or is [`LINEAR`](Self::linear_blueprint); or a failed call.
    pub fn blueprint(&self, id: u16) -> Result<Blueprint, Error> {
        let start = self.registry.slot(id)? * self.state.chunk_size();
        if self.dense.place(id).is_some() {
            let (kind, advice) = (BlueprintKind::Linear, "read it by `linear_blueprint`");
            return Err(LayerError::OtherKind { id, kind, advice }.into());
        }
        let (state, at) = (&self.state, usize::from(id));
        let byte = state.blueprint_type.range_to_vec(at, 1)?[0];
        Ok(Blueprint {
            kind: self.code("blueprint_type", at, byte, BlueprintType::from_u8(byte))?,
            weights: state.weights.range_to_vec(start, state.chunk_size())?,
            scale: state.blueprint_scale.range_to_vec(at, 1)?[0],
        })
    }

    /// The ids that are loaded, ascending.
    pub fn blueprints(&self) -> Vec<u16> {
        self.registry.ids()
    }

    /// What the registry holds and has done.
    pub fn registry(&self) -> RegistryStatistics {
        RegistryStatistics {
            linear: self.dense.loaded().count(),
            linear_slots: self.dense.slots(),
            linear_bytes: self.dense.used_bytes(),
            ..self.registry.statistics()
        }
    }

    /// One step of gradient descent on the weights and scales, or W and b, of every loaded blueprint, by the gradients
    /// of the last backward pass; one that was loaded or replaced since has none, and stays. It goes over the
    /// host: an optimiser that stays on the device takes the addresses of [`Self::parameters`] instead.
    ///
    /// # Errors
    /// No backward pass yet, a parameter that would not be finite (nothing is changed then), or a failed
    /// call.
    pub fn descend(&mut self, learning_rate: f32) -> Result<(), Error> {
        let Some(training) = &self.training else { return Err(LayerError::NoGradients.into()) };
        let mut weights = self.state.weights.to_vec()?;
        let mut scales = self.state.blueprint_scale.to_vec()?;
        let grad_weights = training.gradients.grad_weights.to_vec()?;
        let grad_scales = training.gradients.grad_scales.to_vec()?;
        let chunk_size = self.state.chunk_size();
        for id in self.registry.ids() {
            let start = self.registry.slot(id)? * chunk_size;
            for i in start..start + chunk_size {
                weights[i] -= learning_rate * grad_weights[i];
            }
            let scale = &mut scales[usize::from(id)];
            *scale -= learning_rate * grad_scales[usize::from(id)];
            let row = &weights[start..start + chunk_size];
            if let Some(bad) = row.iter().chain([&*scale]).find(|value| !value.is_finite()) {
                let what = format!("a parameter of blueprint {id} after the step");
                let (got, expected) = ((*bad).into(), "a finite number");
                return Err(LayerError::OutOfRange { what, got, expected }.into());
            }
        }
        let matrices = self.descended_matrices(learning_rate)?;
        self.state.weights.copy_from_slice(&weights)?;
        self.state.blueprint_scale.copy_from_slice(&scales)?;
        matrices.map_or(Ok(()), |matrices| self.dense.weights.copy_from_slice(&matrices))
    }

    /// Where the parameters lie on the device, for an optimiser there. Nothing moves while the layer
    /// lives, except by [`Self::load_state`] and [`Self::restore`].
    pub fn parameters(&self) -> ParameterAddresses {
        ParameterAddresses {
            weights: self.state.weights.device_address(),
            num_weights: self.state.weights.len(),
            scales: self.state.blueprint_scale.device_address(),
            num_scales: self.state.blueprint_scale.len(),
            matrices: self.dense.weights.device_address(),
            num_matrices: self.dense.weights.len(),
        }
    }

    /// The blueprint's weights, as long as a chunk, if it fits the layer.
    fn check_blueprint(&self, blueprint: &Blueprint) -> Result<Vec<f32>, LayerError> {
        let wrong = |why| Err(LayerError::Blueprint { why });
        let (kind, chunk_size) = (blueprint.kind, self.state.chunk_size());
        if kind as u8 >= self.config.max_blueprint_types {
            let most = self.config.max_blueprint_types;
            return wrong(format!("{kind} is none of the first {most} types that may be loaded"));
        }
        let taps = kasmina_types::blueprint::CONV_TAPS.min(chunk_size);
        let got = blueprint.weights.len();
        let fits = got == chunk_size || kind == BlueprintType::ConvFilter && got == taps;
        if !fits {
            return wrong(format!("it has {got} weights, expected {chunk_size}, a seed's columns"));
        }
        let numbers = blueprint.weights.iter().chain([&blueprint.scale]);
        if let Some(bad) = numbers.into_iter().find(|value| !value.is_finite()) {
            return wrong(format!("{bad} among its numbers; all must be finite"));
        }
        let mut weights = blueprint.weights.clone();
        weights.resize(chunk_size, 0.0);
        Ok(weights)
    }

    pub(super) fn write_blueprint(
        &mut self,
        found: &mut Found,
        (id, slot): (u16, usize),
        kind: u8,
        weights: &[f32],
        scale: f32,
    ) -> Result<(), Error> {
        self.forget_gradients(id, slot)?;
        let (at, start) = (usize::from(id), slot * self.state.chunk_size());
        self.state.weights.copy_range_from_slice(start, weights)?;
        self.state.blueprint_scale.copy_range_from_slice(at, &[scale])?;
        self.write_entry(found, id, kind, start as u32)
    }

    /// Writes what the kernels find a blueprint by.
    fn write_entry(
        &mut self,
        found: &mut Found,
        id: u16,
        kind: u8,
        offset: u32,
    ) -> Result<(), Error> {
        let at = usize::from(id);
        let (kinds, offsets) = (&mut self.state.blueprint_type, &mut self.state.blueprint_offset);
        let written = kinds
            .copy_range_from_slice(at, &[kind])
            .and_then(|()| offsets.copy_range_from_slice(at, &[offset]));
        self.guarding(written)?;
        if let Some(values) = &mut found.0 {
            (values.blueprint_type[at], values.blueprint_offset[at]) = (kind, offset);
        }
        self.leave(found);
        Ok(())
    }

    /// What the backward passes found of a blueprint is nothing to the next one in its place: its
    /// gradients become 0, in the stream's order.
    fn forget_gradients(&mut self, id: u16, slot: usize) -> Result<(), Error> {
        let Some(Training { gradients, .. }) = &mut self.training else { return Ok(()) };
        let chunk_size = self.state.chunk_size();
        gradients.grad_weights.fill_range_bytes(slot * chunk_size, chunk_size, 0)?;
        gradients.grad_scales.fill_range_bytes(usize::from(id), 1, 0)
    }

    /// A seed's running norm is nothing to another blueprint: it becomes none, in the stream's order.
    pub(super) fn forget_running_norm(&mut self, seed: usize) -> Result<(), Error> {
        if let Some(norms) = &mut self.carried.running_norms {
            norms[seed] = f32::NAN;
        }
        self.training.as_mut().map_or(Ok(()), |training| training.clip.reset_seed(seed))
    }

    /// Lets an id mean nothing, also for DORMANT seeds that hold it.
    fn clear(
        &mut self,
        found: &mut Found,
        id: u16,
        slot: usize,
        users: &[(SeedLifecycle, u16)],
    ) -> Result<(), Error> {
        let holders: Vec<StateUpdate> = (0..)
            .zip(users)
            .filter(|(_, (_, held))| *held == id)
            .map(|(seed, _)| StateUpdate { mask: field::BLUEPRINT_ID, ..StateUpdate::of(seed) })
            .collect();
        self.dense.forget(id);
        self.apply(found, &holders)?;
        self.forget_gradients(id, slot)?;
        self.state.blueprint_scale.copy_range_from_slice(usize::from(id), &[0.0])?;
        self.write_entry(found, id, 0, 0)
    }
}

/// Where a layer's parameters lie in the device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterAddresses {
    /// Weights, f32; those of a blueprint begin at its offset.
    pub weights: u64,
    /// How many.
    pub num_weights: usize,
    /// Scales, f32, by blueprint id.
    pub scales: u64,
    /// How many.
    pub num_scales: usize,
    /// The matrices of LINEAR blueprints, in the type of the inputs, `chunk_size²` each.
    pub matrices: u64,
    /// How many elements.
    pub num_matrices: usize,
}

/// A seed that is not DORMANT and holds the blueprint.
pub(super) fn user_of(users: &[(SeedLifecycle, u16)], id: u16) -> Option<(usize, SeedLifecycle)> {
    let uses = |&(lifecycle, held): &(_, u16)| held == id && lifecycle != SeedLifecycle::Dormant;
    users.iter().position(uses).map(|seed| (seed, users[seed].0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Device};

    fn scale_by(factor: f32) -> Blueprint {
        Blueprint { kind: BlueprintType::Scale, weights: vec![factor; 4], scale: 1.0 }
    }

    /// A copy that fails while a blueprint takes another's place leaves neither: the victim is not there
    /// as zeros, and the layer goes on.
    #[test]
    fn a_load_that_fails_leaves_no_zeroed_victim() {
        for checks in [true, false] {
            let mut layer = KasminaLayer::<f32>::builder(1, 4)
                .max_blueprints(4)
                .blueprint_budget_bytes(16)
                .enable_integrity_checks(checks)
                .build(&Device::Cpu)
                .expect("a layer");
            let victim = layer.load_blueprint(&scale_by(2.0)).expect("room").id;
            // No room for slot 1 on the device: the copy of the weights fails.
            let short = Buffer::zeroed(&Device::Cpu, 4).expect("memory");
            let arena = std::mem::replace(&mut layer.state.weights, short);
            layer.load_blueprint(&scale_by(3.0)).expect_err("a copy outside");
            layer.state.weights = arena;
            assert!(layer.blueprints().is_empty(), "{:?}", layer.blueprints());
            let why = layer.germinate(0, victim).expect_err("gone").to_string();
            assert!(why.contains("evicted"), "{why}");
            let loaded = layer.load_blueprint(&scale_by(5.0)).expect("the slot is free");
            assert_eq!(loaded.evicted, None);
            assert_eq!(layer.blueprint(loaded.id).expect("loaded"), scale_by(5.0));
            let statistics = layer.registry();
            assert_eq!((statistics.loads, statistics.evictions), (2, 1));
            if checks {
                layer.verify_integrity().expect("only the layer changed the state");
            }
        }
    }

    #[test]
    fn a_full_budget_names_the_commands_that_make_room() {
        let mut layer = KasminaLayer::<f32>::builder(1, 4)
            .blueprint_budget_bytes(16)
            .build(&Device::Cpu)
            .expect("a layer");
        let id = layer.load_blueprint(&scale_by(2.0)).expect("room").id;
        layer.germinate(0, id).expect("DORMANT");
        let why = layer.load_blueprint(&scale_by(3.0)).expect_err("in use").to_string();
        for word in ["`advance`", "DORMANT", "`rules.automatic_reset`", "`blueprint_budget_bytes`"]
        {
            assert!(why.contains(word), "{why}");
        }
    }
}
