//! How long the kernels take, and how close that is to what the memory allows.
//!
//! [`run`] checks each case against f64, refuses to time a wrong result, and samples the others in turn
//! with the device's own copy. [`timer`] says how a sample is taken, [`record`] what is written down,
//! [`report`] makes tables of it, and [`peers`] adds what other libraries took on the same GPU.

mod active_inference;
mod backward;
mod cases;
mod clocks;
mod copy_rate;
pub(crate) mod data;
pub mod dispatch;
mod environment;
mod error;
mod fusion;
mod gemv;
mod kasmina_layer;
mod layer;
mod linear;
mod linear_grouped;
mod normalization;
pub mod peers;
pub mod record;
mod reduction;
pub mod report;
mod seeds;
mod statistics;
mod telemetry;
pub mod timer;
mod transfer_entropy;

pub use cases::Case;
pub use copy_rate::DeviceCopy;
pub use error::BenchError;
pub use statistics::Statistics;

use kasmina_reference::numeric::{Tolerance, compare};

use self::record::{Document, Refused, Row};
use self::timer::{LaneTimes, Plan, Subject};
use crate::device::Device;
use crate::error::Error;

/// What to run, and how much of it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only cases with one of these in their name; empty for all.
    pub only: Vec<String>,
    /// Smaller arrays and fewer samples.
    pub quick: bool,
}

/// A case that was checked and is ready to be timed.
struct Prepared {
    call: Box<dyn FnMut(usize) -> Result<(), Error>>,
    sets: usize,
    max_rel_error: f64,
    tolerance: f64,
}

/// The name of the copy among the cases.
const COPY: &str = "device_copy";

/// Checks and times the cases on `device`; `before` is called ahead of each with its name, its position
/// from 0 and how many there are.
///
/// # Errors
/// No case of that name, memory exhausted, or a failed call. A wrong result is no error but a
/// [`Refused`].
pub fn run(
    device: &Device,
    options: &Options,
    mut before: impl FnMut(&str, usize, usize),
) -> Result<Document, BenchError> {
    let plan = if options.quick {
        Plan { warm_up: 5, samples: 30 }
    } else {
        Plan { warm_up: 10, samples: 50 }
    };
    let cases = selected(device, options)?;
    let mut header = environment::header(device, plan);
    let mut copy = match device {
        Device::Cuda(gpu) => Some(DeviceCopy::new(gpu)?),
        Device::Cpu | Device::Simt(_) => None,
    };
    let peak_gb_per_s = header.gpu.as_ref().and_then(|gpu| gpu.peak_gb_per_s);
    let (mut rows, mut refused, mut copy_rates) = (Vec::new(), Vec::new(), Vec::new());
    for (index, case) in cases.iter().enumerate() {
        let name = case.name();
        before(&name, index, cases.len());
        match measure_case(device, case, copy.as_mut(), plan) {
            Ok(measured) => {
                copy_rates.extend(measured.copy_gb_per_s);
                rows.extend(measured.rows(case, case.floor_us(device, peak_gb_per_s)));
            }
            Err(wrong @ BenchError::WrongResult { .. }) => {
                refused.push(Refused { case: name, reason: wrong.to_string() });
            }
            Err(error) => return Err(error),
        }
        if let Device::Cuda(gpu) = device {
            gpu.pool().trim();
        }
    }
    if let (Device::Cuda(gpu), Some(header)) = (device, &mut header.gpu) {
        header.copy_gb_per_s = Statistics::of(&copy_rates).map(|rates| rates.median_us);
        header.clocks_after = environment::clocks(gpu);
    }
    Ok(Document { header, rows, refused })
}

fn selected(device: &Device, options: &Options) -> Result<Vec<Case>, BenchError> {
    let all = cases::all(device, options.quick);
    if options.only.is_empty() {
        return Ok(all);
    }
    let names: Vec<_> = all.iter().map(Case::name).collect();
    let missing = |pattern: &&String| !names.iter().any(|name| name.contains(pattern.as_str()));
    if let Some(pattern) = options.only.iter().find(missing) {
        return Err(BenchError::NoCase { pattern: pattern.clone(), names });
    }
    let wanted = |name: &str| options.only.iter().any(|pattern| name.contains(pattern.as_str()));
    Ok(all.into_iter().zip(&names).filter(|(_, name)| wanted(name)).map(|(case, _)| case).collect())
}

/// A case's times, with the copy's beside them.
struct Measured {
    lanes: Vec<LaneTimes>,
    sets: usize,
    max_rel_error: f64,
    tolerance: f64,
    copy_gb_per_s: Option<f64>,
}

fn measure_case(
    device: &Device,
    case: &Case,
    mut copy: Option<&mut DeviceCopy>,
    plan: Plan,
) -> Result<Measured, BenchError> {
    let prepared = case.prepare(device, copy.as_deref_mut())?;
    let (sets, max_rel_error, tolerance) =
        prepared.as_ref().map_or((1, 0.0, 0.0), |p| (p.sets, p.max_rel_error, p.tolerance));
    let copy_bytes = copy.as_ref().map(|copy| copy.bytes());
    let mut subjects = Vec::new();
    if let Some(Prepared { call, sets, .. }) = prepared {
        subjects.push(Subject { call, sets, lanes: case.lanes(device, sets) });
    }
    subjects.extend(copy.map(DeviceCopy::subject));
    let times = timer::measure(device, &mut subjects, plan)?;
    let copy_gb_per_s = copy_bytes.zip(times.last()).map(|(bytes, lanes)| {
        let copy = lanes.first().expect("the copy has a lane");
        gb_per_s(bytes, copy.times.median_us)
    });
    let lanes = times.into_iter().next().expect("a case is the copy, or has a subject of its own");
    Ok(Measured { lanes, sets, max_rel_error, tolerance, copy_gb_per_s })
}

impl Measured {
    fn rows(&self, case: &Case, floor_us: Option<f64>) -> Vec<Row> {
        let row = |lane: &LaneTimes| {
            let Statistics { samples, median_us, min_us, max_us } = lane.times;
            let gb_per_s = gb_per_s(case.bytes, median_us);
            Row {
                kernel: case.kernel.clone(),
                variant: case.variant.to_owned(),
                dtype: case.dtype.name().to_owned(),
                shape: case.shape.clone(),
                mode: lane.lane.mode,
                cache: lane.lane.cache,
                launches: lane.launches,
                buffer_sets: self.sets,
                samples,
                median_us,
                min_us,
                max_us,
                bytes: case.bytes,
                gb_per_s,
                percent_of_copy: self.copy_gb_per_s.map(|copy| 100.0 * gb_per_s / copy),
                floor_us,
                percent_of_floor: floor_us.map(|floor_us| 100.0 * floor_us / median_us),
                max_rel_error: self.max_rel_error,
                tolerance: self.tolerance,
                clocks: lane.clocks.clone(),
                peers: Vec::new(),
            }
        };
        self.lanes.iter().map(row).collect()
    }
}

fn gb_per_s(bytes: u64, time_us: f64) -> f64 {
    bytes as f64 / time_us * 1e-3
}

/// The largest error of a part of a result, if it is within the tolerance.
fn within(
    what: &'static str,
    out: &[f64],
    reference: &[f64],
    tolerance: Tolerance,
) -> Result<f64, BenchError> {
    let comparison = compare(out, reference).expect("the caller has both of one length");
    if tolerance.accepts(&comparison) {
        return Ok(comparison.max_rel_error);
    }
    let error = comparison.max_rel_error;
    Err(BenchError::WrongResult { what, error, tolerance: tolerance.limit() })
}

/// At most `count` positions, from the first of `len` to the last.
fn spread(len: usize, count: usize) -> Vec<usize> {
    let count = count.min(len);
    (0..count).map(|i| i * (len - 1) / (count - 1).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::timer::{Cache, Mode};
    use super::*;

    #[test]
    fn cases_of_the_cpu_and_the_executor_are_right_and_timed() {
        for (device, only) in [
            (Device::Cpu, "whole"),
            (Device::Cpu, "kasmina_layer f32"),
            (Device::simt(), "blend_forward f32"),
            (Device::simt(), "kasmina_layer f32"),
        ] {
            let mut announced = Vec::new();
            let options = Options { only: vec![only.into()], quick: true };
            let document =
                run(&device, &options, |name, _, _| announced.push(name.to_owned())).unwrap();
            assert_eq!(document.refused, []);
            assert!(!announced.is_empty());
            let timed: Vec<_> = document.rows.iter().map(Row::case).collect();
            assert_eq!(timed, announced);
            for row in &document.rows {
                assert_eq!((row.mode, row.cache, row.samples), (Mode::Wall, Cache::Cold, 30));
                assert!(
                    0.0 < row.min_us && row.min_us <= row.median_us && row.median_us <= row.max_us
                );
                assert!(row.max_rel_error <= row.tolerance && row.gb_per_s > 0.0);
                assert_eq!(row.percent_of_copy, None, "there is no copy rate off the GPU");
            }
            assert_eq!(document.header.kind, device.name());
        }
    }

    #[test]
    fn a_pattern_that_names_nothing_lists_the_names() {
        let options = Options { only: vec!["reduce".into(), "no such".into()], quick: true };
        let Err(BenchError::NoCase { names, .. }) = run(&Device::Cpu, &options, |_, _, _| ())
        else {
            panic!("nothing matches")
        };
        assert!(names.iter().any(|name| name.starts_with("reduce_variance f32")), "{names:?}");
    }

    #[test]
    fn a_result_off_by_more_than_the_tolerance_is_refused() {
        use kasmina_reference::numeric::Dtype;
        let tolerance = Tolerance::for_dtype(Dtype::F32, 1);
        assert_eq!(within("it", &[1.0, 2.0], &[1.0, 2.0], tolerance).unwrap(), 0.0);
        for wrong in [2.001, f64::NAN] {
            let refused = within("it", &[1.0, wrong], &[1.0, 2.0], tolerance);
            assert!(matches!(refused, Err(BenchError::WrongResult { what: "it", .. })));
        }
    }

    #[test]
    fn positions_are_spread_from_the_first_to_the_last() {
        assert_eq!(spread(100, 4), [0, 33, 66, 99]);
        assert_eq!(spread(3, 12), [0, 1, 2]);
        assert_eq!(spread(1, 12), [0]);
    }
}
