//! The resident kernels, and the operations that they have.

use super::Table;
use crate::dtype::DType;

/// Hands each resident kernel to a macro: `(entry, domains, threads of a block, dynamic shared memory in bytes)`. Each is a
/// block a multiprocessor.
#[macro_export]
macro_rules! manifold_tiles {
    ($instance:ident) => {
        $instance! { manifold_layer, LAYER, 256, 0 }
        $instance! { manifold_information, INFORMATION, 512, 32768 }
        $instance! { manifold_linear, LINEAR, 256, 0 }
        $instance! { manifold_all, ALL, 512, 32768 }
    };
}

/// Sets of domains, whose operations a resident kernel has. Those of no domain are in all of them.
pub mod domain {
    /// The layer.
    pub const LAYER: u32 = 1;
    /// Active inference.
    pub const INFORMATION: u32 = 2;
    /// Linear algebra.
    pub const LINEAR: u32 = 4;
    /// All of them.
    pub const ALL: u32 = LAYER | INFORMATION | LINEAR;
}

/// Numbers of the operations.
pub mod operation {
    /// Nothing.
    pub const EMPTY: u32 = 0;
    /// `axpby_f32`.
    pub const AXPBY_F32: u32 = 1;
    /// `axpby_f64`.
    pub const AXPBY_F64: u32 = 2;
    /// Waits until the host gives the kernel up: what a test of the watchdog runs.
    pub const HANG: u32 = 3;
    /// Traps: what a test of recovery runs.
    pub const TRAP: u32 = 4;
    /// Waits for ever: what a test of the last resort runs.
    pub const DEAF: u32 = 5;
    /// `blend_forward` of f32 in 16-byte accesses.
    pub const BLEND_FORWARD_F32: u32 = 6;
    /// `belief_step_f64_c64`.
    pub const BELIEF_STEP_C64: u32 = 7;
    /// `belief_step_f64_c256`.
    pub const BELIEF_STEP_C256: u32 = 8;
    /// `belief_step_f64_small`.
    pub const BELIEF_STEP_SMALL: u32 = 9;
    /// `infer_until_converged_f64_c64`.
    pub const INFER_C64: u32 = 10;
    /// `gemv_f32` of warp teams.
    pub const GEMV_F32: u32 = 11;
    /// `gemv_f64` of warp teams.
    pub const GEMV_F64: u32 = 12;
}

/// An operation of the resident kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifoldOperation {
    /// The kernel that does the same in a launch of its own.
    pub entry: &'static str,
    /// Its number, of [`operation`].
    pub code: u32,
    /// The kernels that have it: those of one of these domains; 0 for all.
    pub domains: u32,
}

/// Every operation that takes the place of a launch.
pub static MANIFOLD_OPERATIONS: &[ManifoldOperation] = &[
    of("axpby_f32", operation::AXPBY_F32, 0),
    of("axpby_f64", operation::AXPBY_F64, 0),
    of("blend_forward_f32_v16", operation::BLEND_FORWARD_F32, domain::LAYER),
    of("blend_forward_seed_f32", operation::BLEND_FORWARD_F32, domain::LAYER),
    of("belief_step_f64_c64", operation::BELIEF_STEP_C64, domain::INFORMATION),
    of("belief_step_f64_c256", operation::BELIEF_STEP_C256, domain::INFORMATION),
    of("belief_step_f64_small", operation::BELIEF_STEP_SMALL, domain::INFORMATION),
    of("infer_until_converged_f64_c64", operation::INFER_C64, domain::INFORMATION),
    of("gemv_f32", operation::GEMV_F32, domain::LINEAR),
    of("gemv_f64", operation::GEMV_F64, domain::LINEAR),
];

const fn of(entry: &'static str, code: u32, domains: u32) -> ManifoldOperation {
    ManifoldOperation { entry, code, domains }
}

pub(super) const fn add(table: &mut Table) {
    macro_rules! manifold {
        ($entry:ident, $domains:ident, $threads:literal, $shared:literal) => {
            table.add(stringify!($entry), "manifold", DType::F32, 1, $threads, 1);
        };
    }
    manifold_tiles!(manifold);
    table.add("manifold_echo", "manifold_echo", DType::F32, 1, 32, 1);
}

#[cfg(test)]
mod tests {
    use super::super::TILES;
    use super::*;

    #[test]
    fn operations_are_kernels() {
        for operation in MANIFOLD_OPERATIONS {
            let found = TILES.iter().any(|tile| tile.entry == operation.entry);
            assert!(found && operation.domains & !domain::ALL == 0, "{operation:?}");
        }
    }
}
