//! One update of a seed's state: refused with a reason, or applied whole.

/// A seed as far as updates and resets touch it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedRecord {
    /// Lifecycle code.
    pub lifecycle: u8,
    /// Blueprint, 0 for none.
    pub blueprint_id: u16,
    /// α.
    pub alpha: f32,
    /// Code of the blend schedule.
    pub schedule: u8,
    /// Where α stops.
    pub alpha_target: f32,
    /// Ramp length.
    pub ramp_epochs: u32,
    /// Epochs since the last transition.
    pub epochs_in_state: u32,
    /// The schedule's first loss, once there is one.
    pub baseline_loss: Option<f32>,
    /// Drifts seen since grafting began.
    pub drift_count: u32,
    /// Epochs of embargo that are left.
    pub embargo_epochs: u32,
}

/// New values for the fields that are there, as codes of any size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FieldValues {
    /// Lifecycle code.
    pub lifecycle: Option<u32>,
    /// Blueprint.
    pub blueprint_id: Option<u32>,
    /// Code of the blend schedule.
    pub schedule: Option<u32>,
    /// Ramp length.
    pub ramp_epochs: Option<u32>,
    /// Epochs of embargo.
    pub embargo_epochs: Option<u32>,
    /// α.
    pub alpha: Option<f32>,
    /// Where α stops.
    pub alpha_target: Option<f32>,
}

/// Why an update is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The lifecycle has no such transition, or no such state.
    IllegalTransition,
    /// The seed was culled, and its embargo has not ended.
    Embargoed,
    /// No such blueprint.
    BlueprintOutOfRange,
    /// No such schedule.
    UnknownSchedule,
    /// A ramp of no epochs.
    EmptyRamp,
    /// α not finite, or its target outside 0…1.
    AlphaOutOfRange,
}

/// Applies the values to a seed of a layer with `blueprints` blueprints; a refused update changes nothing.
///
/// A transition begins a new count of epochs; one to GRAFTING forgets the first loss and the drifts. The
/// embargo that counts is the one from before the update.
///
/// # Errors
/// The first reason, in the order of [`Refusal`].
pub fn apply_update(
    seed: &mut SeedRecord,
    values: &FieldValues,
    blueprints: usize,
) -> Result<(), Refusal> {
    let checks = [
        (
            values.lifecycle.is_some_and(|to| !may_become(seed.lifecycle, to)),
            Refusal::IllegalTransition,
        ),
        (
            values.lifecycle == Some(0) && seed.lifecycle == 8 && seed.embargo_epochs > 0,
            Refusal::Embargoed,
        ),
        (
            values.blueprint_id.is_some_and(|id| {
                id != 0 && (id as usize >= blueprints || u16::try_from(id).is_err())
            }),
            Refusal::BlueprintOutOfRange,
        ),
        (values.schedule.is_some_and(|code| code > 3), Refusal::UnknownSchedule),
        (values.ramp_epochs == Some(0), Refusal::EmptyRamp),
        (
            values.alpha.is_some_and(|alpha| !alpha.is_finite())
                || values.alpha_target.is_some_and(|target| !(0.0..=1.0).contains(&target)),
            Refusal::AlphaOutOfRange,
        ),
    ];
    if let Some(&(_, refusal)) = checks.iter().find(|(wrong, _)| *wrong) {
        return Err(refusal);
    }
    if let Some(to) = values.lifecycle {
        seed.lifecycle = to as u8;
        seed.epochs_in_state = 0;
        if to == 3 {
            (seed.baseline_loss, seed.drift_count) = (None, 0);
        }
    }
    seed.blueprint_id = values.blueprint_id.map_or(seed.blueprint_id, |id| id as u16);
    seed.schedule = values.schedule.map_or(seed.schedule, |code| code as u8);
    seed.ramp_epochs = values.ramp_epochs.unwrap_or(seed.ramp_epochs);
    seed.embargo_epochs = values.embargo_epochs.unwrap_or(seed.embargo_epochs);
    seed.alpha = values.alpha.unwrap_or(seed.alpha);
    seed.alpha_target = values.alpha_target.unwrap_or(seed.alpha_target);
    Ok(())
}

/// The lifecycle, written out: 0 DORMANT, 1 GERMINATED, 2 TRAINING, 3 GRAFTING, 4 STABILIZATION,
/// 5 EVALUATING, 6 FINE_TUNING, 7 FOSSILIZED, 8 CULLED, 9 CANCELLED, 10 ROLLED_BACK.
pub fn may_become(from: u8, to: u32) -> bool {
    let next: &[u32] = match from {
        0 => &[1],
        1 => &[2, 9],
        2 => &[3, 8, 9],
        3 => &[4, 10],
        4 => &[5, 10],
        5 => &[6, 8, 10],
        6 => &[7, 8, 10],
        8..=10 => &[0],
        _ => &[],
    };
    next.contains(&to)
}
