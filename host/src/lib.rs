//! GPU kernels written in Rust, with the host that launches and checks them.
//!
//! A kernel runs in two places: on a GPU through PTX that this crate carries, and on the CPU under an
//! executor that checks it as it runs. A reference that shares no code with it says what is right.
//!
//! ```
//! use kasmina::{Buffer, Device, reduction::{Reduce, Segments}};
//!
//! # fn main() -> Result<(), kasmina::Error> {
//! let device = Device::auto();
//! let values = Buffer::from_slice(&device, &[1.0_f32, 2.0, 3.5])?;
//! let sum = Reduce::new(&device).sum(&values, &Segments::Whole)?;
//! assert_eq!(sum.to_vec()?, [6.5]);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`Device`], [`Buffer`] | where things run, and the memory there |
//! | [`kasmina`](mod@kasmina) | the morphogenetic layer |
//! | [`linear`] | products of matrices with bias, activation and addition, and their gradients |
//! | [`normalization`] | activations with layer norm and RMS norm |
//! | [`reduction`] | sums, extremes, means and variances |
//! | [`linear`] | products of matrices and vectors |
//! | [`information`] | transfer entropy between time series, active inference, and the vector operations beside it |
//! | [`fusion`] | chains of stages in one kernel, and stage by stage |
//! | [`verify`] | every kernel against the f64 reference |
//! | [`bench`](mod@bench) | how long the kernels take |
//! | [`profile`] | how long the parts of a program take, and traces of them |
//! | [`artifacts`] | the PTX that this build carries |
//! | [`driver`] | the CUDA driver: streams, graphs, pools |

pub mod artifacts;
pub mod bench;
mod buffer;
pub mod cli;
mod device;
mod digits;
pub mod dispatch;
pub mod driver;
mod error;
pub mod fusion;
pub mod information;
pub mod kasmina;
mod latency;
pub mod linear;
mod macroeconomy;
pub mod normalization;
pub mod persistent;
pub mod profile;
pub mod reduction;
pub mod verify;

pub use buffer::{Buffer, BufferStatistics};
pub use device::{Device, Gpu};
pub use error::Error;
pub use kasmina_simt::Executor;
pub use kasmina_types as types;

/// The documents' examples, which are tests as well.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/kasmina.md")]
    mod layer {}
    #[doc = include_str!("../../docs/active-inference.md")]
    mod active_inference {}
    #[doc = include_str!("../../docs/linear.md")]
    mod linear {}
    #[doc = include_str!("../../docs/tuning.md")]
    mod tuning {}
    #[doc = include_str!("../../docs/integration.md")]
    mod integration {}
    #[doc = include_str!("../../docs/persistent.md")]
    mod persistent {}
    #[doc = include_str!("../../docs/transfer-entropy.md")]
    mod transfer_entropy {}
}
