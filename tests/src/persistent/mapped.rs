//! Items that write the host's memory.

use std::time::Duration;

use kasmina::information::axpby;
use kasmina::persistent::{ItemOptions, PersistentExecutor, Program, Provoke};
use kasmina::{Buffer, Device};

use super::executor_of_groups;

/// A count in the device's memory, which a program adds 1 to.
struct Counter {
    program: Program,
    /// Where the count is copied to by the program, if it reaches the host.
    mapped: Option<Buffer<f32>>,
    count: Buffer<f32>,
}

impl Counter {
    fn new(device: &Device, executor: &PersistentExecutor, len: usize, reaches_host: bool) -> Self {
        let ones = Buffer::from_slice(device, &vec![1.0; len]).expect("memory");
        let mut count = Buffer::zeroed(device, len).expect("memory");
        let mut next = Buffer::zeroed(device, len).expect("memory");
        let mut mapped = reaches_host.then(|| Buffer::mapped(device, len).expect("memory"));
        let program = executor.record("count", || {
            axpby(device, 1.0, &count, 1.0, &ones, &mut next)?;
            axpby(device, 1.0, &next, 0.0, &ones, &mut count)?;
            let Some(mapped) = &mut mapped else { return Ok(()) };
            axpby(device, 1.0, &count, 0.0, &ones, mapped)
        });
        Self { program: program.expect("a program"), mapped, count }
    }
}

/// What an item wrote to the host's memory is there as soon as it is complete, `rounds` times for each length: beside items
/// that do not reach the host, in the same lane and in another one. Their descriptors say which is which.
#[track_caller]
pub fn check_mapped(device: &Device, lengths: &[usize], rounds: usize) {
    for &len in lengths {
        for lane in [0, 1] {
            let executor = executor_of_groups(device);
            let reaching = Counter::new(device, &executor, len, true);
            let other = Counter::new(device, &executor, len, false);
            let mapped = reaching.mapped.as_ref().expect("it reaches the host");
            let options = ItemOptions { lane, ..Default::default() };
            for round in 1..=rounds {
                executor.submit_with(&other.program, &options).expect("an item");
                let ticket = executor.submit(&reaching.program).expect("an item");
                while !ticket.poll().expect("an item") {
                    std::hint::spin_loop();
                }
                let values = mapped.to_vec().expect("a read");
                let got = [values[0], values[len / 2], values[len - 1]];
                assert_eq!(got, [round as f32; 3], "round {round} of {len} values, lane {lane}");
            }
            let values = other.count.to_vec().expect("a read");
            assert_eq!([values[0], values[len - 1]], [rounds as f32; 2], "the other counter");
            check_descriptors(device, executor, [&reaching, &other]);
        }
    }
}

/// Stops behind an item that does not end, and looks at what the device was given for those that wait for it.
#[track_caller]
fn check_descriptors(device: &Device, executor: PersistentExecutor, counters: [&Counter; 2]) {
    let deadline = Some(Duration::from_millis(100));
    let options = ItemOptions { deadline, ..Default::default() };
    let hang = Program::provoking(Provoke::Hang);
    let hang = executor.submit_with(&hang, &options).expect("an item");
    let options = ItemOptions { after: &[&hang], ..Default::default() };
    for counter in counters {
        executor.submit_with(&counter.program, &options).expect("an item");
    }
    let unfinished = executor.stop();
    let reaching: Vec<_> = unfinished.iter().map(|item| item.descriptor.reaches_host).collect();
    let is_gpu = matches!(device, Device::Cuda(_));
    assert_eq!(reaching, [false, is_gpu, false], "the item that hangs, and both counters");
}
