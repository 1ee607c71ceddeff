//! Measures of information between time series, on any device.

pub mod transfer_entropy;

pub use transfer_entropy::{TransferEntropy, TransferEntropyError};
