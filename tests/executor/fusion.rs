//! Chains of stages: those of the library, and others that are declared here.

use kasmina::fusion::{Fused, Unfused};
use kasmina::linear::Activation;
use kasmina::types::fusion::chains::MatmulBiasActivation;
use kasmina::types::fusion::{Fusion as _, FusionShape};
use kasmina::{Buffer, Device};
use kasmina_kernels::fusion::chain::Kernels as _;
use kasmina_tests::fusion::{
    check_chain, check_declared, check_large_product, check_refusals, check_savings,
};
use kasmina_types::fusion::FusionBuilder;
use kasmina_types::fusion::kind::{Gemv, Map, Matmul, Max, Mean, Min, Sum};
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

/// The other reductions.
#[derive(FusionBuilder)]
pub(crate) struct ProductMean {
    /// a·b.
    #[stage(1, inputs(a, b), precision = "fp64")]
    product: Map,
    /// Over a segment.
    #[stage(2, reduction = true, precision = "fp64")]
    mean: Mean,
}

/// With a stage after it.
#[derive(FusionBuilder)]
pub(crate) struct ProductMaxRoot {
    /// a·b.
    #[stage(1, inputs(a, b))]
    product: Map,
    /// Of a segment.
    #[stage(2, reduction = true)]
    largest: Max,
    /// √.
    #[stage(3)]
    root: Map,
}

/// The smallest.
#[derive(FusionBuilder)]
pub(crate) struct ProductMin {
    /// a·b.
    #[stage(1, inputs(a, b), precision = "fp64")]
    product: Map,
    /// Of a segment.
    #[stage(2, reduction = true, precision = "fp64")]
    smallest: Min,
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

    use super::{GemvSquash, MatmulSquash, ProductMaxRoot, SquareSumRoot};

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
    product_max_root_fusion!(fusion_kernels);
    matmul_squash_fusion!(fusion_kernels);
}

mod wide {
    use kasmina_kernels::fusion::chain;
    use kasmina_types::fusion::fusion_kernels;

    use super::{ProductMean, ProductMin, ProductRoot, stages};

    product_root_fusion!(fusion_kernels);
    product_mean_fusion!(fusion_kernels);
    product_min_fusion!(fusion_kernels);
}

mod reference {
    use kasmina::fusion::compose;
    use kasmina_types::fusion::fusion_composition;

    use super::{
        GemvSquash, MatmulSquash, ProductMaxRoot, ProductMean, ProductMin, ProductRoot,
        SquareSumRoot, stages,
    };

    gemv_squash_fusion!(fusion_composition);
    square_sum_root_fusion!(fusion_composition);
    product_root_fusion!(fusion_composition);
    matmul_squash_fusion!(fusion_composition);
    product_max_root_fusion!(fusion_composition);
    product_mean_fusion!(fusion_composition);
    product_min_fusion!(fusion_composition);
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
    let shape = FusionShape { batch, inner, outer: 1 };
    if inner == 0 && batch > 0 {
        // No value is the largest of none.
        let why = Fused::<ProductMin>::new(device, shape).err().expect("refused").to_string();
        assert!(why.contains("product_min"), "{why}");
        Unfused::<ProductMaxRoot>::new(device, shape).err().expect("refused");
        return;
    }
    check_chain::<ProductMean>(device, shape, 1e-14, seed);
    check_chain::<ProductMaxRoot>(device, shape, F32, seed);
    check_chain::<ProductMin>(device, shape, 1e-14, seed);
}

/// An extreme of a segment with a NaN in it is NaN, in whichever part it is.
#[test]
fn extremes_of_what_is_no_number() {
    for (at, device) in [(0, shuffled(3)), (29_999, shuffled(4)), (15_000, Device::Cpu)] {
        let mut values = vec![2.0; 30_000];
        values[at] = f64::NAN;
        let [a, b] = [&values, &vec![1.0; 30_000]]
            .map(|values| Buffer::from_slice(&device, values).expect("memory"));
        let mut output = Buffer::zeroed(&device, 1).expect("memory");
        let shape = FusionShape { batch: 1, inner: 30_000, outer: 1 };
        let mut chain = Fused::<ProductMin>::new(&device, shape).expect("a kernel");
        chain.run(ProductMinInputs { a: &a, b: &b }, &mut output).expect("a run");
        assert!(output.to_vec().expect("a result")[0].is_nan(), "{at}");
    }
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
    // Beyond the work from which on products may be those of tensor cores: of a row they are not, of three they are.
    check_declared(&shuffled(3), [1, 1 << 20, 3], 5);
    check_declared(&shuffled(3), [3, 1001, 999], 5);
    check_refusals(&shuffled(1));
    check_savings();
}

/// A product of matrices is `linear`'s kernel; a stage after it that is none of its epilogue's has a kernel of its own,
/// and no fused form.
#[test]
fn epilogues_of_products() {
    let shape = FusionShape { batch: 5, inner: 7, outer: 3 };
    check_chain::<MatmulSquash>(&Device::Cpu, shape, F32, 1);
    let kernels = MatmulSquash::stages();
    assert!(MatmulSquash::fused().is_none() && kernels[0].is_none() && kernels[1].is_some());
    let why = Fused::<MatmulSquash>::new(&Device::simt(), shape).err().expect("no kernel");
    assert!(why.to_string().contains("stage `matmul`"), "{why}");
    assert_eq!(MatmulSquash::DECLARATION.epilogue(), None);

    let by_stages = |device: &Device| {
        let of = |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 7) as f32 - 3.0).collect() };
        let operands = [of(35), of(21), of(3), of(5)]
            .map(|values| Buffer::from_slice(device, &values).expect("memory"));
        let inputs = MatmulSquash::inputs(&operands).expect("four operands");
        let mut output = Buffer::zeroed(device, 15).expect("memory");
        let mut chain = Unfused::<MatmulSquash>::new(device, shape).expect("kernels");
        chain.run(inputs, &mut output).expect("a run");
        output.to_vec().expect("a result")
    };
    let (got, expected) = (by_stages(&shuffled(2)), by_stages(&Device::Cpu));
    let near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 1e-5 * expected.abs();
    assert!(got.iter().zip(&expected).all(near), "{got:?}, {expected:?}");
}

/// The declared product is one launch of `linear`, with its epilogue, and stays close to its stages on tensor cores too.
#[test]
fn a_product_on_tensor_cores() {
    for device in [shuffled(4), Device::Cpu] {
        check_large_product(&device, 11);
    }
    let declared = MatmulBiasActivation::DECLARATION;
    assert_eq!(declared.epilogue(), Some((Some(2), Activation::GeluErf)));
    let entries: Vec<_> = declared.stages.iter().map(|stage| stage.entry).collect();
    let stages = [
        None,
        Some("fusion_matmul_bias_activation_bias_f32"),
        Some("fusion_matmul_bias_activation_activation_f32"),
    ];
    assert_eq!((declared.entry, entries.as_slice()), (None, &stages[..]));
}
