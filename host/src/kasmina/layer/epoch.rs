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
    /// A report that does not fit the layer or has an infinite figure, or a state that something else changed, which
    /// change nothing; or a failed call, after which the schedules may have taken their step, though the epoch is not
    /// counted and no seed has passed on.
    pub fn end_epoch(&mut self, report: &EpochReport) -> Result<EpochOutcome, Error> {
        self.check_report(report)?;
        let _scope = self.performance.scope(profile::END_EPOCH, 0);
        let mut found = self.found()?;
        let stepped = self.step_schedules(report).and_then(|()| found.read_schedules(&self.state));
        self.guarding(stepped)?;
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
        for (seed, epoch) in report.seeds.iter().enumerate() {
            if let Some((what, got)) = infinite(epoch) {
                let why = format!(
                    "`{what}` of seed {seed} is {got}, expected a finite number, or NaN where it is not known"
                );
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
            let from = known(seed, lifecycle[seed])?;
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

/// The first figure that transitions are decided by and that is infinite. Those of the schedules may be: a seed whose
/// schedule reads such a one stands still.
fn infinite(epoch: &SeedEpoch) -> Option<(&'static str, f32)> {
    let &SeedEpoch {
        loss: _,
        drift: _,
        reconstruction_loss,
        performance_gain,
        stability,
        error_rate,
        errors: _,
        improvement,
    } = epoch;
    let figures = [
        ("reconstruction_loss", reconstruction_loss),
        ("performance_gain", performance_gain),
        ("stability", stability),
        ("error_rate", error_rate),
        ("improvement", improvement),
    ];
    figures.into_iter().find(|(_, figure)| figure.is_infinite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    /// A base loss of 0 makes an improvement infinite, which would fossilize a seed for good.
    #[test]
    fn infinite_figures_decide_nothing() {
        type Figure = fn(&mut SeedEpoch) -> &mut f32;
        let figures: [(&str, Figure); 5] = [
            ("reconstruction_loss", |epoch| &mut epoch.reconstruction_loss),
            ("performance_gain", |epoch| &mut epoch.performance_gain),
            ("stability", |epoch| &mut epoch.stability),
            ("error_rate", |epoch| &mut epoch.error_rate),
            ("improvement", |epoch| &mut epoch.improvement),
        ];
        for device in [Device::Cpu, Device::simt()] {
            let mut layer = KasminaLayer::<f32>::builder(2, 8).build(&device).expect("a layer");
            let before = layer.checksum().expect("a read");
            for (name, figure) in figures {
                for value in [f32::INFINITY, f32::NEG_INFINITY] {
                    let mut report = EpochReport::uniform(2, SeedEpoch::default());
                    *figure(&mut report.seeds[1]) = value;
                    let why = layer.end_epoch(&report).expect_err(name).to_string();
                    let said = format!("`{name}` of seed 1 is {value}, expected a finite number");
                    assert!(why.contains(&said), "{why}");
                    assert_eq!(layer.checksum().expect("a read"), before, "{name}");
                }
            }
            // What schedules read may be infinite, and what is not known NaN.
            let known = SeedEpoch { loss: f32::INFINITY, ..SeedEpoch::default() };
            assert_eq!(layer.end_epoch(&EpochReport::uniform(2, known)).expect("fits").epoch, 1);
        }
    }
}
