//! `linear` of fp8 on warpgroups, as the operation takes it. The executor's tensor cores add in f32: what those of a GPU cut
//! off it does not show.

use half::{bf16, f16};
use kasmina::Device;
use kasmina::linear::{Chosen, Layout, Precision};
use kasmina::types::E4m3;
use kasmina_tests::linear::forward::{Case, check, check_scales};

use super::shuffled;

fn assert_kernel(chosen: &Chosen, precision: Precision, is_scaled: bool) {
    assert_eq!(chosen.precision, precision, "{chosen:?}");
    assert!(chosen.kernel.starts_with("linear_wgmma_e4m3_nt"), "{chosen:?}");
    assert_eq!(chosen.kernel.ends_with("_scaled"), is_scaled, "{chosen:?}");
}

/// Each precision by kernels of its own; scales of blocks by those that add in f32, whatever was asked for.
#[test]
fn precisions_have_their_kernels() {
    let device = shuffled(2);
    for (m, n, k, batch) in
        [(1, 1, 16, 1), (130, 150, 272, 1), (65, 257, 400, 2), (7, 128, 128, 3), (129, 9, 1040, 1)]
    {
        let of = |precision| Case { batch, ..Case::new(Layout::NT, m, n, k, precision) };
        for (precision, is_scaled) in [(Precision::Fp8, true), (Precision::Fp8Fast, false)] {
            let chosen = check::<E4m3, bf16>(&device, &of(precision));
            assert_kernel(&chosen, precision, is_scaled);
            check::<E4m3, f16>(&device, &of(precision));
            let [by_tensor, by_block] = check_scales(&device, &of(precision));
            assert_kernel(&by_tensor, precision, is_scaled);
            assert_kernel(&by_block, Precision::Fp8, true);
        }
    }
}

/// Every layout, with rows that bulk copies can have and with others: operands are moved where it pays.
#[test]
fn operands_are_moved() {
    let device = shuffled(9);
    for layout in Layout::ALL {
        for gaps in [false, true] {
            let case = Case { gaps, ..Case::new(layout, 257, 263, 251, Precision::Fp8) };
            let [by_tensor, by_block] = check_scales(&device, &case);
            assert_kernel(&by_tensor, Precision::Fp8, true);
            assert_kernel(&by_block, Precision::Fp8, true);
        }
    }
}

/// What is small and not aligned, and what asks for exact products, goes without tensor cores.
#[test]
fn others_go_without_tensor_cores() {
    for device in [shuffled(4), Device::Cpu] {
        let expected = if matches!(device, Device::Cpu) { "reference" } else { "linear_simt_e4m3" };
        let odd = Case::new(Layout::NT, 70, 40, 131, Precision::Fp8);
        let exact = Case::new(Layout::NT, 70, 40, 272, Precision::F32);
        for chosen in [odd, exact].iter().flat_map(|case| check_scales(&device, case)) {
            assert!(chosen.kernel.starts_with(expected), "{chosen:?}");
        }
    }
}
