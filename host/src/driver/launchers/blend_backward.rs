//! Launcher of `blend_backward_*`.

use kasmina_kernels::instances::BlendBackwardInstance;
use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::blend_forward::BlendGeometry;
use kasmina_types::dtype::Element;
use kasmina_types::{BlendBackward, Numerical};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::kasmina::{BackwardBuffers, GradientBuffers, LayerState};

const OP: &str = "blend_backward";

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) instance: BlendBackwardInstance,
    pub(crate) geometry: BlendGeometry,
    pub(crate) grid: u32,
    pub(crate) batch: u32,
    pub(crate) numerical: Numerical,
    pub(crate) state: &'a LayerState,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) grad_output: &'a Buffer<T>,
    pub(crate) grad_input: &'a mut Buffer<T>,
    pub(crate) gradients: &'a mut GradientBuffers,
    pub(crate) scratch: &'a mut BackwardBuffers,
}

/// Checks the contract of `blend_backward_*` and launches it. That the state's codes, ids and offsets are
/// right is [`LayerState`]'s to hold.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let Arguments { instance, geometry, state, gradients, scratch, .. } = a;
    let (num_seeds, chunk_size) = (state.num_seeds(), state.chunk_size());
    let hidden = state.hidden();
    let (elements, slabs) = (a.batch as usize * hidden, geometry.slabs as usize);
    let vectors = hidden / instance.lanes as usize;
    for (buffer, expected, got) in [
        ("input", elements, a.input.len()),
        ("grad_output", elements, a.grad_output.len()),
        ("grad_input", elements, a.grad_input.len()),
        ("columns", slabs * hidden, scratch.columns.len()),
        ("extras", slabs * vectors * EXTRA_SUMS, scratch.extras.len()),
        ("contributions", hidden, scratch.contributions.len()),
        ("scale_contributions", num_seeds, scratch.scale_contributions.len()),
        ("group_arrivals", geometry.groups() as usize, scratch.group_arrivals.len()),
        ("blueprint_arrivals", num_seeds, scratch.blueprint_arrivals.len()),
        ("chunk_vectors · lanes", chunk_size, (instance.lanes * geometry.chunk_vectors) as usize),
    ] {
        check_length(OP, buffer, expected, got)?;
    }
    assert_eq!(instance.dtype, T::DTYPE, "the plan chose the instance by the element type");

    let params = BlendBackward {
        input: a.input.view().cast(),
        grad_output: a.grad_output.view().cast(),
        grad_input: a.grad_input.view_mut().cast(),
        layer: state.layer_arrays(),
        unstable: state.unstable.view(),
        gradients: gradients.view_mut(),
        scratch: scratch.view_mut(),
        geometry,
        numerical: a.numerical,
        batch: a.batch,
        num_seeds: num_seeds as u32,
        chunk_size: chunk_size as u32,
        num_blueprints: state.num_blueprints() as u32,
    };
    let (g, s) = (gradients, scratch);
    // SAFETY: every buffer has the length that the kernel's contract names: those of the call and the
    // scratch are checked above and, for the gradients, by `GradientBuffers::check` in the operation; those
    // of the state when it was made; all are aligned to 16 bytes. The geometry covers each vector once (its
    // test), the chunk is a multiple of the lanes, and the arrivals are zero between launches. Buffers that
    // are written are borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(instance.kernel, a.grid, params) };
    with_buffers!(
        device,
        [
            a.input,
            a.grad_output,
            a.grad_input,
            state.lifecycle,
            state.blueprint_id,
            state.alpha,
            state.blueprint_type,
            state.blueprint_offset,
            state.blueprint_scale,
            state.weights,
            state.unstable,
            g.grad_weights,
            g.grad_scales,
            g.grad_alpha,
            g.gradient_norm,
            g.gradient_variance,
            g.gradient_max,
            s.columns,
            s.extras,
            s.contributions,
            s.scale_contributions,
            s.group_arrivals,
            s.blueprint_arrivals,
        ],
        launch()
    )
}
