//! The state of the seeds' schedules: on the host as plain arrays, and on a device.

use kasmina_types::BlendSchedule;
use kasmina_types::schedule::{DEFAULT_RAMP_EPOCHS, DRIFT_WINDOW};

use super::state::StateError;
use crate::buffer::{Buffer, host};
use crate::device::Device;
use crate::error::Error;

macro_rules! arrays {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        /// The schedules' state as plain arrays.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct GraftStates {
            $($(#[$doc])* pub $name: Vec<$type>,)*
        }

        /// The schedules' state on a device.
        #[derive(Debug)]
        pub(crate) struct GraftBuffers {
            $(pub(crate) $name: Buffer<$type>,)*
        }

        impl GraftBuffers {
            pub(crate) fn from_states(device: &Device, states: &GraftStates) -> Result<Self, Error> {
                Ok(Self { $($name: Buffer::from_slice(device, &states.$name)?),* })
            }

            pub(crate) fn read(&self) -> Result<GraftStates, Error> {
                Ok(GraftStates { $($name: self.$name.to_vec()?),* })
            }
        }
    };
}

arrays! {
    /// [`BlendSchedule`] bytes, `[num_seeds]`.
    schedule: u8,
    /// The α that the schedule stops at, in \[0, 1\], `[num_seeds]`.
    alpha_target: f32,
    /// Ramp length n in epochs, at least 1, `[num_seeds]`.
    ramp_epochs: u32,
    /// Epochs since the last transition, `[num_seeds]`.
    epochs_in_state: u32,
    /// PERFORMANCE_LINKED's first loss, NaN before there is one, `[num_seeds]`.
    baseline_loss: f32,
    /// The last drifts, `[num_seeds, DRIFT_WINDOW]`; drift number i of a seed is at i mod
    /// [`DRIFT_WINDOW`].
    drift_history: f32,
    /// Drifts seen since grafting began, `[num_seeds]`.
    drift_count: u32,
    /// Epochs that a culled seed still has to wait before it may be reset, `[num_seeds]`.
    embargo_epochs: u32,
}

impl GraftStates {
    /// Fixed ramps of 30 epochs to α = 1, nothing seen yet.
    pub fn new(num_seeds: usize) -> Self {
        Self {
            schedule: vec![BlendSchedule::FixedRamp as u8; num_seeds],
            alpha_target: vec![1.0; num_seeds],
            ramp_epochs: vec![DEFAULT_RAMP_EPOCHS; num_seeds],
            epochs_in_state: vec![0; num_seeds],
            baseline_loss: vec![f32::NAN; num_seeds],
            drift_history: vec![0.0; num_seeds * DRIFT_WINDOW],
            drift_count: vec![0; num_seeds],
            embargo_epochs: vec![0; num_seeds],
        }
    }

    /// As [`Self::new`], of one schedule, for a number of seeds that is a caller's.
    ///
    /// # Errors
    /// The host's memory exhausted.
    pub(crate) fn of_schedule(
        num_seeds: usize,
        schedule: BlendSchedule,
        ramp_epochs: u32,
        alpha_target: f32,
    ) -> Result<Self, Error> {
        Ok(Self {
            schedule: host::repeated(num_seeds, schedule as u8)?,
            alpha_target: host::repeated(num_seeds, alpha_target)?,
            ramp_epochs: host::repeated(num_seeds, ramp_epochs)?,
            epochs_in_state: host::zeros(num_seeds)?,
            baseline_loss: host::repeated(num_seeds, f32::NAN)?,
            drift_history: host::zeros(num_seeds.saturating_mul(DRIFT_WINDOW))?,
            drift_count: host::zeros(num_seeds)?,
            embargo_epochs: host::zeros(num_seeds)?,
        })
    }

    /// Checks lengths, codes and numbers.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, num_seeds: usize) -> Result<(), StateError> {
        let (one, window) = ("one for each seed", "DRIFT_WINDOW for each seed");
        for (array, expected, got, why) in [
            ("schedule", num_seeds, self.schedule.len(), one),
            ("alpha_target", num_seeds, self.alpha_target.len(), one),
            ("ramp_epochs", num_seeds, self.ramp_epochs.len(), one),
            ("epochs_in_state", num_seeds, self.epochs_in_state.len(), one),
            ("baseline_loss", num_seeds, self.baseline_loss.len(), one),
            ("drift_history", num_seeds * DRIFT_WINDOW, self.drift_history.len(), window),
            ("drift_count", num_seeds, self.drift_count.len(), one),
            ("embargo_epochs", num_seeds, self.embargo_epochs.len(), one),
        ] {
            if expected != got {
                return Err(StateError::Length { array, expected, got, why });
            }
        }
        let range = |array, expected, wrong: Option<(usize, f64)>| match wrong {
            Some((index, got)) => Err(StateError::Range { array, index, got, expected }),
            None => Ok(()),
        };
        let bytes = self.schedule.iter().map(|&byte| f64::from(byte)).enumerate();
        let known = |byte: f64| BlendSchedule::from_u8(byte as u8).is_some();
        range("schedule", "0 to 3", bytes.clone().find(|&(_, byte)| !known(byte)))?;
        let targets = self.alpha_target.iter().map(|&alpha| f64::from(alpha)).enumerate();
        let outside = |alpha: f64| !(0.0..=1.0).contains(&alpha);
        range("alpha_target", "0 to 1", targets.clone().find(|&(_, alpha)| outside(alpha)))?;
        let ramps = self.ramp_epochs.iter().map(|&epochs| f64::from(epochs)).enumerate();
        range("ramp_epochs", "at least 1", ramps.clone().find(|&(_, epochs)| epochs < 1.0))?;
        let drifts = self.drift_history.iter().map(|&drift| f64::from(drift)).enumerate();
        range("drift_history", "a finite number", drifts.clone().find(|(_, d)| !d.is_finite()))?;
        let losses = self.baseline_loss.iter().map(|&loss| f64::from(loss)).enumerate();
        range("baseline_loss", "finite, or NaN", losses.clone().find(|(_, l)| l.is_infinite()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_right_and_each_broken_array_is_named() {
        let good = GraftStates::new(3);
        assert_eq!(good.check(3), Ok(()));
        type Break = fn(&mut GraftStates);
        let breaks: [(&str, Break); 8] = [
            ("schedule", |s| s.schedule[1] = 4),
            ("alpha_target", |s| s.alpha_target[2] = f32::NAN),
            ("alpha_target", |s| s.alpha_target[0] = 1.5),
            ("ramp_epochs", |s| s.ramp_epochs[0] = 0),
            ("drift_history", |s| s.drift_history[7] = f32::INFINITY),
            ("baseline_loss", |s| s.baseline_loss[1] = f32::NEG_INFINITY),
            ("drift_count", |s| s.drift_count.push(0)),
            ("embargo_epochs", |s| s.embargo_epochs.clear()),
        ];
        for (array, spoil) in breaks {
            let mut bad = good.clone();
            spoil(&mut bad);
            let why = bad.check(3).expect_err(array).to_string();
            assert!(why.contains(array), "{why}");
        }
    }
}
