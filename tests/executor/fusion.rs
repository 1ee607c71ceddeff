//! Chains of stages: those of the library, and others that are declared here.

use kasmina::Device;
use kasmina::fusion::Fused;
use kasmina::types::fusion::FusionShape;
use kasmina_kernels::fusion::chain::Kernels as _;
use kasmina_tests::fusion::{check_chain, check_declared, check_refusals, check_savings};
use kasmina_types::fusion::FusionBuilder;
use kasmina_types::fusion::kind::{Gemv, Map, Matmul, Sum};
use proptest::prelude::*;

use super::shuffled;

/// A product that begins a chain, in f32; stages are in the order of their numbers.
#[derive(FusionBuilder)]
pub(crate) struct GemvSquash {
    /// v / (1 + |v|) with a gain, bias included.
    #[stage(2, columns(bias), scalars(gain))]
    squash: Map,
    /// A·x.
    #[stage(1, inputs(matrix, x), precision = "fp32")]
    gemv: Gemv,
}

/// A sum with a stage after it; one operand is read twice.
#[derive(FusionBuilder)]
pub(crate) struct SquareSumRoot {
    /// v².
    #[stage(1, inputs(value, value))]
    product: Map,
    /// Over a segment.
    #[stage(2, reduction = true)]
    sum: Sum,
    /// √.
    #[stage(3)]
    root: Map,
}

/// Values one by one only.
#[derive(FusionBuilder)]
pub(crate) struct ProductRoot {
    /// a·b.
    #[stage(1, inputs(a, b), precision = "fp64")]
    product: Map,
    /// √.
    #[stage(2, precision = "fp64")]
    root: Map,
}

/// An epilogue of a product of matrices.
#[derive(FusionBuilder)]
pub(crate) struct MatmulSquash {
    /// A·Bᵀ.
    #[stage(1, inputs(a, b), tensor_eligible = true)]
    matmul: Matmul,
    /// As in [`GemvSquash`].
    #[stage(2, columns(bias), scalars(gain))]
    squash: Map,
}

mod narrow {
    use kasmina_device::math;
    use kasmina_kernels::fusion::chain;
    use kasmina_types::fusion::fusion_kernels;

    use super::{GemvSquash, MatmulSquash, SquareSumRoot};

    mod stages {
        use super::math;

        pub(super) fn squash(value: f32, bias: f32, gain: f32) -> f32 {
            let v = value + bias;
            gain * v / (1.0 + v.abs())
        }
        pub(super) fn product(a: f32, b: f32) -> f32 {
            a * b
        }
        pub(super) fn root(value: f32) -> f32 {
            math::sqrt(value)
        }
    }

    gemv_squash_fusion!(fusion_kernels);
    square_sum_root_fusion!(fusion_kernels);
    matmul_squash_fusion!(fusion_kernels);
}

mod wide {
    use kasmina_kernels::fusion::chain;
    use kasmina_types::fusion::fusion_kernels;

    use super::{ProductRoot, stages};

    product_root_fusion!(fusion_kernels);
}

mod reference {
    use kasmina::fusion::compose;
    use kasmina_types::fusion::fusion_composition;

    use super::{GemvSquash, MatmulSquash, ProductRoot, SquareSumRoot, stages};

    gemv_squash_fusion!(fusion_composition);
    square_sum_root_fusion!(fusion_composition);
    product_root_fusion!(fusion_composition);
    matmul_squash_fusion!(fusion_composition);
}

mod stages {
    pub(crate) fn squash(value: f64, bias: f64, gain: f64) -> f64 {
        let v = value + bias;
        gain * v / (1.0 + v.abs())
    }
    pub(crate) fn product(a: f64, b: f64) -> f64 {
        a * b
    }
    pub(crate) fn root(value: f64) -> f64 {
        value.sqrt()
    }
}

/// Stages in f32 round some ten times.
const F32: f64 = 1e-5;

fn check_own(device: &Device, [batch, inner, outer]: [usize; 3], seed: u64) {
    check_chain::<GemvSquash>(device, FusionShape { batch, inner, outer }, F32, seed);
    check_chain::<SquareSumRoot>(device, FusionShape { batch, inner, outer: 1 }, F32, seed);
    check_chain::<ProductRoot>(device, FusionShape { batch, inner, outer: inner }, 1e-14, seed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn ragged_shapes(batch in 1usize..4, inner in 1usize..300, outer in 1usize..100, seed: u64) {
        for device in [shuffled(seed), Device::Cpu] {
            check_declared(&device, [batch, inner, outer], seed);
            check_own(&device, [batch, inner, outer], seed);
        }
    }
}

/// Long segments and tall matrices, which blocks share, and nothing.
#[test]
fn shapes_at_the_edges() {
    for shape in [[1, 40_000, 3], [2, 3000, 40], [1, 0, 4], [3, 5, 0], [0, 2, 2]] {
        check_declared(&shuffled(3), shape, 9);
        check_own(&shuffled(3), shape, 9);
    }
    check_refusals(&shuffled(1));
    check_savings();
}

/// The stages after a product of matrices have kernels, and it has a reference; its own kernel is `linear`'s.
#[test]
fn epilogues_of_products() {
    let shape = FusionShape { batch: 5, inner: 7, outer: 3 };
    check_chain::<MatmulSquash>(&Device::Cpu, shape, F32, 1);
    let kernels = MatmulSquash::stages();
    assert!(MatmulSquash::fused().is_none() && kernels[0].is_none() && kernels[1].is_some());
    let why = Fused::<MatmulSquash>::new(&Device::simt(), shape).err().expect("no kernel");
    assert!(why.to_string().contains("stage `matmul`"), "{why}");
}
