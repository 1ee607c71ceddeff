//! Gaussian active inference: beliefs whose free energy falls.
//!
//! ```
//! use kasmina::Device;
//! use kasmina::information::ActiveInference;
//! use kasmina::information::active_inference::{GaussianModel, InferenceOptions};
//! use ndarray::array;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = GaussianModel::builder(array![[1.0, 0.5], [0.0, 1.0], [0.25, -1.0]])
//!     .observation(array![1.8, 0.2, 0.75])
//!     .obs_precision(array![4.0, 2.0, 1.0])
//!     .build()?;
//! let mut inference = ActiveInference::new(&Device::auto(), &[model.clone()], InferenceOptions::default())?;
//! let found = inference.infer_until_converged(1e-10, 10_000)?;
//! let exact = model.posterior()?;
//! assert!(found[0].converged);
//! assert!(found[0].belief.mean.iter().zip(&exact.mean).all(|(a, b)| (a - b).abs() < 1e-8));
//! # Ok(())
//! # }
//! ```

mod cpu;
mod error;
mod inference;
mod memory;
mod model;
mod model_file;
mod options;
mod results;
mod stages;
#[cfg(test)]
mod tests;

pub use error::InferenceError;
pub use inference::ActiveInference;
pub use model::{
    Belief, ExpectedFreeEnergy, FreeEnergy, GaussianModel, GaussianModelBuilder, Posterior,
    Preferences,
};
pub use model_file::{ModelFile, ModelFileError};
pub use options::InferenceOptions;
pub use results::{Inferred, TracePoint};
pub use stages::InferenceStages;
