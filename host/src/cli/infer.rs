//! `kasmina infer`: active inference of a model in a file.

use std::path::PathBuf;

use serde::Serialize;

use super::device::Choice;
use super::output::{Json, check_files, fixed};
use super::plot::{self, Chart, Line};
use super::{Failure, Status};
use crate::error::Error;
use crate::information::active_inference::{
    ActiveInference, GaussianModel, InferenceOptions, Inferred, ModelFile, TracePoint,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model, as JSON with J, observation, and optionally offset, obs_precision, prior_mean, prior_var, init.mu,
    /// init.var and kappa. Of other keys there is a warning
    #[arg(long, value_name = "M.json")]
    model: PathBuf,
    /// Take exactly N belief steps
    #[arg(long, value_name = "N", conflicts_with = "until_converged")]
    steps: Option<u32>,
    /// Take belief steps until the posterior mean is within the tolerance; this is the default
    #[arg(long)]
    until_converged: bool,
    /// Distance to the posterior mean that counts as converged, in standard deviations of the prior
    #[arg(long, value_name = "T", default_value = "1e-10", allow_negative_numbers = true)]
    tolerance: f64,
    /// Steps at most, until converged
    #[arg(long, value_name = "N", default_value = "1000000", conflicts_with = "steps")]
    max_steps: u32,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    /// Write a plot of the convergence to FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

/// The result for programs. A number that is not finite is null there: JSON has none such.
#[derive(Serialize)]
struct Report<'a> {
    mu: &'a [f64],
    var: &'a [f64],
    complexity: f64,
    accuracy_plugin: f64,
    accuracy_expected: f64,
    free_energy_plugin: f64,
    free_energy_exact: f64,
    steps: usize,
    converged: bool,
}

/// An option that stops nothing.
#[derive(Debug, thiserror::Error)]
#[error("--tolerance is {0}; expected a finite number above 0")]
struct Tolerance(f64);

/// Points of the way that a plot is made of.
const TRACE_POINTS: usize = 100_000;

/// States that are shown to people.
const SHOWN_STATES: usize = 8;

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let tolerance = arguments.tolerance;
    if !(tolerance > 0.0 && tolerance.is_finite()) {
        return Err(Failure::usage(Tolerance(tolerance)));
    }
    let path = &arguments.model;
    check_files(path, &arguments.json, arguments.svg.as_deref())?;
    let in_file = |error: anyhow::Error| {
        Failure::usage(error.context(format!("cannot use the model {}", path.display())))
    };
    let file = ModelFile::read(path).map_err(|why| in_file(why.into()))?;
    let ModelFile { model, belief, kappa, unknown } = file;
    for key in unknown {
        let known = ModelFile::KEYS.join(", ");
        arguments.json.say(format!(
            "warning: {} has a key `{key}`, which means nothing and is passed over; the keys are {known}",
            path.display()
        ))?;
    }
    let device = arguments.device.device()?;
    let max_steps = arguments.steps.unwrap_or(arguments.max_steps) as usize;
    let trace_points = if arguments.svg.is_some() { TRACE_POINTS.min(max_steps + 1) } else { 0 };
    let options = InferenceOptions { kappa, trace_points, ..InferenceOptions::default() };
    let prepared = ActiveInference::new(&device, std::slice::from_ref(&model), options)
        .and_then(|mut inference| inference.set_beliefs(&[belief]).map(|()| inference));
    let mut inference = prepared.map_err(|error| match error {
        error @ (Error::Inference(_) | Error::TooLarge { .. }) => in_file(error.into()),
        error => error.into(),
    })?;
    let found = match arguments.steps {
        Some(_) => inference.infer(max_steps),
        None => inference.infer_until_converged(tolerance, max_steps),
    };
    let found = found.map_err(|error| match error {
        error @ Error::TooLarge { .. } => Failure::usage(error),
        error => error.into(),
    })?;
    let found = &found[0];
    let converged = found.distance_bound <= tolerance;
    let finite = is_finite(found);
    let shown = match found.trace.len().saturating_sub(1) {
        last if last < found.steps => format!(", the first {last} of {}", found.steps),
        _ => String::new(),
    };
    let json = &arguments.json;
    json.say(summary(&model, found, inference.kappas()[0], &device.to_string(), converged))?;
    if !finite {
        json.say(
            "the numbers left the range of f64, and are null in JSON: rescale the model, or choose a smaller κ if the \
             file names one",
        )?;
    }
    let energy = found.free_energy;
    json.write(&Report {
        mu: &found.belief.mean,
        var: &found.belief.variance,
        complexity: energy.complexity,
        accuracy_plugin: energy.accuracy_plugin,
        accuracy_expected: energy.accuracy_expected,
        free_energy_plugin: energy.plugin(),
        free_energy_exact: energy.exact(),
        steps: found.steps,
        converged,
    })?;
    // Last: a picture that cannot be written costs no result.
    if let Some(path) = &arguments.svg {
        plot::write(path, &picture(found, &format!("belief steps{shown}"))?)?;
        json.say(format!("{}: how it converged{shown}", path.display()))?;
    }
    // Steps by number have done what they were asked to, if they came to numbers.
    let done = converged || arguments.steps.is_some();
    Ok(if finite && done { Status::Pass } else { Status::Fail })
}

/// Whether the result is numbers throughout.
fn is_finite(found: &Inferred) -> bool {
    let energy = found.free_energy;
    let figures = [energy.plugin(), energy.exact(), found.distance_bound];
    figures.iter().chain(&found.belief.mean).all(|value| value.is_finite())
}

fn summary(
    model: &GaussianModel,
    found: &Inferred,
    kappa: f64,
    device: &str,
    converged: bool,
) -> String {
    let energy = &found.free_energy;
    let mean = &found.belief.mean;
    let shown: Vec<String> = mean.iter().take(SHOWN_STATES).map(|&m| number(m)).collect();
    let more = if mean.len() > SHOWN_STATES { ", …" } else { "" };
    format!(
        "{} observations of {} states on {device}\n\
         {} steps of κ = {kappa:.6e}: {}within {:.1e} prior standard deviations of the posterior mean\n\
         μ = [{}{more}]\n\
         complexity {}, accuracy {} plug-in, {} expected\n\
         free energy {} plug-in, {} exact, in nats",
        model.observations(),
        model.states(),
        found.steps,
        if converged { "converged, " } else { "not converged, " },
        found.distance_bound,
        shown.join(", "),
        number(energy.complexity),
        number(energy.accuracy_plugin),
        number(energy.accuracy_expected),
        number(energy.plugin()),
        number(energy.exact()),
    )
}

/// A number with nine places, or in powers of ten where these show little of it.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-4..1e9).contains(&value.abs()) {
        fixed(value, 9)
    } else {
        format!("{value:.9e}")
    }
}

/// Free energies and the distance to the posterior mean over the steps.
fn picture(found: &Inferred, x_label: &str) -> Result<String, Failure> {
    let line = |name, value: fn(&TracePoint) -> f64| {
        let points = found.trace.iter().enumerate();
        Line { name, points: points.map(|(step, point)| (step as f64, value(point))).collect() }
    };
    plot::lines(&[
        Chart {
            title: "Free energy",
            x_label,
            y_label: "nats",
            log_y: false,
            lines: vec![
                line("exact", |point| point.free_energy.exact()),
                line("plug-in", |point| point.free_energy.plugin()),
            ],
        },
        Chart {
            title: "Bound on the distance to the posterior mean",
            x_label,
            y_label: "prior standard deviations",
            log_y: true,
            lines: vec![line("bound", |point| point.distance_bound)],
        },
    ])
}
