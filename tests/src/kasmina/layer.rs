//! The layer whole, on any device.

pub mod blueprints;
pub mod checkpoints;
pub mod kernels;
pub mod lifecycle;
pub mod linear;
pub mod memory;
pub mod profile;
pub mod stack;
pub mod steps;
pub mod training;

use kasmina::kasmina::{Blueprint, GraftStates, KasminaLayer, LayerElement, SeedStates};
use kasmina::types::{BlueprintType, SeedLifecycle};
use kasmina::{Buffer, Device};

use crate::{Narrow, Numbers};

/// Everything that a command could change.
pub fn snapshot<T: LayerElement>(layer: &KasminaLayer<T>) -> (SeedStates, Vec<u8>, Vec<u16>) {
    let states = layer.state().read().expect("a read");
    let graft = layer.state().read_graft().expect("a read");
    (states, graft_bits(&graft), layer.blueprints())
}

/// The schedules' state as bytes, for NaN differs from itself.
fn graft_bits(graft: &GraftStates) -> Vec<u8> {
    let mut bytes = graft.schedule.clone();
    for floats in [&graft.alpha_target, &graft.baseline_loss, &graft.drift_history] {
        bytes.extend_from_slice(bytemuck::cast_slice(floats));
    }
    for words in
        [&graft.ramp_epochs, &graft.epochs_in_state, &graft.drift_count, &graft.embargo_epochs]
    {
        bytes.extend_from_slice(bytemuck::cast_slice(words));
    }
    bytes
}

/// A blueprint of a type with weights from `numbers`.
pub fn blueprint(kind: BlueprintType, chunk_size: usize, numbers: &mut Numbers) -> Blueprint {
    let weights = (0..chunk_size).map(|_| numbers.in_range(-1.0, 1.0)).collect();
    Blueprint { kind, weights, scale: numbers.in_range(0.5, 1.5) }
}

/// Takes a DORMANT seed to GRAFTING with a blueprint, at α.
pub fn graft<T: LayerElement>(layer: &mut KasminaLayer<T>, seed: usize, id: u16, alpha: f32) {
    layer.germinate(seed, id).expect("a DORMANT seed");
    layer.advance(seed).expect("a legal step");
    assert_eq!(layer.advance(seed).expect("a legal step"), SeedLifecycle::Grafting);
    layer.set_alpha(seed, alpha).expect("a number");
}

/// Inputs from a seed, in [−2, 2).
pub fn inputs<T: Narrow>(device: &Device, elements: usize, seed: u64) -> Buffer<T> {
    let mut numbers = Numbers::new(seed);
    let values: Vec<T> = (0..elements).map(|_| T::narrow(numbers.in_range(-2.0, 2.0))).collect();
    Buffer::from_slice(device, &values).expect("memory")
}

/// The bytes of a buffer.
pub fn bits<T: Narrow>(buffer: &Buffer<T>) -> Vec<u8> {
    bytemuck::cast_slice(&buffer.to_vec().expect("a read")).to_vec()
}
