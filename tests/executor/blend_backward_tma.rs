//! `blend_backward_tma`: the same comparisons as `blend_backward`'s, with chunks of a multiple of 16 bytes.

use half::{bf16, f16};
use kasmina::Device;
use kasmina::kasmina::{LayerElement, Variant};
use kasmina_tests::Narrow;
use kasmina_tests::kasmina::blend_backward::{
    check_broken_elements, check_modes, check_tensor_maps, check_variant,
};
use kasmina_tests::kasmina::blend_forward::Case;
use proptest::prelude::*;

use super::shuffled;

#[track_caller]
fn check<T: Narrow + LayerElement>(device: &Device, case: Case) {
    check_variant::<T>(device, case, Variant::Tma);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn ragged_shapes_f32(batch in 1usize..80, num_seeds in 1usize..24, quarters in 1usize..24, seed: u64, broken_inputs: bool) {
        check::<f32>(&shuffled(seed), Case { batch, num_seeds, chunk_size: 4 * quarters, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_f16(batch in 1usize..80, num_seeds in 1usize..24, eighths in 1usize..12, seed: u64, broken_inputs: bool) {
        check::<f16>(&shuffled(seed), Case { batch, num_seeds, chunk_size: 8 * eighths, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_bf16(batch in 1usize..80, num_seeds in 1usize..24, eighths in 1usize..12, seed: u64, broken_inputs: bool) {
        check::<bf16>(&shuffled(seed), Case { batch, num_seeds, chunk_size: 8 * eighths, seed, broken_inputs });
    }

    #[test]
    fn numerical_modes(batch in 1usize..40, num_seeds in 1usize..16, eighths in 1usize..9, seed: u64) {
        let case = Case { batch, num_seeds, chunk_size: 8 * eighths, seed, broken_inputs: true };
        check_modes::<f32>(&shuffled(seed), case, Variant::Tma);
        check_modes::<bf16>(&shuffled(seed), case, Variant::Tma);
    }
}

/// The smallest chunks, and those around a strip's width.
#[test]
fn chunk_sizes_at_the_edges() {
    for (i, chunk_size) in
        [8, 16, 56, 64, 72, 256, 264, 512, 520, 1016, 1024, 1032, 2056].into_iter().enumerate()
    {
        let case =
            Case { batch: 5, num_seeds: 11, chunk_size, seed: i as u64, broken_inputs: true };
        check::<f32>(&shuffled(1), case);
        check::<f16>(&shuffled(2), case);
        check::<bf16>(&shuffled(3), case);
    }
    let narrow = Case { batch: 300, num_seeds: 1, chunk_size: 4, seed: 1, broken_inputs: false };
    check::<f32>(&shuffled(1), narrow);
    check::<f32>(&shuffled(1), Case { num_seeds: 40, ..narrow });
}

/// Chunks of many strips, whose convolutions reach into the next one, and batches of many turns of the ring.
#[test]
fn long_chunks_and_tall_batches() {
    let case = Case { batch: 3, num_seeds: 6, chunk_size: 5000, seed: 7, broken_inputs: false };
    check::<f32>(&shuffled(4), case);
    check::<bf16>(&shuffled(4), case);
    check::<f32>(&shuffled(5), Case { batch: 1, chunk_size: 4996, ..case });
    check::<f32>(&shuffled(6), Case { batch: 2000, chunk_size: 12, num_seeds: 11, ..case });
    check::<f16>(&shuffled(7), Case { batch: 1301, chunk_size: 24, num_seeds: 11, ..case });
    check::<bf16>(&shuffled(8), Case { batch: 2100, chunk_size: 64, num_seeds: 3, ..case });
}

/// Chunks of one vector and of several.
#[test]
fn what_is_not_finite_spreads_as_in_the_reference() {
    for chunk_size in [4, 8, 12] {
        check_broken_elements::<f32>(&shuffled(1), chunk_size, Variant::Tma);
    }
    check_broken_elements::<f16>(&shuffled(2), 16, Variant::Tma);
    check_broken_elements::<bf16>(&shuffled(3), 8, Variant::Tma);
}

#[test]
fn maps_are_cached_and_the_variant_refused_where_it_cannot_run() {
    check_tensor_maps(&shuffled(1));
}
