//! The model's file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use ndarray::{Array1, Array2};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::information::active_inference::{Belief, GaussianModel};

/// What a file may have.
pub(super) const KEYS: [&str; 9] = [
    "J",
    "observation",
    "offset",
    "obs_precision",
    "prior_mean",
    "prior_var",
    "init.mu",
    "init.var",
    "kappa",
];

/// What the published cases, `active_inference_case.json`, have beside this.
const OF_CASES: [&str; 9] = [
    "name",
    "max_stable_kappa",
    "kernels_at_init",
    "trace",
    "trace_likelihood_only",
    "mu_after_steps",
    "fixed_point",
    "likelihood_only_limit_mu",
    "expected_free_energy",
];

/// A model's file. Other keys are passed over: see [`read`].
#[derive(Deserialize)]
struct ModelFile {
    #[serde(rename = "J")]
    jacobian: Vec<Vec<f64>>,
    observation: Vec<f64>,
    offset: Option<Vec<f64>>,
    obs_precision: Option<Vec<f64>>,
    prior_mean: Option<Vec<f64>>,
    prior_var: Option<Vec<f64>>,
    init: Option<Init>,
    kappa: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Init {
    mu: Option<Vec<f64>>,
    var: Option<Vec<f64>>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

/// A row of J that is longer or shorter than the first.
#[derive(Debug, thiserror::Error)]
#[error("`J[{row}]` has {got} numbers, the first row {expected}; a matrix has rows of one length")]
struct Ragged {
    row: usize,
    expected: usize,
    got: usize,
}

/// Model, belief to begin with, step size, and the keys that mean nothing.
pub(super) fn read(
    path: &Path,
) -> anyhow::Result<(GaussianModel, Belief, Option<f64>, Vec<String>)> {
    let text = std::fs::read_to_string(path)?;
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let file: ModelFile = serde_json::from_str(text)
        .context("expected a JSON object with the numbers J, observation, …")?;
    let (rows, columns) = (file.jacobian.len(), file.jacobian.first().map_or(0, Vec::len));
    if let Some((row, got)) =
        file.jacobian.iter().map(Vec::len).enumerate().find(|&(_, len)| len != columns)
    {
        return Err(Ragged { row, expected: columns, got }.into());
    }
    let jacobian = Array2::from_shape_fn((rows, columns), |(i, j)| file.jacobian[i][j]);
    let mut builder = GaussianModel::builder(jacobian).observation(Array1::from(file.observation));
    if let Some(offset) = file.offset {
        builder = builder.offset(Array1::from(offset));
    }
    if let Some(precision) = file.obs_precision {
        builder = builder.obs_precision(Array1::from(precision));
    }
    if let Some(mean) = file.prior_mean {
        builder = builder.prior_mean(Array1::from(mean));
    }
    if let Some(variance) = file.prior_var {
        builder = builder.prior_var(Array1::from(variance));
    }
    let model = builder.build()?;
    let init = file.init.unwrap_or_default();
    let unknown = unknown(serde_json::from_str(text)?, &init);
    let belief = Belief {
        mean: init.mu.unwrap_or_else(|| model.prior().mean),
        variance: init.var.unwrap_or_else(|| model.optimum_variance()),
    };
    Ok((model, belief, file.kappa, unknown))
}

/// The keys that are neither a model's nor a published case's: misspelt ones, as a rule.
fn unknown(file: BTreeMap<String, IgnoredAny>, init: &Init) -> Vec<String> {
    let known = |key: &str| KEYS.contains(&key) || key == "init" || OF_CASES.contains(&key);
    let of_file = file.into_keys().filter(|key| key.contains('.') || !known(key));
    of_file.chain(init.others.keys().map(|key| format!("init.{key}"))).collect()
}
