//! `blend_forward_tma`: the same comparisons as `blend_forward`'s, with chunks of a multiple of 16 bytes, for both ways to
//! store.

use half::{bf16, f16};
use kasmina::Device;
use kasmina::kasmina::{LayerElement, Variant};
use kasmina_tests::Narrow;
use kasmina_tests::kasmina::blend_forward::{Case, check_tensor_maps, check_variant};
use proptest::prelude::*;

use super::shuffled;

#[track_caller]
fn both<T: Narrow + LayerElement>(device: &Device, case: Case) {
    check_variant::<T>(device, case, Variant::Tma);
    check_variant::<T>(device, case, Variant::TmaBulkStores);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn ragged_shapes_f32(batch in 1usize..80, num_seeds in 1usize..24, quarters in 1usize..24, seed: u64, broken_inputs: bool) {
        both::<f32>(&shuffled(seed), Case { batch, num_seeds, chunk_size: 4 * quarters, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_f16(batch in 1usize..80, num_seeds in 1usize..24, eighths in 1usize..12, seed: u64, broken_inputs: bool) {
        both::<f16>(&shuffled(seed), Case { batch, num_seeds, chunk_size: 8 * eighths, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_bf16(batch in 1usize..80, num_seeds in 1usize..24, eighths in 1usize..12, seed: u64, broken_inputs: bool) {
        both::<bf16>(&shuffled(seed), Case { batch, num_seeds, chunk_size: 8 * eighths, seed, broken_inputs });
    }
}

/// The smallest chunks, and those around a strip's width.
#[test]
fn chunk_sizes_at_the_edges() {
    for (i, chunk_size) in
        [8, 16, 256, 264, 512, 520, 1016, 1024, 1032, 2056].into_iter().enumerate()
    {
        let case =
            Case { batch: 5, num_seeds: 11, chunk_size, seed: i as u64, broken_inputs: true };
        both::<f32>(&shuffled(1), case);
        both::<f16>(&shuffled(2), case);
        both::<bf16>(&shuffled(3), case);
    }
    let narrow = Case { batch: 300, num_seeds: 1, chunk_size: 4, seed: 1, broken_inputs: false };
    both::<f32>(&shuffled(1), narrow);
}

/// Chunks of many strips, and batches of many turns of the ring.
#[test]
fn long_chunks_and_tall_batches() {
    let case = Case { batch: 3, num_seeds: 6, chunk_size: 5000, seed: 7, broken_inputs: false };
    both::<f32>(&shuffled(4), case);
    both::<f32>(&shuffled(5), Case { batch: 1, chunk_size: 4996, ..case });
    both::<f32>(&shuffled(6), Case { batch: 2000, chunk_size: 12, num_seeds: 11, ..case });
    both::<f16>(&shuffled(7), Case { batch: 1301, chunk_size: 24, num_seeds: 11, ..case });
}

#[test]
fn maps_are_cached_and_the_variant_refused_where_it_cannot_run() {
    check_tensor_maps(&shuffled(1));
}
