//! Resident kernels under the executor.

use std::time::Duration;

use kasmina::persistent::Domains;
use kasmina::{Device, Executor};
use kasmina_tests::persistent::{
    check_axpby, check_belief_steps, check_figures, check_gemv, check_layer, check_mapped,
    check_needs, check_priorities, check_sequence, check_shared_models, check_stream,
};

/// The executor without its checks of races.
fn unchecked() -> Device {
    Device::Simt(Executor::new().checks(false))
}

#[test]
fn elements_in_every_kernel() {
    for domains in [Domains::Layer, Domains::Information, Domains::Linear, Domains::All] {
        check_axpby(&Device::simt(), domains, &[1, 257, 5000]);
    }
}

#[test]
fn products() {
    for domains in [Domains::Linear, Domains::All] {
        check_gemv(&Device::simt(), domains, &[(1, 4), (10, 64), (300, 20)]);
    }
}

#[test]
fn belief_steps() {
    for domains in [Domains::Information, Domains::All] {
        check_belief_steps(&Device::simt(), domains, &[3, 40, 70]);
    }
}

#[test]
fn models_that_blocks_share() {
    for domains in [Domains::Information, Domains::All] {
        check_shared_models(&Device::simt(), domains, &[(65, 64), (70, 40), (70, 70)]);
    }
}

#[test]
fn layers() {
    for domains in [Domains::Layer, Domains::All] {
        check_layer(&Device::simt(), domains, &[(3, 10, 4), (40, 9, 64), (5, 3, 1028)]);
    }
}

#[test]
fn a_sequence() {
    check_sequence(&unchecked(), 1024);
}

#[test]
fn a_stream() {
    check_stream(&unchecked(), 10_000, Duration::ZERO);
}

#[test]
fn needs() {
    check_needs(&unchecked(), 300);
}

#[test]
fn priorities() {
    check_priorities(&unchecked());
}

#[test]
fn figures() {
    check_figures(&unchecked());
}

#[test]
fn memory_of_the_host() {
    check_mapped(&unchecked(), &[1, 10_000], 50);
}
