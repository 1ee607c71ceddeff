//! Products of matrices on a GPU.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};
use kasmina::driver::Graph;
use kasmina::linear::{Layout, Linear, LinearOptions, LinearShape, Operands, Precision};
use kasmina::types::E4m3;
use kasmina::{Buffer, Device, Error, Gpu};
use kasmina_tests::Numbers;
use kasmina_tests::linear::{convert, forward, gemv, gradients, grouped, random};
use ndarray::Array2;

/// Every element type and precision of one shape.
fn every_type(device: &Device, case: &forward::Case) {
    let with = |precision| forward::Case { precision, ..*case };
    forward::check::<f32, f32>(device, &with(Precision::F32));
    forward::check::<f32, f32>(device, &with(Precision::Tf32));
    forward::check::<bf16, bf16>(device, &with(Precision::Bf16));
    forward::check::<f16, f16>(device, &with(Precision::F16));
    forward::check::<E4m3, bf16>(device, &with(Precision::Fp8));
    forward::check::<E4m3, bf16>(device, &with(Precision::Fp8Fast));
}

/// 200 shapes of 1 to 3000 rows, columns and terms, in every type, layout and epilogue. What goes on beside the GPU takes
/// longest, so that each processor has shapes and a stream of its own.
pub(super) fn random_shapes(device: &Device) {
    let (cases, coverage) = (random::cases(200, 3000, 5), random::Coverage::default());
    let next = AtomicUsize::new(0);
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let ordinal = gpu.device().info().ordinal;
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let device = Device::cuda(ordinal).expect("the GPU");
                let product = |a: &Array2<f64>, b: &Array2<f64>| random::product_on(&device, a, b);
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    case.check(&device, &product, &coverage);
                }
            });
        }
    });
    coverage.assert_complete();
}

/// Shapes at the edges of tiles, of one row or column, without k, and of much.
pub(super) fn edges(device: &Device) {
    for layout in Layout::ALL {
        for (m, n, k) in [
            (1, 1, 1),
            (1, 1, 0),
            (128, 128, 64),
            (129, 127, 65),
            (16, 512, 512),
            (1, 4096, 4096),
            (4096, 1, 4096),
            (8, 8, 20_000),
            (257, 65, 1000),
            // More tiles than blocks, and an odd number of rows of them: the last has no pair.
            (4223, 1100, 1024),
        ] {
            let case = forward::Case::new(layout, m, n, k, Precision::Auto);
            every_type(device, &case);
            if m * n * k < 1 << 24 {
                let case = forward::Case { precision: Precision::F64, ..case };
                forward::check::<f64, f64>(device, &case);
                forward::check::<f32, f32>(device, &case);
                forward::check_scales(device, &forward::Case { precision: Precision::Fp8, ..case });
            }
        }
    }
}

/// f32 in narrower precisions, in every layout, with rows of any distance, and batches.
pub(super) fn conversions(device: &Device) {
    for (seed, layout) in (0..).zip(Layout::ALL) {
        for (m, n, k, batch, gaps) in [
            (1, 1, 1, 1, false),
            (5, 7, 0, 1, false),
            (1000, 1303, 2051, 1, false),
            (2176, 2304, 2048, 1, false),
            (257, 65, 1000, 3, true),
            (1, 4096, 4096, 1, false),
            (16, 7168, 2048, 1, true),
        ] {
            let case = forward::Case::new(layout, m, n, k, Precision::Auto);
            convert::check_kernels(device, &forward::Case { batch, gaps, seed, ..case });
        }
    }
    convert::check_rounding(device);
    convert::check_special_values(device);
    convert::check_kept_memory(device);
    convert::check_groups(device);
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    if gpu.device().info().compute_capability.major == 9 {
        convert::check_rule(device);
    }
    for precision in convert::PRECISIONS {
        captured_conversion(gpu, device, precision);
    }
}

/// Memory is made outside of a graph; a replay converts what the operands then hold.
fn captured_conversion(gpu: &Gpu, device: &Device, precision: Precision) {
    let (m, n, k) = (70, 90, 130);
    let shape = LinearShape::new(Layout::TN, m, n, k);
    let linear = Linear::new(device, LinearOptions { precision, ..Default::default() });
    let linear = linear.expect("options");
    let mut numbers = Numbers::new(9);
    let mut draw =
        |len: usize| -> Vec<f32> { (0..len).map(|_| numbers.in_range(-1.0, 1.0)).collect() };
    let (first, second, b) = (draw(m * k), draw(m * k), draw(k * n));
    let mut a = Buffer::from_slice(device, &first).expect("memory");
    let b = Buffer::from_slice(device, &b).expect("memory");
    let mut d = Buffer::<f32>::zeroed(device, m * n).expect("memory");
    let captured = |a: &Buffer<f32>, d: &mut Buffer<f32>| {
        Graph::capture::<Error>(gpu.stream(), |_| {
            linear.forward(&shape, &Operands::new(a, &b), d, None).map(drop)
        })
    };
    assert!(matches!(captured(&a, &mut d), Err(Error::Capturing { .. })));
    linear.forward(&shape, &Operands::new(&a, &b), &mut d, None).expect("a first call");
    let graph = captured(&a, &mut d).and_then(|graph| Ok(graph.instantiate()?)).expect("a graph");
    for values in [second, first] {
        a.copy_from_slice(&values).expect("a copy");
        graph.launch(gpu.stream()).expect("a replay");
        let got = d.to_vec().expect("a result");
        linear.forward(&shape, &Operands::new(&a, &b), &mut d, None).expect("a call");
        assert_eq!(got, d.to_vec().expect("a result"), "{precision}");
    }
}

/// fp8 with sums that are added in f32, and with scales for tensors and blocks: few rows and many, more tiles than blocks with
/// and without a pair for the last, blocks that share a tile's k, batches, every layout, and rows that have to be moved.
pub(super) fn fp8(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let is_hopper = gpu.device().info().compute_capability.major == 9;
    for layout in Layout::ALL {
        for (m, n, k, batch) in [
            (1, 4096, 4096, 1),
            (16, 7168, 2048, 1),
            (64, 129, 12_800, 1),
            (257, 65, 1000, 3),
            (1000, 1303, 2051, 1),
            (2176, 2304, 2048, 1),
            (4223, 1100, 2064, 1),
            (4001, 2050, 1296, 2),
        ] {
            for gaps in [false, true] {
                let case = forward::Case::new(layout, m, n, k, Precision::Fp8);
                let case = forward::Case { batch, gaps, ..case };
                let [by_tensor, by_block] = forward::check_scales(device, &case);
                let is_moved = gaps || layout != Layout::NT || k % 16 > 0;
                if is_hopper && (!is_moved || m * n * k >= 1 << 24) {
                    for chosen in [by_tensor, by_block] {
                        assert!(chosen.kernel.ends_with("_scaled"), "{case:?}: {chosen:?}");
                    }
                }
            }
        }
    }
}

/// Products with a vector, and sums of many terms.
pub(super) fn vectors(device: &Device) {
    forward::check_vectors(device, 700, 130);
    forward::check_vectors(device, 5000, 2001);
    forward::check_long_sums(device, (1 << 20) + 8, 1 << 17);
}

/// Lists of many problems, small and large, in every layout.
pub(super) fn groups(device: &Device) {
    let mut numbers = Numbers::new(8);
    for seed in 0..24 {
        let layout = Layout::ALL[seed as usize % 4];
        let most = if u64::is_multiple_of(seed, 4) { 1200 } else { 200 };
        let shapes: Vec<_> = (0..1 + numbers.below(40))
            .map(|_| {
                let [m, n, k] = [(); 3].map(|()| numbers.below(most));
                (m, n, k)
            })
            .collect();
        let case = |precision| grouped::Case::new(layout, &shapes, precision, seed);
        grouped::check::<f32, f32>(device, &case(Precision::F32));
        grouped::check::<f32, f32>(device, &case(Precision::Tf32));
        grouped::check::<bf16, bf16>(device, &case(Precision::Bf16));
        grouped::check::<f16, f32>(device, &case(Precision::F16));
    }
}

/// The same, aligned and with k, which warpgroups take: every type, by bulk stores and with all that is fused.
pub(super) fn groups_on_warpgroups(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let is_hopper = gpu.device().info().compute_capability.major == 9;
    let mut numbers = Numbers::new(9);
    for seed in 0..24 {
        let layout = Layout::ALL[seed as usize % 4];
        let (plain, most) = (seed / 4 % 2 == 0, [100, 400, 1500][seed as usize / 8]);
        let shapes: Vec<_> = (0..1 + numbers.below(40))
            .map(|_| (numbers.below(most), numbers.below(most), 1 + numbers.below(most)))
            .chain([(1, 1, 1)])
            .collect();
        let case = |precision| grouped::Case {
            aligned: true,
            plain,
            ..grouped::Case::new(layout, &shapes, precision, seed)
        };
        let mut chosen = vec![
            grouped::check::<bf16, bf16>(device, &case(Precision::Bf16)),
            grouped::check::<f16, f32>(device, &case(Precision::F16)),
        ];
        if layout == Layout::NT {
            chosen.push(grouped::check::<f32, f32>(device, &case(Precision::Tf32)));
            chosen.push(grouped::check::<E4m3, bf16>(device, &case(Precision::Fp8)));
            chosen.push(grouped::check::<E4m3, f32>(device, &case(Precision::Fp8Fast)));
        }
        for chosen in chosen {
            let by_warpgroups = chosen.kernel.starts_with("linear_grouped_wgmma");
            assert_eq!(by_warpgroups, is_hopper, "{chosen:?}");
        }
    }
}

/// Gradients of every element type.
pub(super) fn gradient_shapes(device: &Device) {
    let mut numbers = Numbers::new(6);
    for seed in 0..24 {
        let [m, n, k] = [(); 3].map(|()| 1 + numbers.below(1500));
        let layout = Layout::ALL[numbers.below(4)];
        let gaps = u64::is_multiple_of(seed, 2);
        let case =
            forward::Case { layout, m, n, k, batch: 1, precision: Precision::Auto, gaps, seed };
        gradients::check::<f32>(device, &case);
        gradients::check::<bf16>(device, &case);
        gradients::check::<f16>(device, &case);
        gradients::check::<f64>(device, &case);
    }
}

/// Gradients of batches that share neither, one or both operands.
pub(super) fn batches(device: &Device) {
    for layout in Layout::ALL {
        let case =
            forward::Case { batch: 3, ..forward::Case::new(layout, 150, 130, 70, Precision::Auto) };
        for [a, b] in [[false, false], [false, true], [true, false], [true, true]] {
            let shared = gradients::Shared { a, b };
            gradients::check_batch::<f32>(device, &case, shared);
            gradients::check_batch::<bf16>(device, &case, shared);
            gradients::check_batch::<f64>(device, &case, shared);
        }
    }
    gradients::check_refusals(device);
}

/// Products of matrices and vectors, wide, high and in batches.
pub(super) fn gemv_sizes(device: &Device) {
    for shape in [
        [1, 1, 1],
        [1, 1000, 1001],
        [1, 4096, 4096],
        [1, 3, 100_000],
        [1, 100_000, 3],
        [1, 4, 1 << 20],
        [1, 1 << 17, 64],
        [64, 100, 96],
        [1000, 33, 7],
    ] {
        gemv::check_gemv::<f64>(device, shape, 5);
        gemv::check_gemv::<f32>(device, shape, 5);
        gemv::check_gemv::<bf16>(device, shape, 5);
    }
}
