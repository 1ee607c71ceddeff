//! The kernels of the declared chains: for each the one that computes all stages, and one for each stage.
//!
//! # Math
//! As the stages say, one after the other: [`super::stages`]. Sums are in f64. The fused kernel keeps in registers what the
//! others leave in memory, in the same type, so that both compute the same values. A product of matrices, and what is fused
//! to it, is a launch of `linear`: of such a chain the stages after it alone have kernels here.
//!
//! # Layout
//! [`kasmina_types::FusionArguments`]: operands `[batch, inner]`, `[batch, outer]`, `[batch]`, a matrix for each product;
//! results `[batch, outer]`; all row-major in the chain's element type.
//!
//! # Traffic
//! Each operand read once and the results written once; bound by memory. The kernels of stages alone write and read each
//! value between two stages besides. Before a product the fused kernel computes the values again for each tile of results, from
//! operands that the caches hold: with Aᵀ once for a warp's 32 columns, handed around among its lanes.
//!
//! # Launch
//! Blocks of 256 threads, three a multiprocessor or more, over a persistent grid. Values one by one: a thread a value. Reductions: a
//! block a segment, or a part of one. Products: as `linear::gemv`, in single elements, so that any shape will do.
//!
//! # Determinism
//! Bitwise: as `linear::gemv`; reductions by lanes, warps and parts in their order.
//!
//! # Source
//! Declared in `kasmina_types::fusion::chains`. Reference: `kasmina_reference::fusion`.

use kasmina_types::fusion::chains::{
    ErrorAccuracySum, ErrorGemvUpdate, KlSum, MatmulBiasActivation,
};
use kasmina_types::fusion::fusion_kernels;

use super::{chain, stages};

kasmina_types::kl_sum_fusion!(fusion_kernels);
kasmina_types::error_accuracy_sum_fusion!(fusion_kernels);
kasmina_types::error_gemv_update_fusion!(fusion_kernels);
kasmina_types::matmul_bias_activation_fusion!(fusion_kernels);
