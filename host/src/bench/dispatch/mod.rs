//! What it costs to reach a device, way by way: launches, graphs, items of a resident kernel.
//!
//! The ways of a case take turns, sample by sample, so that a clock or a temperature that drifts favours none of them: first
//! those without a resident kernel, while none is there, for it would slow them down; then those with one. Every result is
//! checked before anything is timed.

mod belief;
mod domains;
mod record;
mod sequence;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kasmina_simt::Executor;

pub use crate::latency::LatencyBucket;
pub use record::{DispatchDocument, DispatchRow, NotRun};

use self::record::Figures;
use super::timer::Plan;
use super::{BenchError, environment};
use crate::device::{Device, Gpu};
use crate::driver::{Graph, GraphExec};
use crate::error::Error;
use crate::persistent::{Domains, PersistentConfig, PersistentExecutor};

/// One way for one case.
struct Subject<'a> {
    device: &'static str,
    case: &'static str,
    way: &'static str,
    /// Operations, and launches, of one call.
    operations: usize,
    launches: usize,
    /// The executors of its items.
    executors: Vec<Arc<PersistentExecutor>>,
    /// Does it, and waits until it is done.
    call: Box<dyn FnMut() -> Result<(), Error> + 'a>,
}

impl Subject<'_> {
    fn is_resident(&self) -> bool {
        !self.executors.is_empty() || self.case == sequence::BARE
    }
}

/// Ways that take turns, and those that there are not.
#[derive(Default)]
struct Group<'a> {
    subjects: Vec<Subject<'a>>,
    not_run: Vec<NotRun>,
}

impl Group<'_> {
    fn lacks(&mut self, case: &str, way: &str, reason: impl Into<String>) {
        let (case, way, reason) = (case.to_owned(), way.to_owned(), reason.into());
        self.not_run.push(NotRun { case, way, reason });
    }
}

/// Makes a group for a device.
type Make = for<'a> fn(&'a Device) -> Result<Group<'a>, BenchError>;

/// Every group by the name of its case.
const GROUPS: [(&str, Make); 4] = [
    (sequence::CASE, sequence::group),
    (sequence::ALL_DOMAINS, sequence::of_all_domains),
    (belief::CASE, belief::group),
    (domains::CASE, domains::group),
];

/// Checks and times all ways that `device` has, and a sequence of launches under the executor of the CPU. `before` is
/// called ahead of each case with its name, its position from 0 and how many there are.
///
/// # Errors
/// A wrong result, memory exhausted, or a failed call.
pub fn run(
    device: &Device,
    quick: bool,
    mut before: impl FnMut(&str, usize, usize),
) -> Result<DispatchDocument, BenchError> {
    // What the executor's checks take is no launch's.
    let unchecked = |executor: Executor| Device::Simt(executor.checks(false));
    let device = &match device {
        Device::Simt(executor) => unchecked(executor.clone()),
        other => other.clone(),
    };
    let (plan, few) = match (device, quick) {
        (Device::Cuda(_), false) => (Plan { warm_up: 50, samples: 2000 }, FEW),
        (Device::Cuda(_), true) => (Plan { warm_up: 20, samples: 200 }, FEWEST),
        (Device::Cpu, false) => (Plan { warm_up: 10, samples: 200 }, FEW),
        (Device::Cpu, true) => (Plan { warm_up: 5, samples: 50 }, FEWEST),
        (Device::Simt(_), false) => (FEW, FEW),
        (Device::Simt(_), true) => (FEWEST, FEWEST),
    };
    let header = environment::header(device, plan);
    let (mut rows, mut not_run) = (Vec::new(), Vec::new());
    let emulated = !matches!(device, Device::Simt(_));
    let count = GROUPS.len() + usize::from(emulated);
    for (index, (case, make)) in GROUPS.into_iter().enumerate() {
        before(case, index, count);
        let group = make(device)?;
        not_run.extend(group.not_run);
        rows.extend(measure(device, group.subjects, plan)?);
    }
    if emulated {
        before("sequence under the executor", GROUPS.len(), count);
        let executor = unchecked(Executor::new());
        let group = sequence::launches_alone(&executor)?;
        rows.extend(measure(&executor, group.subjects, few)?);
    }
    Ok(DispatchDocument { header, rows, not_run })
}

/// Samples under the executor, where a call takes as long as a thousand elsewhere.
const FEW: Plan = Plan { warm_up: 1, samples: 10 };
const FEWEST: Plan = Plan { warm_up: 1, samples: 3 };

fn measure(
    device: &Device,
    mut subjects: Vec<Subject<'_>>,
    plan: Plan,
) -> Result<Vec<DispatchRow>, Error> {
    if let Device::Cuda(gpu) = device {
        // The resident kernels leave for it, and come back with their next items.
        gpu.device().synchronize()?;
    }
    let mut samples = vec![Vec::with_capacity(plan.samples); subjects.len()];
    for resident in [false, true] {
        let mut turn = |mut samples: Option<&mut Vec<Vec<Duration>>>| {
            for (index, subject) in subjects.iter_mut().enumerate() {
                if subject.is_resident() != resident {
                    continue;
                }
                let begun = Instant::now();
                (subject.call)()?;
                if let Some(samples) = &mut samples {
                    samples[index].push(begun.elapsed());
                }
            }
            Ok::<_, Error>(())
        };
        (0..plan.warm_up).try_for_each(|_| turn(None))?;
        (0..plan.samples).try_for_each(|_| turn(Some(&mut samples)))?;
    }
    Ok(subjects.iter().zip(&samples).map(|(subject, samples)| row(subject, samples)).collect())
}

fn row(subject: &Subject<'_>, samples: &[Duration]) -> DispatchRow {
    let Subject { device, case, way, operations, launches, executors, .. } = subject;
    let of_kernels = executors.iter().map(|executor| executor.statistics().launches).sum();
    let figures = Figures::of(samples);
    DispatchRow {
        device: (*device).to_owned(),
        case: (*case).to_owned(),
        way: (*way).to_owned(),
        operations: *operations,
        launches: *launches,
        resident_launches: (!executors.is_empty()).then_some(of_kernels),
        samples: samples.len(),
        median_us: figures.median_us,
        p10_us: figures.p10_us,
        p90_us: figures.p90_us,
        p99_us: figures.p99_us,
        min_us: figures.min_us,
        max_us: figures.max_us,
        histogram: figures.histogram,
    }
}

/// The names of the ways.
mod way {
    pub(super) const CALLS: &str = "calls";
    pub(super) const LAUNCHES: &str = "launches";
    pub(super) const GRAPH: &str = "graph";
    pub(super) const ITEM: &str = "item";
    pub(super) const ITEM_OF_ALL: &str = "item, all domains";
    pub(super) const ITEMS: &str = "items";
}

/// Why the CPU has calls alone.
const NO_KERNELS: &str = "the CPU has no kernels";
const NO_GRAPHS: &str = "graphs need a GPU";

/// What the calls themselves are on a device.
fn calls_of(device: &Device) -> &'static str {
    if matches!(device, Device::Cpu) { way::CALLS } else { way::LAUNCHES }
}

/// Launches of so many operations by calls on a device.
fn launches_of(device: &Device, operations: usize) -> usize {
    if matches!(device, Device::Cpu) { 0 } else { operations }
}

/// An executor whose kernel stays while others have their turns; what keeps the device from having one, if something does.
fn executor(
    device: &Device,
    domains: Domains,
) -> Result<Result<Arc<PersistentExecutor>, String>, Error> {
    let small_groups = match device {
        Device::Cuda(gpu) if !gpu.device().info().cooperative_launch => {
            return Ok(Err("resident kernels need cooperative launches".to_owned()));
        }
        Device::Cpu => return Ok(Err(NO_KERNELS.to_owned())),
        Device::Cuda(_) => PersistentConfig::default().small_groups,
        // Every block that polls takes its time from those that work.
        Device::Simt(_) => 1,
    };
    let long = Duration::from_secs(60);
    let config = PersistentConfig {
        domains,
        small_groups,
        idle_limit: long,
        deadline: long,
        host_limit: long,
        ..PersistentConfig::default()
    };
    Ok(Ok(Arc::new(PersistentExecutor::new(device, config)?)))
}

/// A call of an item, for a device whose executor there is.
fn item_call<'a>(
    executor: &Arc<PersistentExecutor>,
    name: &str,
    work: impl FnOnce() -> Result<(), Error>,
) -> Result<Box<dyn FnMut() -> Result<(), Error> + 'a>, Error> {
    let program = executor.record(name, work)?;
    let executor = Arc::clone(executor);
    Ok(Box::new(move || executor.submit(&program)?.wait()))
}

/// A call of a graph of what `work` launches.
fn graph_call<'a>(
    gpu: &'a Gpu,
    mut work: impl FnMut() -> Result<(), Error>,
) -> Result<Box<dyn FnMut() -> Result<(), Error> + 'a>, Error> {
    let graph = Graph::capture::<Error>(gpu.stream(), |_| work())?;
    let exec: GraphExec = graph.instantiate()?;
    Ok(Box::new(move || {
        exec.launch(gpu.stream())?;
        Ok(gpu.stream().synchronize()?)
    }))
}

/// Refuses results that are not the same bits.
fn same<T: bytemuck::Pod>(what: &'static str, got: &[T], expected: &[T]) -> Result<(), BenchError> {
    let bytes = |values: &[T]| bytemuck::cast_slice::<T, u8>(values).to_vec();
    if bytes(got) == bytes(expected) {
        return Ok(());
    }
    Err(BenchError::WrongResult { what, error: f64::INFINITY, tolerance: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executor_has_every_way_but_graphs() {
        let device = Device::Simt(Executor::new().checks(false));
        let mut announced = Vec::new();
        let document = run(&device, true, |case, index, count| {
            announced.push(case.to_owned());
            assert!(index < count && count == 4);
        });
        let document = document.unwrap();
        let expected = ["sequence", "sequence, all domains", "belief step", "three domains"];
        assert_eq!(announced, expected);
        let rows: Vec<_> = document
            .rows
            .iter()
            .map(|row| (row.case.as_str(), row.way.as_str(), row.operations, row.launches))
            .collect();
        assert_eq!(
            rows,
            [
                ("sequence", "launches", 170, 170),
                ("bare round trip", "mapped words", 0, 0),
                ("sequence", "item", 170, 0),
                ("empty item", "item", 0, 0),
                ("sequence", "item, all domains", 170, 0),
                ("belief step", "launches", 1, 1),
                ("belief step", "item", 1, 0),
                ("three domains", "launches", 3, 3),
                ("three domains", "items", 3, 0),
            ]
        );
        for row in &document.rows {
            let times = [row.min_us, row.p10_us, row.median_us, row.p90_us, row.p99_us, row.max_us];
            assert!(0.0 < times[0] && times.is_sorted(), "{row:?}");
            assert_eq!((row.samples, row.device.as_str()), (3, "simt"));
            let counted: u64 = row.histogram.iter().map(|bucket| bucket.count).sum();
            assert_eq!(counted, 3);
            // Each resident kernel was launched once, for all of its items.
            let expected = match row.way.as_str() {
                "item" | "item, all domains" => Some(1),
                "items" => Some(3),
                _ => None,
            };
            assert_eq!(row.resident_launches, expected, "{row:?}");
        }
        let lacking: Vec<_> = document.not_run.iter().map(|n| (&*n.case, &*n.way)).collect();
        assert_eq!(lacking, [("sequence", "graph"), ("belief step", "graph")]);
    }

    #[test]
    fn the_cpu_has_calls_and_the_executor() {
        let document = run(&Device::Cpu, true, |_, _, _| ()).unwrap();
        let rows: Vec<_> = document
            .rows
            .iter()
            .map(|row| (row.device.as_str(), row.case.as_str(), row.way.as_str(), row.launches))
            .collect();
        assert_eq!(
            rows,
            [
                ("cpu", "sequence", "calls", 0),
                ("cpu", "belief step", "calls", 0),
                ("cpu", "three domains", "calls", 0),
                ("simt", "sequence", "launches", 170),
            ]
        );
        assert_eq!(document.not_run.len(), 8);
        assert_eq!(document.header.kind, "cpu");
    }

    #[test]
    fn wrong_bits_are_refused() {
        same("it", &[1.0, 2.0], &[1.0, 2.0]).unwrap();
        let refused = same("it", &[1.0, 2.0], &[1.0, 2.5]).unwrap_err();
        assert!(matches!(refused, BenchError::WrongResult { what: "it", .. }));
    }
}
