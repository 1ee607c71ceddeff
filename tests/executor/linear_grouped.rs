//! Groups of products.

use std::collections::BTreeSet;

use half::{bf16, f16};
use kasmina::linear::{Layout, Precision};
use kasmina::types::{
    DType, E4m3, In, LinearOutput, LinearParams, LinearProblem, LinearStrides, Out, Scaling,
};
use kasmina::{Buffer, Device, Executor};
use kasmina_kernels::instances;
use kasmina_tests::Numbers;
use kasmina_tests::linear::grouped::{Case, check, check_refusals, check_scales};

use super::shuffled;

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
                let case = |precision| Case::new(layout, shapes, precision, seed);
                check::<bf16, bf16>(&device, &case(Precision::Bf16));
                check::<f16, f32>(&device, &case(Precision::F16));
                check::<f32, f32>(&device, &case(Precision::F32));
                check::<f32, bf16>(&device, &case(Precision::Tf32));
                check::<f64, f64>(&device, &case(Precision::F64));
            }
        }
    }
}

#[test]
fn groups_scale_and_refuse() {
    for device in [shuffled(1), Device::Cpu] {
        let is_executor = !matches!(device, Device::Cpu);
        for precision in [Precision::Auto, Precision::Fp8, Precision::Fp8Fast] {
            let chosen = check_scales(&device, precision);
            let by_warpgroups = chosen.kernel.starts_with("linear_grouped_wgmma");
            assert_eq!(by_warpgroups, is_executor && precision != Precision::Auto, "{chosen:?}");
        }
        check_refusals(&device);
    }
}

/// Every instance on warpgroups, with all that is fused and by bulk stores: ragged problems, empty ones, and different k.
#[test]
fn every_instance_on_warpgroups() {
    // The first fill blocks with the larger tiles.
    let lists: [&[(usize, usize, usize)]; 3] = [
        &[(256, 1304, 40), (0, 8, 8), (130, 304, 33), (5, 8, 100)],
        &[(65, 63, 129), (1, 1, 1), (33, 129, 64), (7, 0, 9)],
        &[(70, 88, 40), (64, 64, 256), (16, 136, 17)],
    ];
    let mut seen = BTreeSet::new();
    for (number, shapes) in (0..).zip(lists) {
        for layout in Layout::ALL {
            for plain in [true, false] {
                let seed = 8 * number + 2 * layout as u64 + u64::from(plain);
                let device = shuffled(seed);
                let case = |precision| Case {
                    aligned: true,
                    plain,
                    ..Case::new(layout, shapes, precision, seed)
                };
                seen.insert(check::<bf16, bf16>(&device, &case(Precision::Bf16)).kernel);
                seen.insert(check::<f16, f32>(&device, &case(Precision::F16)).kernel);
                if layout == Layout::NT {
                    seen.insert(check::<f32, f32>(&device, &case(Precision::Tf32)).kernel);
                    seen.insert(check::<E4m3, bf16>(&device, &case(Precision::Fp8)).kernel);
                    seen.insert(check::<E4m3, f32>(&device, &case(Precision::Fp8Fast)).kernel);
                }
            }
        }
    }
    let types = [DType::Bf16, DType::F16, DType::F32, DType::E4m3];
    let all: BTreeSet<_> = types
        .into_iter()
        .flat_map(|dtype| Layout::ALL.map(|layout| (dtype, layout)))
        .flat_map(|(dtype, layout)| instances::linear_grouped_wgmma(dtype, layout))
        .map(|instance| instance.kernel.name())
        .collect();
    assert_eq!((all.len(), &seen), (22, &all));
}

/// What they do not take goes to the other variants: rows that are not aligned, sums of nothing, tf32 and fp8 that do not
/// lie along k, long sums of few tiles.
#[test]
fn groups_beside_warpgroups() {
    let device = shuffled(9);
    let (ragged, without_k) = ([(70, 90, 41), (9, 9, 9)], [(64, 64, 64), (8, 8, 0)]);
    let aligned = |shapes, layout, precision| Case {
        aligned: true,
        ..Case::new(layout, shapes, precision, 3)
    };
    let bf16_of = |case: Case<'_>| check::<bf16, f32>(&device, &case).kernel;
    for (kernel, start) in [
        (bf16_of(Case::new(Layout::NT, &ragged, Precision::Bf16, 3)), "linear_mma"),
        (bf16_of(aligned(&without_k, Layout::NT, Precision::Bf16)), "linear_mma"),
        (bf16_of(aligned(&[(8, 8, 4200)], Layout::NT, Precision::Bf16)), "linear_mma"),
        (bf16_of(aligned(&[(8, 8, 2100)], Layout::NT, Precision::Bf16)), "linear_grouped_wgmma"),
        (bf16_of(aligned(&ragged, Layout::NT, Precision::F32)), "linear_simt"),
    ] {
        assert!(kernel.starts_with(start), "{kernel}, not {start}");
    }
    for layout in [Layout::NN, Layout::TN, Layout::TT] {
        let kernel = check::<f32, f32>(&device, &aligned(&ragged, layout, Precision::Tf32)).kernel;
        assert!(kernel.starts_with("linear_mma"), "{kernel}");
        let kernel = check::<E4m3, f32>(&device, &aligned(&ragged, layout, Precision::Fp8)).kernel;
        assert!(kernel.starts_with("linear_simt"), "{kernel}");
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
