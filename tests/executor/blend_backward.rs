//! `blend_backward`.

use half::{bf16, f16};
use kasmina::kasmina::Variant;
use kasmina_tests::kasmina::blend_backward as backward;
use kasmina_tests::kasmina::blend_backward::check;
use kasmina_tests::kasmina::blend_forward::Case;
use proptest::prelude::*;

use super::shuffled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ragged_shapes_f32(batch in 1usize..60, num_seeds in 1usize..24, chunk_size in 1usize..90, seed: u64, broken_inputs: bool) {
        check::<f32>(&shuffled(seed), Case { batch, num_seeds, chunk_size, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_f16(batch in 1usize..40, num_seeds in 1usize..24, chunk_size in 1usize..60, seed: u64, broken_inputs: bool) {
        check::<f16>(&shuffled(seed), Case { batch, num_seeds, chunk_size, seed, broken_inputs });
    }

    #[test]
    fn ragged_shapes_bf16(batch in 1usize..40, num_seeds in 1usize..24, chunk_size in 1usize..60, seed: u64, broken_inputs: bool) {
        check::<bf16>(&shuffled(seed), Case { batch, num_seeds, chunk_size, seed, broken_inputs });
    }

    #[test]
    fn numerical_modes(batch in 1usize..40, num_seeds in 1usize..16, chunk_size in 1usize..70, seed: u64) {
        let case = Case { batch, num_seeds, chunk_size, seed, broken_inputs: true };
        backward::check_modes::<f32>(&shuffled(seed), case, Variant::Auto);
        backward::check_without_telemetry::<f32>(&shuffled(seed), case);
    }
}

/// The smallest chunks, and those around a strip's width, for every access width.
#[test]
fn chunk_sizes_at_the_edges() {
    for (i, chunk_size) in [1, 2, 3, 4, 5, 7, 8, 16, 255, 256, 257, 516, 1023, 1024, 1025, 2052]
        .into_iter()
        .enumerate()
    {
        let case =
            Case { batch: 5, num_seeds: 11, chunk_size, seed: i as u64, broken_inputs: true };
        check::<f32>(&shuffled(1), case);
        check::<f16>(&shuffled(2), case);
        check::<bf16>(&shuffled(3), case);
    }
}

/// A block for a seed: batches around one and several groups of rows, and chunks of one vector to a warp's.
#[test]
fn seeds_of_a_block_each() {
    for (num_seeds, chunk_size) in [(48, 64), (1, 64), (11, 8), (7, 16), (5, 4), (24, 128)] {
        for batch in [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 45, 64] {
            let seed = batch as u64;
            let case = Case { batch, num_seeds, chunk_size, seed, broken_inputs: true };
            backward::check_by_seed::<f32>(&shuffled(seed), case);
            backward::check_by_seed::<f16>(&shuffled(seed), case);
            backward::check_by_seed::<bf16>(&shuffled(seed), case);
        }
    }
    // Many rows, where the seeds fill the device.
    for (num_seeds, chunk_size, batch) in [(24, 64, 145), (12, 128, 70), (24, 4, 2050)] {
        let case = Case { batch, num_seeds, chunk_size, seed: 3, broken_inputs: true };
        backward::check_by_seed::<f32>(&shuffled(1), case);
        backward::check_by_seed::<f16>(&shuffled(2), case);
        backward::check_by_seed::<bf16>(&shuffled(3), case);
    }
    for (batch, chunk_size) in [(33, 64), (45, 128)] {
        let case = Case { batch, num_seeds: 48, chunk_size, seed: 1, broken_inputs: true };
        backward::check_shared_blueprints::<f32>(&shuffled(1), case);
        backward::check_modes::<f32>(&shuffled(1), case, Variant::Auto);
    }
}

/// A block for a few seeds in all rows, a warp's lanes side by side in a chunk: it finishes them itself.
#[test]
fn whole_seeds_are_finished_by_the_pass() {
    for (num_seeds, chunk_size) in [(44, 64), (22, 64), (22, 128), (11, 64)] {
        for batch in [129, 145, 161] {
            let seed = batch as u64;
            let case = Case { batch, num_seeds, chunk_size, seed, broken_inputs: true };
            backward::check_plain::<f32>(&shuffled(seed), case);
            backward::check_plain::<f16>(&shuffled(seed), case);
            backward::check_plain::<bf16>(&shuffled(seed), case);
        }
    }
    for chunk_size in [64, 128] {
        let case = Case { batch: 145, num_seeds: 22, chunk_size, seed: 1, broken_inputs: true };
        backward::check_shared_blueprints::<f32>(&shuffled(1), case);
        backward::check_modes::<f32>(&shuffled(1), case, Variant::Auto);
    }
}

/// Chunks longer than many strips, and one row or many.
#[test]
fn long_chunks_and_tall_batches() {
    let case = Case { batch: 3, num_seeds: 6, chunk_size: 5000, seed: 7, broken_inputs: false };
    check::<f32>(&shuffled(4), case);
    check::<f32>(&shuffled(5), Case { batch: 1, chunk_size: 4999, ..case });
    check::<f32>(&shuffled(6), Case { batch: 700, chunk_size: 12, num_seeds: 11, ..case });
    check::<f16>(&shuffled(7), Case { batch: 301, chunk_size: 24, num_seeds: 11, ..case });
    check::<f32>(&shuffled(8), Case { batch: 4096, chunk_size: 3, num_seeds: 11, ..case });
}

/// Blueprints of seeds in many groups, summed by whichever block finishes last.
#[test]
fn many_seeds_share_a_blueprint() {
    let case = Case { batch: 9, num_seeds: 70, chunk_size: 64, seed: 3, broken_inputs: false };
    backward::check_shared_blueprints::<f32>(&shuffled(1), case);
    backward::check_shared_blueprints::<f32>(
        &shuffled(2),
        Case { num_seeds: 301, chunk_size: 5, ..case },
    );
    backward::check_shared_blueprints::<f16>(
        &shuffled(3),
        Case { num_seeds: 9, chunk_size: 1024, ..case },
    );
    backward::check_shared_blueprints::<bf16>(
        &shuffled(4),
        Case { num_seeds: 600, chunk_size: 1, ..case },
    );
    // More of one blueprint than a block lists at a time.
    backward::check_shared_blueprints::<f32>(
        &shuffled(5),
        Case { num_seeds: 3700, chunk_size: 1, ..case },
    );
}

/// An infinite gradient in a CONV_FILTER's first column, which its other taps have no term with.
#[test]
fn an_infinite_gradient_at_a_chunks_edge() {
    let seed = 4402877015874721384;
    let case = Case { batch: 4, num_seeds: 21, chunk_size: 5, seed, broken_inputs: true };
    check::<f16>(&shuffled(seed), case);
    check::<f32>(&shuffled(seed), case);
}

/// Chunks of one vector, of several, and with less than a vector for the taps.
#[test]
fn what_is_not_finite_spreads_as_in_the_reference() {
    for chunk_size in [1, 2, 3, 5, 8, 12] {
        backward::check_broken_elements::<f32>(&shuffled(1), chunk_size, Variant::Auto);
    }
    backward::check_broken_elements::<f16>(&shuffled(2), 16, Variant::Auto);
    backward::check_broken_elements::<bf16>(&shuffled(3), 6, Variant::Auto);
    backward::check_broken_elements::<f32>(&kasmina::Device::Cpu, 5, Variant::Auto);
}

#[test]
fn numerical_modes_of_16_bit_elements() {
    let case = Case { batch: 20, num_seeds: 13, chunk_size: 16, seed: 3, broken_inputs: true };
    backward::check_modes::<f16>(&shuffled(1), case, Variant::Auto);
    backward::check_modes::<bf16>(&shuffled(2), case, Variant::Auto);
    backward::check_without_telemetry::<f16>(&shuffled(3), case);
}

#[test]
fn what_does_not_fit_is_refused() {
    backward::check_refusals(&shuffled(1));
    backward::check_refusals(&kasmina::Device::Cpu);
}

#[test]
fn the_cpu_agrees() {
    let case = Case { batch: 21, num_seeds: 22, chunk_size: 12, seed: 3, broken_inputs: true };
    check::<f32>(&kasmina::Device::Cpu, case);
    check::<f16>(&kasmina::Device::Cpu, case);
    backward::check_modes::<f32>(&kasmina::Device::Cpu, case, Variant::Auto);
    backward::check_without_telemetry::<bf16>(&kasmina::Device::Cpu, case);
}
