//! A layer's step as a user makes it: `KasminaLayer` with the default configuration, forward pass and backward pass.

use kasmina_reference::kasmina::RowStrategy;
use kasmina_reference::numeric::{Dtype, Tolerance};

use super::backward::Gradients;
use super::data::{self, Draw};
use super::layer::{Checked, State};
use super::{BenchError, Prepared, timer};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{GradientValues, GraftStates, KasminaLayer, LayerElement};

/// What one call reads and writes of `[batch, hidden]`.
struct Set<T: LayerElement> {
    input: Buffer<T>,
    output: Buffer<T>,
    grad_output: Buffer<T>,
    grad_input: Buffer<T>,
}

/// Makes the layer and the buffers of `[batch, seeds, chunk]`, and checks one result. The values that are drawn let no
/// seed be strict, so the adaptive mode gives what the fast one does.
pub(super) fn prepare<T: LayerElement + Draw>(
    device: &Device,
    dtype: Dtype,
    shape: [usize; 3],
    state: State,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    let [batch, seeds, chunk] = shape;
    let elements = batch * seeds * chunk;
    let states = state.states(seeds, chunk);
    let mut layer = KasminaLayer::<T>::builder(seeds, seeds * chunk).build(device)?;
    layer.load_state(states.clone(), GraftStates::new(seeds), None)?;
    let sets = timer::buffer_sets(device, bytes);
    let mut buffers = Vec::new();
    for set in 0..sets as u64 {
        buffers.push(Set {
            input: Buffer::from_slice(device, &data::draw::<T>(1 + set, elements))?,
            output: Buffer::zeroed(device, elements)?,
            grad_output: Buffer::from_slice(device, &data::draw::<T>(1001 + set, elements))?,
            grad_input: Buffer::zeroed(device, elements)?,
        });
    }

    // Each set once: a variant may have to make something for an input that it sees first.
    for set in &mut buffers {
        step(&mut layer, set)?;
    }
    let first = &mut buffers[0];
    first.output.fill_bytes(0xFF)?;
    first.grad_input.fill_bytes(0xFF)?;
    step(&mut layer, first)?;
    let x = first.input.to_vec()?;
    let (g, dx) = (first.grad_output.to_vec()?, first.grad_input.to_vec()?);
    let tolerance = Tolerance::for_dtype(dtype, 1);
    let result = Gradients { shape, x: &x, g: &g, dx: &dx };
    let mut max_rel_error = result.check_input(&states, tolerance)?;
    result.check_parameters(&states, &gradients(&layer, states.num_blueprints())?)?;
    let forward = Checked { shape, y: first.output.to_vec()?, x };
    max_rel_error = max_rel_error.max(forward.check_output(&states, tolerance)?);
    let telemetry = layer.telemetry()?.expect("there was a pass");
    forward.check_telemetry(&telemetry, RowStrategy::Hierarchical)?;

    let call = move |set: usize| step(&mut layer, &mut buffers[set % sets]);
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}

fn step<T: LayerElement>(layer: &mut KasminaLayer<T>, set: &mut Set<T>) -> Result<(), Error> {
    layer.forward_into(&set.input, &mut set.output)?;
    layer.backward_into(&set.input, &set.grad_output, &mut set.grad_input)
}

/// The parameters' gradients, the weights' in the order of the blueprints' ids instead of the layer's own.
fn gradients<T: LayerElement>(
    layer: &KasminaLayer<T>,
    blueprints: usize,
) -> Result<GradientValues, Error> {
    let values = layer.gradients().expect("there was a backward pass").read()?;
    let (offsets, chunk) = (layer.state().blueprint_offset.to_vec()?, layer.state().chunk_size());
    let row = |&offset: &u32| &values.grad_weights[offset as usize..][..chunk];
    let grad_weights = offsets[..blueprints].iter().flat_map(row).copied().collect();
    Ok(GradientValues { grad_weights, ..values })
}
