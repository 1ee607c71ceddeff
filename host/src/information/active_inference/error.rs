//! What active inference refuses.

use kasmina_reference::information::active_inference::ActiveInferenceError;

/// Models, beliefs and options that mean nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// A model or a belief by itself.
    #[error(transparent)]
    Model(#[from] ActiveInferenceError),
    /// A model without an observation.
    #[error("a model needs an observation: call `observation` before `build`")]
    NoObservation,
    /// A batch of no models.
    #[error("active inference of no models; give one at least")]
    NoModels,
    /// One of a batch.
    #[error("model {model}: {source}")]
    InBatch {
        /// Its number.
        model: usize,
        /// What is wrong with it.
        source: ActiveInferenceError,
    },
    /// Models of different shapes in one batch.
    #[error(
        "model {model} has {got:?} observations and states, the first {expected:?}; infer models of different shapes \
         by themselves"
    )]
    Shapes {
        /// Its number.
        model: usize,
        /// Observations and states of the first.
        expected: (usize, usize),
        /// Its own.
        got: (usize, usize),
    },
    /// As many beliefs as there are not models.
    #[error("{got} beliefs for {expected} models")]
    Beliefs {
        /// Models.
        expected: usize,
        /// Beliefs.
        got: usize,
    },
    /// An element of J that f32 does not hold.
    #[error(
        "model {model}: `J[{row}][{column}]` is {got}, which is infinite in f32; rescale the states, or store J in f64"
    )]
    NotFiniteInF32 {
        /// Which model.
        model: usize,
        /// Observation.
        row: usize,
        /// State.
        column: usize,
        /// The element.
        got: f64,
    },
    /// A curvature that says nothing of the step size.
    #[error(
        "model {model}: λmax of JᵀΠJ + V0⁻¹ came out as {got:e}, expected 1e-150 to 1e150, beyond which its squares \
         leave f64; rescale the states, and check precisions and prior variances"
    )]
    Curvature {
        /// Which model.
        model: usize,
        /// What the power iteration found.
        got: f64,
    },
    /// Results of what never ran.
    #[error("no result for `{asked}`: {last}; call {needed} first")]
    NotRun {
        /// What was asked for.
        asked: &'static str,
        /// What ran last.
        last: &'static str,
        /// What makes such a result.
        needed: &'static str,
    },
    /// A launch that was planned for other models.
    #[error("a launch planned for {expected} was given {got}; plan it again")]
    OtherPlan {
        /// What it was planned for.
        expected: String,
        /// What it was given.
        got: String,
    },
}
