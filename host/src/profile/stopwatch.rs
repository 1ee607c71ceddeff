//! How long queued work takes, for those who compare one piece of work with another: a GPU's own clock where there is
//! one.

use std::time::Instant;

use crate::device::{Device, Gpu};
use crate::driver::Event;
use crate::error::Error;

/// A clock of a device.
pub(crate) enum Stopwatch<'a> {
    /// The time between two events on the stream.
    Events { gpu: &'a Gpu, start: Event, end: Event },
    /// The host's, where work is done when its call returns.
    Host,
}

impl<'a> Stopwatch<'a> {
    /// # Errors
    /// A failed call.
    pub(crate) fn new(device: &'a Device) -> Result<Self, Error> {
        Ok(match device {
            Device::Cuda(gpu) => Self::Events {
                gpu,
                start: Event::new(gpu.device())?,
                end: Event::new(gpu.device())?,
            },
            Device::Cpu | Device::Simt(_) => Self::Host,
        })
    }

    /// Microseconds that `work` takes on the device, a mean of `times` runs in one go. Waits for the device.
    ///
    /// # Errors
    /// What the work ran into, or a failed call.
    pub(crate) fn mean_us(
        &self,
        times: u32,
        mut work: impl FnMut() -> Result<(), Error>,
    ) -> Result<f64, Error> {
        let mut all = || (0..times).try_for_each(|_| work());
        let total_us = match self {
            Self::Events { gpu, start, end } => {
                start.record(gpu.stream())?;
                all()?;
                end.record(gpu.stream())?;
                end.synchronize()?;
                f64::from(end.elapsed_ms(start)?) * 1e3
            }
            Self::Host => {
                let start = Instant::now();
                all()?;
                start.elapsed().as_secs_f64() * 1e6
            }
        };
        Ok(total_us / f64::from(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_run_as_often_as_asked_and_its_failure_is_passed_on() {
        let device = Device::Cpu;
        let stopwatch = Stopwatch::new(&device).unwrap();
        let mut runs = 0;
        let mean_us = stopwatch.mean_us(5, || {
            runs += 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        });
        assert_eq!(runs, 5);
        assert!(mean_us.unwrap() >= 1e3);
        let failed = stopwatch.mean_us(5, || Err(Error::Capturing { op: "op" }));
        assert!(matches!(failed, Err(Error::Capturing { op: "op" })));
    }
}
