//! Resident kernels: they take items from rings in mapped memory, carry out their operations, and stay.

mod desk;
pub mod echo;
#[allow(clippy::module_inception, reason = "the kernels' file has the family's name")]
pub mod manifold;
mod operations;
mod watch;
