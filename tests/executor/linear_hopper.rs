//! Each instance of `linear` on warpgroups, launched as it is, alone and in clusters, against f64.

use half::{bf16, f16};
use kasmina::linear::{Activation, LinearElement, Precision};
use kasmina::types::dtype::Element;
use kasmina::types::linear::{SCALE_BLOCK_K, SCALE_BLOCK_N};
use kasmina::types::tensor_map::swizzle;
use kasmina::types::tiles::LINEAR_WGMMA_K_BYTES;
use kasmina::types::{
    DType, E4m3, In, Layout, LinearOutput, LinearParams, LinearProblem, LinearStrides,
    LinearWgmmaParams, Out, Scaling, SimtTensorMap, TensorMapHandle,
};
use kasmina::{Buffer, Device, Executor};
use kasmina_kernels::instances::{self, LinearWgmmaInstance, WgmmaKind};
use kasmina_reference::normalization::Activation as Reference;
use kasmina_tests::Numbers;
use kasmina_tests::linear::forward::{Case, check};

use super::shuffled;

/// What is fused to a product, and how it is cut.
#[derive(Debug, Clone, Copy)]
struct Fused {
    activation: Activation,
    bias: bool,
    c: bool,
    residual: bool,
    z: bool,
    scaling: Scaling,
    batch: usize,
    parts: u32,
    /// Blocks of a cluster: two that load for each other, or, of an instance that is not `Whole`, some that share k.
    cluster: u32,
    /// Whether D's rows can leave by bulk stores.
    aligned: bool,
}

const PLAIN: Fused = Fused {
    activation: Activation::None,
    bias: false,
    c: false,
    residual: false,
    z: false,
    scaling: Scaling::None,
    batch: 1,
    parts: 1,
    cluster: 1,
    aligned: true,
};

/// A batch of matrices, rows of a multiple of 16 bytes where they are aligned.
struct Matrices<T: Element> {
    buffer: Buffer<T>,
    values: Vec<T>,
    rows: usize,
    columns: usize,
    ld: usize,
}

impl<T: LinearElement> Matrices<T> {
    fn new(
        batch: usize,
        (rows, columns): (usize, usize),
        aligned: bool,
        fill: impl FnMut() -> T,
    ) -> Self {
        let unit = 16 / size_of::<T>();
        let ld = if aligned { columns.next_multiple_of(unit) + unit } else { columns + 1 };
        let values: Vec<T> = std::iter::repeat_with(fill).take(batch * rows * ld).collect();
        let buffer = Buffer::from_slice(&Device::Cpu, &values).expect("memory");
        Self { buffer, values, rows, columns, ld }
    }

    fn stride(&self) -> u64 {
        (self.rows * self.ld) as u64
    }

    fn at(&self, number: usize, row: usize, column: usize) -> f64 {
        self.values[(number * self.rows + row) * self.ld + column].to_f64()
    }

    fn view(&self) -> In<u8> {
        In::new(self.buffer.device_address() as *const T, self.values.len()).cast()
    }

    fn map(&self, batch: usize, [columns, rows]: [u32; 2]) -> SimtTensorMap {
        let size = size_of::<T>() as u64;
        SimtTensorMap {
            magic: SimtTensorMap::MAGIC,
            address: self.buffer.device_address(),
            dimensions: [self.columns as u64, self.rows as u64, batch as u64, 1, 1],
            strides_bytes: [self.ld as u64 * size, self.stride() * size, 0, 0],
            box_dimensions: [columns as u16, rows as u16, 1, 1, 1],
            element_strides: [1; 5],
            element_bytes: size as u8,
            rank: 3,
            swizzle: swizzle::BYTES_128,
            _padding: [0; 22],
        }
    }
}

fn run<T: LinearElement, O: LinearElement>(
    instance: &LinearWgmmaInstance,
    (m, n, k): (usize, usize, usize),
    fused: Fused,
    bound: f64,
) {
    let what = format!("{} {m}×{n}×{k} {fused:?}", instance.kernel.name());
    let numbers = &mut Numbers::new((m * n + k) as u64);
    let mut draw = |scale: f64| f64::from(numbers.in_range(-1.0, 1.0)) * scale;
    let Fused { batch, aligned, cluster, .. } = fused;
    let layout = instance.layout;
    let (transposed_a, transposed_b) = (layout.transposed_a(), layout.transposed_b());
    let shape_a = if transposed_a { (k, m) } else { (m, k) };
    let shape_b = if transposed_b { (n, k) } else { (k, n) };
    let a = Matrices::<T>::new(batch, shape_a, true, || T::nearest(draw(1.0)));
    let b = Matrices::<T>::new(batch, shape_b, true, || T::nearest(draw(1.0)));
    let bias = Matrices::<O>::new(1, (1, n), true, || O::nearest(draw(1.0)));
    let c = Matrices::<O>::new(batch, (m, n), aligned, || O::nearest(draw(1.0)));
    let residual = Matrices::<O>::new(batch, (m, n), aligned, || O::nearest(draw(1.0)));
    let mut d = Matrices::<O>::new(batch, (m, n), aligned, || O::nearest(f64::NAN));
    let mut z = Matrices::<O>::new(batch, (m, n), aligned, || O::nearest(f64::NAN));
    let along = k.div_ceil(SCALE_BLOCK_K);
    let rows_of_scales = [m, n.div_ceil(SCALE_BLOCK_N)];
    let scales = rows_of_scales.map(|rows| -> Vec<f32> {
        match fused.scaling {
            Scaling::None => Vec::new(),
            Scaling::Tensor => vec![1.5 - draw(1.0) as f32],
            Scaling::Block => (0..batch * rows * along).map(|_| 1.5 - draw(1.0) as f32).collect(),
        }
    });
    // Of a row of A or a column of B, at an element along k.
    let scale_of = |operand: usize, number: usize, row: usize, x: usize| -> f64 {
        let at = match fused.scaling {
            Scaling::None => return 1.0,
            Scaling::Tensor => 0,
            Scaling::Block => (number * rows_of_scales[operand] + row) * along + x / SCALE_BLOCK_K,
        };
        f64::from(scales[operand][at])
    };

    let swapped = instance.kind == WgmmaKind::Swapped;
    let span = LINEAR_WGMMA_K_BYTES / size_of::<T>() as u32;
    let edge = |along_k: bool, edge: u32| if along_k { [span, edge] } else { [64, 64] };
    let (edge_a, edge_b) =
        if swapped { (instance.columns, instance.rows) } else { (instance.rows, instance.columns) };
    let whole = instance.kind.takes_whole_tiles();
    let (loaders, sharers) = if whole { (cluster, 1) } else { (1, cluster) };
    let map_a = a.map(batch, edge(!transposed_a, edge_a));
    let map_b = b.map(batch, edge(transposed_b, edge_b / loaders));
    let map_d = d.map(batch, [LINEAR_WGMMA_K_BYTES / size_of::<O>() as u32, 64]);
    let handle = |map: &SimtTensorMap| TensorMapHandle::new(std::ptr::from_ref(map).cast());
    let (first, second) = if swapped { (&map_b, &map_a) } else { (&map_a, &map_b) };
    let (along_rows, along_columns) = if swapped { (n, m) } else { (m, n) };
    let tile_rows = along_rows.div_ceil((instance.rows * loaders) as usize);
    let tile_columns = along_columns.div_ceil(instance.columns as usize);
    let tiles = tile_rows * tile_columns * batch;
    let bulk = aligned && !fused.c && !fused.residual && !fused.z && !swapped && sharers == 1;

    let tile = instance.rows as usize * instance.columns as usize * 4;
    let split = fused.parts > 1;
    let mut partials =
        Buffer::<u8>::zeroed(&Device::Cpu, tiles * tile * fused.parts as usize).expect("memory");
    let mut arrivals = Buffer::<u32>::zeroed(&Device::Cpu, tiles).expect("memory");
    let none = || In::<u8>::new(std::ptr::null(), 0);
    let out = |buffer: &mut Buffer<O>| {
        let values = buffer.as_host_slice_mut().expect("the host's");
        Out::new(values.as_mut_ptr(), values.len()).cast::<u8>()
    };
    let scale = |i: usize| In::new(scales[i].as_ptr(), scales[i].len());
    let (alpha, beta) = (0.75, if fused.c { -0.5 } else { 0.0 });
    let linear = LinearParams {
        a: a.view(),
        b: b.view(),
        c: if fused.c { c.view() } else { none() },
        bias: if fused.bias { bias.view() } else { none() },
        residual: if fused.residual { residual.view() } else { none() },
        d: out(&mut d.buffer),
        z: if fused.z { out(&mut z.buffer) } else { Out::new(std::ptr::null_mut(), 0) },
        a_scale: scale(0),
        b_scale: scale(1),
        problems: In::new(std::ptr::null(), 0),
        partials: {
            let values = partials.as_host_slice_mut().expect("the host's");
            Out::new(values.as_mut_ptr(), if split { values.len() } else { 0 })
        },
        arrivals: {
            let values = arrivals.as_host_slice_mut().expect("the host's");
            Out::new(values.as_mut_ptr(), if split { values.len() } else { 0 })
        },
        problem: LinearProblem {
            m: m as u32,
            n: n as u32,
            k: k as u32,
            lda: a.ld as u32,
            ldb: b.ld as u32,
            ldc: if fused.c { c.ld as u32 } else { 0 },
            ldr: if fused.residual { residual.ld as u32 } else { 0 },
            ldd: d.ld as u32,
            ldz: if fused.z { z.ld as u32 } else { 0 },
            ..LinearProblem::default()
        },
        strides: LinearStrides {
            a: a.stride(),
            b: b.stride(),
            c: if fused.c { c.stride() } else { 0 },
            bias: 0,
            residual: if fused.residual { residual.stride() } else { 0 },
            d: d.stride(),
            z: if fused.z { z.stride() } else { 0 },
            _padding: 0,
        },
        alpha,
        beta,
        batch: batch as u32,
        tiles: tiles as u32,
        parts: fused.parts,
        layout: layout as u32,
        activation: fused.activation as u32,
        output: LinearOutput::of(O::DTYPE).expect("an output type") as u32,
        scaling: fused.scaling as u32,
        _padding: 0,
    };
    let params = LinearWgmmaParams {
        linear,
        first: handle(first),
        second: handle(second),
        d: if bulk { handle(&map_d) } else { TensorMapHandle::none() },
        bulk: bulk.into(),
        tile_rows: tile_rows as u32,
        tile_columns: tile_columns as u32,
        tiles_of_one: (tile_rows * tile_columns) as u32,
        k_tiles: k.div_ceil(span as usize) as u32,
        _padding: 0,
    };
    let works = tiles as u32 * fused.parts;
    // Fewer blocks than works where they are persistent, so that some take several.
    let persistent = !swapped && sharers == 1;
    let grid = cluster * if persistent { works.div_ceil(2) } else { works };
    let clusters = (cluster > 1).then_some([cluster, 1, 1]);
    let executor = Executor::new().checks(true).shuffled((m + n + k) as u64);
    let shared = instance.dynamic_shared_bytes;
    // SAFETY: views and maps are of memory that lives until the call returns.
    unsafe { instance.kernel.run_clusters(&executor, grid, clusters, shared, params) }
        .unwrap_or_else(|report| panic!("{what}: {report}"));

    let reference = Reference::ALL[fused.activation as usize];
    for (matrices, is_z) in [(&mut d, false), (&mut z, true)] {
        matrices.values = matrices.buffer.to_vec().expect("a result");
        let (mut error, mut size) = (0.0, 0.0);
        for index in 0..batch * m * n {
            let (number, row, column) = (index / (m * n), index / n % m, index % n);
            let got = matrices.at(number, row, column);
            if is_z && !fused.z {
                assert!(got.is_nan(), "{what}: Z was not asked for");
                continue;
            }
            let term = |x: usize| {
                let a = if transposed_a { a.at(number, x, row) } else { a.at(number, row, x) };
                let b =
                    if transposed_b { b.at(number, column, x) } else { b.at(number, x, column) };
                let of_column = scale_of(1, number, column / SCALE_BLOCK_N, x);
                a * b * scale_of(0, number, row, x) * of_column
            };
            let mut expected = alpha * (0..k).map(term).sum::<f64>();
            if fused.bias {
                expected += bias.at(0, 0, column);
            }
            if fused.c {
                expected += beta * c.at(number, row, column);
            }
            size += expected * expected;
            if !is_z {
                expected = reference.value(expected);
                if fused.residual {
                    expected += residual.at(number, row, column);
                }
            }
            error += (got - expected) * (got - expected);
        }
        // NaN compares as an error.
        let relative = if size == 0.0 { 0.0 } else { (error / size).sqrt() };
        assert!(relative <= bound, "{what}: {relative}");
        for number in 0..batch {
            for row in 0..m {
                for column in n..matrices.ld {
                    assert!(matrices.at(number, row, column).is_nan(), "{what}: between rows");
                }
            }
        }
    }
    assert!(arrivals.to_vec().expect("counts").iter().all(|&count| count == 0), "{what}: arrivals");
}

/// Every instance of a type, whole tiles and ragged ones, and everything that is fused.
fn every_instance<T: LinearElement, O: LinearElement>(bound: f64) {
    let of = |layout| instances::linear_wgmma(T::DTYPE, layout);
    for instance in Layout::ALL.into_iter().flat_map(of) {
        let swapped = instance.kind == WgmmaKind::Swapped;
        let (rows, columns) = (instance.rows as usize, instance.columns as usize);
        let (m, n) = if swapped { (columns, rows) } else { (rows, columns) };
        let bias = Fused { bias: true, ..PLAIN };
        let gelu = Activation::GeluErf;
        let all = Fused {
            activation: Activation::Silu,
            bias: true,
            c: true,
            residual: true,
            z: true,
            ..PLAIN
        };
        run::<T, O>(&instance, (m + 5, n - 3, 70), Fused { activation: gelu, ..bias }, bound);
        run::<T, O>(&instance, (m, n, 129), Fused { batch: 2, ..bias }, bound);
        // Several tiles a block: its boxes of results take turns; by the code for any activation.
        let sigmoid = Activation::Sigmoid;
        let many = Fused { batch: 5, activation: sigmoid, ..bias };
        run::<T, O>(&instance, (m, n, 40), many, bound);
        run::<T, O>(&instance, (m - 1, n + 9, 33), Fused { aligned: false, ..all }, bound);
        run::<T, O>(&instance, (m - 2, n - 5, 40), Fused { batch: 2, ..all }, bound);
        if instance.kind.takes_whole_tiles() {
            let parts = Fused { parts: 3, activation: Activation::Relu, ..bias };
            run::<T, O>(&instance, (m - 7, n - 11, 1000), parts, bound);
            run::<T, O>(
                &instance,
                (20, 30, 500),
                Fused { parts: 2, aligned: false, ..bias },
                bound,
            );
        }
    }
}

/// Every instance of a type in clusters: pairs that load the second operand for each other, whole and ragged, more of them
/// than clusters; and 2, 4 and 8 blocks that share a tile's k, with no more of it than that and with more.
fn every_cluster<T: LinearElement, O: LinearElement>(bound: f64) {
    let of = |layout| instances::linear_wgmma(T::DTYPE, layout);
    let of_k = LINEAR_WGMMA_K_BYTES as usize / size_of::<T>();
    for instance in Layout::ALL.into_iter().flat_map(of) {
        let (rows, columns) = (instance.rows as usize, instance.columns as usize);
        let bias = Fused { bias: true, activation: Activation::Relu, ..PLAIN };
        let all = Fused { c: true, residual: true, z: true, aligned: false, ..bias };
        if instance.kind.takes_whole_tiles() {
            let (bias, all) = (Fused { cluster: 2, ..bias }, Fused { cluster: 2, ..all });
            run::<T, O>(&instance, (3 * rows + 5, columns, 3 * of_k - 7), bias, bound);
            run::<T, O>(&instance, (rows - 3, columns + 9, of_k), Fused { batch: 2, ..all }, bound);
            continue;
        }
        let swapped = instance.kind == WgmmaKind::Swapped;
        let (m, n) = if swapped { (columns, rows) } else { (rows, columns) };
        for (cluster, k) in [(2, 7 * of_k - 3), (4, 4 * of_k), (8, 11 * of_k + 1)] {
            run::<T, O>(&instance, (m - 1, n + 4, k), Fused { cluster, ..bias }, bound);
            run::<T, O>(&instance, (m, n - 5, k), Fused { cluster, batch: 2, ..all }, bound);
        }
    }
}

// Bounds are of what the results' rounding, half a unit of 8, 11 or 24 bits, and that of tf32's operands leave, with room
// for activations of 2e-5, or 2⁻¹¹ of the GELU of 16 bits.

#[test]
fn bf16_operands() {
    every_instance::<bf16, bf16>(4e-3);
}

#[test]
fn f16_operands() {
    every_instance::<f16, f16>(6e-4);
}

#[test]
fn bf16_operands_of_f32_results() {
    every_instance::<bf16, f32>(4e-5);
}

#[test]
fn tf32_operands() {
    every_instance::<f32, f32>(1e-3);
}

#[test]
fn fp8_operands() {
    every_instance::<E4m3, f32>(4e-5);
    for instance in instances::linear_wgmma(DType::E4m3, Layout::NT) {
        let scaled = Fused { scaling: Scaling::Tensor, bias: true, ..PLAIN };
        run::<E4m3, bf16>(&instance, (70, 40, 160), scaled, 4e-3);
        run::<E4m3, f32>(&instance, (70, 40, 160), Fused { aligned: false, ..scaled }, 4e-5);
    }
}

#[test]
fn clusters_of_bf16_operands() {
    every_cluster::<bf16, bf16>(4e-3);
}

#[test]
fn clusters_of_f16_operands() {
    every_cluster::<f16, f32>(4e-5);
}

#[test]
fn clusters_of_tf32_operands() {
    every_cluster::<f32, f32>(1e-3);
}

#[test]
fn clusters_of_fp8_operands() {
    every_cluster::<E4m3, f32>(4e-5);
}

/// Scales for blocks: whole tiles and ragged ones, of one tile of k and of several, odd and even numbers of them, batches,
/// parts, and everything that is fused.
#[test]
fn fp8_scales_of_blocks() {
    let all = Fused {
        activation: Activation::Silu,
        scaling: Scaling::Block,
        bias: true,
        c: true,
        residual: true,
        z: true,
        ..PLAIN
    };
    let blocks = Fused { scaling: Scaling::Block, bias: true, ..PLAIN };
    let scaled = instances::linear_wgmma(DType::E4m3, Layout::NT)
        .filter(|instance| instance.kind == WgmmaKind::Scaled);
    for instance in scaled {
        let rows = instance.rows as usize;
        run::<E4m3, f32>(&instance, (rows, 128, 128), blocks, 4e-5);
        run::<E4m3, f32>(&instance, (rows + 3, 259, 256), blocks, 4e-5);
        run::<E4m3, f32>(&instance, (rows - 1, 127, 300), Fused { batch: 2, ..blocks }, 4e-5);
        run::<E4m3, bf16>(&instance, (1, 130, 1040), blocks, 4e-3);
        run::<E4m3, f32>(&instance, (2 * rows + 9, 7, 500), Fused { batch: 3, ..all }, 4e-5);
        run::<E4m3, f16>(&instance, (33, 140, 17), Fused { aligned: false, ..all }, 6e-4);
        run::<E4m3, f32>(&instance, (rows + 1, 150, 1000), Fused { parts: 3, ..blocks }, 4e-5);
        run::<E4m3, f32>(&instance, (20, 30, 700), Fused { parts: 2, batch: 2, ..all }, 4e-5);
    }
}

/// All activations, by bulk stores and by vectors.
#[test]
fn activations() {
    let instance = instances::linear_wgmma(DType::Bf16, Layout::NT)
        .find(|instance| instance.kind == WgmmaKind::Shared)
        .expect("an instance");
    for activation in Activation::ALL {
        for aligned in [true, false] {
            let fused = Fused { activation, bias: true, aligned, ..PLAIN };
            run::<bf16, bf16>(&instance, (60, 50, 64), fused, 4e-3);
            run::<bf16, f32>(&instance, (60, 50, 64), fused, 4e-5);
        }
    }
}

/// The operation takes these instances where operands are aligned, and moves operands where it pays.
#[test]
fn the_operation_moves_what_is_not_aligned() {
    let device = shuffled(5);
    for layout in Layout::ALL {
        for gaps in [false, true] {
            let of = |precision| Case { gaps, ..Case::new(layout, 257, 263, 251, precision) };
            let chosen = check::<bf16, bf16>(&device, &of(Precision::Bf16));
            assert!(chosen.kernel.starts_with("linear_wgmma_bf16_nt"), "{chosen:?}");
            let chosen = check::<f32, f32>(&device, &of(Precision::Tf32));
            assert!(chosen.kernel.starts_with("linear_wgmma_f32_nt"), "{chosen:?}");
        }
        let aligned = Case { batch: 2, ..Case::new(layout, 128, 64, 80, Precision::F16) };
        let chosen = check::<f16, f16>(&device, &aligned);
        assert!(chosen.kernel.starts_with("linear_wgmma_f16"), "{chosen:?}");
        assert!(chosen.kernel.contains(layout.name()), "{chosen:?}");
    }
}

/// It takes the clusters that it takes on a GPU: few rows share k, and so do few columns.
#[test]
fn the_operation_takes_clusters() {
    for (seed, (m, n, expected)) in
        [(8, 64, "m8n64_swapped"), (60, 72, "m64n64")].into_iter().enumerate()
    {
        let case = Case { seed: 7, ..Case::new(Layout::NT, m, n, 1024, Precision::Bf16) };
        let chosen = check::<bf16, f32>(&shuffled(seed as u64), &case);
        assert!(chosen.kernel.contains(expected) && chosen.parts > 1, "{chosen:?}");
    }
    // Pairs, by more tiles than blocks.
    let case = Case { seed: 7, ..Case::new(Layout::NN, 256, 768, 1024, Precision::Bf16) };
    let chosen = check::<bf16, bf16>(&shuffled(2), &case);
    assert!(chosen.kernel.ends_with("m128n256") && chosen.parts == 1, "{chosen:?}");
}
