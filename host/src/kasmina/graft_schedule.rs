//! The seeds' step from one epoch to the next.

use kasmina_reference::kasmina::{self as reference, Epoch, GraftState};
use kasmina_types::schedule::DRIFT_WINDOW;

use super::state::LayerState;
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::graft_schedule::{self as launcher, Arguments};
use crate::error::Error;

const OP: &str = "graft_schedule";

/// Takes every seed through one epoch, in one launch: α of a GRAFTING seed rises by the seed's schedule
/// ([`BlendSchedule`](crate::types::BlendSchedule)), never past its target; `epochs_in_state` of every seed
/// rises by 1, and `embargo_epochs` falls by 1.
///
/// PERFORMANCE_LINKED stores its first loss as L₀, and rises in that epoch too: by the least share, 0.5/n.
/// A grafting seed whose schedule reads a figure that is NaN or infinite stands still, and is counted.
/// An α above its target, which an update may have left, comes down to it. Of a schedule that a seed does
/// not have nothing is stored.
///
/// [`Self::run`] allocates nothing on a device that runs kernels.
#[derive(Debug)]
pub struct GraftSchedule {
    device: Device,
    num_seeds: usize,
    skipped: Buffer<u32>,
    tally: Buffer<u32>,
}

/// What an epoch brings, on a device, `[num_seeds]` each.
#[derive(Debug)]
pub struct EpochBuffers {
    /// The loss L, for PERFORMANCE_LINKED.
    pub loss: Buffer<f32>,
    /// The drift of the seed's activations, for DRIFT_CONTROLLED.
    pub drift: Buffer<f32>,
    /// The norm of the seed's gradient, for GRAD_NORM_GATED.
    pub gradient_norm: Buffer<f32>,
}

/// What an epoch brings, `[num_seeds]` each. The arrays are those of [`EpochBuffers`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EpochValues {
    /// The loss L.
    pub loss: Vec<f32>,
    /// The drift.
    pub drift: Vec<f32>,
    /// The gradient's norm.
    pub gradient_norm: Vec<f32>,
}

/// The arrays of an epoch wherever they lie. `&EpochBuffers` becomes one; where a norm is the backward
/// pass's:
///
/// ```
/// # use kasmina::{Buffer, kasmina::{EpochBuffers, EpochInputs}};
/// # fn with<'a>(epoch: &'a EpochBuffers, norm: &'a Buffer<f32>) -> EpochInputs<'a> {
/// EpochInputs { gradient_norm: norm, ..epoch.into() }
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct EpochInputs<'a> {
    /// The loss L.
    pub loss: &'a Buffer<f32>,
    /// The drift.
    pub drift: &'a Buffer<f32>,
    /// The gradient's norm.
    pub gradient_norm: &'a Buffer<f32>,
}

impl EpochBuffers {
    /// Zeros for `num_seeds` seeds.
    ///
    /// # Errors
    /// Memory exhausted, or a failed call.
    pub fn new(device: &Device, num_seeds: usize) -> Result<Self, Error> {
        Ok(Self {
            loss: Buffer::zeroed(device, num_seeds)?,
            drift: Buffer::zeroed(device, num_seeds)?,
            gradient_norm: Buffer::zeroed(device, num_seeds)?,
        })
    }

    /// Overwrites the arrays; complete on return.
    ///
    /// # Errors
    /// An array of another length, which leaves all as they were, or a failed call.
    pub fn write(&mut self, values: &EpochValues) -> Result<(), Error> {
        let pairs = [
            ("loss", &mut self.loss, &values.loss),
            ("drift", &mut self.drift, &values.drift),
            ("gradient_norm", &mut self.gradient_norm, &values.gradient_norm),
        ];
        for (name, buffer, values) in &pairs {
            check_length("epoch", name, buffer.len(), values.len())?;
        }
        for (_, buffer, values) in pairs {
            buffer.copy_from_slice(values)?;
        }
        Ok(())
    }
}

impl<'a> From<&'a EpochBuffers> for EpochInputs<'a> {
    fn from(epoch: &'a EpochBuffers) -> Self {
        Self { loss: &epoch.loss, drift: &epoch.drift, gradient_norm: &epoch.gradient_norm }
    }
}

impl GraftSchedule {
    /// Plans epochs of `num_seeds` seeds.
    ///
    /// # Errors
    /// No seeds or more than 32-bit counts hold, a capture of the device's stream, memory exhausted, or a
    /// failed call.
    pub fn new(device: &Device, num_seeds: usize) -> Result<Self, Error> {
        if num_seeds == 0 {
            let (buffer, expected) = ("num_seeds", "at least 1".into());
            return Err(Error::Length { op: OP, buffer, expected, got: num_seeds });
        }
        // The kernel's thread numbers pass the last seed by a block.
        let (what, got, limit) = ("num_seeds", num_seeds as u64, i32::MAX as u64);
        if got > limit {
            return Err(Error::TooLarge { op: OP, what, got, limit });
        }
        device.refuse_capture(OP)?;
        Ok(Self {
            device: device.clone(),
            num_seeds,
            skipped: Buffer::zeroed(device, 1)?,
            tally: Buffer::zeroed(device, 2)?,
        })
    }

    /// One epoch: of `state`, with what the epoch brings.
    ///
    /// # Errors
    /// A state or an array that does not fit the plan, which leaves the state as it was, or a failed call.
    pub fn run<'a>(
        &mut self,
        state: &mut LayerState,
        epoch: impl Into<EpochInputs<'a>>,
    ) -> Result<(), Error> {
        let epoch = epoch.into();
        check_length(OP, "state", self.num_seeds, state.num_seeds())?;
        state.alpha.check_device(OP, "state", &self.device)?;
        for (name, buffer) in
            [("loss", epoch.loss), ("drift", epoch.drift), ("gradient_norm", epoch.gradient_norm)]
        {
            check_length(OP, name, self.num_seeds, buffer.len())?;
            buffer.check_device(OP, name, &self.device)?;
        }
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return self.run_on_cpu(state, epoch);
        };
        let (skipped, tally) = (&mut self.skipped, &mut self.tally);
        let launched = launcher::launch(kernels, Arguments { state, epoch, skipped, tally });
        if launched.is_err() {
            // A launch that broke off leaves a tally that is not zero.
            self.tally = Buffer::zeroed(&self.device, self.tally.len())?;
        }
        launched
    }

    /// Grafting seeds that stood still in the last epoch, for their schedule's figure was not finite; once
    /// everything queued before is done.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn skipped(&self) -> Result<u32, Error> {
        Ok(self.skipped.to_vec()?[0])
    }

    fn run_on_cpu(&mut self, state: &mut LayerState, epoch: EpochInputs<'_>) -> Result<(), Error> {
        let (loss, drift) = (epoch.loss.to_vec()?, epoch.drift.to_vec()?);
        let gradient_norm = epoch.gradient_norm.to_vec()?;
        let (lifecycle, mut alpha) = (state.lifecycle.to_vec()?, state.alpha.to_vec()?);
        let mut graft = state.graft.read()?;
        let mut skipped = 0;
        for seed in 0..self.num_seeds {
            let ring = &mut graft.drift_history[seed * DRIFT_WINDOW..][..DRIFT_WINDOW];
            let seen = graft.drift_count[seed] as usize;
            let oldest = seen.saturating_sub(DRIFT_WINDOW);
            let baseline = graft.baseline_loss[seed];
            let mut one = GraftState {
                lifecycle: lifecycle[seed],
                schedule: graft.schedule[seed],
                alpha: f64::from(alpha[seed]),
                alpha_target: f64::from(graft.alpha_target[seed]),
                ramp_epochs: graft.ramp_epochs[seed],
                baseline_loss: (!baseline.is_nan()).then_some(f64::from(baseline)),
                drifts: (oldest..seen).map(|i| f64::from(ring[i % DRIFT_WINDOW])).collect(),
                epochs_in_state: graft.epochs_in_state[seed],
                embargo_epochs: graft.embargo_epochs[seed],
            };
            let before = one.clone();
            let brings = Epoch {
                loss: loss[seed].into(),
                drift: drift[seed].into(),
                gradient_norm: gradient_norm[seed].into(),
            };
            skipped += u32::from(reference::graft_epoch(&mut one, brings));
            alpha[seed] = one.alpha as f32;
            if one.drifts.len() > before.drifts.len() {
                ring[seen % DRIFT_WINDOW] = drift[seed];
                graft.drift_count[seed] = graft.drift_count[seed].saturating_add(1);
            }
            if let (None, Some(first)) = (before.baseline_loss, one.baseline_loss) {
                graft.baseline_loss[seed] = first as f32;
            }
            graft.epochs_in_state[seed] = one.epochs_in_state;
            graft.embargo_epochs[seed] = one.embargo_epochs;
        }
        state.alpha.copy_from_slice(&alpha)?;
        let buffers = &mut state.graft;
        buffers.baseline_loss.copy_from_slice(&graft.baseline_loss)?;
        buffers.drift_history.copy_from_slice(&graft.drift_history)?;
        buffers.drift_count.copy_from_slice(&graft.drift_count)?;
        buffers.epochs_in_state.copy_from_slice(&graft.epochs_in_state)?;
        buffers.embargo_epochs.copy_from_slice(&graft.embargo_epochs)?;
        self.skipped.copy_from_slice(&[skipped])
    }
}
