//! What a command finds before it changes anything, and the CRC-32 that it leaves.
//!
//! With integrity checks a command reads the arrays that only commands change once, and goes on only if
//! they are what the last command left. What it is about to do, it does to that copy too, by the
//! reference's rules, and the copy's CRC is the new guard: nothing is read a second time, and a change by
//! something else, even while the command runs, is never taken for the command's own.

use std::borrow::Cow;

use bytemuck::Pod;
use kasmina_types::seed_state::field;
use kasmina_types::{SeedLifecycle, StateUpdate, UpdateStatus};
use safetensors::Dtype;

use super::error::LayerError;
use super::{KasminaLayer, LayerElement};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::kasmina::LayerState;
use crate::kasmina::checkpoint::{crc32_of_tensors, seed_tensors};
use crate::kasmina::files::Tensor;
use crate::kasmina::state_update::SeedArrayValues;
use crate::profile;

/// The arrays that only commands change: all but the blueprints' parameters, which an optimiser changes
/// between any two steps.
pub(super) struct Commanded {
    pub(super) seeds: SeedArrayValues,
    pub(super) blueprint_type: Vec<u8>,
    pub(super) blueprint_offset: Vec<u32>,
}

/// What a command begins with: the arrays, seen to be right, or nothing where they are not checked.
pub(super) struct Found(pub(super) Option<Commanded>);

impl Commanded {
    pub(super) fn read(state: &LayerState) -> Result<Self, Error> {
        Ok(Self {
            seeds: SeedArrayValues::read(state)?,
            blueprint_type: state.blueprint_type.to_vec()?,
            blueprint_offset: state.blueprint_offset.to_vec()?,
        })
    }

    /// Made as [`crc32_of_state`](crate::kasmina::checkpoint::crc32_of_state) is.
    pub(super) fn checksum(&self) -> u32 {
        let SeedArrayValues { lifecycle, blueprint_id, alpha, graft } = &self.seeds;
        let (kinds, offsets) = (&self.blueprint_type, &self.blueprint_offset);
        let mut covered = seed_tensors(lifecycle, blueprint_id, alpha, graft);
        covered.push(Tensor::of("blueprint_type", Dtype::U8, &[kinds.len()], kinds));
        covered.push(Tensor::of("blueprint_offset", Dtype::U32, &[offsets.len()], offsets));
        crc32_of_tensors(&covered)
    }
}

impl Found {
    /// An array: what was found, else what is on the device.
    pub(super) fn array<'a, T: Pod>(
        &'a self,
        found: impl FnOnce(&'a Commanded) -> &'a Vec<T>,
        buffer: &Buffer<T>,
    ) -> Result<Cow<'a, [T]>, Error> {
        match &self.0 {
            Some(values) => Ok(Cow::Borrowed(found(values))),
            None => buffer.to_vec().map(Cow::Owned),
        }
    }

    /// As [`Self::array`], one element.
    fn element<'a, T: Pod>(
        &'a self,
        found: impl FnOnce(&'a Commanded) -> &'a Vec<T>,
        buffer: &Buffer<T>,
        index: usize,
    ) -> Result<T, Error> {
        match &self.0 {
            Some(values) => Ok(found(values)[index]),
            None => Ok(buffer.range_to_vec(index, 1)?[0]),
        }
    }

    pub(super) fn lifecycle(
        &self,
        state: &LayerState,
        seed: usize,
    ) -> Result<SeedLifecycle, Error> {
        self.element(|c| &c.seeds.lifecycle, &state.lifecycle, seed).map(known)
    }

    pub(super) fn blueprint_id(&self, state: &LayerState, seed: usize) -> Result<u16, Error> {
        self.element(|c| &c.seeds.blueprint_id, &state.blueprint_id, seed)
    }

    pub(super) fn embargo_epochs(&self, state: &LayerState, seed: usize) -> Result<u32, Error> {
        self.element(|c| &c.seeds.graft.embargo_epochs, &state.graft.embargo_epochs, seed)
    }

    /// State and blueprint of each seed.
    pub(super) fn users(&self, state: &LayerState) -> Result<Vec<(SeedLifecycle, u16)>, Error> {
        let lifecycle = self.array(|c| &c.seeds.lifecycle, &state.lifecycle)?;
        let ids = self.array(|c| &c.seeds.blueprint_id, &state.blueprint_id)?;
        Ok(lifecycle.iter().copied().map(known).zip(ids.iter().copied()).collect())
    }

    /// Takes in what the schedules' step on the device changed.
    pub(super) fn read_schedules(&mut self, state: &LayerState) -> Result<(), Error> {
        let Some(Commanded { seeds, .. }) = &mut self.0 else { return Ok(()) };
        seeds.alpha = state.alpha.to_vec()?;
        seeds.graft.epochs_in_state = state.graft.epochs_in_state.to_vec()?;
        seeds.graft.baseline_loss = state.graft.baseline_loss.to_vec()?;
        seeds.graft.drift_history = state.graft.drift_history.to_vec()?;
        seeds.graft.drift_count = state.graft.drift_count.to_vec()?;
        seeds.graft.embargo_epochs = state.graft.embargo_epochs.to_vec()?;
        Ok(())
    }
}

impl<T: LayerElement> KasminaLayer<T> {
    /// What a command finds.
    ///
    /// # Errors
    /// [`LayerError::Integrity`] where something else than the layer changed it; or a failed call.
    pub(super) fn found(&self) -> Result<Found, Error> {
        let Some(expected) = self.guard else { return Ok(Found(None)) };
        let values = Commanded::read(&self.state)?;
        let got = values.checksum();
        if got == expected {
            return Ok(Found(Some(values)));
        }
        Err(LayerError::Integrity { layer: self.config.name.clone(), expected, got }.into())
    }

    /// Guards what a command has left.
    pub(super) fn leave(&mut self, left: &Found) {
        if let Some(values) = &left.0 {
            self.guard = Some(values.checksum());
        }
    }

    /// The guard of a state that the layer has made.
    pub(super) fn guard_of(&self, state: &LayerState) -> Result<Option<u32>, Error> {
        let checks = self.config.enable_integrity_checks;
        checks.then(|| Ok(Commanded::read(state)?.checksum())).transpose()
    }

    /// Applies updates that the host has checked; the device checks them again. The guard stays where one
    /// is refused.
    pub(super) fn apply(
        &mut self,
        found: &mut Found,
        updates: &[StateUpdate],
    ) -> Result<(), Error> {
        if updates.is_empty() {
            return Ok(());
        }
        if let Some(values) = &mut found.0 {
            let blueprints = self.state.num_blueprints();
            for update in updates {
                let was = values.seeds.lifecycle.get(update.seed as usize).copied();
                let status = values.seeds.apply(update, blueprints);
                if status != UpdateStatus::Applied {
                    return Err(refused(update, status, was.and_then(SeedLifecycle::from_u8)));
                }
            }
        }
        if updates.iter().any(|u| u.mask & (field::LIFECYCLE | field::BLUEPRINT_ID) != 0) {
            // Also where the device refuses one: then others may be applied.
            self.dense.changed();
        }
        let scope = self.performance.scope(profile::STATE_UPDATE, 0);
        let report = self.updates.apply(&mut self.state, updates)?;
        drop(scope);
        if let Some(refusal) = report.refusals(updates).next() {
            return Err(refused(&refusal.update, refusal.status, refusal.found));
        }
        self.leave(found);
        Ok(())
    }
}

pub(super) fn known(byte: u8) -> SeedLifecycle {
    SeedLifecycle::from_u8(byte).expect("only the layer writes the states")
}

fn refused(update: &StateUpdate, status: UpdateStatus, found: Option<SeedLifecycle>) -> Error {
    let seed = update.seed;
    let to = SeedLifecycle::from_u8(update.lifecycle as u8);
    match (status, found, to) {
        (UpdateStatus::IllegalTransition, Some(from), Some(to)) => {
            LayerError::illegal(seed as usize, from, to).into()
        }
        _ => LayerError::Refused { seed, status }.into(),
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
