//! The chains of this library.

use super::kind::{GemvTransposed, Map, Matmul, Sum};
use super::{Declaration, Fusion, FusionBuilder};

/// KL(q ‖ prior) of Gaussian beliefs, in nats.
#[derive(Clone, Copy, Debug, FusionBuilder)]
pub struct KlSum {
    /// ½[s/v0 + (μ − m0)²/v0 − 1 − ln(s/v0)].
    #[stage(
        1,
        inputs(mean, variance, prior_mean, prior_var),
        tensor_eligible = false,
        precision = "fp64"
    )]
    pub complexity_term: Map,
    /// Over the states.
    #[stage(2, tensor_eligible = false, reduction = true, precision = "fp64")]
    pub sum: Sum,
}

/// Plug-in accuracy of Gaussian predictions, in nats.
#[derive(Clone, Copy, Debug, FusionBuilder)]
pub struct ErrorAccuracySum {
    /// o − p.
    #[stage(1, inputs(observation, prediction), tensor_eligible = false, precision = "fp64")]
    pub prediction_error: Map,
    /// −½[π·r² + ln(2π/π_i)].
    #[stage(2, inputs(obs_precision), tensor_eligible = false, precision = "fp64")]
    pub accuracy_term: Map,
    /// Over the observations.
    #[stage(3, tensor_eligible = false, reduction = true, precision = "fp64")]
    pub sum: Sum,
}

/// One belief step from predictions: μ + κ·(Jᵀ(π·(o − p)) − (μ − m0)/v0).
#[derive(Clone, Copy, Debug, FusionBuilder)]
pub struct ErrorGemvUpdate {
    /// π·(o − p).
    #[stage(
        1,
        inputs(observation, prediction, obs_precision),
        tensor_eligible = false,
        precision = "fp64"
    )]
    pub weighted_prediction_error: Map,
    /// Jᵀ of it, J `[observations, states]`.
    #[stage(2, inputs(jacobian), tensor_eligible = false, precision = "fp64")]
    pub gemv: GemvTransposed,
    /// μ + κ·(g − (μ − m0)/v0).
    #[stage(
        3,
        inputs(mean, prior_mean, prior_var),
        scalars(kappa),
        tensor_eligible = false,
        precision = "fp64"
    )]
    pub belief_update: Map,
}

/// A layer: gelu(A·Bᵀ + bias), A `[batch, inner]` and weights B `[outer, inner]`.
#[derive(Clone, Copy, Debug, FusionBuilder)]
pub struct MatmulBiasActivation {
    /// A·Bᵀ.
    #[stage(1, inputs(a, b), tensor_eligible = true, precision = "fp32")]
    pub matmul: Matmul,
    /// + bias.
    #[stage(2, columns(bias), epilogue = "bias", tensor_eligible = false, precision = "fp32")]
    pub bias: Map,
    /// x·Φ(x).
    #[stage(3, epilogue = "gelu_erf", tensor_eligible = false, precision = "fp32")]
    pub activation: Map,
}

/// Every chain.
pub const FUSIONS: [Declaration; 4] = [
    KlSum::DECLARATION,
    ErrorAccuracySum::DECLARATION,
    ErrorGemvUpdate::DECLARATION,
    MatmulBiasActivation::DECLARATION,
];
