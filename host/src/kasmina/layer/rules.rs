//! When a seed passes to the next state by itself.

use kasmina_types::SeedLifecycle;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;

/// The conditions of the automatic transitions. The defaults are those of the published lifecycle.
///
/// A command of the layer needs no condition, only a legal transition.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransitionRules {
    /// TRAINING → GRAFTING: epochs in the state, at least.
    pub training_epochs: u32,
    /// TRAINING → GRAFTING: the reconstruction loss, at most.
    pub reconstruction_loss: f32,
    /// GRAFTING → STABILIZATION: epochs in the state, at least, with α at its target.
    pub grafting_epochs: u32,
    /// STABILIZATION → EVALUATING: epochs in the state, at least.
    pub stabilization_epochs: u32,
    /// EVALUATING → FINE_TUNING or CULLED: epochs in the state, at least.
    pub evaluating_epochs: u32,
    /// EVALUATING → FINE_TUNING: the performance gain, more than.
    pub minimum_gain: f32,
    /// EVALUATING → FINE_TUNING: the stability, at least.
    pub evaluating_stability: f32,
    /// EVALUATING → CULLED: the performance gain, less than.
    pub culling_gain: f32,
    /// EVALUATING → CULLED: the error rate, more than.
    pub error_rate: f32,
    /// EVALUATING → CULLED: errors, more than.
    pub errors: u32,
    /// FINE_TUNING → FOSSILIZED or CULLED: epochs in the state, at least.
    pub fine_tuning_epochs: u32,
    /// FINE_TUNING → FOSSILIZED: the improvement as a share, at least. Less is CULLED; where it is not
    /// known, the seed stays.
    pub improvement: f32,
    /// FINE_TUNING → FOSSILIZED: the stability, at least. Less is CULLED; where it is not known, the seed
    /// stays.
    pub fossilizing_stability: f32,
    /// Epochs that a culled seed waits before it may be reset.
    pub embargo_epochs: u32,
    /// Whether CULLED seeds whose embargo has ended, CANCELLED and ROLLED_BACK ones are reset to DORMANT
    /// at the end of an epoch. Otherwise that is a command.
    pub automatic_reset: bool,
    /// Whether the other transitions happen at the end of an epoch. Otherwise all are commands.
    pub automatic: bool,
}

impl Default for TransitionRules {
    fn default() -> Self {
        Self {
            training_epochs: 100,
            reconstruction_loss: 0.01,
            grafting_epochs: 50,
            stabilization_epochs: 20,
            evaluating_epochs: 30,
            minimum_gain: 0.0,
            evaluating_stability: 0.8,
            culling_gain: -0.05,
            error_rate: 0.1,
            errors: 5,
            fine_tuning_epochs: 50,
            improvement: 0.01,
            fossilizing_stability: 0.95,
            embargo_epochs: 50,
            automatic_reset: false,
            automatic: true,
        }
    }
}

/// What an epoch says of one seed. A figure that is not known is NaN (or 0 errors): it meets no
/// condition, neither one to go on nor one to be culled. The figures that conditions read are refused where they are
/// infinite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeedEpoch {
    /// The loss L, for a schedule that is PERFORMANCE_LINKED.
    pub loss: f32,
    /// How far the seed's activations moved, for one that is DRIFT_CONTROLLED.
    pub drift: f32,
    /// Loss of the blueprint's training on its own.
    pub reconstruction_loss: f32,
    /// Gain of the network with the seed over the network without it, as a share.
    pub performance_gain: f32,
    /// Stability, 0 to 1.
    pub stability: f32,
    /// Share of steps with an error.
    pub error_rate: f32,
    /// Errors.
    pub errors: u32,
    /// Improvement since fine-tuning began, as a share.
    pub improvement: f32,
}

impl Default for SeedEpoch {
    fn default() -> Self {
        let unknown = f32::NAN;
        Self {
            loss: unknown,
            drift: unknown,
            reconstruction_loss: unknown,
            performance_gain: unknown,
            stability: unknown,
            error_rate: unknown,
            errors: 0,
            improvement: unknown,
        }
    }
}

/// The state of a seed that the conditions look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeedProgress {
    /// Where it is.
    pub lifecycle: SeedLifecycle,
    /// α.
    pub alpha: f32,
    /// The α that its schedule stops at.
    pub alpha_target: f32,
    /// Epochs since the last transition, the one that ends now among them.
    pub epochs_in_state: u32,
    /// Epochs of its embargo that are left.
    pub embargo_epochs: u32,
}

impl TransitionRules {
    /// Where a seed goes at the end of an epoch, and why; none where it stays.
    ///
    /// In EVALUATING and FINE_TUNING a reason to cull comes before reasons to go on; a figure that is not
    /// known is neither.
    pub fn decide(
        &self,
        seed: &SeedProgress,
        epoch: &SeedEpoch,
    ) -> Option<(SeedLifecycle, &'static str)> {
        use SeedLifecycle as L;
        let epochs = seed.epochs_in_state;
        match seed.lifecycle {
            L::Culled if self.automatic_reset && seed.embargo_epochs == 0 => {
                Some((L::Dormant, "the embargo has ended"))
            }
            L::Cancelled | L::RolledBack if self.automatic_reset => {
                Some((L::Dormant, "automatic reset"))
            }
            _ if !self.automatic => None,
            L::Training
                if epochs >= self.training_epochs
                    && epoch.reconstruction_loss <= self.reconstruction_loss =>
            {
                Some((L::Grafting, "the blueprint has learnt to reconstruct"))
            }
            L::Grafting if epochs >= self.grafting_epochs && seed.alpha >= seed.alpha_target => {
                Some((L::Stabilization, "α is at its target"))
            }
            L::Stabilization if epochs >= self.stabilization_epochs => {
                Some((L::Evaluating, "the wait is over"))
            }
            L::Evaluating if epochs >= self.evaluating_epochs => self.evaluate(epoch),
            L::FineTuning if epochs >= self.fine_tuning_epochs => self.judge_fine_tuning(epoch),
            _ => None,
        }
    }

    fn evaluate(&self, epoch: &SeedEpoch) -> Option<(SeedLifecycle, &'static str)> {
        if epoch.performance_gain < self.culling_gain {
            Some((SeedLifecycle::Culled, "the network is better without it"))
        } else if epoch.error_rate > self.error_rate {
            Some((SeedLifecycle::Culled, "its error rate is too high"))
        } else if epoch.errors > self.errors {
            Some((SeedLifecycle::Culled, "too many errors"))
        } else if epoch.performance_gain > self.minimum_gain
            && epoch.stability >= self.evaluating_stability
        {
            Some((SeedLifecycle::FineTuning, "the network is better with it"))
        } else {
            None
        }
    }

    fn judge_fine_tuning(&self, epoch: &SeedEpoch) -> Option<(SeedLifecycle, &'static str)> {
        if epoch.improvement < self.improvement {
            Some((SeedLifecycle::Culled, "fine-tuning brought too little"))
        } else if epoch.stability < self.fossilizing_stability {
            Some((SeedLifecycle::Culled, "fine-tuning left it unstable"))
        } else if epoch.improvement >= self.improvement
            && epoch.stability >= self.fossilizing_stability
        {
            Some((SeedLifecycle::Fossilized, "improved and stable"))
        } else {
            None
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (option, value) in [
            ("rules.reconstruction_loss", self.reconstruction_loss),
            ("rules.minimum_gain", self.minimum_gain),
            ("rules.evaluating_stability", self.evaluating_stability),
            ("rules.culling_gain", self.culling_gain),
            ("rules.error_rate", self.error_rate),
            ("rules.improvement", self.improvement),
            ("rules.fossilizing_stability", self.fossilizing_stability),
        ] {
            if !value.is_finite() {
                let (got, expected) = (value.to_string(), "a threshold is a finite number".into());
                return Err(ConfigError::Value { option, got, expected });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
