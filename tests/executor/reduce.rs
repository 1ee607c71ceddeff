//! `reduce`.

use half::{bf16, f16};
use kasmina::Device;
use kasmina_tests::reduction::reduce::{Case, Cut, check};
use proptest::prelude::*;

use super::shuffled;

fn check_every_dtype(device: &Device, case: &Case) {
    check::<f32>(device, case);
    check::<f16>(device, case);
    check::<bf16>(device, case);
    check::<f64>(device, case);
    check::<i32>(device, case);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whole_arrays(len in 1usize..30_000, seed: u64, nan: bool) {
        check_every_dtype(&shuffled(seed), &Case { len, cut: Cut::Whole, seed, nan });
    }

    #[test]
    fn ragged_segments(len in 1usize..5000, places in prop::collection::vec(0usize..5000, 1..40), seed: u64, nan: bool) {
        let places = places.into_iter().map(|place| place % (len + 1)).collect();
        check_every_dtype(&shuffled(seed), &Case { len, cut: Cut::At(places), seed, nan });
    }

    #[test]
    fn rows(rows in 1usize..40, columns in 1usize..300, seed: u64) {
        let case = Case { len: rows * columns, cut: Cut::Rows(columns), seed, nan: false };
        check_every_dtype(&shuffled(seed), &case);
    }
}

/// Several parts of several long segments, merged by whichever block comes last.
#[test]
fn long_segments_in_parts() {
    let len = 150_000;
    check_every_dtype(&shuffled(1), &Case { len, cut: Cut::Whole, seed: 1, nan: false });
    let cut = Cut::At(vec![3, 70_001, 149_998]);
    check_every_dtype(&shuffled(2), &Case { len, cut, seed: 2, nan: true });
    check_every_dtype(&shuffled(3), &Case { len, cut: Cut::Rows(75_000), seed: 3, nan: false });
}

#[test]
fn nothing_at_all() {
    check_every_dtype(&shuffled(1), &Case { len: 0, cut: Cut::Whole, seed: 1, nan: false });
    check_every_dtype(
        &shuffled(1),
        &Case { len: 5, cut: Cut::At(vec![2, 2, 2]), seed: 1, nan: false },
    );
}

#[test]
fn values_whose_squares_overflow() {
    kasmina_tests::reduction::reduce::check_large_values(&shuffled(1));
}

/// One long segment among many short ones is no warp's.
#[test]
fn one_long_segment_among_short_ones() {
    let places = (0..2000).map(|i| 5 * i).chain([400_000]).collect();
    let case = Case { len: 400_000, cut: Cut::At(places), seed: 4, nan: false };
    check::<f32>(&shuffled(1), &case);
}
