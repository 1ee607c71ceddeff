//! Launcher of `telemetry_reduce_*`.

use kasmina_kernels::instances::TelemetryReduceInstance;
use kasmina_types::dtype::Element;
use kasmina_types::telemetry_reduce::TELEMETRY_REDUCE_PARTIAL_WORDS;
use kasmina_types::{ReductionStrategy, TelemetryReduce};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;
use crate::kasmina::TelemetryBuffers;

const OP: &str = "telemetry_reduce";

/// One launch.
pub(crate) struct Arguments<'a, T: Element> {
    pub(crate) instance: TelemetryReduceInstance,
    pub(crate) strategy: ReductionStrategy,
    pub(crate) grid: u32,
    pub(crate) batch: u32,
    pub(crate) num_seeds: u32,
    pub(crate) chunk_size: u32,
    pub(crate) slabs: u32,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) telemetry: &'a mut TelemetryBuffers,
    pub(crate) partials: &'a mut Buffer<u32>,
    pub(crate) arrivals: &'a mut Buffer<u32>,
}

/// Lanes of a team, as a power of two, and groups of seeds: how the kernel places seeds in a warp.
pub(crate) fn teams(num_seeds: u32, chunk_vectors: u32) -> (u32, u32) {
    let team_shift = chunk_vectors.min(32).next_power_of_two().trailing_zeros();
    (team_shift, num_seeds.div_ceil(32 >> team_shift))
}

/// Checks the contract of `telemetry_reduce_*` and launches it.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let elements = a.batch as usize * a.num_seeds as usize * a.chunk_size as usize;
    check_length(OP, "input", elements, a.input.len())?;
    let chunk_vectors = a.chunk_size / a.instance.lanes;
    let lanes = (chunk_vectors * a.instance.lanes) as usize;
    check_length(OP, "chunk_vectors · lanes", a.chunk_size as usize, lanes)?;
    assert_eq!(a.instance.dtype, T::DTYPE, "the plan chose the instance by the element type");
    let (team_shift, groups) = teams(a.num_seeds, chunk_vectors);
    let parts = a.num_seeds as usize * a.slabs as usize;
    check_length(OP, "partials", parts * TELEMETRY_REDUCE_PARTIAL_WORDS, a.partials.len())?;
    check_length(OP, "arrivals", groups as usize, a.arrivals.len())?;
    let t = a.telemetry;
    let params = TelemetryReduce {
        input: a.input.view().cast(),
        telemetry: t.view_mut(),
        partials: a.partials.view_mut(),
        arrivals: a.arrivals.view_mut(),
        batch: a.batch,
        num_seeds: a.num_seeds,
        chunk_size: a.chunk_size,
        chunk_vectors,
        team_shift,
        groups,
        slabs: a.slabs,
        strategy: a.strategy as u32,
    };
    // SAFETY: input and scratch have the lengths checked above, the telemetry those that
    // `TelemetryBuffers::check` saw in the operation, in memory aligned to 16 bytes; the chunk is a multiple
    // of the lanes, any grid covers the tiles, and the arrivals are zero between launches. What is written
    // is borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(a.instance.kernel, a.grid, params) };
    with_buffers!(
        device,
        [
            a.input,
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
    )
}
