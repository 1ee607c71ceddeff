//! Dense linear algebra: a product of matrices with bias, addition and activation, and its gradients.

mod absmax;
mod error;
mod forward;
mod gemv;
mod gradients;
mod sample;

pub use absmax::absmax_scale;
pub use error::LinearError;
pub use forward::{Linear, linear};
pub use gemv::{gemv, gemv_transposed};
pub use gradients::{LinearGradients, linear_backward};
pub use sample::{SampledSums, sampled_place, sampled_sums};
