//! A model in a file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ndarray::{Array1, Array2};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::InferenceError;
use super::model::{Belief, GaussianModel};

/// A model, and what its file says of the inference.
///
/// A file is a JSON object with `J`, by rows, and `observation`, and any other of [`Self::KEYS`].
///
/// ```
/// use kasmina::information::active_inference::ModelFile;
///
/// # fn main() -> Result<(), kasmina::information::active_inference::ModelFileError> {
/// let file = ModelFile::from_json(r#"{ "J": [[1.0, 0.5]], "observation": [1.8], "kapa": 0.1 }"#)?;
/// assert_eq!((file.model.states(), file.belief.mean, file.kappa), (2, vec![0.0; 2], None));
/// assert_eq!(file.unknown, ["kapa"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// The model.
    pub model: GaussianModel,
    /// The belief to begin with: at the prior's mean, with the variances of least free energy, unless the file says
    /// otherwise. It is not checked against the model.
    pub belief: Belief,
    /// The step size, where the file has one.
    pub kappa: Option<f64>,
    /// Keys that mean nothing, misspelt ones as a rule. Those of the published cases are none of them.
    pub unknown: Vec<String>,
}

/// A file that is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFileError {
    /// A file that cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// Text that is no such object.
    #[error("expected a JSON object with the numbers J, observation, …: {0}")]
    Json(#[from] serde_json::Error),
    /// A row of J that is longer or shorter than the first.
    #[error(
        "`J[{row}]` has {got} numbers, the first row {expected}; a matrix has rows of one length"
    )]
    Ragged {
        /// The row.
        row: usize,
        /// Numbers of the first.
        expected: usize,
        /// Its own.
        got: usize,
    },
    /// Arrays that are no model.
    #[error(transparent)]
    Model(#[from] InferenceError),
}

/// What the published cases, `active_inference_case.json`, have beside a model.
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

/// What is read; other keys are passed over here.
#[derive(Deserialize)]
struct Keys {
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

impl ModelFile {
    /// What a file may have.
    pub const KEYS: [&str; 9] = [
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

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, or as [`Self::from_json`].
    pub fn read(path: &Path) -> Result<Self, ModelFileError> {
        Self::from_json(&std::fs::read_to_string(path)?)
    }

    /// Takes a file's text.
    ///
    /// # Errors
    /// Text that is no such object, rows of several lengths, or what [`build`](super::GaussianModelBuilder::build)
    /// refuses.
    pub fn from_json(text: &str) -> Result<Self, ModelFileError> {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let file: Keys = serde_json::from_str(text)?;
        let (rows, columns) = (file.jacobian.len(), file.jacobian.first().map_or(0, Vec::len));
        let mut lengths = file.jacobian.iter().map(Vec::len).enumerate();
        if let Some((row, got)) = lengths.find(|&(_, len)| len != columns) {
            return Err(ModelFileError::Ragged { row, expected: columns, got });
        }
        let jacobian = Array2::from_shape_fn((rows, columns), |(i, j)| file.jacobian[i][j]);
        let mut builder =
            GaussianModel::builder(jacobian).observation(Array1::from(file.observation));
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
        Ok(Self { model, belief, kappa: file.kappa, unknown })
    }
}

/// The keys that are neither a model's nor a published case's.
fn unknown(file: BTreeMap<String, IgnoredAny>, init: &Init) -> Vec<String> {
    let known =
        |key: &str| ModelFile::KEYS.contains(&key) || key == "init" || OF_CASES.contains(&key);
    let of_file = file.into_keys().filter(|key| key.contains('.') || !known(key));
    of_file.chain(init.others.keys().map(|key| format!("init.{key}"))).collect()
}
