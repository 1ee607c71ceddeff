//! How models are inferred, and what of that is refused.

use kasmina_reference::information::active_inference as reference;
use kasmina_reference::information::active_inference::ActiveInferenceError;
use kasmina_types::DType;

use super::error::InferenceError;
use super::model::GaussianModel;
use crate::driver::launchers::active_inference::OP;
use crate::error::Error;

/// The λmax that power iteration can be trusted with: it squares numbers of about this size.
const CURVATURES: std::ops::RangeInclusive<f64> = 1e-150..=1e150;

/// How models are inferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferenceOptions {
    /// Step size κ of every model, 0 < κ < 2/λmax. Without one each model has 1/λ, λ what power iteration finds of λmax:
    /// as long as that is more than half of it no step raises F.
    pub kappa: Option<f64>,
    /// What J is stored in on the device: f64, or f32, which halves the memory to read. Vectors, arithmetic and sums
    /// are in f64 either way.
    pub jacobian: DType,
    /// Keeps the figures of the first so many μ of an inference, to see how it converged.
    pub trace_points: usize,
    /// Takes the kernels that bulk copies bring J to, where the device has one for the shape: the quicker ones.
    pub bulk_copies: bool,
}

impl Default for InferenceOptions {
    fn default() -> Self {
        Self { kappa: None, jacobian: DType::F64, trace_points: 0, bulk_copies: true }
    }
}

impl InferenceOptions {
    /// Models with J as the device stores it.
    pub(super) fn stored(&self, models: &[GaussianModel]) -> Result<Vec<GaussianModel>, Error> {
        match self.jacobian {
            DType::F64 => Ok(models.to_vec()),
            DType::F32 => {
                let rounded = models.iter().enumerate().map(|(number, model)| {
                    model.rounded().map_err(|((row, column), got)| {
                        InferenceError::NotFiniteInF32 { model: number, row, column, got }.into()
                    })
                });
                rounded.collect()
            }
            other => {
                let got = other.size_bytes() as f64;
                let expected = "f64 or f32, of 8 or 4 bytes";
                Err(Error::Setting { op: OP, setting: "jacobian", got, expected })
            }
        }
    }

    /// The step size of each model, given its λmax.
    pub(super) fn kappas(&self, curvatures: &[f64]) -> Result<Vec<f64>, Error> {
        let of_model = |(model, &curvature): (usize, &f64)| {
            if !CURVATURES.contains(&curvature) {
                return Err(InferenceError::Curvature { model, got: curvature }.into());
            }
            let kappa = self.kappa.unwrap_or_else(|| reference::default_kappa(curvature));
            let limit = 2.0 / curvature;
            if !(kappa > 0.0 && kappa < limit) {
                let source = ActiveInferenceError::Kappa { got: kappa, limit };
                return Err(InferenceError::InBatch { model, source }.into());
            }
            Ok(kappa)
        };
        curvatures.iter().enumerate().map(of_model).collect()
    }
}
