//! What the Criterion benches share: the devices, the clock and the inputs.
//!
//! They show changes of this library against itself, on every device that this machine has. For times
//! against the hardware's ceilings and against other libraries there is `kasmina bench`.

use std::time::{Duration, Instant};

use criterion::Criterion;
use kasmina::driver::Event;
use kasmina::{Device, Error};

/// Few samples and short ones: the benches of all devices together take about a minute.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
}

/// How large a device's inputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// For the executor, which checks every access.
    Tiny,
    /// For the CPU.
    Small,
    /// For a GPU: far larger than its cache.
    Large,
}

/// The executor, the CPU, and a GPU where there is one; says so where there is none.
pub fn devices() -> Vec<(Device, Size)> {
    let mut devices = vec![(Device::simt(), Size::Tiny), (Device::Cpu, Size::Small)];
    match Device::cuda(0) {
        Ok(gpu) => devices.push((gpu, Size::Large)),
        Err(why) => eprintln!("cuda: skipped: {why}"),
    }
    devices
}

/// What `calls` calls of `run` take: device time between two events on a GPU, else time on the host.
///
/// # Errors
/// What `run` answers, or a failed call.
pub fn time(
    device: &Device,
    calls: u64,
    mut run: impl FnMut() -> Result<(), Error>,
) -> Result<Duration, Error> {
    let Device::Cuda(gpu) = device else {
        let start = Instant::now();
        for _ in 0..calls {
            run()?;
        }
        return Ok(start.elapsed());
    };
    let (start, end) = (Event::new(gpu.device())?, Event::new(gpu.device())?);
    start.record(gpu.stream())?;
    for _ in 0..calls {
        run()?;
    }
    end.record(gpu.stream())?;
    end.synchronize()?;
    Ok(Duration::from_secs_f64(f64::from(end.elapsed_ms(&start)?) * 1e-3))
}

/// `len` numbers of −0.5 to 1.5, no two neighbours alike.
pub fn numbers(len: usize) -> impl Iterator<Item = f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1 << 23) as f32 - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_made_and_timed() {
        let mut calls = 0;
        let run = || {
            calls += 1;
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        };
        assert!(time(&Device::Cpu, 3, run).unwrap() >= Duration::from_millis(3));
        assert_eq!(calls, 3);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let numbers: Vec<f32> = numbers(10_000).collect();
        assert!(numbers.iter().all(|x| (-0.5..=1.5).contains(x)));
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
