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
}
