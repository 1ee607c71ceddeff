//! What a layer can be told to do with a seed.

use kasmina_types::seed_state::field;
use kasmina_types::{BlendSchedule, SeedLifecycle, StateUpdate, UpdateStatus};

use super::error::LayerError;
use super::{KasminaLayer, LayerElement};
use crate::error::Error;
use crate::kasmina::UpdateReport;
use crate::profile;

/// Commands. Each is whole or not at all: one that is refused leaves the layer as it was, bit for bit.
/// They read and write the state on the device, so they wait for what is queued; call them between
/// steps.
impl<T: LayerElement> KasminaLayer<T> {
    /// DORMANT → GERMINATED, with a blueprint that is loaded. α is 0; schedule, ramp and target are the
    /// configuration's.
    ///
    /// # Errors
    /// No such seed, a seed that is not DORMANT, a blueprint that is not loaded, or a failed call.
    pub fn germinate(&mut self, seed: usize, blueprint: u16) -> Result<(), Error> {
        self.check_transition(seed, SeedLifecycle::Germinated)?;
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
        self.apply(&[update])?;
        self.registry.touch(blueprint);
        Ok(())
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
        let from = self.lifecycle(seed)?;
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
        self.transition(seed, to)?;
        Ok(to)
    }

    /// GERMINATED or TRAINING → CANCELLED.
    ///
    /// # Errors
    /// No such seed, a state from which that is no legal transition, or a failed call.
    pub fn cancel(&mut self, seed: usize) -> Result<(), Error> {
        self.transition(seed, SeedLifecycle::Cancelled)
    }

    /// TRAINING, EVALUATING or FINE_TUNING → CULLED, with the rules' embargo.
    ///
    /// # Errors
    /// As [`Self::cancel`].
    pub fn cull(&mut self, seed: usize) -> Result<(), Error> {
        self.transition(seed, SeedLifecycle::Culled)
    }

    /// GRAFTING to FINE_TUNING → ROLLED_BACK.
    ///
    /// # Errors
    /// As [`Self::cancel`].
    pub fn rollback(&mut self, seed: usize) -> Result<(), Error> {
        self.transition(seed, SeedLifecycle::RolledBack)
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
        self.apply(&[StateUpdate {
            mask: field::ALPHA_TARGET,
            alpha_target: target,
            ..StateUpdate::of(seed as u32)
        }])
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
        self.apply(&[StateUpdate { mask: field::ALPHA, alpha, ..StateUpdate::of(seed as u32) }])
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
        self.apply(&[StateUpdate {
            mask: field::SCHEDULE | field::RAMP_EPOCHS,
            schedule: schedule as u32,
            ramp_epochs,
            ..StateUpdate::of(seed as u32)
        }])
    }

    /// The seed's state of life.
    ///
    /// # Errors
    /// No such seed, or a failed call.
    pub fn lifecycle(&self, seed: usize) -> Result<SeedLifecycle, Error> {
        self.check_seed(seed)?;
        let byte = self.state.lifecycle.range_to_vec(seed, 1)?[0];
        Ok(SeedLifecycle::from_u8(byte).expect("only the layer writes the states"))
    }

    pub(crate) fn check_seed(&self, seed: usize) -> Result<(), Error> {
        let num_seeds = self.config.num_seeds;
        if seed < num_seeds {
            return Ok(());
        }
        Err(LayerError::NoSuchSeed { layer: self.config.name.clone(), seed, num_seeds }.into())
    }

    fn transition(&mut self, seed: usize, to: SeedLifecycle) -> Result<(), Error> {
        self.check_transition(seed, to)?;
        let update = self.update_to(seed, to);
        self.apply(&[update])
    }

    fn check_transition(&self, seed: usize, to: SeedLifecycle) -> Result<(), Error> {
        let from = self.lifecycle(seed)?;
        if !from.may_become(to) {
            return Err(LayerError::illegal(seed, from, to).into());
        }
        if from == SeedLifecycle::Culled {
            let epochs = self.state.graft.embargo_epochs.range_to_vec(seed, 1)?[0];
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

    /// Applies updates that the host has checked; the device checks them again.
    pub(crate) fn apply(&mut self, updates: &[StateUpdate]) -> Result<(), Error> {
        let scope = self.performance.scope(profile::STATE_UPDATE, 0);
        let report = self.updates.apply(&mut self.state, updates)?;
        drop(scope);
        self.refresh_guard()?;
        refused(updates, &report)
    }
}

fn refused(updates: &[StateUpdate], report: &UpdateReport) -> Result<(), Error> {
    match report.refusals(updates).next() {
        None => Ok(()),
        Some(refusal) => {
            let (seed, status, found) = (refusal.update.seed, refusal.status, refusal.found);
            let to = SeedLifecycle::from_u8(refusal.update.lifecycle as u8);
            Err(match (status, found, to) {
                (UpdateStatus::IllegalTransition, Some(from), Some(to)) => {
                    LayerError::illegal(seed as usize, from, to).into()
                }
                _ => LayerError::Refused { seed, status }.into(),
            })
        }
    }
}

fn out_of_range(what: &str, got: f32, expected: &'static str) -> Error {
    LayerError::OutOfRange { what: what.into(), got: got.into(), expected }.into()
}
