//! The resident kernels' handles.

use kasmina_device::Kernel;
use kasmina_types::tiles::manifold::domain;
use kasmina_types::{Manifold, ManifoldEcho};

use crate::manifold::{echo, manifold as kernels};

/// A resident kernel.
#[derive(Clone, Copy)]
pub struct ResidentInstance {
    /// The kernel.
    pub kernel: &'static Kernel<Manifold>,
    /// The domains that it has.
    pub domains: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub dynamic_shared_bytes: u32,
}

/// The resident kernel with the fewest domains that has all of `domains`.
pub fn manifold(domains: u32) -> ResidentInstance {
    let mut best: Option<ResidentInstance> = None;
    macro_rules! instance {
        ($entry:ident, $domains:ident, $threads:literal, $shared:literal) => {
            let found = ResidentInstance {
                kernel: kernels::$entry::handle(),
                domains: domain::$domains,
                dynamic_shared_bytes: $shared,
            };
            let fits = found.domains & domains == domains;
            if fits && best.is_none_or(|b| b.domains.count_ones() > found.domains.count_ones()) {
                best = Some(found);
            }
        };
    }
    kasmina_types::manifold_tiles!(instance);
    best.expect("one kernel has all domains")
}

/// The resident thread that answers.
pub fn manifold_echo() -> &'static Kernel<ManifoldEcho> {
    echo::manifold_echo::handle()
}
