//! Transfer entropy by the estimators of Kraskov, Stögbauer and Grassberger, by brute force.
//!
//! `TE(X→Y) = I(y_t; x⁻ | y⁻)` in nats: what the source's past says about the target's next value beyond the
//! target's own past, and beyond the pasts of the conditions, which count as part of y⁻ here. Distances are
//! taken in the type of the points (f64, or f32), ψ and sums in f64.
//!
//! Sources: A. Kraskov, H. Stögbauer, P. Grassberger, "Estimating mutual information", 2004, for algorithm 1 in
//! its conditional form S. Frenzel, B. Pompe, 2007; algorithm 2: M. Wibral, R. Vicente, M. Lindner, "Transfer
//! entropy in neuroscience", 2014.

mod digamma;
mod embedding;
mod error;
mod fused_distance_kth;
mod fused_te_reduction;
mod prepare;
mod significance;
mod surrogate_rows;

pub use digamma::digamma;
pub use embedding::{Condition, Embedding, Past, Points, embed};
pub use error::TransferEntropyError;
pub use fused_distance_kth::{Algorithm, Neighbours, Search, nearest};
pub use fused_te_reduction::{Estimate, estimate};
pub use prepare::{add_noise, standardize};
pub use significance::{Significance, significance, surrogates};
pub use surrogate_rows::{SurrogateKind, default_block_length, philox4x32, surrogate_rows};
