//! Chains of stages: fused against their reference and against the stages one by one.

use kasmina::fusion::{Chain, Fused, Unfused};
use kasmina::linear::{Chosen, Precision};
use kasmina::types::fusion::chains::{
    ErrorAccuracySum, ErrorGemvUpdate, KlSum, MatmulBiasActivation,
};
use kasmina::types::fusion::{Extent, FUSIONS, FusionShape, StageKind};
use kasmina::{Buffer, Device};
use num_traits::AsPrimitive;

use crate::Numbers;

/// How far fused and unfused may be apart.
const FUSED: f64 = 1e-4;

/// A chain on random operands: two runs' bits, the reference to `tolerance` of the largest result or
/// of 1, and the stages' kernels. How the product of matrices was computed, if there is one.
#[track_caller]
pub fn check_chain<F: Chain>(
    device: &Device,
    shape: FusionShape,
    tolerance: f64,
    seed: u64,
) -> Option<Chosen> {
    let declared = F::DECLARATION;
    let mut numbers = Numbers::new(seed);
    // Positive, for precisions and variances are among them; of a product of both signs.
    let product = declared.contracts() == Some(StageKind::Matmul);
    let (low, high) = if product { (-1.0, 1.0) } else { (0.25, 1.25) };
    let operands: Vec<Vec<F::Element>> = declared
        .operands
        .iter()
        .map(|operand| {
            let value = |_| num_traits::FromPrimitive::from_f32(numbers.in_range(low, high));
            (0..shape.elements(operand.extent)).map(value).map(|v| v.expect("a float")).collect()
        })
        .collect();
    let buffers: Vec<Buffer<F::Element>> =
        operands.iter().map(|values| Buffer::from_slice(device, values).expect("memory")).collect();
    let inputs = || F::inputs(&buffers).expect("an operand for each name");
    let what = format!("{} {shape:?}", declared.name);
    let mut fused = Fused::<F>::new(device, shape).unwrap_or_else(|why| panic!("{what}: {why}"));
    let mut unfused = Unfused::<F>::new(device, shape).expect("the same shape");
    let mut run = |in_one: bool| -> Vec<f64> {
        let mut output =
            Buffer::<F::Element>::zeroed(device, shape.elements(Extent::Outer)).expect("memory");
        output.fill_bytes(0xff).expect("memory");
        let done = if in_one {
            fused.run(inputs(), &mut output)
        } else {
            unfused.run(inputs(), &mut output)
        };
        done.unwrap_or_else(|why| panic!("{what}: {why}"));
        output.to_vec().expect("a result").iter().map(|v| v.as_()).collect()
    };
    let got = run(true);
    assert_eq!(got, run(true), "{what}: two runs, two results");
    let by_stages = run(false);
    let wide: Vec<Vec<f64>> =
        operands.iter().map(|values| values.iter().map(|v| v.as_()).collect()).collect();
    let reference = F::reference(&shape, &wide);
    // Terms are of the order of 1, and cancel where a result is smaller.
    let scale = reference.iter().fold(1.0_f64, |scale, value| scale.max(value.abs()));
    let chosen = fused.chosen();
    // Where the rule lets tensor cores compute a product it is as exact as they are.
    let on_tensor_cores = chosen.filter(|chosen| chosen.precision == Precision::Tf32);
    let tolerance =
        on_tensor_cores.map_or(tolerance, |_| tolerance.max(Precision::Tf32.error_bound()));
    crate::assert_near(&what, &got, &reference, scale, tolerance);
    crate::assert_near(&what, &by_stages, &reference, scale, tolerance);
    crate::assert_near(&format!("{what} by stages"), &got, &by_stages, scale, FUSED);

    let mut output = Buffer::<F::Element>::zeroed(device, got.len() + 1).expect("memory");
    let why = fused.run(inputs(), &mut output).expect_err("the output is too long").to_string();
    assert!(why.contains("output") && why.contains(declared.name), "{why}");
    chosen
}

/// Every declared chain. Results are rounded to f64 once; sums of logarithms lose what additions of `inner` terms do.
#[track_caller]
pub fn check_declared(device: &Device, [batch, inner, outer]: [usize; 3], seed: u64) {
    let tolerance = 1e-12;
    let sums = FusionShape { batch, inner, outer: 1 };
    check_chain::<KlSum>(device, sums, tolerance, seed);
    check_chain::<ErrorAccuracySum>(device, sums, tolerance, seed);
    check_chain::<ErrorGemvUpdate>(device, FusionShape { batch, inner, outer }, tolerance, seed);
    let layer = FusionShape { batch, inner, outer };
    let chosen = check_chain::<MatmulBiasActivation>(device, layer, 1e-5, seed);
    if let Some(chosen) = chosen.filter(|_| batch == 1 || outer == 1) {
        assert_ne!(chosen.precision, Precision::Tf32, "{layer:?}: {chosen:?}");
    }
    assert_eq!(FUSIONS.len(), 4, "a chain that this does not check");
}

/// A product that is large enough for tensor cores, where they are, with its epilogue and by stages.
#[track_caller]
pub fn check_large_product(device: &Device, seed: u64) {
    let shape = FusionShape { batch: 130, inner: 136, outer: 120 };
    let tolerance = Precision::Tf32.error_bound();
    let chosen = check_chain::<MatmulBiasActivation>(device, shape, tolerance, seed);
    if let Some(chosen) = chosen {
        assert_eq!(chosen.precision, Precision::Tf32, "{chosen:?}");
    }
}

/// Shapes that a chain does not have.
pub fn check_refusals(device: &Device) {
    let shape = FusionShape { batch: 1, inner: 5, outer: 2 };
    let why = Fused::<KlSum>::new(device, shape).err().expect("a sum has one result").to_string();
    assert!(why.contains("`outer` is 2, expected 1"), "{why}");
    let shape = FusionShape { batch: 1, inner: 1 << 32, outer: 1 };
    Unfused::<KlSum>::new(device, shape).err().expect("too many values");
}

/// What declarations say is saved.
pub fn check_savings() {
    let shape = FusionShape { batch: 3, inner: 10, outer: 7 };
    let saved: Vec<_> = FUSIONS
        .iter()
        .map(|chain| (chain.launches_saved(), chain.bytes_saved(&shape), chain.contracts()))
        .collect();
    let sum = Some(StageKind::Sum);
    let expected = [
        (1, 16 * 30, sum),
        (2, 2 * 16 * 30, sum),
        (2, 16 * 30 + 16 * 21, Some(StageKind::GemvTransposed)),
        (2, 2 * 8 * 21, Some(StageKind::Matmul)),
    ];
    assert_eq!(saved, expected);
}
