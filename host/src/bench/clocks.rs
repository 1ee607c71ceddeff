//! At which clocks a row's samples ran.

use super::record::RowClocks;
use crate::device::Device;
use crate::driver::{GpuMeter, GpuReading};

/// Samples of a lane that a reading is taken with; the others are not held up by one.
const READINGS: usize = 8;

/// NVML's bits for what holds a clock, and their names. An idle GPU (bit 0) is none: short samples leave it idle between.
const LIMITS: [(u64, &str); 8] = [
    (1 << 1, "application clocks"),
    (1 << 2, "power cap"),
    (1 << 3, "hardware slowdown"),
    (1 << 4, "sync boost"),
    (1 << 5, "thermal slowdown"),
    (1 << 6, "hardware thermal slowdown"),
    (1 << 7, "power brake"),
    (1 << 8, "display clock"),
];

/// The meter of a GPU; none on other devices, and where there is no NVML.
pub(super) fn meter(device: &Device) -> Option<GpuMeter> {
    match device {
        Device::Cuda(gpu) => GpuMeter::new(gpu.device()),
        Device::Cpu | Device::Simt(_) => None,
    }
}

/// Whether a reading is taken with that sample of so many.
pub(super) fn is_read(sample: usize, samples: usize) -> bool {
    let apart = samples.div_ceil(READINGS);
    sample % apart == apart / 2
}

/// What readings come to; `None` of none.
pub(super) fn of(readings: &[GpuReading]) -> Option<RowClocks> {
    let median = |of: fn(&GpuReading) -> u32| {
        let mut sorted: Vec<u32> = readings.iter().map(of).collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    };
    let mhz = || readings.iter().map(|reading| reading.sm_mhz);
    let limits = readings.iter().fold(0, |bits, reading| bits | reading.limits);
    let slowest = readings.iter().map(|reading| reading.power_state).max()?;
    Some(RowClocks {
        readings: readings.len(),
        sm_mhz: median(|reading| reading.sm_mhz)?,
        sm_min_mhz: mhz().min()?,
        sm_max_mhz: mhz().max()?,
        power_w: f64::from(median(|reading| reading.power_mw)?) * 1e-3,
        power_state: format!("P{slowest}"),
        limits: LIMITS
            .iter()
            .filter(|(bit, _)| limits & bit != 0)
            .map(|(_, name)| (*name).to_owned())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_spread_over_the_samples() {
        let read = |samples| (0..samples).filter(|&i| is_read(i, samples)).collect::<Vec<_>>();
        assert_eq!(read(50), [3, 10, 17, 24, 31, 38, 45]);
        assert_eq!(read(30), [2, 6, 10, 14, 18, 22, 26]);
        assert_eq!(read(1), [0]);
    }

    #[test]
    fn a_row_has_the_medians_and_what_held_the_clock_in_any_reading() {
        let reading =
            |sm_mhz, power_mw, limits| GpuReading { sm_mhz, power_mw, power_state: 0, limits };
        let all = [reading(1980, 500_000, 1), reading(1500, 700_000, 4), reading(1700, 690_500, 0)];
        let clocks = of(&all).unwrap();
        assert_eq!((clocks.sm_mhz, clocks.sm_min_mhz, clocks.sm_max_mhz), (1700, 1500, 1980));
        assert_eq!((clocks.power_w, clocks.power_state.as_str()), (690.5, "P0"));
        assert_eq!(clocks.limits, ["power cap"]);
        assert_eq!(clocks.to_string(), "1700 MHz (1500–1980), 690 W, P0, power cap");
        assert_eq!(of(&[]), None);
    }
}
