//! Four ways for a sequence of operations to reach a device, behind one call.
//!
//! [`Dispatcher::run`] takes what queues the operations: a closure that calls this library. It is carried out by plain
//! launches, as a CUDA graph, or as an item of a resident kernel; on the executor and the CPU by the calls themselves. A
//! sequence that is the same as the last time, kernel for kernel and parameter for parameter, is replayed; one that has
//! changed updates its graph or its program.
//!
//! ```
//! use kasmina::dispatch::{Dispatch, Dispatcher};
//! use kasmina::information::axpby;
//! use kasmina::{Buffer, Device};
//!
//! let device = Device::auto();
//! let x = Buffer::from_slice(&device, &[1.0_f32, 2.0])?;
//! let mut y = Buffer::zeroed(&device, 2)?;
//! let mut dispatcher = Dispatcher::new(&device, Dispatch::Auto)?;
//! for _ in 0..3 {
//!     dispatcher.run(|| axpby(&device, 2.0, &x, 1.0, &x, &mut y))?;
//! }
//! assert_eq!(y.to_vec()?, [3.0, 6.0]);
//! println!("{}", dispatcher.choice().expect("it has run"));
//! # Ok::<(), kasmina::Error>(())
//! ```

mod costs;
mod dispatcher;

pub use costs::DispatchCosts;
pub use dispatcher::{Choice, Dispatch, Dispatcher, Way};

#[cfg(test)]
mod tests;
