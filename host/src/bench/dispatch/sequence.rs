//! The same sequence of small operations by every way; what an item costs without operations; and what a word costs.

use std::sync::Arc;

use super::{
    Group, NO_GRAPHS, NO_KERNELS, Subject, calls_of, executor, graph_call, item_call, launches_of,
    same, way,
};
use crate::bench::BenchError;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::manifold_echo::Echo;
use crate::error::Error;
use crate::information::axpby;
use crate::persistent::Domains;

/// The sequence.
pub(super) const CASE: &str = "sequence";
/// What is announced of [`of_all_domains`].
pub(super) const ALL_DOMAINS: &str = "sequence, all domains";
/// An item without operations.
const EMPTY: &str = "empty item";
/// A word to the device and one back, without rings.
pub(super) const BARE: &str = "bare round trip";
const MAPPED: &str = "mapped words";

/// Operations of the sequence, each of which needs the one before it; an even number.
const OPERATIONS: usize = 170;
/// Values of each.
const VALUES: usize = 1024;

pub(super) fn group(device: &Device) -> Result<Group<'_>, BenchError> {
    let mut group = launches_alone(device)?;
    let mut sequence = Sequence::new(device)?;
    match device {
        Device::Cuda(gpu) => {
            let call = graph_call(gpu, || sequence.run(device))?;
            let subject = subject(device, way::GRAPH, 1, call);
            group.subjects.push(sequence.checked("the sequence as a graph", subject)?);
        }
        _ => group.lacks(CASE, way::GRAPH, NO_GRAPHS),
    }
    let executor = match executor(device, Domains::Linear)? {
        Ok(executor) => executor,
        Err(reason) => {
            for (case, way) in [(CASE, way::ITEM), (EMPTY, way::ITEM)] {
                group.lacks(case, way, reason.clone());
            }
            bare(device, &mut group)?;
            return Ok(group);
        }
    };
    let mut sequence = Sequence::new(device)?;
    // Before the executor, and so dropped before it: the driver waits for its kernel when that one's memory goes.
    bare(device, &mut group)?;
    let call = item_call(&executor, "sequence", || sequence.run(device))?;
    let executors = vec![Arc::clone(&executor)];
    let item = Subject { executors: executors.clone(), ..subject(device, way::ITEM, 0, call) };
    group.subjects.push(sequence.checked("the sequence as an item", item)?);
    let call = Box::new(move || executor.ping()?.wait());
    group.subjects.push(Subject {
        case: EMPTY,
        operations: 0,
        executors,
        ..subject(device, way::ITEM, 0, call)
    });
    Ok(group)
}

/// The sequence as an item of the kernel that has the operations of all domains, while none of the others is there.
pub(super) fn of_all_domains(device: &Device) -> Result<Group<'_>, BenchError> {
    let mut group = Group::default();
    let executor = match executor(device, Domains::All)? {
        Ok(executor) => executor,
        Err(reason) => {
            group.lacks(CASE, way::ITEM_OF_ALL, reason);
            return Ok(group);
        }
    };
    let mut sequence = Sequence::new(device)?;
    let call = item_call(&executor, "sequence", || sequence.run(device))?;
    let subject = subject(device, way::ITEM_OF_ALL, 0, call);
    let item = Subject { executors: vec![executor], ..subject };
    group.subjects.push(sequence.checked("the sequence as an item of all domains", item)?);
    Ok(group)
}

/// The sequence by calls alone.
pub(super) fn launches_alone(device: &Device) -> Result<Group<'_>, BenchError> {
    let mut sequence = Sequence::new(device)?;
    let launches = launches_of(device, OPERATIONS);
    sequence.run(device)?;
    sequence.check("the sequence by calls")?;
    let call = Box::new(move || {
        sequence.run(device)?;
        device.synchronize()
    });
    let subjects = vec![subject(device, calls_of(device), launches, call)];
    Ok(Group { subjects, ..Group::default() })
}

/// Adds the floor of all trips to a resident kernel.
fn bare(device: &Device, group: &mut Group<'_>) -> Result<(), BenchError> {
    match Echo::new(device)? {
        Some(mut echo) => {
            let call = Box::new(move || echo.round_trip());
            group.subjects.push(Subject {
                case: BARE,
                operations: 0,
                ..subject(device, MAPPED, 0, call)
            });
        }
        None if matches!(device, Device::Cpu) => group.lacks(BARE, MAPPED, NO_KERNELS),
        None => group.lacks(BARE, MAPPED, "the PTX that this build carries lacks its kernel"),
    }
    Ok(())
}

fn subject<'a>(
    device: &Device,
    way: &'static str,
    launches: usize,
    call: Box<dyn FnMut() -> Result<(), Error> + 'a>,
) -> Subject<'a> {
    Subject {
        device: device.name(),
        case: CASE,
        way,
        operations: OPERATIONS,
        launches,
        executors: Vec::new(),
        call,
    }
}

/// Two buffers between which the operations go to and fro: there the values double, back they halve.
struct Sequence {
    start: Vec<f32>,
    a: Buffer<f32>,
    b: Buffer<f32>,
}

impl Sequence {
    fn new(device: &Device) -> Result<Self, Error> {
        let start: Vec<f32> = (0..VALUES).map(|i| 1.0 + i as f32).collect();
        let a = Buffer::from_slice(device, &start)?;
        Ok(Self { start, a, b: Buffer::zeroed(device, VALUES)? })
    }

    /// Queues, captures or records all operations.
    fn run(&mut self, device: &Device) -> Result<(), Error> {
        for _ in 0..OPERATIONS / 2 {
            axpby(device, 1.5, &self.a, 0.5, &self.a, &mut self.b)?;
            axpby(device, 0.375, &self.b, 0.125, &self.b, &mut self.a)?;
        }
        Ok(())
    }

    /// Calls the subject once, and checks what came of it.
    fn checked<'a>(
        &self,
        what: &'static str,
        mut subject: Subject<'a>,
    ) -> Result<Subject<'a>, BenchError> {
        (subject.call)()?;
        self.check(what)?;
        Ok(subject)
    }

    /// Whether the operations were carried out, as often as they may.
    fn check(&self, what: &'static str) -> Result<(), BenchError> {
        let doubled: Vec<f32> = self.start.iter().map(|value| 2.0 * value).collect();
        same(what, &self.a.to_vec()?, &self.start)?;
        same(what, &self.b.to_vec()?, &doubled)
    }
}
