//! Items, order, failures and recovery, under the executor.

mod faults;
mod items;
mod stopping;
mod threads;

use std::sync::{Arc, Mutex, Weak, mpsc};
use std::task::{Context, Wake};
use std::thread;
use std::time::{Duration, Instant};

use kasmina_simt::Executor;
use kasmina_types::Operation;
use kasmina_types::manifold::GroupState;

use super::shared::{Presence, Shared};
use super::*;
use crate::buffer::{Buffer, ResidentUse};
use crate::device::Device;
use crate::driver::residents::Residence;
use crate::error::Error;
use crate::information::{axpby, velocity};

/// The executor without its checks of races, which only kernels' tests need.
fn device() -> Device {
    Device::Simt(Executor::new().checks(false))
}

fn executor(device: &Device) -> PersistentExecutor {
    // Long enough for a machine that is busy.
    let idle_limit = Duration::from_secs(60);
    executor_with(device, PersistentConfig { idle_limit, ..Default::default() })
}

/// Waits for what comes in moments, on a busy machine in seconds.
fn wait_until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn executor_with(device: &Device, config: PersistentConfig) -> PersistentExecutor {
    let config = PersistentConfig { ring_capacity: 8, share: 1.0, ..config };
    PersistentExecutor::new(device, config).unwrap()
}

/// An item that does nothing.
fn empty() -> Program {
    Program::of_operations("empty", Vec::new(), 1, Arc::default())
}

fn persistent(why: Error) -> PersistentError {
    match why {
        Error::Persistent(why) => *why,
        other => panic!("{other}"),
    }
}

fn fault(why: Error) -> Arc<Fault> {
    match persistent(why) {
        PersistentError::Fault(fault) => fault,
        other => panic!("{other}"),
    }
}

fn recovered(executor: PersistentExecutor) -> (PersistentExecutor, Vec<UnfinishedItem>) {
    let (executor, unfinished) = executor.recover();
    (executor.unwrap(), unfinished)
}

fn x_of(device: &Device) -> Result<Buffer<f32>, Error> {
    Buffer::from_slice(device, &[1.0])
}

/// Adds 1 to a count each time that it is carried out.
struct Counter {
    count: Buffer<f64>,
    _other: Buffer<f64>,
    program: Program,
}

impl Counter {
    fn new(device: &Device, executor: &PersistentExecutor) -> Self {
        let one = Buffer::from_slice(device, &[1.0]).unwrap();
        let mut count = Buffer::zeroed(device, 1).unwrap();
        let mut other = Buffer::zeroed(device, 1).unwrap();
        let program = executor.record("count", || {
            axpby(device, 1.0, &one, 1.0, &count, &mut other)?;
            axpby(device, 1.0, &other, 0.0, &one, &mut count)
        });
        Self { count, _other: other, program: program.unwrap() }
    }

    fn read(&self) -> f64 {
        self.count.to_vec().unwrap()[0]
    }
}
