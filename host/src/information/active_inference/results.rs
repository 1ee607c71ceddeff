//! What inferences come to.

use kasmina_types::InferenceFigures;
use kasmina_types::active_inference::TRACE_FIGURES;
use ndarray::ArrayView1;

use super::model::{Belief, FreeEnergy};

/// What the inference of a model came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The belief; its variances are those that it began with.
    pub belief: Belief,
    /// The free energy at it.
    pub free_energy: FreeEnergy,
    /// No less than ‖(μ − μ*)/√v0‖, the distance to the posterior mean μ* in standard deviations of the prior:
    /// √(Σ v0·g²), g the gradient of F.
    pub distance_bound: f64,
    /// Steps taken.
    pub steps: usize,
    /// Whether the tolerance was met.
    pub converged: bool,
    /// The figures on the way, as many as were asked for and there were.
    pub trace: Vec<TracePoint>,
}

/// One μ on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TracePoint {
    /// The free energy there.
    pub free_energy: FreeEnergy,
    /// As [`Inferred::distance_bound`], there.
    pub distance_bound: f64,
}

impl Inferred {
    /// μ as a view.
    pub fn mean_view(&self) -> ArrayView1<'_, f64> {
        ArrayView1::from(&self.belief.mean)
    }

    /// s as a view.
    pub fn variance_view(&self) -> ArrayView1<'_, f64> {
        ArrayView1::from(&self.belief.variance)
    }

    /// From what a device left: `trace` is the model's, with room for as many points as were asked for.
    pub(super) fn read(belief: Belief, figures: &InferenceFigures, trace: &[f64]) -> Self {
        let steps = figures.steps as usize;
        Self {
            belief,
            free_energy: free_energy_of(figures),
            distance_bound: figures.distance_bound,
            steps,
            converged: figures.converged != 0,
            trace: trace
                .chunks(TRACE_FIGURES)
                .take(steps + 1)
                .map(|point| TracePoint {
                    free_energy: FreeEnergy {
                        complexity: point[0],
                        accuracy_plugin: point[1],
                        accuracy_expected: point[2],
                    },
                    distance_bound: point[3],
                })
                .collect(),
        }
    }
}

/// The free energy that a device left.
pub(super) fn free_energy_of(figures: &InferenceFigures) -> FreeEnergy {
    FreeEnergy {
        complexity: figures.complexity,
        accuracy_plugin: figures.accuracy_plugin,
        accuracy_expected: figures.accuracy_expected,
    }
}
