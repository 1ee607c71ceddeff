//! `linear` and `linear_backward`.

use half::{bf16, f16};
use kasmina::linear::{Layout, Precision};
use kasmina::types::{
    DType, E4m3, In, LinearOutput, LinearParams, LinearProblem, LinearStrides, Out, Scaling,
};
use kasmina::{Buffer, Device, Executor};
use kasmina_kernels::instances;
use kasmina_tests::Numbers;
use kasmina_tests::linear::forward::{self, Case, check, check_scales};
use kasmina_tests::linear::gradients::{self, Shared};
use kasmina_tests::linear::{grouped, random};
use proptest::prelude::*;

use super::shuffled;

fn layout() -> impl Strategy<Value = Layout> {
    (0usize..4).prop_map(|code| Layout::ALL[code])
}

prop_compose! {
    fn case()(
        layout in layout(), m in 1usize..150, n in 1usize..150, k in 0usize..80, batch in 1usize..3,
        gaps: bool, seed: u64,
    ) -> Case {
        Case { layout, m, n, k, batch, precision: Precision::Auto, gaps, seed }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn without_tensor_cores(case in case()) {
        for device in [shuffled(case.seed), Device::Cpu] {
            let with = |precision| Case { precision, ..case };
            check::<f32, f32>(&device, &with(Precision::F32));
            check::<f32, f32>(&device, &with(Precision::F64));
            check::<f32, f64>(&device, &with(Precision::F64));
            check::<f64, f64>(&device, &with(Precision::F64));
            check::<bf16, bf16>(&device, &with(Precision::F32));
            check::<f16, f32>(&device, &with(Precision::F32));
            check::<E4m3, bf16>(&device, &with(Precision::Fp8));
            check::<E4m3, f32>(&device, &with(Precision::Fp8Fast));
            check::<E4m3, f32>(&device, &with(Precision::Auto));
        }
    }

    #[test]
    fn on_tensor_cores(case in case()) {
        for device in [shuffled(case.seed), Device::Cpu] {
            let with = |precision| Case { precision, ..case };
            check::<f32, f32>(&device, &with(Precision::Tf32));
            check::<bf16, bf16>(&device, &with(Precision::Bf16));
            check::<f16, f16>(&device, &with(Precision::F16));
            check::<bf16, f32>(&device, &with(Precision::Auto));
        }
    }

    #[test]
    fn gradients_of_products(case in case()) {
        for device in [shuffled(case.seed), Device::Cpu] {
            gradients::check::<f32>(&device, &case);
            gradients::check::<f64>(&device, &case);
            gradients::check::<bf16>(&device, &case);
            gradients::check::<f16>(&device, &case);
        }
    }

    #[test]
    fn scales_of_fp8(case in case()) {
        let case = Case { k: 3 * case.k, precision: Precision::Fp8, ..case };
        for device in [shuffled(case.seed), Device::Cpu] {
            check_scales(&device, &case);
        }
    }
}

/// Batches that share one operand, both, or none, in each layout, with gaps and without.
#[test]
fn gradients_of_batches() {
    for (seed, layout) in Layout::ALL.into_iter().enumerate() {
        let case = Case { batch: 3, ..Case::new(layout, 21, 18, 37, Precision::Auto) };
        for (number, [a, b]) in [[false, true], [true, false], [true, true]].into_iter().enumerate()
        {
            let shared = Shared { a, b };
            let seed = (3 * seed + number) as u64;
            for gaps in [false, true] {
                let case = Case { seed, gaps, ..case };
                for device in [shuffled(seed), Device::Cpu] {
                    gradients::check_batch::<f32>(&device, &case, shared);
                    gradients::check_batch::<bf16>(&device, &case, shared);
                    gradients::check_batch::<f64>(&device, &case, shared);
                }
            }
        }
    }
    for device in [shuffled(1), Device::Cpu] {
        gradients::check_refusals(&device);
    }
}

/// Every type, layout and epilogue, with the same measure as the large shapes on a GPU. The product in f64 that those are
/// compared with is checked here as well.
#[test]
fn random_shapes() {
    let coverage = random::Coverage::default();
    for (number, case) in random::cases(random::ROUND, 100, 5).iter().enumerate() {
        let device = shuffled(number as u64);
        let reference: &random::Product<'_> = if number % 8 == 0 {
            &|a, b| random::product_on(&device, a, b)
        } else {
            &random::product_of_reference
        };
        case.check(&device, reference, &coverage);
    }
    coverage.assert_complete();
}

/// Whole and half tiles, one more and one less, so that both tile sizes and both ways of loading are taken.
#[test]
fn edges_of_tiles() {
    let device = shuffled(3);
    for layout in Layout::ALL {
        for (m, n, k) in [(256, 384, 64), (128, 129, 33), (63, 64, 32), (1, 1, 1), (65, 8, 17)] {
            let case = |precision| Case::new(layout, m, n, k, precision);
            check::<bf16, bf16>(&device, &case(Precision::Bf16));
            check::<f32, f32>(&device, &case(Precision::Tf32));
            check::<f32, f32>(&device, &case(Precision::F32));
        }
    }
}

/// Few tiles and long sums: blocks share a tile's k, and the order of the parts does not show.
#[test]
fn shared_sums() {
    for (seed, layout) in Layout::ALL.into_iter().enumerate() {
        let device = shuffled(seed as u64);
        let case = |precision| Case { seed: 4, ..Case::new(layout, 40, 70, 2100, precision) };
        let chosen = check::<bf16, f32>(&device, &case(Precision::Bf16));
        assert!(chosen.parts > 1, "{chosen:?}");
        let chosen = check::<f32, f32>(&device, &case(Precision::F32));
        assert!(chosen.parts > 1, "{chosen:?}");
        let chosen = check::<f64, f64>(&device, &case(Precision::F64));
        assert!(chosen.parts > 1, "{chosen:?}");
    }
}

/// Products with a vector, which are `gemv`'s.
#[test]
fn vectors() {
    for device in [shuffled(6), Device::Cpu] {
        forward::check_vectors(&device, 700, 130);
    }
}

/// The error of a sum does not grow with its length.
#[test]
fn long_sums() {
    for device in [shuffled(7), Device::Cpu] {
        forward::check_long_sums(&device, 1 << 20, 1 << 16);
    }
}

#[test]
fn refusals() {
    for device in [shuffled(1), Device::Cpu] {
        forward::check_refusals(&device);
    }
}

/// Ragged problems, empty ones and sums of nothing among them, in one launch.
#[test]
fn groups() {
    let lists: [&[(usize, usize, usize)]; 5] = [
        &[(70, 90, 40), (0, 8, 8), (3, 5, 0), (130, 20, 100), (1, 1, 1), (7, 0, 3)],
        &[(64, 64, 64); 3],
        &[(1, 129, 17), (129, 1, 33), (65, 63, 5), (2, 2, 2)],
        &[(40, 70, 2100), (8, 8, 16), (3, 3, 0)],
        &[(0, 0, 0), (4, 0, 9)],
    ];
    for (seed, shapes) in (0..).zip(lists) {
        for layout in Layout::ALL {
            let seed = 4 * seed + layout as u64;
            for device in [shuffled(seed), Device::Cpu] {
                let case = |precision| grouped::Case { layout, shapes, precision, seed };
                grouped::check::<bf16, bf16>(&device, &case(Precision::Bf16));
                grouped::check::<f16, f32>(&device, &case(Precision::F16));
                grouped::check::<f32, f32>(&device, &case(Precision::F32));
                grouped::check::<f32, bf16>(&device, &case(Precision::Tf32));
                grouped::check::<f64, f64>(&device, &case(Precision::F64));
            }
        }
    }
}

#[test]
fn groups_scale_and_refuse() {
    for device in [shuffled(1), Device::Cpu] {
        grouped::check_scales(&device);
        grouped::check_refusals(&device);
    }
}

/// Problems of different shapes in one launch, one of them empty, by a variant with and one without tensor cores.
#[test]
fn grouped_problems() {
    let shapes = [(70_usize, 90_usize, 40_usize), (0, 8, 8), (3, 5, 0), (130, 20, 100)];
    let variants = [
        instances::linear_simt(DType::Bf16, DType::F32).next().expect("an instance"),
        instances::linear_mma(DType::Bf16, Layout::NT).last().expect("an instance"),
    ];
    for instance in variants {
        let (mut problems, mut tiles, mut a, mut b, mut d) = (vec![], 0, vec![], vec![], 0);
        let mut numbers = Numbers::new(5);
        for (m, n, k) in shapes {
            problems.push(LinearProblem {
                m: m as u32,
                n: n as u32,
                k: k as u32,
                first_tile: tiles,
                lda: k as u32,
                ldb: k as u32,
                ldd: n as u32,
                a: a.len() as u64,
                b: b.len() as u64,
                d: d as u64,
                ..LinearProblem::default()
            });
            let mut value = || bf16::from_f32(numbers.in_range(-1.0, 1.0));
            a.extend((0..m * k).map(|_| value()));
            b.extend((0..n * k).map(|_| value()));
            d += m * n;
            tiles +=
                (m.div_ceil(instance.rows as usize) * n.div_ceil(instance.columns as usize)) as u32;
        }
        // Buffers of the CPU are aligned as kernels want it.
        let mut results = Buffer::from_slice(&Device::Cpu, &vec![f32::NAN; d]).expect("memory");
        let on_device = |values: &[bf16]| Buffer::from_slice(&Device::Cpu, values).expect("memory");
        let (operand_a, operand_b) = (on_device(&a), on_device(&b));
        let descriptors = Buffer::from_slice(&Device::Cpu, &problems).expect("memory");
        let params = LinearParams {
            a: In::new(operand_a.device_address() as *const u8, 2 * a.len()),
            b: In::new(operand_b.device_address() as *const u8, 2 * b.len()),
            c: In::new(std::ptr::null(), 0),
            bias: In::new(std::ptr::null(), 0),
            residual: In::new(std::ptr::null(), 0),
            d: Out::new(results.as_host_slice_mut().expect("the host's").as_mut_ptr(), d).cast(),
            z: Out::new(std::ptr::null_mut(), 0),
            a_scale: In::new(std::ptr::null(), 0),
            b_scale: In::new(std::ptr::null(), 0),
            problems: In::new(descriptors.device_address() as *const LinearProblem, problems.len()),
            partials: Out::new(std::ptr::null_mut(), 0),
            arrivals: Out::new(std::ptr::null_mut(), 0),
            problem: LinearProblem::default(),
            strides: LinearStrides::default(),
            alpha: 1.0,
            beta: 0.0,
            batch: problems.len() as u32,
            tiles,
            parts: 1,
            layout: Layout::NT as u32,
            activation: 0,
            output: LinearOutput::F32 as u32,
            scaling: Scaling::None as u32,
            _padding: 0,
        };
        let executor = Executor::new().checks(true).shuffled(7);
        let shared = instance.dynamic_shared_bytes;
        // SAFETY: the views are of memory that lives until the call returns; a block for each tile.
        unsafe { instance.kernel.run(&executor, tiles, shared, params) }.expect("a launch");
        let got = results.to_vec().expect("a result");
        for (problem, (m, n, k)) in problems.iter().zip(shapes) {
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let term = |x: usize| {
                    a[problem.a as usize + i * k + x].to_f64()
                        * b[problem.b as usize + j * k + x].to_f64()
                };
                let expected: f64 = (0..k).map(term).sum();
                let got = f64::from(got[problem.d as usize + i * n + j]);
                assert!((got - expected).abs() <= 1e-5 * k as f64, "{problem:?} ({i}, {j})");
            }
        }
    }
}
