//! The kernels of the layer on a GPU.

use half::{bf16, f16};
use kasmina::driver::Graph;
use kasmina::kasmina::{
    BlendBackward, BlendForward, BlendOptions, GradientBuffers, LayerState, Variant,
};
use kasmina::{Buffer, Device, Error};
use kasmina_tests::kasmina::blend_backward as backward;
use kasmina_tests::kasmina::blend_forward::{self as blend, Case};
use kasmina_tests::kasmina::{gradient_clip, graft_schedule, state_update, telemetry_reduce};

fn blend_every_dtype(device: &Device, case: Case) {
    blend::check::<f32>(device, case);
    blend::check::<f16>(device, case);
    blend::check::<bf16>(device, case);
}

pub(super) fn blend_ragged_shapes(device: &Device) {
    let mut numbers = kasmina_tests::Numbers::new(2024);
    for seed in 0..40 {
        let case = Case {
            batch: 1 + numbers.below(300),
            num_seeds: 1 + numbers.below(40),
            chunk_size: 1 + numbers.below(300),
            seed,
            broken_inputs: seed % 3 == 0,
        };
        blend_every_dtype(device, case);
    }
}

pub(super) fn blend_chunk_sizes(device: &Device) {
    for chunk_size in [1, 2, 3, 4, 8, 255, 256, 257, 1023, 1024, 1028, 2052, 4999, 5000] {
        let case = Case { batch: 37, num_seeds: 13, chunk_size, seed: 5, broken_inputs: true };
        blend_every_dtype(device, case);
    }
}

pub(super) fn blend_large(device: &Device) {
    let case = Case { batch: 4096, num_seeds: 100, chunk_size: 64, seed: 9, broken_inputs: false };
    blend_every_dtype(device, case);
    blend_every_dtype(device, Case { batch: 1001, num_seeds: 3, chunk_size: 4096, ..case });
    blend_every_dtype(device, Case { batch: 1, num_seeds: 1000, ..case });
}

/// Whether the GPU has the kernels that fetch through the copy engine; where it has not, they must be refused.
fn has_tma(device: &Device) -> bool {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let tile = kasmina::types::tiles::TILES
        .iter()
        .find(|tile| tile.family == "blend_forward_tma")
        .expect("the table has them");
    if gpu.supports(tile) {
        return true;
    }
    let options = BlendOptions { variant: Variant::Tma, ..BlendOptions::default() };
    let refused = BlendForward::<f32>::with_options(device, 1, 1, 4, options).err();
    assert!(matches!(refused, Some(Error::Variant { .. })), "{refused:?}");
    false
}

/// Shapes of every way to cut strips and boxes.
const TMA_SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 8),
    (300, 1, 8),
    (37, 13, 256),
    (37, 13, 264),
    (61, 5, 1032),
    (4096, 100, 64),
    (1001, 3, 4096),
    (5000, 7, 520),
    (777, 50, 24),
    (1, 1000, 64),
];

pub(super) fn blend_tma(device: &Device) {
    if !has_tma(device) {
        return;
    }
    for variant in [Variant::Tma, Variant::TmaBulkStores] {
        for (batch, num_seeds, chunk_size) in TMA_SHAPES {
            let case = Case { batch, num_seeds, chunk_size, seed: 3, broken_inputs: true };
            blend::check_variant::<f32>(device, case, variant);
            blend::check_variant::<f16>(device, case, variant);
            blend::check_variant::<bf16>(device, case, variant);
        }
    }
}

pub(super) fn blend_tma_maps(device: &Device) {
    if has_tma(device) {
        blend::check_tensor_maps(device);
    }
}

fn backward_every_dtype(device: &Device, case: Case) {
    backward::check::<f32>(device, case);
    backward::check::<f16>(device, case);
    backward::check::<bf16>(device, case);
}

pub(super) fn backward_ragged_shapes(device: &Device) {
    let mut numbers = kasmina_tests::Numbers::new(2025);
    for seed in 0..40 {
        let case = Case {
            batch: 1 + numbers.below(300),
            num_seeds: 1 + numbers.below(40),
            chunk_size: 1 + numbers.below(300),
            seed,
            broken_inputs: seed % 3 == 0,
        };
        backward_every_dtype(device, case);
    }
}

pub(super) fn backward_chunk_sizes(device: &Device) {
    for chunk_size in [1, 2, 3, 4, 8, 255, 256, 257, 1023, 1024, 1028, 2052, 4999, 5000] {
        let case = Case { batch: 37, num_seeds: 13, chunk_size, seed: 5, broken_inputs: true };
        backward_every_dtype(device, case);
    }
}

pub(super) fn backward_large(device: &Device) {
    let case = Case { batch: 4096, num_seeds: 100, chunk_size: 64, seed: 9, broken_inputs: false };
    backward_every_dtype(device, case);
    backward_every_dtype(device, Case { batch: 1001, num_seeds: 3, chunk_size: 4096, ..case });
    backward_every_dtype(device, Case { batch: 1, num_seeds: 1000, ..case });
}

pub(super) fn backward_shared_blueprints(device: &Device) {
    let case = Case { batch: 33, num_seeds: 1000, chunk_size: 64, seed: 3, broken_inputs: false };
    backward::check_shared_blueprints::<f32>(device, case);
    backward::check_shared_blueprints::<f16>(device, case);
    let small = Case { num_seeds: 5000, chunk_size: 3, ..case };
    backward::check_shared_blueprints::<f32>(device, small);
    let wide = Case { num_seeds: 9, chunk_size: 4096, ..case };
    backward::check_shared_blueprints::<bf16>(device, wide);
}

pub(super) fn backward_modes(device: &Device) {
    let case = Case { batch: 100, num_seeds: 33, chunk_size: 48, seed: 4, broken_inputs: true };
    backward::check_modes::<f32>(device, case, Variant::Auto);
    backward::check_modes::<f16>(device, case, Variant::Auto);
    backward::check_modes::<bf16>(device, Case { chunk_size: 7, ..case }, Variant::Auto);
    backward::check_without_telemetry::<f32>(device, case);
    backward::check_refusals(device);
}

pub(super) fn backward_tma(device: &Device) {
    if !has_tma(device) {
        return;
    }
    for (batch, num_seeds, chunk_size) in TMA_SHAPES {
        let case = Case { batch, num_seeds, chunk_size, seed: 3, broken_inputs: true };
        backward::check_variant::<f32>(device, case, Variant::Tma);
        backward::check_variant::<f16>(device, case, Variant::Tma);
        backward::check_variant::<bf16>(device, case, Variant::Tma);
    }
    let case = Case { batch: 300, num_seeds: 33, chunk_size: 48, seed: 4, broken_inputs: true };
    backward::check_modes::<f32>(device, case, Variant::Tma);
    backward::check_modes::<f16>(device, case, Variant::Tma);
}

pub(super) fn backward_tma_maps(device: &Device) {
    if has_tma(device) {
        backward::check_tensor_maps(device);
    }
}

/// A captured pass replays on what the buffers then hold. It may be the first one: tensor maps are made inside.
pub(super) fn backward_graph(device: &Device) {
    for (variant, first) in [(Variant::Plain, false), (Variant::Tma, false), (Variant::Tma, true)] {
        let options = BlendOptions { variant, ..BlendOptions::default() };
        if BlendBackward::<f32>::has_variant(device, 100, 64, variant) {
            backward_in_a_graph(device, options, first);
        }
    }
}

fn backward_in_a_graph(device: &Device, options: BlendOptions, first: bool) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let case = Case { batch: 32, num_seeds: 100, chunk_size: 64, seed: 6, broken_inputs: false };
    let state = LayerState::new(device, blend::mixed_states(case)).expect("a valid state");
    let elements = 32 * 100 * 64;
    let input = Buffer::from_slice(device, &vec![1.0_f32; elements]).expect("memory");
    let ones = Buffer::from_slice(device, &vec![1.0_f32; elements]).expect("memory");
    let mut grad_output = Buffer::from_slice(device, &vec![1.0_f32; elements]).expect("memory");
    let mut grad_input = Buffer::<f32>::zeroed(device, elements).expect("memory");
    let mut gradients = GradientBuffers::new(device, &state).expect("memory");
    let plan = || BlendBackward::<f32>::with_options(device, 32, 100, 64, options).expect("a plan");
    let (mut once, mut pass) = (plan(), plan());
    once.run(&state, &input, &ones, &mut grad_input, &mut gradients).expect("a run");
    let once = gradients.read().expect("a result").grad_weights;
    if !first {
        pass.run(&state, &input, &grad_output, &mut grad_input, &mut gradients).expect("a run");
    }
    let graph = Graph::capture::<Error>(gpu.stream(), |_| {
        pass.run(&state, &input, &grad_output, &mut grad_input, &mut gradients)
    });
    let exec = graph.and_then(|graph| Ok(graph.instantiate()?)).expect("a graph");
    grad_output.copy_from_slice(&vec![2.0_f32; elements]).expect("a copy");
    for _ in 0..2 {
        gradients.fill_bytes(0xff).expect("memory");
        exec.launch(gpu.stream()).expect("a replay");
        let twice: Vec<f32> = once.iter().map(|w| 2.0 * w).collect();
        assert_eq!(gradients.read().expect("a result").grad_weights, twice);
    }
}

pub(super) fn graft_epochs(device: &Device) {
    for (num_seeds, epochs) in [(1, 5), (255, 40), (100_003, 12)] {
        graft_schedule::check(device, num_seeds, epochs, num_seeds as u64);
    }
    graft_schedule::check_refusals(device);
}

pub(super) fn update_batches(device: &Device) {
    for (num_seeds, batch) in [(1, 700), (7, 3000), (1000, 1000), (50_000, 20_000)] {
        state_update::check(device, num_seeds, batch, batch as u64);
    }
    state_update::check_every_transition(device);
    state_update::check_fields(device);
    state_update::check_capacity(device);
}

pub(super) fn clip_every_mode(device: &Device) {
    for (num_seeds, chunk_size) in [(1, 1), (1000, 64), (16, 4096), (37, 5001)] {
        for broken_inputs in [false, true] {
            let case = Case { batch: 1, num_seeds, chunk_size, seed: 3, broken_inputs };
            gradient_clip::check_every_mode(device, case);
        }
    }
    gradient_clip::check_large_values(device);
    gradient_clip::check_refusals(device);
}

pub(super) fn telemetry_shapes(device: &Device) {
    let mut numbers = kasmina_tests::Numbers::new(99);
    let random = (0..20).map(|_| [300, 40, 300].map(|most| 1 + numbers.below(most)));
    let chosen = [[4096, 100, 64], [1001, 3, 4096], [1, 1000, 64], [20_000, 5, 12], [37, 13, 4999]];
    for (seed, [batch, num_seeds, chunk_size]) in chosen.into_iter().chain(random).enumerate() {
        let case =
            Case { batch, num_seeds, chunk_size, seed: seed as u64, broken_inputs: seed % 2 == 0 };
        telemetry_reduce::check::<f32>(device, case);
        telemetry_reduce::check::<f16>(device, case);
        telemetry_reduce::check::<bf16>(device, case);
    }
    telemetry_reduce::check_large_values(device);
    telemetry_reduce::check_refusals(device);
}
