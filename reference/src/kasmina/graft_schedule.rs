//! One epoch of a seed: α by its schedule, and the counts of epochs.

/// What a schedule remembers of one seed, and what it moves.
#[derive(Debug, Clone, PartialEq)]
pub struct GraftState {
    /// Lifecycle code; 3, GRAFTING, is the one in which α rises.
    pub lifecycle: u8,
    /// 0 FIXED_RAMP, 1 PERFORMANCE_LINKED, 2 DRIFT_CONTROLLED, 3 GRAD_NORM_GATED.
    pub schedule: u8,
    /// α.
    pub alpha: f64,
    /// Where α stops.
    pub alpha_target: f64,
    /// Ramp length n, at least 1.
    pub ramp_epochs: u32,
    /// L₀, once there is one.
    pub baseline_loss: Option<f64>,
    /// The drifts so far, the oldest first; the last five count.
    pub drifts: Vec<f64>,
    /// Epochs since the last transition.
    pub epochs_in_state: u32,
    /// Epochs of embargo that are left.
    pub embargo_epochs: u32,
}

/// What an epoch brings to a seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// L.
    pub loss: f64,
    /// Drift of the activations.
    pub drift: f64,
    /// Norm of the gradient.
    pub gradient_norm: f64,
}

const GRAFTING: u8 = 3;
const WINDOW: usize = 5;
/// The thresholds as f32 has them, so that f32 figures are on the same side everywhere.
const THETA: f64 = 0.12_f32 as f64;
const LEAST_NORM: f64 = 0.1_f32 as f64;
const LEAST_BASELINE: f64 = 1e-12_f32 as f64;

/// Takes a seed through one epoch. Whether it was skipped: a grafting seed whose schedule's figure is not
/// finite keeps α and what the schedule remembers.
///
/// PERFORMANCE_LINKED stores its first loss as L₀ and rises in that epoch too: L₀ − L is 0, so by the
/// least share, 0.5/n.
pub fn graft_epoch(seed: &mut GraftState, epoch: Epoch) -> bool {
    seed.epochs_in_state = seed.epochs_in_state.saturating_add(1);
    seed.embargo_epochs = seed.embargo_epochs.saturating_sub(1);
    if seed.lifecycle != GRAFTING {
        return false;
    }
    let figure = match seed.schedule {
        1 => epoch.loss,
        2 => epoch.drift,
        3 => epoch.gradient_norm,
        _ => 0.0,
    };
    if !figure.is_finite() {
        return true;
    }
    let share = match seed.schedule {
        1 => {
            let first = *seed.baseline_loss.get_or_insert(epoch.loss);
            if first <= LEAST_BASELINE {
                1.0
            } else {
                (2.0 * (first - epoch.loss).max(0.0) / first).clamp(0.5, 3.0)
            }
        }
        2 => {
            seed.drifts.push(epoch.drift);
            let last = &seed.drifts[seed.drifts.len().saturating_sub(WINDOW)..];
            let mean = last.iter().sum::<f64>() / last.len() as f64;
            match mean {
                d if d < THETA / 2.0 => 2.0,
                d if d < THETA => 1.0,
                _ => 0.0,
            }
        }
        3 if !(LEAST_NORM..=1.0).contains(&epoch.gradient_norm) => 0.0,
        _ => 1.0,
    };
    seed.alpha = (seed.alpha + share / f64::from(seed.ramp_epochs)).min(seed.alpha_target);
    false
}
