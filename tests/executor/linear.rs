//! `linear` and `linear_backward`.

use half::{bf16, f16};
use kasmina::Device;
use kasmina::linear::{Layout, Precision};
use kasmina::types::E4m3;
use kasmina_tests::linear::forward::{self, Case, check, check_scales};
use kasmina_tests::linear::gradients::{self, Shared};
use kasmina_tests::linear::random;
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
