//! The reference's mathematics in the host's memory: active inference on the CPU.

use kasmina_reference::information::active_inference as reference;
use kasmina_reference::information::active_inference::{FreeEnergy, InferOptions};
use kasmina_types::InferenceFigures;
use kasmina_types::active_inference::TRACE_FIGURES;

use super::memory::beliefs;
use super::model::GaussianModel;
use crate::driver::launchers::active_inference::{Models, Until};
use crate::error::Error;

/// One step of each model, and the free energy before it: what `belief_step_*` does.
pub(super) fn step(
    memory: &mut Models,
    models: &[GaussianModel],
    kappas: &[f64],
) -> Result<(), Error> {
    let stride = memory.stride();
    for (number, belief) in beliefs(memory)?.iter().enumerate() {
        let model = models[number].reference();
        let before = reference::free_energy(&model, belief);
        let mean = reference::belief_step(&model, &belief.mean, kappas[number]);
        let figures = InferenceFigures { steps: 1, ..figures_of(&before) };
        memory.figures.copy_range_from_slice(number, &[figures])?;
        memory.mean.copy_range_from_slice(number * stride, &mean)?;
    }
    Ok(())
}

/// An inference of each model: what `infer_until_converged_*` does.
pub(super) fn infer(
    memory: &mut Models,
    models: &[GaussianModel],
    kappas: &[f64],
    mut until: Until<'_>,
) -> Result<(), Error> {
    let (stride, points) = (memory.stride(), until.trace_points);
    let tolerance = (until.tolerance >= 0.0).then_some(until.tolerance);
    let max_steps = until.max_steps as usize;
    for (number, belief) in beliefs(memory)?.iter().enumerate() {
        let model = models[number].reference();
        let options =
            InferOptions { kappa: kappas[number], max_steps, tolerance, trace_points: points };
        let found = reference::infer(&model, belief, options);
        let figures = InferenceFigures {
            distance_bound: found.distance_bound,
            steps: found.steps as u32,
            converged: found.converged.into(),
            ..figures_of(&found.free_energy)
        };
        memory.figures.copy_range_from_slice(number, &[figures])?;
        memory.mean.copy_range_from_slice(number * stride, &found.mean)?;
        if let Some(trace) = until.trace.as_deref_mut() {
            let figures = |point: &reference::TracePoint| {
                let f = point.free_energy;
                [f.complexity, f.accuracy_plugin, f.accuracy_expected, point.distance_bound]
            };
            let kept: Vec<f64> = found.trace.iter().flat_map(figures).collect();
            trace.copy_range_from_slice(number * points * TRACE_FIGURES, &kept)?;
        }
    }
    Ok(())
}

fn figures_of(energy: &FreeEnergy) -> InferenceFigures {
    InferenceFigures {
        complexity: energy.complexity,
        accuracy_plugin: energy.accuracy_plugin,
        accuracy_expected: energy.accuracy_expected,
        ..InferenceFigures::default()
    }
}
