//! How long a run takes.

use std::time::{Duration, Instant};

use crate::device::{Device, Gpu};
use crate::driver::Event;
use crate::error::Error;

const SAMPLES: usize = 5;

/// Launches of a sample on a GPU: one alone is shorter than what an event resolves.
const LAUNCHES: u32 = 20;

/// Off the GPU, runs end when this is used up.
const PATIENCE: Duration = Duration::from_millis(100);

/// The median time in seconds of `run`, which has run before: by events around launches on a GPU, by the
/// wall clock elsewhere.
pub(super) fn median_seconds(
    device: &Device,
    mut run: impl FnMut() -> Result<(), Error>,
) -> Result<f64, Error> {
    let mut samples = Vec::with_capacity(SAMPLES);
    let begun = Instant::now();
    while samples.is_empty() || (samples.len() < SAMPLES && begun.elapsed() < PATIENCE) {
        samples.push(match device {
            Device::Cuda(gpu) => by_events(gpu, &mut run)?,
            _ => {
                let before = Instant::now();
                run()?;
                before.elapsed().as_secs_f64()
            }
        });
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[samples.len() / 2])
}

fn by_events(gpu: &Gpu, run: &mut impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let (start, end) = (Event::new(gpu.device())?, Event::new(gpu.device())?);
    start.record(gpu.stream())?;
    for _ in 0..LAUNCHES {
        run()?;
    }
    end.record(gpu.stream())?;
    end.synchronize()?;
    Ok(f64::from(end.elapsed_ms(&start)?) / 1e3 / f64::from(LAUNCHES))
}
