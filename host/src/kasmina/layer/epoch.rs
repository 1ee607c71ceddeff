//! The end of an epoch: schedules move α, and seeds pass to their next states.

use kasmina_types::SeedLifecycle;
use serde::Serialize;

use super::error::LayerError;
use super::guard::{Found, known};
use super::report::lifecycle_name;
use super::rules::{SeedEpoch, SeedProgress};
use super::{KasminaLayer, LayerElement};
use crate::error::Error;
use crate::kasmina::{EpochInputs, EpochValues};
use crate::profile;

/// What an epoch says of each seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EpochReport {
    /// One for each seed.
    pub seeds: Vec<SeedEpoch>,
    /// The norms of the seeds' gradients, for schedules that are GRAD_NORM_GATED; none for those of the
    /// last backward pass, as they are on the device.
    pub gradient_norm: Option<Vec<f32>>,
}

impl EpochReport {
    /// The same of every seed.
    pub fn uniform(num_seeds: usize, epoch: SeedEpoch) -> Self {
        Self { seeds: vec![epoch; num_seeds], gradient_norm: None }
    }
}

/// What the end of an epoch did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EpochOutcome {
    /// Epochs that have ended, this one among them.
    pub epoch: u64,
    /// Seeds that passed to another state, in their order.
    pub transitions: Vec<Transition>,
    /// Grafting seeds whose α stood still, because the figure that their schedule reads was not finite.
    pub skipped: u32,
}

/// A seed's passage from one state to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transition {
    /// The seed.
    pub seed: usize,
    /// Where it was.
    #[serde(serialize_with = "lifecycle_name")]
    pub from: SeedLifecycle,
    /// Where it is.
    #[serde(serialize_with = "lifecycle_name")]
    pub to: SeedLifecycle,
    /// Why.
    pub reason: &'static str,
}

impl<T: LayerElement> KasminaLayer<T> {
    /// Ends an epoch: takes the schedules one step on the device, reads the seeds' small arrays back,
    /// decides by the configuration's [`TransitionRules`](super::TransitionRules) who passes on, and
    /// applies that.
    ///
    /// # Errors
    /// A report that does not fit the layer or a state that something else changed, which change nothing;
    /// or a failed call.
    pub fn end_epoch(&mut self, report: &EpochReport) -> Result<EpochOutcome, Error> {
        self.check_report(report)?;
        let _scope = self.performance.scope(profile::END_EPOCH, 0);
        let mut found = self.found()?;
        self.step_schedules(report)?;
        found.read_schedules(&self.state)?;
        self.leave(&found);
        let skipped = self.schedule.skipped()?;
        let decided = self.decide(&found, report)?;
        let released = decided
            .iter()
            .filter(|t| t.to == SeedLifecycle::Dormant)
            .map(|t| found.blueprint_id(&self.state, t.seed))
            .collect::<Result<Vec<_>, _>>()?;
        let updates: Vec<_> = decided.iter().map(|t| self.update_to(t.seed, t.to)).collect();
        self.apply(&mut found, &updates)?;
        for id in released {
            // They have been used until now.
            self.registry.touch(id);
        }
        self.epochs = self.epochs.saturating_add(1);
        Ok(EpochOutcome { epoch: self.epochs, transitions: decided, skipped })
    }

    fn check_report(&self, report: &EpochReport) -> Result<(), LayerError> {
        let expected = self.config.num_seeds;
        let norms = report.gradient_norm.as_ref().map_or(expected, Vec::len);
        for (what, got) in [("seeds", report.seeds.len()), ("gradient_norm", norms)] {
            if got != expected {
                let why = format!("`{what}` has {got} elements, expected {expected}, one a seed");
                return Err(LayerError::EpochReport { why });
            }
        }
        Ok(())
    }

    fn step_schedules(&mut self, report: &EpochReport) -> Result<(), Error> {
        self.epoch.write(&EpochValues {
            loss: report.seeds.iter().map(|seed| seed.loss).collect(),
            drift: report.seeds.iter().map(|seed| seed.drift).collect(),
            // Not finite where nobody knows: such a schedule stands still.
            gradient_norm: report
                .gradient_norm
                .clone()
                .or_else(|| self.carried.gradient_norms.clone())
                .unwrap_or_else(|| vec![f32::NAN; self.config.num_seeds]),
        })?;
        let mut inputs = EpochInputs::from(&self.epoch);
        if let (None, Some(training)) = (&report.gradient_norm, &self.training) {
            inputs.gradient_norm = &training.gradients.gradient_norm;
        }
        self.schedule.run(&mut self.state, inputs)
    }

    fn decide(&self, found: &Found, report: &EpochReport) -> Result<Vec<Transition>, Error> {
        let (state, graft) = (&self.state, &self.state.graft);
        let lifecycle = found.array(|c| &c.seeds.lifecycle, &state.lifecycle)?;
        let alpha = found.array(|c| &c.seeds.alpha, &state.alpha)?;
        let alpha_target = found.array(|c| &c.seeds.graft.alpha_target, &graft.alpha_target)?;
        let epochs_in_state =
            found.array(|c| &c.seeds.graft.epochs_in_state, &graft.epochs_in_state)?;
        let embargo_epochs =
            found.array(|c| &c.seeds.graft.embargo_epochs, &graft.embargo_epochs)?;
        let mut transitions = Vec::new();
        for (seed, epoch) in report.seeds.iter().enumerate() {
            let from = known(lifecycle[seed]);
            let progress = SeedProgress {
                lifecycle: from,
                alpha: alpha[seed],
                alpha_target: alpha_target[seed],
                epochs_in_state: epochs_in_state[seed],
                embargo_epochs: embargo_epochs[seed],
            };
            if let Some((to, reason)) = self.config.rules.decide(&progress, epoch) {
                transitions.push(Transition { seed, from, to, reason });
            }
        }
        Ok(transitions)
    }
}
