//! Launcher of `blend_forward_*`.

use kasmina_types::dtype::Element;
use kasmina_types::{
    BlendForward, BlendForwardTma, LayerArrays, Numerical, TelemetryPartial, TensorMapHandle,
};

use super::boxes::Boxes;
use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::kasmina::pass::{Pass, PassKernel, tma_shared_bytes};
use crate::kasmina::{LayerState, TelemetryBuffers};

const OP: &str = "blend_forward";

/// The plan of the pass.
pub(crate) type ForwardPass = Pass<BlendForward, BlendForwardTma>;

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) pass: &'a mut ForwardPass,
    pub(crate) batch: u32,
    pub(crate) numerical: Numerical,
    pub(crate) gathers: bool,
    pub(crate) state: &'a mut LayerState,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) output: &'a mut Buffer<T>,
    pub(crate) telemetry: &'a mut TelemetryBuffers,
    pub(crate) partials: &'a mut Buffer<TelemetryPartial>,
    pub(crate) arrivals: &'a mut Buffer<u32>,
}

/// Checks the contract of `blend_forward_*` and launches it. That the state's codes, ids and offsets
/// are right is [`LayerState`]'s to hold.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let Arguments { pass, state, telemetry, .. } = a;
    let Pass { kernel, geometry, grid } = pass;
    let (geometry, grid) = (*geometry, *grid);
    let (num_seeds, chunk_size) = (state.num_seeds(), state.chunk_size());
    let elements = a.batch as usize * state.hidden();
    check_length(OP, "input", elements, a.input.len())?;
    check_length(OP, "output", elements, a.output.len())?;
    check_length(OP, "partials", num_seeds * geometry.parts() as usize, a.partials.len())?;
    check_length(OP, "arrivals", geometry.groups() as usize, a.arrivals.len())?;
    let lanes = kernel.lanes() * geometry.chunk_vectors;
    check_length(OP, "chunk_vectors · lanes", chunk_size, lanes as usize)?;
    assert_eq!(kernel.dtype(), T::DTYPE, "the plan chose the instance by the element type");

    let LayerArrays {
        lifecycle,
        blueprint_id,
        alpha,
        blueprint_type,
        blueprint_offset,
        blueprint_scale,
        weights,
    } = state.layer_arrays();
    let params = BlendForward {
        input: a.input.view().cast(),
        output: a.output.view_mut().cast(),
        lifecycle,
        blueprint_id,
        alpha,
        blueprint_type,
        blueprint_offset,
        blueprint_scale,
        weights,
        telemetry: telemetry.view_mut(),
        partials: a.partials.view_mut(),
        arrivals: a.arrivals.view_mut(),
        unstable: state.unstable.view_mut(),
        geometry,
        numerical: a.numerical,
        batch: a.batch,
        num_seeds: num_seeds as u32,
        chunk_size: chunk_size as u32,
        gathers: a.gathers.into(),
    };
    let input_map = match kernel {
        PassKernel::Plain(_) => TensorMapHandle::none(),
        PassKernel::Tma { instance, maps } => {
            let (lanes, rows) = (instance.lanes, instance.rows);
            let hidden = state.hidden();
            Boxes { geometry, batch: a.batch, hidden, lanes, rows }.map(maps, a.input)?
        }
    };
    let t = telemetry;
    kernel.acquire_maps(device)?;
    // SAFETY: every buffer has the length that the kernel's contract names: those of the call are
    // checked above and, for the telemetry, by `TelemetryBuffers::check` in the operation; those of the
    // state when it was made; all are aligned to 16 bytes. The geometry
    // covers each vector once (its test), the chunk is a multiple of the lanes, and the arrivals are
    // zero between launches. Buffers that are written are borrowed mutably, hence disjoint.
    // A tensor map describes this input and a group of this geometry, and the shared memory holds the instance's stages.
    let launch = || unsafe {
        match &*kernel {
            PassKernel::Plain(instance) => device.launch(instance.kernel, grid, params),
            PassKernel::Tma { instance, .. } => {
                let shared = tma_shared_bytes(instance, &geometry);
                let params = BlendForwardTma { forward: params, input_map, _padding: 0 };
                device.launch_with_shared(instance.kernel, grid, shared, params)
            }
        }
    };
    let launched: Result<(), Error> = with_buffers!(
        device,
        [
            a.input,
            a.output,
            state.lifecycle,
            state.blueprint_id,
            state.alpha,
            state.blueprint_type,
            state.blueprint_offset,
            state.blueprint_scale,
            state.weights,
            state.unstable,
            a.partials,
            a.arrivals,
            t.count,
            t.mean,
            t.variance,
            t.min,
            t.max,
            t.dead_ratio,
            t.snr,
            t.nonfinite,
        ],
        launch()
    );
    kernel.release_maps(device)?;
    launched
}
