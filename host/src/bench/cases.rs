//! The cases that are timed.

use kasmina_types::tiles::TILES;
use kasmina_types::{Activation, DType, Norm, ReduceOp, ReductionStrategy};

use super::backward::{self, CONVOLUTIONS, Passes};
use super::copy_rate::DeviceCopy;
use super::layer::{self, State};
use super::record::case_name;
use super::reduction::{self, Cut};
use super::timer::{self, Lane};
use super::transfer_entropy::{self, Of};
use super::{BenchError, COPY, Prepared};
use super::{
    active_inference, fusion, gemv, linear, linear_grouped, normalization, seeds, telemetry,
};
use crate::device::{Device, Gpu};
use crate::kasmina::Variant;
use crate::linear::GemvShape;

/// An operation on a shape.
#[derive(Debug, Clone)]
pub struct Case {
    pub(super) kernel: String,
    pub(super) variant: &'static str,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// Of the inputs and outputs, each counted once.
    pub(super) bytes: u64,
    work: Work,
}

#[derive(Debug, Clone)]
enum Work {
    Copy,
    Layer([usize; 3], State, Variant),
    Backward([usize; 3], State, Passes),
    Reduce(ReduceOp, Cut),
    Norm(normalization::Work),
    Linear(linear::Work),
    Grouped(linear_grouped::Work),
    Inference(active_inference::Work),
    Gemv(GemvShape),
    Fusion(fusion::Work),
    Seeds([usize; 2], seeds::Work),
    Telemetry([usize; 3], ReductionStrategy),
    TransferEntropy(transfer_entropy::Work),
}

impl Case {
    /// Kernel, element type, shape and what is special, such as `blend_forward f32 4096x1000x64 v1`.
    pub fn name(&self) -> String {
        case_name(&self.kernel, self.dtype.name(), &self.shape, self.variant)
    }

    /// Makes the buffers and checks one result; the copy needs none but its own, and answers `None`.
    pub(super) fn prepare(
        &self,
        device: &Device,
        copy: Option<&mut DeviceCopy>,
    ) -> Result<Option<Prepared>, BenchError> {
        match &self.work {
            Work::Copy => {
                if let Some(copy) = copy
                    && !copy.is_right()?
                {
                    let (what, error, tolerance) = ("the copy", f64::INFINITY, 0.0);
                    return Err(BenchError::WrongResult { what, error, tolerance });
                }
                Ok(None)
            }
            Work::Layer(shape, state, variant) => {
                layer::prepare(device, self.dtype, *shape, *state, *variant, self.bytes).map(Some)
            }
            Work::Backward(shape, state, passes) => {
                backward::prepare(device, self.dtype, *shape, *state, *passes, self.bytes).map(Some)
            }
            Work::Reduce(op, cut) => {
                reduction::prepare(device, *op, self.dtype, *cut, self.bytes).map(Some)
            }
            Work::Norm(work) => {
                normalization::prepare(device, self.dtype, *work, self.bytes).map(Some)
            }
            Work::Linear(work) => linear::prepare(device, *work, self.bytes).map(Some),
            Work::Grouped(work) => linear_grouped::prepare(device, *work, self.bytes).map(Some),
            Work::Inference(work) => {
                active_inference::prepare(device, self.dtype, *work, self.bytes).map(Some)
            }
            Work::Gemv(shape) => gemv::prepare(device, self.dtype, *shape, self.bytes).map(Some),
            Work::Fusion(work) => work.prepare(device).map(Some),
            Work::Seeds(shape, work) => seeds::prepare(device, *work, *shape).map(Some),
            Work::Telemetry(shape, strategy) => {
                telemetry::prepare(device, *shape, *strategy).map(Some)
            }
            Work::TransferEntropy(work) => transfer_entropy::prepare(device, *work).map(Some),
        }
    }

    /// What it takes at the least: to move its bytes at the memory's peak rate, or, where that may be the limit, to do
    /// its arithmetic on a GPU at its highest clock. None where what has to be done depends on the data.
    pub(super) fn floor_us(&self, device: &Device, peak_gb_per_s: Option<f64>) -> Option<f64> {
        let memory_us = peak_gb_per_s.map(|peak| self.bytes as f64 / peak * 1e-3);
        let Device::Cuda(gpu) = device else { return memory_us };
        let info = gpu.device().info();
        let cycles = match &self.work {
            Work::TransferEntropy(work) => Some(work.cycles()?),
            Work::Linear(work) => work.cycles(info.compute_capability),
            Work::Grouped(work) => work.cycles(info.compute_capability),
            _ => None,
        };
        let per_us = f64::from(info.sm_count) * f64::from(info.clock_khz) * 1e-3;
        let arithmetic_us = cycles.map(|cycles| cycles / per_us);
        [memory_us, arithmetic_us].into_iter().flatten().reduce(f64::max)
    }

    /// How it is timed with that many sets of buffers.
    pub(super) fn lanes(&self, device: &Device, sets: usize) -> Vec<Lane> {
        match self.work {
            Work::Seeds(_, work) => work.lanes(device),
            Work::TransferEntropy(work) => work.lanes(device),
            _ => timer::lanes(device, sets),
        }
    }

    fn layer(shape: [usize; 3], dtype: DType, state: State) -> Self {
        Self::layer_variant(shape, dtype, state, Variant::Plain)
    }

    fn layer_variant(shape: [usize; 3], dtype: DType, state: State, variant: Variant) -> Self {
        let elements: usize = shape.iter().product();
        let kernel = match variant {
            Variant::Tma => "blend_forward_tma",
            Variant::TmaBulkStores => "blend_forward_tma_bulk",
            _ => "blend_forward",
        };
        Self {
            kernel: kernel.into(),
            variant: state.name(),
            dtype,
            shape: shape.into(),
            bytes: 2 * (elements * dtype.size_bytes()) as u64,
            work: Work::Layer(shape, state, variant),
        }
    }

    fn backward(shape: [usize; 3], dtype: DType, state: State, passes: Passes) -> Self {
        let elements: usize = shape.iter().product();
        Self {
            kernel: passes.kernel().into(),
            variant: state.name(),
            dtype,
            shape: shape.into(),
            bytes: (passes.arrays() * elements * dtype.size_bytes()) as u64,
            work: Work::Backward(shape, state, passes),
        }
    }

    fn seeds(shape: [usize; 2], work: seeds::Work) -> Self {
        Self {
            kernel: work.kernel().into(),
            variant: work.variant(),
            dtype: DType::F32,
            shape: shape.into(),
            bytes: work.bytes(shape),
            work: Work::Seeds(shape, work),
        }
    }

    fn telemetry(shape: [usize; 3], strategy: ReductionStrategy) -> Self {
        Self {
            kernel: "telemetry_reduce".into(),
            variant: strategy.name(),
            dtype: DType::F32,
            shape: shape.into(),
            bytes: telemetry::bytes(shape),
            work: Work::Telemetry(shape, strategy),
        }
    }

    fn transfer_entropy(samples: usize, history: usize, of: Of) -> Self {
        let work = transfer_entropy::Work { samples, history, of };
        Self {
            kernel: "transfer_entropy".into(),
            variant: work.variant(),
            dtype: DType::F32,
            shape: work.shape(),
            bytes: work.bytes(),
            work: Work::TransferEntropy(work),
        }
    }

    fn norm(work: normalization::Work, dtype: DType) -> Self {
        Self {
            kernel: work.kernel().into(),
            variant: work.name(),
            dtype,
            shape: vec![work.rows, work.cols],
            bytes: work.bytes(dtype),
            work: Work::Norm(work),
        }
    }

    fn linear(work: linear::Work) -> Self {
        Self {
            kernel: "linear".into(),
            variant: work.variant(),
            dtype: work.dtype(),
            shape: vec![work.m, work.n, work.k],
            bytes: work.bytes(),
            work: Work::Linear(work),
        }
    }

    fn linear_grouped(work: linear_grouped::Work) -> Self {
        Self {
            kernel: "linear_grouped".into(),
            variant: work.variant(),
            dtype: work.dtype(),
            shape: work.shape(),
            bytes: work.bytes(),
            work: Work::Grouped(work),
        }
    }

    fn inference(work: active_inference::Work, dtype: DType) -> Self {
        Self {
            kernel: work.kernel().into(),
            variant: work.variant(),
            dtype,
            shape: work.shape(),
            bytes: work.bytes(dtype),
            work: Work::Inference(work),
        }
    }

    fn reduce(op: ReduceOp, dtype: DType, cut: Cut) -> Self {
        Self {
            kernel: format!("reduce_{op}"),
            variant: cut.name(),
            dtype,
            shape: cut.shape(),
            bytes: cut.bytes(op, dtype),
            work: Work::Reduce(op, cut),
        }
    }

    fn fusion(work: fusion::Work) -> Self {
        let (declared, shape) = (work.declaration(), work.shape);
        Self {
            kernel: format!("fusion_{}", declared.name),
            variant: work.variant(),
            dtype: declared.dtype,
            shape: vec![shape.batch, shape.inner, shape.outer],
            bytes: work.bytes(),
            work: Work::Fusion(work),
        }
    }

    fn gemv(shape: GemvShape, dtype: DType) -> Self {
        Self {
            kernel: "gemv".into(),
            variant: gemv::variant(shape),
            dtype,
            shape: gemv::dimensions(shape),
            bytes: gemv::bytes(shape, dtype),
            work: Work::Gemv(shape),
        }
    }
}

/// The cases for a device: on a GPU the sizes that reports speak of, elsewhere small ones.
pub(super) fn all(device: &Device, quick: bool) -> Vec<Case> {
    match device {
        Device::Cuda(gpu) => {
            let copied = gpu.device().info().total_memory_bytes;
            let mut cases = vec![copy(copied)];
            cases.extend(gpu_layers());
            cases.extend(gpu_variants(gpu));
            cases.extend(gpu_backward());
            cases.extend(gpu_reductions(quick));
            cases.extend(gpu_norms());
            cases.extend(linear::on_gpu().into_iter().map(Case::linear));
            cases.extend(linear_grouped::on_gpu().map(Case::linear_grouped));
            cases.extend(gpu_seeds());
            cases.extend(gpu_inferences());
            cases.extend(gpu_gemvs());
            cases.extend(fusions(1 << if quick { 20 } else { 24 }, 4096));
            cases.extend(gpu_transfer_entropies());
            cases
        }
        Device::Cpu => {
            let mut cases = small([256, 100, 64], 1 << if quick { 18 } else { 22 });
            if !quick {
                cases.push(Case::transfer_entropy(2000, 3, Of::Surrogates(200)));
            }
            cases
        }
        Device::Simt(_) => small([8, 10, 64], 1 << 13),
    }
}

fn copy(memory_bytes: usize) -> Case {
    let elements = DeviceCopy::elements(memory_bytes);
    let dtype = DType::F32;
    Case {
        kernel: COPY.into(),
        variant: "whole",
        dtype,
        shape: vec![elements],
        bytes: 2 * (elements * dtype.size_bytes()) as u64,
        work: Work::Copy,
    }
}

fn gpu_layers() -> Vec<Case> {
    use DType::{Bf16, F16, F32};
    use State::{Mixed, Third, V1};
    [
        ([32, 1000, 64], F32, V1),
        ([128, 1000, 64], F32, V1),
        ([4096, 1000, 64], F32, V1),
        ([4096, 16, 4096], F32, V1),
        ([8192, 64, 1024], F32, V1),
        ([4096, 1000, 64], F16, V1),
        ([4096, 1000, 64], Bf16, V1),
        ([4096, 1000, 63], F32, V1),
        ([4096, 1000, 64], F32, Mixed),
        ([32, 1000, 64], F32, Third),
        ([4096, 1000, 64], F32, Third),
        ([4096, 16, 4096], F32, Third),
        ([8192, 64, 1024], F32, Third),
    ]
    .map(|(shape, dtype, state)| Case::layer(shape, dtype, state))
    .into()
}

/// The variants that fetch through the copy engine, where the GPU has them.
fn gpu_variants(gpu: &Gpu) -> Vec<Case> {
    use DType::{Bf16, F16, F32};
    if !TILES.iter().any(|tile| tile.family == "blend_forward_tma" && gpu.supports(tile)) {
        return Vec::new();
    }
    let shapes = [[32, 1000, 64], [4096, 1000, 64], [4096, 16, 4096], [8192, 64, 1024]];
    let mut cases = Vec::new();
    for variant in [Variant::Tma, Variant::TmaBulkStores] {
        for shape in shapes {
            cases.push(Case::layer_variant(shape, F32, State::V1, variant));
        }
        for dtype in [F16, Bf16] {
            cases.push(Case::layer_variant([4096, 1000, 64], dtype, State::V1, variant));
        }
        cases.push(Case::layer_variant([4096, 1000, 64], F32, State::Mixed, variant));
    }
    let backward = |shape, dtype, state| Case::backward(shape, dtype, state, Passes::BackwardTma);
    cases.extend(shapes.map(|shape| backward(shape, F32, State::Third)));
    cases.extend(BACKWARD_SMALLER.map(|shape| backward(shape, F32, State::Third)));
    cases.extend([F16, Bf16].map(|dtype| backward([4096, 1000, 64], dtype, State::Third)));
    cases.push(backward([512, 1000, 64], Bf16, State::Third));
    cases.push(backward([4096, 1000, 64], F32, State::Mixed));
    cases.extend(CONVOLUTIONS.map(|shape| backward(shape, F32, State::Conv)));
    cases
}

/// Where one variant of the backward pass overtakes the other.
const BACKWARD_SMALLER: [[usize; 3]; 4] =
    [[128, 1000, 64], [256, 1000, 64], [512, 1000, 64], [256, 16, 4096]];

fn gpu_backward() -> Vec<Case> {
    use DType::{Bf16, F16, F32};
    use Passes::{Backward, Both};
    use State::{Mixed, Third};
    let shapes =
        [[32, 1000, 64], [128, 1000, 64], [4096, 1000, 64], [4096, 16, 4096], [8192, 64, 1024]];
    let mut cases = Vec::new();
    for passes in [Backward, Both] {
        cases.extend(shapes.map(|shape| Case::backward(shape, F32, Third, passes)));
    }
    for (shape, dtype, state) in [
        ([256, 1000, 64], F32, Third),
        ([512, 1000, 64], F32, Third),
        ([256, 16, 4096], F32, Third),
        ([512, 1000, 64], Bf16, Third),
        ([4096, 1000, 64], F16, Third),
        ([4096, 1000, 64], Bf16, Third),
        ([4096, 1000, 63], F32, Third),
        ([4096, 1000, 64], F32, Mixed),
    ] {
        cases.push(Case::backward(shape, dtype, state, Backward));
    }
    cases.extend(CONVOLUTIONS.map(|shape| Case::backward(shape, F32, State::Conv, Backward)));
    cases.push(Case::backward([32, 1000, 64], F32, Third, Passes::Layer));
    cases
}

fn gpu_reductions(quick: bool) -> Vec<Case> {
    use DType::{Bf16, F16, F32, F64, I32};
    use ReduceOp::{Max, Mean, Sum, Variance};
    let (large, medium) = if quick { (1 << 24, 1 << 24) } else { (1 << 28, 1 << 27) };
    let mut cases = Vec::new();
    cases.extend([Sum, Max, Mean, Variance].map(|op| Case::reduce(op, F32, Cut::Whole(large))));
    cases.extend([F16, Bf16, F64, I32].map(|dtype| Case::reduce(Sum, dtype, Cut::Whole(medium))));
    cases.push(Case::reduce(Sum, F32, Cut::Rows(65_536, 1024)));
    cases.push(Case::reduce(Sum, F32, Cut::Ragged(1 << 19)));
    cases
}

fn gpu_norms() -> Vec<Case> {
    use DType::{Bf16, F16, F32};
    let gelu_layer = (Activation::GeluErf, Norm::LayerNorm);
    let silu_rms = (Activation::Silu, Norm::RmsNorm);
    let layer = (Activation::None, Norm::LayerNorm);
    let cases = [
        (16_384, 1024, gelu_layer, F32),
        (16_384, 4096, gelu_layer, F32),
        (8192, 8192, gelu_layer, F32),
        (16_384, 4096, gelu_layer, Bf16),
        (16_384, 4096, gelu_layer, F16),
        (16_384, 4096, silu_rms, F32),
        (16_384, 4096, silu_rms, Bf16),
        (16_384, 4096, layer, F32),
        (4096, 16_384, layer, Bf16),
    ];
    norms(&cases)
}

/// Belief steps of square models, of a wide one and of many small ones; and whole inferences.
fn gpu_inferences() -> Vec<Case> {
    use DType::{F32, F64};
    let work = |models, observations, states, steps| active_inference::Work {
        models,
        observations,
        states,
        steps,
    };
    let mut cases = Vec::new();
    for dtype in [F64, F32] {
        for n in [64, 1024, 4096] {
            cases.push(Case::inference(work(1, n, n, None), dtype));
        }
    }
    cases.push(Case::inference(work(1, 4096, 16_384, None), F64));
    cases.push(Case::inference(work(1024, 64, 64, None), F64));
    for n in [64, 1024, 4096] {
        cases.push(Case::inference(work(1, n, n, Some(100)), F64));
    }
    cases
}

/// Each chain, fused and by stages.
fn fusions(values: usize, n: usize) -> impl Iterator<Item = Case> {
    fusion::Work::all(values, n).into_iter().map(Case::fusion)
}

/// Square matrices, high and wide ones, and batches, each with its transpose; all of f32, some of the other types.
fn gpu_gemvs() -> Vec<Case> {
    use DType::{Bf16, F32, F64};
    let both = |shape: &GemvShape, dtype| {
        [*shape, shape.transposed()].map(|shape| Case::gemv(shape, dtype))
    };
    let mut cases = Vec::new();
    for dtype in [F32, F64, Bf16] {
        cases.extend(gemv::EVERY_TYPE.iter().flat_map(|shape| both(shape, dtype)));
    }
    cases.extend(gemv::OF_F32.iter().flat_map(|shape| both(shape, F32)));
    cases
}

/// What happens beside the passes: of 1000 seeds, and of what they see.
fn gpu_seeds() -> Vec<Case> {
    let shapes = [[32, 1000, 64], [4096, 1000, 64]];
    let mut cases: Vec<Case> = seeds_of([1000, 64]).collect();
    cases.extend(shapes.into_iter().flat_map(telemetry_of));
    cases
}

/// Pairs by both methods, on both sides of where the choice changes; a pair with surrogates, a matrix.
fn gpu_transfer_entropies() -> Vec<Case> {
    [
        (20_000, 3, Of::Brute),
        (20_000, 3, Of::Pruned),
        (20_000, 1, Of::Brute),
        (20_000, 1, Of::Pruned),
        (60_000, 3, Of::Brute),
        (60_000, 3, Of::Pruned),
        (60_000, 1, Of::Brute),
        (60_000, 1, Of::Pruned),
        (4000, 3, Of::Brute),
        (8000, 3, Of::Brute),
        (8000, 3, Of::Pruned),
        (1000, 3, Of::Brute),
        (2000, 3, Of::Surrogates(200)),
        (2000, 1, Of::Matrix(64)),
        (2000, 3, Of::Matrix(64)),
    ]
    .map(|(samples, history, of)| Case::transfer_entropy(samples, history, of))
    .into()
}

fn seeds_of(shape: [usize; 2]) -> impl Iterator<Item = Case> {
    seeds::Work::ALL.into_iter().map(move |work| Case::seeds(shape, work))
}

fn telemetry_of(shape: [usize; 3]) -> impl Iterator<Item = Case> {
    ReductionStrategy::ALL.into_iter().map(move |strategy| Case::telemetry(shape, strategy))
}

/// The forward and the backward pass of each.
fn norms(cases: &[(usize, usize, (Activation, Norm), DType)]) -> Vec<Case> {
    let passes = |backward| {
        cases.iter().map(move |&(rows, cols, (activation, norm), dtype)| {
            Case::norm(normalization::Work { rows, cols, activation, norm, backward }, dtype)
        })
    };
    passes(false).chain(passes(true)).collect()
}

fn small(layer: [usize; 3], elements: usize) -> Vec<Case> {
    use DType::{Bf16, F16, F32, F64, I32};
    use ReduceOp::Sum;
    let mut cases = Vec::new();
    for dtype in [F32, F16, Bf16] {
        cases.push(Case::layer(layer, dtype, State::V1));
    }
    cases.extend([State::Mixed, State::Third].map(|state| Case::layer(layer, F32, state)));
    for dtype in [F32, F16, Bf16] {
        cases.push(Case::backward(layer, dtype, State::Third, Passes::Backward));
    }
    let backward = |state, passes| Case::backward(layer, F32, state, passes);
    cases.extend([State::Mixed, State::Conv].map(|state| backward(state, Passes::Backward)));
    cases.extend([Passes::Both, Passes::Layer].map(|passes| backward(State::Third, passes)));
    for op in ReduceOp::ALL {
        cases.push(Case::reduce(op, F32, Cut::Whole(elements)));
    }
    for dtype in [F16, Bf16, F64, I32] {
        cases.push(Case::reduce(Sum, dtype, Cut::Whole(elements)));
    }
    cases.push(Case::reduce(Sum, F32, Cut::Rows(elements / 1024, 1024)));
    cases.push(Case::reduce(Sum, F32, Cut::Ragged(elements / 128)));
    let gelu_layer = (Activation::GeluErf, Norm::LayerNorm);
    let rows = (elements / 256).min(1024);
    cases.extend(norms(&[F32, F16, Bf16].map(|dtype| (rows, 256, gelu_layer, dtype))));
    let edge = (elements / 32).isqrt().min(256);
    cases.extend(linear::small([edge, edge + 1, edge]).map(Case::linear));
    cases.push(Case::linear_grouped(linear_grouped::small(edge)));
    cases.extend(seeds_of([layer[1], layer[2]]));
    cases.extend(telemetry_of(layer));
    let n = (elements / 16).isqrt().min(512);
    let work = active_inference::Work { models: 1, observations: n, states: n, steps: None };
    cases.extend([F64, F32].map(|dtype| Case::inference(work, dtype)));
    let square = GemvShape::new(n, n);
    for dtype in [F32, F64, Bf16] {
        cases.extend([square, square.transposed()].map(|shape| Case::gemv(shape, dtype)));
    }
    cases.extend(fusions(elements / 4, n));
    let samples = (elements / 256).clamp(100, 2000);
    cases.push(Case::transfer_entropy(samples, 1, Of::Brute));
    cases.push(Case::transfer_entropy(samples, 3, Of::Surrogates(3)));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_kernel_type_shape_and_variant_and_are_each_once() {
        let mut cases = gpu_layers();
        cases.extend(gpu_backward());
        cases.extend(gpu_reductions(false));
        cases.extend(gpu_norms());
        cases.extend(linear::on_gpu().into_iter().map(Case::linear));
        cases.extend(linear_grouped::on_gpu().map(Case::linear_grouped));
        cases.extend(gpu_seeds());
        cases.extend(gpu_inferences());
        cases.extend(gpu_gemvs());
        cases.extend(fusions(1 << 24, 4096));
        cases.extend(gpu_transfer_entropies());
        let mut names: Vec<_> = cases.iter().map(Case::name).collect();
        assert!(names.contains(&"blend_forward f32 4096x1000x64 v1".into()), "{names:?}");
        assert!(names.contains(&"reduce_sum f32 268435456 whole".into()), "{names:?}");
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_layer_reads_and_writes_each_element_and_a_reduction_reads_it() {
        let layer = Case::layer([2, 3, 5], DType::F16, State::V1);
        assert_eq!(layer.bytes, 2 * 2 * 30);
        let bytes = |passes| Case::backward([2, 3, 5], DType::F32, State::Third, passes).bytes;
        assert_eq!((bytes(Passes::Backward), bytes(Passes::Both)), (3 * 4 * 30, 5 * 4 * 30));
        let whole = Case::reduce(ReduceOp::Sum, DType::I32, Cut::Whole(10));
        assert_eq!(whole.bytes, 4 * 10 + 8);
        let rows = Case::reduce(ReduceOp::Max, DType::F16, Cut::Rows(3, 10));
        assert_eq!(rows.bytes, 2 * 30 + 3 * 4);
    }
}
