//! What a layer can be told to do with a seed.

use kasmina_types::seed_state::field;
use kasmina_types::{BlendSchedule, SeedLifecycle, StateUpdate};

use super::error::LayerError;
use super::guard::Found;
use super::{KasminaLayer, LayerElement};
use crate::error::Error;

/// Commands. Each is whole or not at all: one that is refused leaves the layer as it was, bit for bit. After a failed
/// call the state is what the device has, and the next command goes on from there.
/// They read and write the state on the device, so they wait for what is queued; call them between
/// steps. With `enable_integrity_checks` each begins as
/// [`verify_integrity`](KasminaLayer::verify_integrity) does, and refuses a state that something else
/// changed.
impl<T: LayerElement> KasminaLayer<T> {
    /// DORMANT → GERMINATED, with a blueprint that is loaded. α is 0; schedule, ramp and target are the
    /// configuration's.
    ///
    /// # Errors
    /// No such seed, a seed that is not DORMANT, a blueprint that is not loaded, or a failed call.
    pub fn germinate(&mut self, seed: usize, blueprint: u16) -> Result<(), Error> {
        self.check_seed(seed)?;
        let mut found = self.found()?;
        let from = found.lifecycle(&self.state, seed)?;
        self.check_transition(&found, seed, from, SeedLifecycle::Germinated)?;
        self.registry.slot(blueprint)?;
        let update = StateUpdate {
            mask: field::LIFECYCLE
                | field::BLUEPRINT_ID
                | field::SCHEDULE
                | field::RAMP_EPOCHS
                | field::ALPHA
                | field::ALPHA_TARGET,
            lifecycle: SeedLifecycle::Germinated as u32,
            blueprint_id: u32::from(blueprint),
            schedule: self.config.schedule as u32,
            ramp_epochs: self.config.ramp_epochs,
            alpha: 0.0,
            alpha_target: self.config.alpha_target,
            ..StateUpdate::of(seed as u32)
        };
        self.apply(&mut found, &[update])?;
        self.registry.touch(blueprint);
        self.forget_running_norm(seed)
    }

    /// To the next state on the way to FOSSILIZED; a CULLED seed whose embargo has ended, a CANCELLED or
    /// ROLLED_BACK one to DORMANT, which gives its blueprint back. Answers the new state.
    ///
    /// No condition of the [`TransitionRules`](super::TransitionRules) is asked.
    ///
    /// # Errors
    /// No such seed, a state without a next one (DORMANT needs [`Self::germinate`], FOSSILIZED is
    /// terminal), an embargo, or a failed call.
    pub fn advance(&mut self, seed: usize) -> Result<SeedLifecycle, Error> {
        use SeedLifecycle as L;
        self.check_seed(seed)?;
        let found = self.found()?;
        let from = found.lifecycle(&self.state, seed)?;
        let to = match from {
            L::Dormant => return Err(LayerError::NeedsBlueprint { seed }.into()),
            L::Fossilized => return Err(LayerError::Terminal { seed, from }.into()),
            L::Germinated => L::Training,
            L::Training => L::Grafting,
            L::Grafting => L::Stabilization,
            L::Stabilization => L::Evaluating,
            L::Evaluating => L::FineTuning,
            L::FineTuning => L::Fossilized,
            L::Culled | L::Cancelled | L::RolledBack => L::Dormant,
        };
        self.transition(found, seed, from, to)?;
        Ok(to)
    }

    /// GERMINATED or TRAINING → CANCELLED.
    ///
    /// # Errors
    /// No such seed, a state from which that is no legal transition, or a failed call.
    pub fn cancel(&mut self, seed: usize) -> Result<(), Error> {
        self.command_transition(seed, SeedLifecycle::Cancelled)
    }

    /// TRAINING, EVALUATING or FINE_TUNING → CULLED, with the rules' embargo.
    ///
    /// # Errors
    /// As [`Self::cancel`].
    pub fn cull(&mut self, seed: usize) -> Result<(), Error> {
        self.command_transition(seed, SeedLifecycle::Culled)
    }

    /// GRAFTING to FINE_TUNING → ROLLED_BACK.
    ///
    /// # Errors
    /// As [`Self::cancel`].
    pub fn rollback(&mut self, seed: usize) -> Result<(), Error> {
        self.command_transition(seed, SeedLifecycle::RolledBack)
    }

    /// Sets the α that the seed's schedule stops at.
    ///
    /// # Errors
    /// No such seed, a target outside \[0, 1\], or a failed call.
    pub fn set_alpha_target(&mut self, seed: usize, target: f32) -> Result<(), Error> {
        self.check_seed(seed)?;
        if !(0.0..=1.0).contains(&target) {
            return Err(out_of_range("alpha_target", target, "0 to 1"));
        }
        self.change(StateUpdate {
            mask: field::ALPHA_TARGET,
            alpha_target: target,
            ..StateUpdate::of(seed as u32)
        })
    }

    /// Sets the seed's α itself, as an optimiser that learns it does.
    ///
    /// # Errors
    /// No such seed, an α that is not finite, or a failed call.
    pub fn set_alpha(&mut self, seed: usize, alpha: f32) -> Result<(), Error> {
        self.check_seed(seed)?;
        if !alpha.is_finite() {
            return Err(out_of_range("alpha", alpha, "a finite number"));
        }
        self.change(StateUpdate { mask: field::ALPHA, alpha, ..StateUpdate::of(seed as u32) })
    }

    /// Sets the seed's schedule and its ramp length.
    ///
    /// # Errors
    /// No such seed, a ramp of no epochs, or a failed call.
    pub fn set_schedule(
        &mut self,
        seed: usize,
        schedule: BlendSchedule,
        ramp_epochs: u32,
    ) -> Result<(), Error> {
        self.check_seed(seed)?;
        if ramp_epochs == 0 {
            return Err(out_of_range("ramp_epochs", 0.0, "at least 1"));
        }
        self.change(StateUpdate {
            mask: field::SCHEDULE | field::RAMP_EPOCHS,
            schedule: schedule as u32,
            ramp_epochs,
            ..StateUpdate::of(seed as u32)
        })
    }

    /// The seed's state of life.
    ///
    /// # Errors
    /// No such seed, a state that something else changed to what is none, or a failed call.
    pub fn lifecycle(&self, seed: usize) -> Result<SeedLifecycle, Error> {
        self.check_seed(seed)?;
        let byte = self.state.lifecycle.range_to_vec(seed, 1)?[0];
        self.code("lifecycle", seed, byte, SeedLifecycle::from_u8(byte))
    }

    pub(crate) fn check_seed(&self, seed: usize) -> Result<(), Error> {
        let num_seeds = self.config.num_seeds;
        if seed < num_seeds {
            return Ok(());
        }
        Err(LayerError::NoSuchSeed { layer: self.config.name.clone(), seed, num_seeds }.into())
    }

    fn change(&mut self, update: StateUpdate) -> Result<(), Error> {
        let mut found = self.found()?;
        self.apply(&mut found, &[update])
    }

    /// To any state that is legal from where the seed is.
    pub(crate) fn command_transition(
        &mut self,
        seed: usize,
        to: SeedLifecycle,
    ) -> Result<(), Error> {
        self.check_seed(seed)?;
        let found = self.found()?;
        let from = found.lifecycle(&self.state, seed)?;
        self.transition(found, seed, from, to)
    }

    fn transition(
        &mut self,
        mut found: Found,
        seed: usize,
        from: SeedLifecycle,
        to: SeedLifecycle,
    ) -> Result<(), Error> {
        self.check_transition(&found, seed, from, to)?;
        let lets_go = to == SeedLifecycle::Dormant;
        let held = lets_go.then(|| found.blueprint_id(&self.state, seed)).transpose()?;
        let update = self.update_to(seed, to);
        self.apply(&mut found, &[update])?;
        if let Some(held) = held {
            // It has been used until now.
            self.registry.touch(held);
        }
        Ok(())
    }

    fn check_transition(
        &self,
        found: &Found,
        seed: usize,
        from: SeedLifecycle,
        to: SeedLifecycle,
    ) -> Result<(), Error> {
        if !from.may_become(to) {
            return Err(LayerError::illegal(seed, from, to).into());
        }
        if from == SeedLifecycle::Culled {
            let epochs = found.embargo_epochs(&self.state, seed)?;
            if epochs > 0 {
                return Err(LayerError::Embargoed { seed, epochs }.into());
            }
        }
        Ok(())
    }

    /// The update that takes a seed to another state, with what goes with it.
    pub(crate) fn update_to(&self, seed: usize, to: SeedLifecycle) -> StateUpdate {
        let mut update = StateUpdate {
            mask: field::LIFECYCLE,
            lifecycle: to as u32,
            ..StateUpdate::of(seed as u32)
        };
        match to {
            SeedLifecycle::Culled => {
                update.mask |= field::EMBARGO_EPOCHS;
                update.embargo_epochs = self.config.rules.embargo_epochs;
            }
            SeedLifecycle::Dormant => update.mask |= field::BLUEPRINT_ID | field::ALPHA,
            _ => {}
        }
        update
    }
}

fn out_of_range(what: &str, got: f32, expected: &'static str) -> Error {
    LayerError::OutOfRange { what: what.into(), got: got.into(), expected }.into()
}
