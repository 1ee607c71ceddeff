//! The layer whole, under the executor and on the CPU.

use half::{bf16, f16};
use kasmina::Device;
use kasmina_tests::kasmina::layer::blueprints::{self, InFlight};
use kasmina_tests::kasmina::layer::{
    checkpoints, kernels, lifecycle, linear, memory, profile, stack, steps, training,
};

use super::shuffled;

/// Both devices of a machine without a GPU.
fn both(check: impl Fn(&Device)) {
    check(&Device::Cpu);
    check(&shuffled(1));
}

#[test]
fn commands_agree_with_a_model() {
    for seed in 0..40 {
        lifecycle::check_commands(&Device::Cpu, seed, 150);
    }
    for seed in 0..8 {
        lifecycle::check_commands(&shuffled(seed), seed, 60);
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    both(lifecycle::check_messages);
}

#[test]
fn epochs_end_by_the_table() {
    both(lifecycle::check_end_of_epoch);
}

/// On the CPU there is no device memory that a step could keep out of.
#[test]
fn steady_steps_allocate_and_copy_nothing() {
    steps::check_steady_steps::<f32>(&shuffled(1));
    steps::check_steady_steps::<bf16>(&shuffled(2));
}

#[test]
fn a_layer_is_profiled() {
    both(profile::check_scopes);
    both(profile::check_other_profiler);
    profile::check_steady_steps(&shuffled(1));
}

#[test]
fn the_ring_keeps_the_last_passes() {
    both(steps::check_telemetry_ring);
}

#[test]
fn telemetry_is_reduced_as_configured() {
    both(steps::check_telemetry_strategies);
}

#[test]
fn wrong_inputs_are_refused() {
    both(steps::check_refusals);
}

#[test]
fn numerical_modes() {
    both(steps::check_numerical_modes);
}

#[test]
fn exhausted_memory_leaves_the_layer_as_it_was() {
    both(memory::check_exhaustion);
}

#[test]
fn batch_sizes_vary() {
    both(steps::check_batch_sizes);
}

#[test]
fn the_least_recently_used_blueprint_goes() {
    both(blueprints::check_eviction);
}

#[test]
fn used_last_is_what_was_let_go_last() {
    both(blueprints::check_eviction_order);
}

#[test]
fn gradients_end_with_their_blueprint() {
    both(blueprints::check_gradients_end_with_their_blueprint);
}

#[test]
fn running_norms_end_with_their_blueprint() {
    both(blueprints::check_running_norms_end_with_their_blueprint);
}

#[test]
fn adaptive_clipping_goes_by_seed() {
    both(blueprints::check_adaptive_clipping_goes_by_seed);
}

#[test]
fn a_blueprint_is_replaced_under_its_id() {
    both(|device| blueprints::check_replacement_in_flight(device, InFlight::SMALL));
    both(|device| blueprints::check_eviction_in_flight(device, InFlight::SMALL));
}

#[test]
fn blueprints_that_do_not_fit_are_refused() {
    both(blueprints::check_unfit);
}

#[test]
fn states_are_loaded_whole_or_not_at_all() {
    both(blueprints::check_loading);
}

#[test]
fn a_restored_layer_goes_on_bit_for_bit() {
    both(checkpoints::check_continuation::<f32>);
    checkpoints::check_continuation::<bf16>(&shuffled(2));
}

#[test]
fn a_new_blueprint_has_norms_of_its_own() {
    both(checkpoints::check_norms_of_new_blueprints);
}

#[test]
fn a_layer_falls_back_to_the_checkpoint_before() {
    both(checkpoints::check_fallback);
}

#[test]
fn checkpoints_are_restored_whole_or_not_at_all() {
    both(checkpoints::check_refusals);
}

#[test]
fn checkpoints_are_as_large_as_what_is_loaded() {
    both(checkpoints::check_size);
}

#[test]
fn stacks_give_the_same_bits_whatever_is_kept() {
    both(stack::check_same_bits::<f32>);
    stack::check_same_bits::<f16>(&shuffled(3));
}

#[test]
fn stacks_that_recompute_take_less_memory() {
    stack::check_memory(|| Device::Cpu);
    stack::check_memory(|| shuffled(1));
}

#[test]
fn stacks_refuse_what_does_not_fit() {
    both(stack::check_refusals);
}

#[test]
fn kernels_are_compared() {
    both(kernels::check_comparison::<f32>);
    kernels::check_comparison::<f16>(&shuffled(1));
    both(kernels::check_gradient_comparison::<f32>);
    kernels::check_gradient_comparison::<f16>(&shuffled(1));
    both(kernels::check_comparison_mode);
}

#[test]
fn grids_give_the_same_bits() {
    both(kernels::check_grids);
}

#[test]
fn a_kernel_that_cannot_be_had_is_an_error() {
    both(kernels::check_forced_kernel);
    both(kernels::check_variants);
    both(kernels::check_tuner);
}

/// One element a row; odd chunks; more than a tile and than a slab; several seeds' sums behind one another.
#[test]
fn linear_seeds_are_the_references() {
    both(|device| {
        linear::check_shapes::<f32>(device, &[(1, 1), (5, 3), (7, 16), (130, 33), (3, 100)])
    });
    linear::check_shapes::<bf16>(&shuffled(2), &[(33, 16), (9, 70), (140, 8)]);
    linear::check_shapes::<f16>(&shuffled(3), &[(20, 24), (4, 130)]);
    linear::check_shapes::<bf16>(&Device::Cpu, &[(9, 70), (300, 200)]);
}

#[test]
fn linear_seeds_follow_the_numerical_mode() {
    both(linear::check_modes);
}

#[test]
fn steady_steps_of_linear_seeds_allocate_and_copy_nothing() {
    linear::check_steady_steps::<f32>(&shuffled(1));
    linear::check_steady_steps::<bf16>(&shuffled(2));
}

#[test]
fn linear_blueprints_have_a_budget() {
    both(linear::check_registry);
}

#[test]
fn linear_blueprints_are_saved() {
    both(linear::check_checkpoints::<f32>);
    linear::check_checkpoints::<bf16>(&shuffled(2));
}

#[test]
fn stacks_recompute_linear_seeds() {
    both(linear::check_stack);
}

#[test]
fn a_linear_seed_learns() {
    both(linear::check_learning);
}

#[test]
fn a_tolerance_lets_linear_blueprints_use_tensor_cores() {
    both(linear::check_tolerance);
}

#[test]
fn a_seed_lives_and_the_loss_falls() {
    both(training::check_life);
}
