//! Launcher of `gradient_clip_*`.

use kasmina_kernels::instances::{self, Clip};
use kasmina_types::{ClipFigures, ClipTotals, GradientClip};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::kasmina::{ClipTargets, LayerState};

const OP: &str = "gradient_clip";

/// One launch.
pub(crate) struct Arguments<'a> {
    pub(crate) clip: Clip,
    pub(crate) grid: u32,
    pub(crate) state: &'a LayerState,
    pub(crate) gradients: ClipTargets<'a>,
    pub(crate) running_norm: &'a mut Buffer<f32>,
    pub(crate) partials: &'a mut Buffer<ClipFigures>,
    pub(crate) figures: &'a mut Buffer<ClipFigures>,
    pub(crate) totals: &'a mut Buffer<ClipTotals>,
    pub(crate) arrivals: &'a mut Buffer<u32>,
    pub(crate) limit: f32,
    pub(crate) factor: f32,
    pub(crate) decay: f32,
}

/// Checks the contract of `gradient_clip_*` and launches one of them. That ids are blueprints, and offsets
/// and rows inside the weights, is [`LayerState`]'s to hold.
pub(crate) fn launch(device: KernelDevice<'_>, a: &mut Arguments<'_>) -> Result<(), Error> {
    let (state, num_blueprints) = (a.state, a.state.num_blueprints());
    let units = num_blueprints.max(1);
    let ClipTargets { weights, scales, alpha, seed_norms } = &mut a.gradients;
    check_length(OP, "grad_weights", state.weights.len(), weights.len())?;
    check_length(OP, "grad_scales", num_blueprints, scales.len())?;
    check_length(OP, "grad_alpha", state.num_seeds(), alpha.len())?;
    check_length(OP, "gradient_norm", state.num_seeds(), seed_norms.len())?;
    check_length(OP, "running_norm", state.num_seeds(), a.running_norm.len())?;
    check_length(OP, "partials", units, a.partials.len())?;
    check_length(OP, "figures", 1, a.figures.len())?;
    check_length(OP, "totals", 1, a.totals.len())?;
    check_length(OP, "arrivals", 1, a.arrivals.len())?;
    let params = GradientClip {
        grad_weights: weights.view_mut(),
        grad_scales: scales.view_mut(),
        grad_alpha: alpha.view_mut(),
        blueprint_id: state.blueprint_id.view(),
        blueprint_offset: state.blueprint_offset.view(),
        seed_norms: seed_norms.view(),
        running_norm: a.running_norm.view_mut(),
        partials: a.partials.view_mut(),
        figures: a.figures.view_mut(),
        totals: a.totals.view_mut(),
        arrivals: a.arrivals.view_mut(),
        limit: a.limit,
        factor: a.factor,
        decay: a.decay,
        units: units as u32,
        num_seeds: state.num_seeds() as u32,
        num_blueprints: num_blueprints as u32,
        chunk_size: state.chunk_size() as u32,
        _padding: 0,
    };
    let grid = a.grid.clamp(1, units as u32);
    let kernel = instances::gradient_clip(a.clip);
    // SAFETY: gradients and scratch have the lengths checked above; the state's ids are blueprints or 0,
    // its rows inside the weights and apart, which are as many as their gradients; any grid covers the
    // units, and the arrivals are zero between launches. What is written is borrowed mutably, hence
    // disjoint.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(
        device,
        [
            weights,
            scales,
            alpha,
            state.blueprint_id,
            state.blueprint_offset,
            seed_norms,
            a.running_norm,
            a.partials,
            a.figures,
            a.totals,
            a.arrivals,
        ],
        launch()
    )
}
