//! What a command finds before it changes anything, and the CRC-32 that it leaves.
//!
//! With integrity checks a command reads the arrays that only commands change once, and goes on only if
//! they are what the last command left. What it is about to do, it does to that copy too, by the
//! reference's rules, and the copy's CRC is the new guard: nothing is read a second time, and a change by
//! something else, even while the command runs, is not taken for the command's own.
//!
//! Two things are taken from the device as they are. One is what an epoch's step of the schedules leaves in α, epochs,
//! baselines, drifts and embargoes: the device rounds α in its own way. What else changes these arrays between that
//! step and the reading becomes the guard with it. The other is the whole state after a call that failed when it may
//! have changed something already: a failed call locks nobody out.

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

/// What the arrays that only commands change must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Anything: they are not checked.
    Off,
    /// Of this CRC-32.
    Crc(u32),
    /// What they are when a command next reads them: a call failed that may have changed them, and so did the reading
    /// after it.
    Lost,
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
        let byte = self.element(|c| &c.seeds.lifecycle, &state.lifecycle, seed)?;
        Ok(known(seed, byte)?)
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
        let seeds = lifecycle.iter().zip(ids.iter()).enumerate();
        Ok(seeds
            .map(|(seed, (&byte, &id))| Ok((known(seed, byte)?, id)))
            .collect::<Result<_, LayerError>>()?)
    }

    /// Takes in what the schedules' step on the device changed, into the memory that is there.
    pub(super) fn read_schedules(&mut self, state: &LayerState) -> Result<(), Error> {
        let Some(Commanded { seeds, .. }) = &mut self.0 else { return Ok(()) };
        let (graft, buffers) = (&mut seeds.graft, &state.graft);
        state.alpha.copy_to_slice(&mut seeds.alpha)?;
        buffers.epochs_in_state.copy_to_slice(&mut graft.epochs_in_state)?;
        buffers.baseline_loss.copy_to_slice(&mut graft.baseline_loss)?;
        buffers.drift_history.copy_to_slice(&mut graft.drift_history)?;
        buffers.drift_count.copy_to_slice(&mut graft.drift_count)?;
        buffers.embargo_epochs.copy_to_slice(&mut graft.embargo_epochs)
    }
}

impl<T: LayerElement> KasminaLayer<T> {
    /// What a command finds.
    ///
    /// # Errors
    /// [`LayerError::Integrity`] where something else than the layer changed it; or a failed call.
    pub(super) fn found(&self) -> Result<Found, Error> {
        if self.guard == Guard::Off {
            return Ok(Found(None));
        }
        let values = Commanded::read(&self.state)?;
        match (self.guard, values.checksum()) {
            (Guard::Crc(expected), got) if got != expected => {
                Err(LayerError::Integrity { layer: self.config.name.clone(), expected, got }.into())
            }
            _ => Ok(Found(Some(values))),
        }
    }

    /// Guards what a command has left.
    pub(super) fn leave(&mut self, left: &Found) {
        if let Some(values) = &left.0 {
            self.guard = Guard::Crc(values.checksum());
        }
    }

    /// The guard of a state that the layer has made.
    pub(super) fn guard_of(&self, state: &LayerState) -> Result<Guard, Error> {
        if !self.config.enable_integrity_checks {
            return Ok(Guard::Off);
        }
        Ok(Guard::Crc(Commanded::read(state)?.checksum()))
    }

    /// Hands a call's result on. Where the call failed it may have changed the state already, and what is there now is
    /// guarded.
    pub(super) fn guarding<R>(&mut self, done: Result<R, Error>) -> Result<R, Error> {
        if done.is_err() {
            self.guard = self.guard_of(&self.state).unwrap_or(Guard::Lost);
        }
        done
    }

    /// What an array of the state has at a place: a code, or what is wrong with it.
    pub(super) fn code<C>(
        &self,
        array: &'static str,
        index: usize,
        got: impl Into<u16>,
        meaning: Option<C>,
    ) -> Result<C, Error> {
        if let Some(code) = meaning {
            return Ok(code);
        }
        // Where there is a guard, it says more.
        self.found()?;
        Err(LayerError::Code { array, index, got: got.into() }.into())
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
        let applied = self.updates.apply(&mut self.state, updates);
        drop(scope);
        let report = self.guarding(applied)?;
        if let Some(refusal) = report.refusals(updates).next() {
            return Err(refused(&refusal.update, refusal.status, refusal.found));
        }
        self.leave(found);
        Ok(())
    }
}

pub(super) fn known(seed: usize, byte: u8) -> Result<SeedLifecycle, LayerError> {
    let wrong = LayerError::Code { array: "lifecycle", index: seed, got: byte.into() };
    SeedLifecycle::from_u8(byte).ok_or(wrong)
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
