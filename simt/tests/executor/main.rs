//! The executor from outside: kernels that are wrong on purpose are reported, right ones are not.

mod clusters;
mod divergence;
mod kernels;
mod launches;
mod mbarriers;
mod memory;
mod races;
mod support;
