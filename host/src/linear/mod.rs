//! Dense linear algebra on any device: products of matrices with what is fused to them, D = act(α·op(A)·op(B) + bias + β·C) + R, and their gradients.

mod adaptive;
mod convert;
mod cpu;
mod element;
mod error;
mod forward;
mod gemv;
mod gradients;
mod grouped;
mod operands;
mod overlap;
mod precision;
mod quantized;
mod shape;
mod shared;
mod vector;

pub use adaptive::{Adapted, Adaptive};
pub use element::{LinearElement, LinearResult};
pub use error::LinearError;
pub use forward::{Chosen, Linear, LinearOptions};
pub use gemv::{Gemv, GemvElement, GemvShape};
pub use gradients::LinearGradients;
pub use grouped::{GroupFusion, GroupedPlan, GroupedProblem};
pub use operands::{Operands, Scales};
pub use precision::Precision;
pub use quantized::quantized;
pub(crate) use shape::Extent;
pub use shape::LinearShape;

pub use kasmina_types::{Activation, Layout};
