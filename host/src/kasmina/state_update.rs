//! Updates of the seeds' state in batches, checked on the device.

use kasmina_reference::kasmina::{self as reference, FieldValues, SeedRecord};
use kasmina_types::seed_state::field;
use kasmina_types::state_update::NO_SEED;
use kasmina_types::{SeedLifecycle, StateUpdate, UpdateStatus};

use super::graft::GraftStates;
use super::state::LayerState;
use crate::buffer::{Buffer, host};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::state_update::{self as launcher, Arguments};
use crate::error::Error;

const OP: &str = "state_update";

/// Applies batches of updates to a layer's state, each update whole or not at all.
///
/// Updates apply in their order, also where several name one seed. A transition must be one of
/// [`TRANSITIONS`](crate::types::lifecycle::TRANSITIONS); a culled seed becomes DORMANT only when its
/// embargo had ended before the update. A transition sets `epochs_in_state` to 0, and one to GRAFTING
/// forgets the baseline loss and the drifts; fields of the same update are set besides.
///
/// The memory for `capacity` updates is made once. A batch uploads all of it and reads the answers back, so
/// it waits for what is queued.
#[derive(Debug)]
pub struct StateUpdates {
    device: Device,
    staging: Vec<StateUpdate>,
    updates: Buffer<StateUpdate>,
    status: Buffer<u32>,
    found: Buffer<u8>,
    counts: Buffer<u32>,
    answers: Answers,
}

/// What the host reads back, in memory that is there before a launch changes anything.
#[derive(Debug)]
struct Answers {
    status: Vec<u32>,
    found: Vec<u8>,
    counts: [u32; 2],
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateReport {
    /// What became of each update.
    pub statuses: Vec<UpdateStatus>,
    /// The lifecycle that each found its seed in; `None` where there is no such seed.
    pub found: Vec<Option<SeedLifecycle>>,
    /// Updates applied.
    pub applied: u32,
    /// Updates refused.
    pub refused: u32,
}

/// An update that was refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("update {index} of seed {}: {}; the seed is unchanged", .update.seed, self.why())]
pub struct Refusal {
    /// Its place in the batch.
    pub index: usize,
    /// The update.
    pub update: StateUpdate,
    /// Why.
    pub status: UpdateStatus,
    /// The lifecycle that it found.
    pub found: Option<SeedLifecycle>,
}

impl Refusal {
    fn why(&self) -> String {
        let StateUpdate { mask, lifecycle, blueprint_id, schedule, alpha, alpha_target, .. } =
            self.update;
        let from = self.found.map_or("no state", SeedLifecycle::name);
        let name = |word| u8::try_from(word).ok().and_then(SeedLifecycle::from_u8);
        let to = name(lifecycle).map_or_else(|| format!("state {lifecycle}"), |to| to.to_string());
        match self.status {
            UpdateStatus::Applied => "applied".into(),
            UpdateStatus::SeedOutOfRange => "there is no such seed".into(),
            UpdateStatus::UnknownField => {
                format!("the mask {mask:#x} has bits that no field has")
            }
            UpdateStatus::IllegalTransition => format!("{from} may not become {to}"),
            UpdateStatus::Embargoed => {
                format!("{from} may not become {to} before its embargo has ended")
            }
            UpdateStatus::BlueprintOutOfRange => format!("there is no blueprint {blueprint_id}"),
            UpdateStatus::UnknownSchedule => format!("there is no schedule {schedule}"),
            UpdateStatus::EmptyRamp => "a ramp has at least 1 epoch".into(),
            UpdateStatus::AlphaOutOfRange => format!(
                "α {alpha} must be finite, and its target {alpha_target} in [0, 1], where they are set"
            ),
        }
    }
}

impl UpdateReport {
    /// The refused ones of `updates`, the batch that the report is of.
    pub fn refusals<'a>(
        &'a self,
        updates: &'a [StateUpdate],
    ) -> impl Iterator<Item = Refusal> + 'a {
        self.statuses
            .iter()
            .zip(&self.found)
            .zip(updates)
            .enumerate()
            .filter(|(_, ((status, _), _))| **status != UpdateStatus::Applied)
            .map(|(index, ((&status, &found), &update))| Refusal { index, update, status, found })
    }
}

impl StateUpdates {
    /// Memory for batches of up to `capacity` updates.
    ///
    /// # Errors
    /// More than 32-bit counts hold, a capture of the device's stream, memory exhausted, or a failed call.
    pub fn new(device: &Device, capacity: usize) -> Result<Self, Error> {
        let (what, got, limit) = ("capacity", capacity as u64, i32::MAX as u64);
        if got > limit {
            return Err(Error::TooLarge { op: OP, what, got, limit });
        }
        device.refuse_capture(OP)?;
        Ok(Self {
            device: device.clone(),
            staging: host::repeated(capacity, StateUpdate::of(0))?,
            updates: Buffer::zeroed(device, capacity)?,
            status: Buffer::zeroed(device, capacity)?,
            found: Buffer::zeroed(device, capacity)?,
            counts: Buffer::zeroed(device, 2)?,
            answers: Answers {
                status: host::zeros(capacity)?,
                found: host::zeros(capacity)?,
                counts: [0; 2],
            },
        })
    }

    /// Most updates of a batch.
    pub fn capacity(&self) -> usize {
        self.staging.len()
    }

    /// Applies `updates` to `state`, and says what became of each.
    ///
    /// # Errors
    /// More updates than the capacity, a state on another device, or a capture of the device's stream, which
    /// leave the state as it was; or a failed call, after which the updates may be applied. An update that is refused is
    /// no error.
    pub fn apply(
        &mut self,
        state: &mut LayerState,
        updates: &[StateUpdate],
    ) -> Result<UpdateReport, Error> {
        let (what, got, limit) = ("updates", updates.len(), self.capacity());
        if got > limit {
            return Err(Error::TooLarge { op: OP, what, got: got as u64, limit: limit as u64 });
        }
        state.alpha.check_device(OP, "state", &self.device)?;
        self.device.refuse_capture(OP)?;
        if updates.is_empty() {
            let (statuses, found) = (Vec::new(), Vec::new());
            return Ok(UpdateReport { statuses, found, applied: 0, refused: 0 });
        }
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return apply_on_cpu(state, updates);
        };
        self.staging[..updates.len()].copy_from_slice(updates);
        self.updates.copy_from_slice(&self.staging)?;
        launcher::launch(
            kernels,
            Arguments {
                state,
                updates: &self.updates,
                num_updates: updates.len(),
                status: &mut self.status,
                found: &mut self.found,
                counts: &mut self.counts,
            },
        )?;
        let Answers { status, found, counts } = &mut self.answers;
        self.status.copy_to_slice(status)?;
        self.found.copy_to_slice(found)?;
        self.counts.copy_to_slice(counts)?;
        let known = |&word: &u32| UpdateStatus::from_u32(word).expect("the kernel writes statuses");
        let lifecycle =
            |&byte: &u8| if byte == NO_SEED { None } else { SeedLifecycle::from_u8(byte) };
        Ok(UpdateReport {
            statuses: status[..updates.len()].iter().map(known).collect(),
            found: found[..updates.len()].iter().map(lifecycle).collect(),
            applied: counts[0],
            refused: counts[1],
        })
    }
}

/// The state's arrays as updates see them.
pub(crate) struct SeedArrayValues {
    pub(crate) lifecycle: Vec<u8>,
    pub(crate) blueprint_id: Vec<u16>,
    pub(crate) alpha: Vec<f32>,
    pub(crate) graft: GraftStates,
}

fn apply_on_cpu(state: &mut LayerState, updates: &[StateUpdate]) -> Result<UpdateReport, Error> {
    let blueprints = state.num_blueprints();
    let mut arrays = SeedArrayValues::read(state)?;
    let (mut statuses, mut found) = (Vec::new(), Vec::new());
    for update in updates {
        let lifecycle = arrays.lifecycle.get(update.seed as usize).copied();
        found.push(lifecycle.and_then(SeedLifecycle::from_u8));
        statuses.push(arrays.apply(update, blueprints));
    }
    let applied = statuses.iter().filter(|&&s| s == UpdateStatus::Applied).count() as u32;
    let refused = statuses.len() as u32 - applied;
    state.lifecycle.copy_from_slice(&arrays.lifecycle)?;
    state.blueprint_id.copy_from_slice(&arrays.blueprint_id)?;
    state.alpha.copy_from_slice(&arrays.alpha)?;
    let (buffers, graft) = (&mut state.graft, &arrays.graft);
    buffers.schedule.copy_from_slice(&graft.schedule)?;
    buffers.alpha_target.copy_from_slice(&graft.alpha_target)?;
    buffers.ramp_epochs.copy_from_slice(&graft.ramp_epochs)?;
    buffers.epochs_in_state.copy_from_slice(&graft.epochs_in_state)?;
    buffers.baseline_loss.copy_from_slice(&graft.baseline_loss)?;
    buffers.drift_count.copy_from_slice(&graft.drift_count)?;
    buffers.embargo_epochs.copy_from_slice(&graft.embargo_epochs)?;
    Ok(UpdateReport { statuses, found, applied, refused })
}

impl SeedArrayValues {
    /// The arrays, once everything queued before is done.
    pub(crate) fn read(state: &LayerState) -> Result<Self, Error> {
        Ok(Self {
            lifecycle: state.lifecycle.to_vec()?,
            blueprint_id: state.blueprint_id.to_vec()?,
            alpha: state.alpha.to_vec()?,
            graft: state.graft.read()?,
        })
    }

    /// Applies an update whole or not at all, to the bits that the kernel leaves.
    pub(crate) fn apply(&mut self, update: &StateUpdate, blueprints: usize) -> UpdateStatus {
        let s = update.seed as usize;
        if s >= self.lifecycle.len() {
            return UpdateStatus::SeedOutOfRange;
        }
        if update.mask & !field::ALL != 0 {
            return UpdateStatus::UnknownField;
        }
        let has = |bit| update.mask & bit != 0;
        let values = FieldValues {
            lifecycle: has(field::LIFECYCLE).then_some(update.lifecycle),
            blueprint_id: has(field::BLUEPRINT_ID).then_some(update.blueprint_id),
            schedule: has(field::SCHEDULE).then_some(update.schedule),
            ramp_epochs: has(field::RAMP_EPOCHS).then_some(update.ramp_epochs),
            embargo_epochs: has(field::EMBARGO_EPOCHS).then_some(update.embargo_epochs),
            alpha: has(field::ALPHA).then_some(update.alpha),
            alpha_target: has(field::ALPHA_TARGET).then_some(update.alpha_target),
        };
        let graft = &mut self.graft;
        let baseline = graft.baseline_loss[s];
        let mut seed = SeedRecord {
            lifecycle: self.lifecycle[s],
            blueprint_id: self.blueprint_id[s],
            alpha: self.alpha[s],
            schedule: graft.schedule[s],
            alpha_target: graft.alpha_target[s],
            ramp_epochs: graft.ramp_epochs[s],
            epochs_in_state: graft.epochs_in_state[s],
            baseline_loss: (!baseline.is_nan()).then_some(baseline),
            drift_count: graft.drift_count[s],
            embargo_epochs: graft.embargo_epochs[s],
        };
        if let Err(refusal) = reference::apply_update(&mut seed, &values, blueprints) {
            return match refusal {
                reference::Refusal::IllegalTransition => UpdateStatus::IllegalTransition,
                reference::Refusal::Embargoed => UpdateStatus::Embargoed,
                reference::Refusal::BlueprintOutOfRange => UpdateStatus::BlueprintOutOfRange,
                reference::Refusal::UnknownSchedule => UpdateStatus::UnknownSchedule,
                reference::Refusal::EmptyRamp => UpdateStatus::EmptyRamp,
                reference::Refusal::AlphaOutOfRange => UpdateStatus::AlphaOutOfRange,
            };
        }
        self.lifecycle[s] = seed.lifecycle;
        self.blueprint_id[s] = seed.blueprint_id;
        self.alpha[s] = seed.alpha;
        graft.schedule[s] = seed.schedule;
        graft.alpha_target[s] = seed.alpha_target;
        graft.ramp_epochs[s] = seed.ramp_epochs;
        graft.epochs_in_state[s] = seed.epochs_in_state;
        // A NaN that was there keeps its bits, unless the seed begins to graft.
        let grafts = update.lifecycle == SeedLifecycle::Grafting as u32;
        if seed.baseline_loss.is_none() && has(field::LIFECYCLE) && grafts {
            graft.baseline_loss[s] = f32::NAN;
        }
        graft.drift_count[s] = seed.drift_count;
        graft.embargo_epochs[s] = seed.embargo_epochs;
        UpdateStatus::Applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_both_states() {
        let update = StateUpdate { mask: field::LIFECYCLE, lifecycle: 7, ..StateUpdate::of(3) };
        let report = UpdateReport {
            statuses: vec![UpdateStatus::Applied, UpdateStatus::IllegalTransition],
            found: vec![Some(SeedLifecycle::Dormant); 2],
            applied: 1,
            refused: 1,
        };
        let batch = [StateUpdate::of(0), update];
        let said: Vec<String> = report.refusals(&batch).map(|r| r.to_string()).collect();
        let expected =
            "update 1 of seed 3: DORMANT may not become FOSSILIZED; the seed is unchanged";
        assert_eq!(said, [expected]);
    }
}
