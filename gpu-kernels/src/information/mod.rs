//! Measures of information between time series.

pub mod transfer_entropy;
