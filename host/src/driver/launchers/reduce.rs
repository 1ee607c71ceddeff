//! Launcher of `reduce_*`.

use bytemuck::Pod;
use kasmina_device::Kernel;
use kasmina_kernels::instances::Team;
use kasmina_types::dtype::Element;
use kasmina_types::reduction::REDUCE_PARTIAL_BYTES;
use kasmina_types::tiles::REDUCE_BLOCK_THREADS;
use kasmina_types::{In, Out, ReduceSegments};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::error::Error;

/// Where the segments are.
pub(crate) enum Cut<'a> {
    /// `segments` of the same length, one after the other.
    Uniform { segments: u32, length: u64 },
    /// By ascending offsets, checked when they were made: the last is at most the input's length.
    Offsets(&'a Buffer<u64>),
}

impl Cut<'_> {
    fn segments(&self) -> u32 {
        match self {
            Self::Uniform { segments, .. } => *segments,
            Self::Offsets(offsets) => offsets.len() as u32 - 1,
        }
    }
}

/// One launch.
pub(crate) struct Arguments<'a, T: Pod, O: Pod> {
    pub(crate) kernel: &'static Kernel<ReduceSegments>,
    pub(crate) team: Team,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) cut: Cut<'a>,
    pub(crate) output: &'a mut Buffer<O>,
    pub(crate) parts: u32,
    pub(crate) partials: &'a mut Buffer<u8>,
    pub(crate) arrivals: &'a mut Buffer<u32>,
    pub(crate) grid: u32,
}

/// Checks the contract of `reduce_*` and launches it.
///
/// The offsets' last element is within the input, and `O` is the kernel's output type: the two facts
/// that are the caller's types' to hold (`SegmentOffsets` and `ReduceElement`).
pub(crate) fn launch<T: Element, O: Pod>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T, O>,
) -> Result<(), Error> {
    const OP: &str = "reduce";
    let segments = a.cut.segments();
    check_length(OP, "output", segments as usize, a.output.len())?;
    let parts = if a.team == Team::Warp { 1 } else { a.parts.max(1) };
    // The kernel's tile numbers are 32 bits and pass the last by a grid.
    let tiles = u64::from(segments) * u64::from(parts) + u64::from(a.grid);
    if tiles > u64::from(u32::MAX) {
        let (what, got, limit) = ("segments · parts", tiles, u64::from(u32::MAX));
        return Err(Error::TooLarge { op: OP, what, got, limit });
    }
    if parts > 1 {
        let places = segments as usize * parts as usize;
        check_at_least("partials", places * REDUCE_PARTIAL_BYTES, a.partials.len())?;
        check_at_least("arrivals", segments as usize, a.arrivals.len())?;
    }
    let (offsets, uniform_length) = match a.cut {
        Cut::Uniform { segments, length } => {
            check_length(OP, "input", segments as usize * length as usize, a.input.len())?;
            (In::new(std::ptr::null(), 0), length)
        }
        Cut::Offsets(offsets) => (offsets.view(), 0),
    };
    let params = ReduceSegments {
        input: a.input.view().cast(),
        output: a.output.view_mut().cast(),
        offsets,
        partials: if parts > 1 { a.partials.view_mut() } else { Out::new(std::ptr::null_mut(), 0) },
        arrivals: if parts > 1 { a.arrivals.view_mut() } else { Out::new(std::ptr::null_mut(), 0) },
        segments,
        parts,
        uniform_length,
    };
    let teams = match a.team {
        Team::Block => segments * parts,
        Team::Warp => segments.div_ceil(REDUCE_BLOCK_THREADS / 32),
    };
    if teams == 0 {
        return Ok(());
    }
    let grid = a.grid.clamp(1, teams);
    let _access = match &a.cut {
        Cut::Offsets(offsets) => Some(offsets.access()),
        Cut::Uniform { .. } => None,
    };
    if let (KernelDevice::Cuda(gpu), Cut::Offsets(offsets)) = (device, &a.cut) {
        offsets.acquire(gpu.stream())?;
    }
    // SAFETY: input, output and scratch have the lengths checked above, in memory aligned to 16 bytes;
    // the offsets are ascending and inside the input by their type; each of the `teams` tiles is taken
    // by one team whatever the grid, and the arrivals are zero between launches.
    let launch = || unsafe { device.launch(a.kernel, grid, params) };
    let launched: Result<(), Error> =
        with_buffers!(device, [a.input, a.output, a.partials, a.arrivals], launch());
    if let (KernelDevice::Cuda(gpu), Cut::Offsets(offsets)) = (device, &a.cut) {
        offsets.release(gpu.stream())?;
    }
    launched
}

fn check_at_least(buffer: &'static str, least: usize, got: usize) -> Result<(), Error> {
    if got >= least {
        return Ok(());
    }
    Err(Error::Length { op: "reduce", buffer, expected: format!("{least} or more"), got })
}
