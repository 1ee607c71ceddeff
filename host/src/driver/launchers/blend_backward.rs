//! Launcher of `blend_backward_*`.

use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::dtype::Element;
use kasmina_types::{BlendBackward, BlendBackwardTma, Numerical, TensorMapHandle};

use super::boxes::Boxes;
use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::kasmina::pass::{Pass, PassKernel, tma_shared_bytes};
use crate::kasmina::{GradientBuffers, LayerState, SumBuffers};

const OP: &str = "blend_backward";

/// The plan of the pass.
pub(crate) type BackwardPass = Pass<BlendBackward, BlendBackwardTma>;

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) pass: &'a mut BackwardPass,
    pub(crate) batch: u32,
    pub(crate) numerical: Numerical,
    pub(crate) state: &'a LayerState,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) grad_output: &'a Buffer<T>,
    pub(crate) grad_input: &'a mut Buffer<T>,
    pub(crate) sums: &'a mut SumBuffers,
    /// They fit the state: `GradientBuffers::check`.
    pub(crate) gradients: &'a mut GradientBuffers,
}

/// Checks the contract of `blend_backward_*` and launches it. That the state's codes, ids and offsets are
/// right is [`LayerState`]'s to hold.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let Arguments { pass, state, sums, gradients, .. } = a;
    let Pass { kernel, geometry, grid } = pass;
    let (geometry, grid) = (*geometry, *grid);
    let (num_seeds, chunk_size) = (state.num_seeds(), state.chunk_size());
    let hidden = state.hidden();
    let (elements, slabs) = (a.batch as usize * hidden, geometry.slabs as usize);
    let lanes = kernel.lanes();
    let vectors = hidden / lanes as usize;
    for (buffer, expected, got) in [
        ("input", elements, a.input.len()),
        ("grad_output", elements, a.grad_output.len()),
        ("grad_input", elements, a.grad_input.len()),
        ("columns", slabs * hidden, sums.columns.len()),
        ("extras", slabs * vectors * EXTRA_SUMS, sums.extras.len()),
        ("chunk_vectors · lanes", chunk_size, (lanes * geometry.chunk_vectors) as usize),
    ] {
        check_length(OP, buffer, expected, got)?;
    }
    assert_eq!(kernel.dtype(), T::DTYPE, "the plan chose the instance by the element type");

    let params = BlendBackward {
        input: a.input.view().cast(),
        grad_output: a.grad_output.view().cast(),
        grad_input: a.grad_input.view_mut().cast(),
        layer: state.layer_arrays(),
        unstable: state.unstable.view(),
        sums: sums.view_mut(),
        gradients: gradients.views_mut().0,
        geometry,
        numerical: a.numerical,
        batch: a.batch,
        num_seeds: num_seeds as u32,
        chunk_size: chunk_size as u32,
        _padding: 0,
    };
    let (grad_output_map, input_map) = match kernel {
        PassKernel::Plain(_) => (TensorMapHandle::none(), TensorMapHandle::none()),
        PassKernel::Tma { instance, maps } => {
            let rows = instance.rows;
            let boxes = Boxes { geometry, batch: a.batch, hidden, lanes, rows };
            (boxes.map(maps, a.grad_output)?, boxes.map(maps, a.input)?)
        }
    };
    kernel.acquire_maps(device)?;
    // SAFETY: every buffer has the length that the kernel's contract names: those of the call and the
    // sums are checked above, those of the gradients by `GradientBuffers::check` in the operation, those of the state
    // when it was made; all are aligned to 16 bytes. The geometry
    // covers each vector once (its test), and the chunk is a multiple of the lanes. Buffers that are written are
    // borrowed mutably, hence disjoint. A tensor map describes its array and a group of this geometry, and the shared
    // memory holds the instance's stages.
    let launch = || unsafe {
        match &*kernel {
            PassKernel::Plain(instance) => device.launch(instance.kernel, grid, params),
            PassKernel::Tma { instance, .. } => {
                let shared = tma_shared_bytes(instance, &geometry);
                let params = BlendBackwardTma { backward: params, grad_output_map, input_map };
                device.launch_with_shared(instance.kernel, grid, shared, params)
            }
        }
    };
    let launched: Result<(), Error> = with_buffers!(
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
            sums.columns,
            sums.extras,
            gradients.grad_alpha,
            gradients.gradient_norm,
            gradients.gradient_variance,
            gradients.gradient_max,
        ],
        launch()
    );
    kernel.release_maps(device)?;
    launched
}
