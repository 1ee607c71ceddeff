//! Launcher of `parameter_gradients_*`.

use kasmina_kernels::instances;
use kasmina_types::ParameterGradients;
use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::blend_forward::BlendGeometry;

use super::{KernelDevice, with_buffers};
use crate::buffer::check_length;
use crate::error::Error;
use crate::kasmina::{GradientBuffers, LayerState, SumBuffers};

const OP: &str = "parameter_gradients";

/// Finished seeds of a part for each that it would have otherwise.
const FINISHED_SEEDS: u32 = 8;

/// One launch.
pub(crate) struct Arguments<'a> {
    /// How the pass that left the sums was cut, and the lanes of its instance.
    pub(crate) geometry: BlendGeometry,
    pub(crate) lanes: u32,
    pub(crate) state: &'a LayerState,
    pub(crate) sums: &'a mut SumBuffers,
    /// They fit the state: `GradientBuffers::check`.
    pub(crate) gradients: &'a mut GradientBuffers,
}

/// Checks the contract of `parameter_gradients_*` and launches it, right behind the pass over the batch: it reads
/// the state before that pass has ended, which does not write it, and is borrowed since. That the state's codes, ids and offsets are
/// right is [`LayerState`]'s to hold.
pub(crate) fn launch(device: KernelDevice<'_>, a: Arguments<'_>) -> Result<(), Error> {
    let Arguments { geometry, lanes, state, sums, gradients } = a;
    let (slabs, finished) = (geometry.slabs, geometry.finishes_seeds());
    let (chunk_size, blueprints) = (state.chunk_size(), state.num_blueprints());
    let kernel = instances::parameter_gradients(chunk_size).kernel;
    let (layer_gradients, parts) = gradients.views_mut();
    let parts = parts.expect("gradients on a device that runs kernels have their scratch memory");
    let (rows, columns) = (blueprints * parts.max_parts as usize, slabs as usize * state.hidden());
    for (buffer, expected, got) in [
        ("columns", columns, sums.columns.len()),
        ("extras", columns / lanes as usize * EXTRA_SUMS, sums.extras.len()),
        ("parts", rows * chunk_size, parts.weights.len()),
        ("part_scales", rows, parts.scales.len()),
        ("arrivals", blueprints, parts.arrivals.len()),
    ] {
        check_length(OP, buffer, expected, got)?;
    }

    let (part_seeds, max_parts, grid) = if finished {
        // All that is left of a seed is to be added up: fewer parts, to be merged in the end.
        let seeds = FINISHED_SEEDS * parts.part_seeds;
        let most = (state.num_seeds() as u32).div_ceil(seeds).clamp(1, parts.max_parts);
        (seeds, most, parts.grid.min(blueprints as u32 * most).max(1))
    } else {
        (parts.part_seeds, parts.max_parts, parts.grid)
    };
    let params = ParameterGradients {
        layer: state.layer_arrays(),
        sums: sums.view_mut(),
        gradients: layer_gradients,
        parts: parts.weights.view_mut(),
        part_scales: parts.scales.view_mut(),
        arrivals: parts.arrivals.view_mut(),
        slabs,
        chunk_vectors: chunk_size as u32 / lanes,
        max_parts,
        part_seeds,
        num_seeds: state.num_seeds() as u32,
        chunk_size: chunk_size as u32,
        num_blueprints: blueprints as u32,
        finished: u32::from(finished),
    };
    let (g, parts) = (&*gradients, gradients.parts.as_ref().expect("as above"));
    // SAFETY: every buffer has the length that the kernel's contract names: those of the scratch memory are
    // checked above, those of the gradients by `GradientBuffers::check` in the operation, those of the state
    // when it was made; all are aligned to 16 bytes. The instance's lanes divide the chunk, and the arrivals
    // are zero between launches. Buffers that are written are borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(
        device,
        [
            state.lifecycle,
            state.blueprint_id,
            state.alpha,
            state.blueprint_type,
            state.blueprint_offset,
            state.blueprint_scale,
            state.weights,
            sums.columns,
            sums.extras,
            g.grad_weights,
            g.grad_scales,
            g.grad_alpha,
            g.gradient_norm,
            g.gradient_variance,
            g.gradient_max,
            parts.weights,
            parts.scales,
            parts.arrivals,
        ],
        launch()
    )
}
