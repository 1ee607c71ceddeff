//! The comparisons of the executor's tests on a GPU, on larger shapes. Where there is no GPU they are
//! reported as ignored; with `KASMINA_REQUIRE_GPU=1` they fail instead.

mod dispatch;
mod layer_kernels;
mod linear;
mod persistent;

use half::{bf16, f16};
use kasmina::driver::Graph;
use kasmina::information::TransferEntropy;
use kasmina::kasmina::BlendForward;
use kasmina::linear::Precision;
use kasmina::reduction::{Reduce, SegmentOffsets, Segments};
use kasmina::types::DType;
use kasmina::{Buffer, Device, Error};
use kasmina_tests::fusion;
use kasmina_tests::information::active_inference::{self as inference, published, stages};
use kasmina_tests::information::transfer_entropy as te;
use kasmina_tests::information::vectors;
use kasmina_tests::kasmina::blend_forward as blend;
use kasmina_tests::kasmina::layer::blueprints::{self, InFlight};
use kasmina_tests::kasmina::layer::{
    checkpoints, kernels, lifecycle, linear as linear_seeds, memory, profile, stack, steps,
    training,
};
use kasmina_tests::linear::{adaptive, forward, gemv, grouped};
use kasmina_tests::normalization::activation_norm as norm;
use kasmina_tests::reduction::reduce::{self, Cut};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    if persistent::child() {
        return;
    }
    let arguments = Arguments::from_args();
    let required = std::env::var("KASMINA_REQUIRE_GPU").is_ok_and(|value| value == "1");
    let absent = Device::cuda(0).is_err();
    let trial = |name: &str, run: fn(&Device)| {
        let ignored = absent && !required;
        // Each has a device of its own, hence a stream: what one captures is not another's.
        Trial::test(name, move || {
            let device = Device::cuda(0).map_err(|why| Failed::from(why.to_string()))?;
            run(&device);
            Ok(())
        })
        .with_ignored_flag(ignored)
    };
    let trials = vec![
        trial("persistent::operations", persistent::operations),
        trial("persistent::sequence", persistent::sequence),
        trial("persistent::needs", persistent::needs),
        trial("persistent::priorities", persistent::priorities),
        trial("persistent::figures", persistent::figures),
        trial("persistent::mapped", persistent::mapped),
        trial("persistent::stream", persistent::stream),
        trial("persistent::soak", persistent::soak),
        trial("persistent::fault_hang", |device| persistent::scenario("hang", device)),
        trial("persistent::fault_unmet", |device| persistent::scenario("unmet", device)),
        trial("persistent::fault_deaf", |device| persistent::scenario("deaf", device)),
        trial("persistent::launch_beside", |device| persistent::scenario("beside", device)),
        trial("persistent::steps_aside", |device| persistent::scenario("aside", device)),
        trial("persistent::fault_trap", |device| persistent::scenario("trap", device)),
        trial("persistent::fault_refused", |device| persistent::scenario("refused", device)),
        trial("persistent::fault_full", |device| persistent::scenario("full", device)),
        trial("persistent::fault_stop", |device| persistent::scenario("stop", device)),
        trial("persistent::fault_idle", |device| persistent::scenario("idle", device)),
        trial("persistent::fault_drop", |device| persistent::scenario("drop", device)),
        trial("persistent::fault_killed", persistent::killed),
        trial("persistent::fault_frozen", persistent::frozen),
        trial("dispatch::graph", dispatch::graph),
        trial("dispatch::auto", dispatch::auto),
        trial("dispatch::transitions", dispatch::transitions),
        trial("dispatch::fallbacks", dispatch::fallbacks),
        trial("blend_forward::ragged_shapes", layer_kernels::blend_ragged_shapes),
        trial("blend_forward::chunk_sizes_at_the_edges", layer_kernels::blend_chunk_sizes),
        trial("blend_forward::large", layer_kernels::blend_large),
        trial("blend_forward_tma::every_shape", layer_kernels::blend_tma),
        trial("blend_forward_tma::maps_are_cached", layer_kernels::blend_tma_maps),
        trial("blend_backward::ragged_shapes", layer_kernels::backward_ragged_shapes),
        trial("blend_backward::chunk_sizes_at_the_edges", layer_kernels::backward_chunk_sizes),
        trial("blend_backward::large", layer_kernels::backward_large),
        trial("blend_backward::shared_blueprints", layer_kernels::backward_shared_blueprints),
        trial("blend_backward::modes_and_refusals", layer_kernels::backward_modes),
        trial("blend_backward::graph", layer_kernels::backward_graph),
        trial("blend_backward_tma::every_shape", layer_kernels::backward_tma),
        trial("blend_backward_tma::maps_are_cached", layer_kernels::backward_tma_maps),
        trial("graft_schedule::epochs", layer_kernels::graft_epochs),
        trial("state_update::batches", layer_kernels::update_batches),
        trial("gradient_clip::every_mode", layer_kernels::clip_every_mode),
        trial("telemetry_reduce::shapes", layer_kernels::telemetry_shapes),
        trial("activation_norm::every_option", norm_every_option),
        trial("activation_norm::ragged_shapes", norm_ragged_shapes),
        trial("activation_norm::columns_at_the_edges", norm_columns),
        trial("activation_norm::large", norm_large),
        trial("activation_norm::edges", norm_edges),
        trial("active_inference::steps", inference_steps),
        trial("active_inference::whole_inferences", inference_whole),
        trial("active_inference::published_cases", |device| {
            published::check_cases(device, usize::MAX);
        }),
        trial("active_inference::published_filter", |device| {
            published::check_scalar_kalman(device, usize::MAX, usize::MAX);
        }),
        trial("active_inference::one_large_curvature", |device| {
            inference::check_outliers(device, &[0, 7, 20, 35], 1e-10);
        }),
        trial("active_inference::without_bulk_copies", inference_without_bulk),
        trial("active_inference::ends", inference_ends),
        trial("active_inference::stages", inference_stages),
        trial("vectors::sizes", vector_sizes),
        trial("linear::random_shapes", linear::random_shapes),
        trial("linear::edges", linear::edges),
        trial("linear::fp8", linear::fp8),
        trial("linear::conversions", linear::conversions),
        trial("linear::vectors", linear::vectors),
        trial("linear::gradients", linear::gradient_shapes),
        trial("linear::refusals", forward::check_refusals),
        trial("linear::groups", linear::groups),
        trial("linear::groups_on_warpgroups", linear::groups_on_warpgroups),
        trial("linear::groups_in_captures", grouped::check_capture),
        trial("linear::group_scales_and_refusals", |device| {
            for precision in [Precision::Auto, Precision::Fp8, Precision::Fp8Fast] {
                grouped::check_scales(device, precision);
            }
            grouped::check_refusals(device);
        }),
        trial("gemv::sizes", linear::gemv_sizes),
        trial("gemv::refusals", gemv::check_refusals),
        trial("linear::gradients_of_batches", linear::batches),
        trial("linear::adaptive", |device| {
            adaptive::check(device);
            adaptive::check_steps(device);
        }),
        trial("fusion::sizes", fusion_sizes),
        trial("fusion::large_product", |device| fusion::check_large_product(device, 11)),
        trial("fusion::refusals", fusion::check_refusals),
        trial("active_inference::refusals", inference::check_refusals),
        trial("transfer_entropy::values_of_the_case", |device| te::check_case(device, usize::MAX)),
        trial("transfer_entropy::random_options", |device| te::check_random(device, 0..40, 3000)),
        trial("transfer_entropy::many_dimensions", |device| {
            te::check_many_dimensions(device, 2000)
        }),
        trial("transfer_entropy::batches", |device| te::check_batches(device, 1500)),
        trial("transfer_entropy::refusals", te::check_refusals),
        trial("transfer_entropy::large", te_large),
        trial("reduce::whole", reduce_whole),
        trial("reduce::ragged_segments", reduce_segments),
        trial("reduce::rows", reduce_rows),
        trial("large_values", large_values),
        trial("graphs_replay_what_was_captured", graphs),
        trial("scratch_is_not_made_inside_a_graph", scratch_inside_a_graph),
        trial("two_handles_of_one_gpu_share_buffers", two_handles),
        trial("layer::commands", |device| {
            for seed in 0..4 {
                lifecycle::check_commands(device, seed, 150);
            }
            lifecycle::check_messages(device);
            lifecycle::check_end_of_epoch(device);
        }),
        trial("layer::steady_steps_allocate_and_copy_nothing", |device| {
            steps::check_steady_steps::<f32>(device);
            steps::check_steady_steps::<f16>(device);
            steps::check_steady_steps::<bf16>(device);
        }),
        trial("layer::profile", |device| {
            profile::check_scopes(device);
            profile::check_other_profiler(device);
            profile::check_steady_steps(device);
        }),
        trial("layer::replays_keep_their_telemetry", profile::check_replays),
        trial("layer::telemetry", |device| {
            steps::check_telemetry_ring(device);
            steps::check_telemetry_strategies(device);
        }),
        trial("layer::inputs", |device| {
            steps::check_refusals(device);
            steps::check_numerical_modes(device);
            steps::check_batch_sizes(device);
        }),
        trial("layer::blueprints", |device| {
            blueprints::check_eviction(device);
            blueprints::check_eviction_order(device);
            blueprints::check_gradients_end_with_their_blueprint(device);
            blueprints::check_running_norms_end_with_their_blueprint(device);
            blueprints::check_adaptive_clipping_goes_by_seed(device);
            blueprints::check_unfit(device);
            blueprints::check_loading(device);
        }),
        trial("layer::checkpoints", |device| {
            checkpoints::check_continuation::<f32>(device);
            checkpoints::check_continuation::<f16>(device);
            checkpoints::check_norms_of_new_blueprints(device);
            checkpoints::check_fallback(device);
            checkpoints::check_refusals(device);
            checkpoints::check_size(device);
        }),
        trial("layer::blueprints_change_in_flight", |device| {
            blueprints::check_replacement_in_flight(device, InFlight::LARGE);
            blueprints::check_eviction_in_flight(device, InFlight::LARGE);
        }),
        trial("layer::exhausted_memory", memory::check_exhaustion),
        trial("layer::stacks", |device| {
            stack::check_same_bits::<f32>(device);
            stack::check_same_bits::<f16>(device);
            stack::check_refusals(device);
        }),
        // Each handle has a pool of its own, whose statistics begin at nothing.
        trial("layer::stacks_that_recompute_take_less_memory", |_| {
            stack::check_memory(|| Device::cuda(0).expect("a GPU"));
        }),
        trial("layer::kernels", |device| {
            kernels::check_comparison::<f32>(device);
            kernels::check_comparison::<bf16>(device);
            kernels::check_gradient_comparison::<f32>(device);
            kernels::check_gradient_comparison::<bf16>(device);
            kernels::check_comparison_mode(device);
            kernels::check_grids(device);
            kernels::check_forced_kernel(device);
            kernels::check_variants(device);
            kernels::check_tuner(device);
        }),
        trial("layer::a_seed_lives_and_the_loss_falls", training::check_life),
        trial("layer::steps_are_captured", steps::check_capture),
        trial("layer::linear_seeds", |device| {
            let shapes = [(1, 1), (5, 3), (130, 33), (300, 64), (1000, 256)];
            linear_seeds::check_shapes::<f32>(device, &shapes);
            linear_seeds::check_shapes::<f16>(device, &shapes);
            linear_seeds::check_shapes::<bf16>(device, &shapes);
            linear_seeds::check_modes(device);
            linear_seeds::check_steady_steps::<f32>(device);
            linear_seeds::check_steady_steps::<bf16>(device);
        }),
        trial("layer::linear_blueprints", |device| {
            linear_seeds::check_registry(device);
            linear_seeds::check_checkpoints::<f32>(device);
            linear_seeds::check_checkpoints::<f16>(device);
            linear_seeds::check_stack(device);
            linear_seeds::check_learning(device);
            linear_seeds::check_tolerance(device);
        }),
        trial("layer::steps_of_linear_seeds_are_captured", linear_seeds::check_capture),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn norm_every_dtype(device: &Device, case: norm::Case) {
    norm::check::<f32>(device, case);
    norm::check::<f16>(device, case);
    norm::check::<bf16>(device, case);
}

fn norm_every_option(device: &Device) {
    for seed in 0..56 {
        norm_every_dtype(device, norm::Case::of(300, 136, seed));
        norm_every_dtype(device, norm::Case::of(100, 1031, seed));
    }
}

fn norm_ragged_shapes(device: &Device) {
    let mut numbers = kasmina_tests::Numbers::new(77);
    for seed in 0..40 {
        let (rows, cols) = (1 + numbers.below(500), 1 + numbers.below(2000));
        let case = norm::Case { broken: seed % 3 == 0, ..norm::Case::of(rows, cols, seed) };
        norm_every_dtype(device, case);
    }
}

fn norm_columns(device: &Device) {
    let cols =
        [1, 2, 31, 32, 33, 255, 256, 257, 1000, 1024, 2049, 4096, 5000, 8192, 16_384, 40_001];
    for (seed, cols) in cols.into_iter().enumerate() {
        norm_every_dtype(device, norm::Case::of(37, cols, 5 * seed as u64));
    }
}

fn norm_large(device: &Device) {
    for (seed, rows, cols) in
        [(2, 4096, 1024), (17, 2048, 4096), (33, 500, 16_384), (51, 100_000, 64)]
    {
        norm_every_dtype(device, norm::Case::of(rows, cols, seed));
    }
}

fn norm_edges(device: &Device) {
    norm::check_large_offset(device);
    norm::check_refusals(device);
    norm::check_no_parameter_gradients(device);
}

fn reduce_every_dtype(device: &Device, case: &reduce::Case) {
    reduce::check::<f32>(device, case);
    reduce::check::<f16>(device, case);
    reduce::check::<bf16>(device, case);
    reduce::check::<f64>(device, case);
    reduce::check::<i32>(device, case);
}

fn reduce_whole(device: &Device) {
    for (len, nan) in
        [(0, false), (1, false), (31, true), (1000, false), (1_000_003, true), (5_000_001, false)]
    {
        let case = reduce::Case { len, cut: Cut::Whole, seed: len as u64, nan };
        reduce_every_dtype(device, &case);
    }
}

fn reduce_segments(device: &Device) {
    let mut numbers = kasmina_tests::Numbers::new(7);
    for (len, places) in [(5000, 300), (400_000, 40), (3_000_000, 5), (100, 2000)] {
        let cut = Cut::At((0..places).map(|_| numbers.below(len + 1)).collect());
        reduce_every_dtype(device, &reduce::Case { len, cut, seed: 3, nan: true });
    }
}

fn reduce_rows(device: &Device) {
    for (rows, columns) in [(1000, 3), (77, 1001), (5, 300_001), (3000, 64)] {
        let case =
            reduce::Case { len: rows * columns, cut: Cut::Rows(columns), seed: 1, nan: false };
        reduce_every_dtype(device, &case);
    }
}

fn large_values(device: &Device) {
    blend::check_large_values(device);
    blend::check_short_telemetry(device);
    reduce::check_large_values(device);
}

fn graphs(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let reduce = Reduce::new(device);
    let mut input = Buffer::from_slice(device, &vec![1.0_f32; 3_000_000]).expect("memory");
    let mut output = Buffer::<f32>::zeroed(device, 1).expect("memory");
    reduce.sum_into(&input, &Segments::Whole, &mut output).expect("a first run");
    let graph = Graph::capture::<Error>(gpu.stream(), |_| {
        reduce.sum_into(&input, &Segments::Whole, &mut output)
    });
    let exec = graph.and_then(|graph| Ok(graph.instantiate()?)).expect("a graph");
    for value in [2.0_f32, 3.0] {
        input.copy_from_slice(&vec![value; 3_000_000]).expect("a copy");
        exec.launch(gpu.stream()).expect("a replay");
        assert_eq!(output.to_vec().expect("a result"), [value * 3e6]);
    }
}

fn scratch_inside_a_graph(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let reduce = Reduce::new(device);
    let input = Buffer::from_slice(device, &vec![1.0_f32; 3_000_000]).expect("memory");
    let mut output = Buffer::<f32>::zeroed(device, 1).expect("memory");
    let captured = Graph::capture::<Error>(gpu.stream(), |_| {
        reduce.sum_into(&input, &Segments::Whole, &mut output)
    });
    assert!(matches!(captured, Err(Error::Capturing { .. })));
    let captured = Graph::capture::<Error>(gpu.stream(), |_| {
        BlendForward::<f32>::new(device, 1, 1, 1).map(drop)
    });
    assert!(matches!(captured, Err(Error::Capturing { .. })));
    // And nothing was left behind.
    reduce.sum_into(&input, &Segments::Whole, &mut output).expect("a run");
    assert_eq!(output.to_vec().expect("a result"), [3e6]);
}

fn two_handles(device: &Device) {
    let other = Device::cuda(0).expect("the same GPU");
    for round in 0..50 {
        let input = Buffer::from_slice(device, &vec![1.0_f32; 1 << 20]).expect("memory");
        let offsets = SegmentOffsets::new(device, &[0, 1 << 10, 1 << 20]).expect("ascending");
        let reduce = Reduce::new(&other);
        let sums = reduce.sum(&input, &Segments::Offsets(&offsets)).expect("a sum");
        drop((input, offsets));
        // What was freed is taken and overwritten at once.
        let mut noise = Buffer::<f32>::zeroed(device, 1 << 20).expect("memory");
        noise.fill_bytes(0x7f).expect("a fill");
        assert_eq!(
            sums.to_vec().expect("a result"),
            [1024.0, (1 << 20) as f32 - 1024.0],
            "{round}"
        );
    }
}

/// Observations and states: each kind of team, a block for a model and the whole GPU.
const INFERENCE_SHAPES: [(usize, usize, usize); 9] = [
    (1, 64, 64),
    (1, 1, 1),
    (300, 64, 64),
    (7, 333, 77),
    (1, 1000, 1000),
    (3, 1024, 1024),
    (1, 2000, 4001),
    (1, 4096, 4096),
    (1, 500, 9000),
];

fn inference_cases() -> impl Iterator<Item = inference::Case> {
    INFERENCE_SHAPES.into_iter().flat_map(|(models, observations, states)| {
        [DType::F64, DType::F32].map(|jacobian| {
            let seed = states as u64;
            inference::Case { jacobian, seed, ..inference::Case::new(models, observations, states) }
        })
    })
}

fn inference_steps(device: &Device) {
    inference_cases().for_each(|case| inference::check_steps(device, case));
}

fn inference_whole(device: &Device) {
    for case in inference_cases() {
        inference::check_inferences(device, case, 1e-10);
        if case.states <= 1024 {
            inference::check_curvature(device, case);
        }
    }
}

/// Where bulk copies are taken by default.
fn inference_without_bulk(device: &Device) {
    let between = |case: &inference::Case| (1025..=4096).contains(&case.states);
    for case in inference_cases().filter(between) {
        let case = inference::Case { bulk_copies: false, ..case };
        inference::check_steps(device, case);
        inference::check_inferences(device, case, 1e-10);
    }
}

/// Inferences of no steps, of beliefs that are not finite, and what a step costs.
fn inference_ends(device: &Device) {
    for case in [(3, 30, 20), (2, 700, 700), (2, 500, 2000)] {
        let case = inference::Case::new(case.0, case.1, case.2);
        inference::check_no_steps(device, case);
        inference::check_not_finite(device, case);
        inference::check_steady_steps(device, case);
    }
}

fn inference_stages(device: &Device) {
    inference_cases().for_each(|case| stages::check_stages(device, case));
}

fn vector_sizes(device: &Device) {
    for len in [1, 1000, 100_000] {
        vectors::check_vectors::<f64>(device, len, 6);
        vectors::check_vectors::<f32>(device, len, 6);
    }
}

fn fusion_sizes(device: &Device) {
    for shape in [[1, 1, 1], [1, 1 << 20, 3], [3, 1001, 999], [1, 4096, 4096], [1000, 64, 33]] {
        fusion::check_declared(device, shape, 5);
    }
}

/// Enough points for many slabs, and for the pruned variant by itself.
fn te_large(device: &Device) {
    for history in [1, 3, 4] {
        let options = TransferEntropy::new().target_history(history).source_history(history);
        te::check(
            device,
            &te::Case { samples: 20_100, seed: 3, ties: false, options, conditions: 0 },
        );
    }
}
