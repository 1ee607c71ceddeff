//! Persistent execution: a kernel that stays on the device and carries out what the host puts into its rings.
//!
//! A launch costs microseconds, whatever it does. [`PersistentExecutor`] has a resident kernel instead, which takes *items*
//! from rings in memory that both sides see: an item costs a trip over the bus and back. What an item does is a
//! [`Program`]: a sequence of this library's operations, [recorded](PersistentExecutor::record) by calling them, which the
//! device carries out by itself, one after the other.
//!
//! ```
//! use kasmina::information::axpby;
//! use kasmina::persistent::{PersistentConfig, PersistentExecutor};
//! use kasmina::{Buffer, Device};
//!
//! let device = Device::simt();
//! let x = Buffer::from_slice(&device, &[1.0_f32, 2.0, 3.0])?;
//! let mut y = Buffer::zeroed(&device, 3)?;
//!
//! let executor = PersistentExecutor::new(&device, PersistentConfig::default())?;
//! let program = executor.record("double", || axpby(&device, 2.0, &x, 0.0, &x, &mut y))?;
//! executor.submit(&program)?.wait()?;
//! assert_eq!(y.to_vec()?, [2.0, 4.0, 6.0]);
//! # Ok::<(), kasmina::Error>(())
//! ```
//!
//! Items of one *lane* are carried out in the order in which they were submitted, as launches of a stream are; those of
//! different lanes at the same time, where the device has groups of blocks for them. See `docs/persistent.md` for the
//! protocol, what happens when something fails, and when it pays.

mod config;
mod dropper;
mod error;
mod executor;
mod program;
mod shared;
mod statistics;
mod table;
mod ticket;
mod watchdog;

pub use config::{Domains, PersistentConfig};
pub use error::{Fault, FaultCause, FaultItem, PersistentError};
pub use executor::{ItemOptions, PersistentExecutor, UnfinishedItem};
pub use kasmina_types::ItemPriority;
pub use program::{Program, Provoke};
pub use statistics::{LatencyHistogram, PersistentStatistics};
pub use ticket::{Completion, Ticket};

#[cfg(test)]
mod tests;
