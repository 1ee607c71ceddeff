//! Items, order, failures and recovery, under the executor.

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

#[test]
fn items_of_a_lane_are_carried_out_in_their_order() {
    let device = device();
    let executor = executor(&device);
    let mut a = Buffer::from_slice(&device, &[1.0_f32; 300]).unwrap();
    let mut b = Buffer::zeroed(&device, 300).unwrap();
    let forth = executor.record("forth", || axpby(&device, 2.0, &a, 0.0, &a, &mut b)).unwrap();
    let back = executor.record("back", || axpby(&device, 1.5, &b, 0.0, &b, &mut a)).unwrap();
    let both = executor
        .record("both", || {
            axpby(&device, 2.0, &a, 0.0, &a, &mut b)?;
            axpby(&device, 1.5, &b, 0.0, &b, &mut a)
        })
        .unwrap();
    assert_eq!((both.len(), both.blocks()), (2, 1));
    // More than the ring holds.
    for _ in 0..15 {
        executor.submit(&forth).unwrap();
        executor.submit(&back).unwrap();
    }
    for _ in 0..5 {
        executor.submit(&both).unwrap();
    }
    // Waits by itself.
    assert_eq!(a.to_vec().unwrap(), [3.0_f32.powi(20); 300]);
    let statistics = executor.statistics();
    assert_eq!((statistics.submitted, statistics.completed, statistics.failed), (35, 35, 0));
    assert_eq!((statistics.launches, statistics.latencies.count()), (1, 35));
    assert!(statistics.peak_outstanding >= 2 && statistics.queue_depths.iter().all(|&d| d == 0));
}

#[test]
fn plain_calls_and_items_wait_for_each_other() {
    let device = device();
    let executor = executor(&device);
    let x = Buffer::from_slice(&device, &[1.0_f32; 8]).unwrap();
    let mut y = Buffer::zeroed(&device, 8).unwrap();
    let program = executor.record("y", || axpby(&device, 3.0, &x, 0.0, &x, &mut y)).unwrap();
    let mut z = Buffer::zeroed(&device, 8).unwrap();
    for _ in 0..10 {
        y.copy_from_slice(&[0.0; 8]).unwrap();
        executor.submit(&program).unwrap();
        axpby(&device, 2.0, &y, 0.0, &y, &mut z).unwrap();
        assert_eq!(z.to_vec().unwrap(), [6.0; 8]);
    }
    assert!(y.as_host_slice().is_none());
    let refused = axpby(&Device::Cpu, 2.0, &y, 0.0, &y, &mut z).unwrap_err();
    assert!(matches!(refused, Error::InUse { buffer: "x", .. }), "{refused}");
    // Memory stays as long as the program.
    drop((x, y));
    executor.submit(&program).unwrap().wait().unwrap();
}

#[test]
fn lanes_wait_for_what_they_are_told_to() {
    let device = device();
    let executor = executor(&device);
    assert_eq!(executor.groups(), [1, 1, 1, 1]);
    let values = vec![1.0_f64; 5000];
    let x = Buffer::from_slice(&device, &values).unwrap();
    let mut y = Buffer::zeroed(&device, 5000).unwrap();
    let mut z = Buffer::zeroed(&device, 5000).unwrap();
    let first = executor.record("y", || axpby(&device, 2.0, &x, 0.0, &x, &mut y)).unwrap();
    let then = executor.record("z", || axpby(&device, 1.0, &x, 1.0, &y, &mut z)).unwrap();
    for round in 0..20 {
        let made = executor.submit_with(&first, &ItemOptions { lane: 0, ..Default::default() });
        let made = made.unwrap();
        let priority = if round % 2 == 0 { ItemPriority::High } else { ItemPriority::Normal };
        let options = ItemOptions { lane: 1, after: &[&made], priority, ..Default::default() };
        let last = executor.submit_with(&then, &options).unwrap();
        assert_ne!(made.ring() / 2, last.ring() / 2);
        last.wait().unwrap();
        assert!(made.poll().unwrap());
        assert_eq!(z.to_vec().unwrap(), vec![3.0; 5000]);
    }
    let other = executor_with(&device, PersistentConfig::default());
    let ticket = executor.submit(&first).unwrap();
    let options = ItemOptions { after: &[&ticket], ..Default::default() };
    let refused = persistent(other.submit_with(&empty(), &options).unwrap_err());
    assert_eq!(refused, PersistentError::Foreign { what: "ticket" });
}

#[test]
fn several_blocks_share_an_item() {
    let device = device();
    let config = PersistentConfig { small_groups: 1, ..Default::default() };
    let executor = executor_with(&device, config);
    assert_eq!(executor.groups(), [1, 3]);
    let n = 10_000;
    let x = Buffer::from_slice(&device, &(0..n).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let mut y = Buffer::zeroed(&device, n).unwrap();
    let mut z = Buffer::zeroed(&device, n).unwrap();
    let program = executor
        .record("two", || {
            axpby(&device, 2.0, &x, 0.0, &x, &mut y)?;
            axpby(&device, 1.0, &x, 1.0, &y, &mut z)
        })
        .unwrap();
    assert_eq!(program.blocks(), 3);
    for _ in 0..10 {
        z.fill_bytes(0).unwrap();
        executor.submit(&program).unwrap().wait().unwrap();
        assert!(z.to_vec().unwrap().iter().enumerate().all(|(i, &z)| z == 3.0 * i as f32));
    }
    // A lane's order holds between groups.
    let mut a = Buffer::from_slice(&device, &[1.0_f32]).unwrap();
    let mut b = Buffer::zeroed(&device, n).unwrap();
    let small = executor.record("a", || {
        let x = x_of(&device)?;
        axpby(&device, 1.0, &x, 0.0, &x, &mut a)
    });
    assert!(matches!(small, Err(Error::Recording { .. })), "a buffer made while recording");
    let large = executor.record("b", || axpby(&device, 1.0, &x, 0.0, &x, &mut b)).unwrap();
    let empty = empty();
    let tickets = [&large, &empty, &large].map(|program| executor.submit(program).unwrap());
    tickets[2].wait().unwrap();
    assert!(tickets[1].poll().unwrap() && tickets[0].poll().unwrap());
}

fn recovered(executor: PersistentExecutor) -> (PersistentExecutor, Vec<UnfinishedItem>) {
    let (executor, unfinished) = executor.recover();
    (executor.unwrap(), unfinished)
}

fn x_of(device: &Device) -> Result<Buffer<f32>, Error> {
    Buffer::from_slice(device, &[1.0])
}

#[test]
fn a_kernel_that_never_answers_is_found_and_replaced() {
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(200), ..Default::default() };
    let executor = executor_with(&device, config);
    let x = Buffer::from_slice(&device, &[1.0_f32]).unwrap();
    let mut y = Buffer::zeroed(&device, 1).unwrap();
    let good = executor.record("good", || axpby(&device, 2.0, &x, 0.0, &x, &mut y)).unwrap();
    executor.submit(&good).unwrap().wait().unwrap();
    let begun = Instant::now();
    let stuck = executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let behind = executor.submit(&good).unwrap();
    let found = fault(stuck.wait().unwrap_err());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(matches!(found.cause, FaultCause::Stalled { after } if after.as_millis() >= 200));
    let [item] = &found.items[..] else { panic!("{found}") };
    assert_eq!((item.program.as_str(), item.ring, item.sequence), ("hang", 1, 2));
    assert_eq!((item.descriptor.count, found.unfinished, found.context_lost), (1, 2, false));
    assert!(found.to_string().contains("program `hang`"), "{found}");
    assert_eq!(*fault(behind.wait().unwrap_err()), *found);
    assert_eq!(*fault(executor.submit(&good).unwrap_err()), *found);
    assert_eq!(*executor.fault().unwrap(), *found);

    let (executor, unfinished) = recovered(executor);
    let names: Vec<_> = unfinished.iter().map(|item| item.program.name()).collect();
    assert_eq!(names, ["hang", "good"]);
    // What was complete is there, and the executor goes on.
    assert_eq!(y.to_vec().unwrap(), [2.0]);
    y.copy_from_slice(&[0.0]).unwrap();
    executor.submit(&unfinished[1].program).unwrap().wait().unwrap();
    assert_eq!(y.to_vec().unwrap(), [2.0]);
}

/// Blocks that wait at a barrier, and a kernel that leaves for nothing.
#[test]
fn every_wait_is_given_up() {
    let device = device();
    let config = PersistentConfig {
        deadline: Duration::from_millis(200),
        small_groups: 1,
        ..Default::default()
    };
    let mut executor = executor_with(&device, config);
    for provoke in [Provoke::Unmet, Provoke::Deaf] {
        let begun = Instant::now();
        let stuck = executor.submit(&Program::provoking(provoke)).unwrap();
        let found = fault(stuck.wait().unwrap_err());
        assert!(matches!(found.cause, FaultCause::Stalled { .. }), "{found}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let unfinished;
        (executor, unfinished) = recovered(executor);
        assert_eq!(unfinished.len(), 1);
        executor.submit(&empty()).unwrap().wait().unwrap();
    }
}

/// A job that needs the whole device: the kernel leaves after the items in work, and comes back for what waits.
#[test]
fn a_kernel_steps_aside() {
    let device = device();
    let executor = executor(&device);
    let counter = Counter::new(&device, &executor);
    for round in 0..50 {
        for _ in 0..4 {
            executor.submit(&counter.program).unwrap();
        }
        executor.shared.step_aside();
        executor.shared.come_back();
        executor.submit(&empty()).unwrap().wait_for(Duration::from_secs(20)).unwrap();
        executor.drain().unwrap();
        assert_eq!(counter.read(), 4.0 * f64::from(round + 1));
    }
    assert!(executor.statistics().launches > 1);
    assert_eq!(executor.statistics().failed, 0);
}

#[test]
fn a_kernel_that_traps_is_found_and_replaced() {
    let device = device();
    let executor = executor(&device);
    let ticket = executor.submit(&Program::provoking(Provoke::Trap)).unwrap();
    let found = fault(ticket.wait_for(Duration::from_secs(20)).unwrap_err());
    assert!(matches!(&found.cause, FaultCause::Failed { message } if message.contains("trap")));
    assert_eq!(found.items.iter().map(|item| &item.program[..]).collect::<Vec<_>>(), ["trap"]);
    let (executor, unfinished) = recovered(executor);
    assert_eq!(unfinished.len(), 1);
    executor.submit(&empty()).unwrap().wait().unwrap();
}

#[test]
fn items_that_mean_nothing_are_refused_by_the_device() {
    let device = device();
    let executor = executor(&device);
    let unknown = executor.submit(&Program::provoking(Provoke::UnknownOperation)).unwrap();
    let refused = persistent(unknown.wait().unwrap_err());
    assert!(
        matches!(&refused, PersistentError::Item { reason } if reason.contains("UnknownOperation"))
    );
    let out_of_range = executor.push_descriptor(empty(), u32::MAX, 2, 1);
    let refused = persistent(out_of_range.wait().unwrap_err());
    assert!(matches!(&refused, PersistentError::Item { reason } if reason.contains("OutOfRange")));
    let too_wide = executor.submit(&Program::provoking(Provoke::OutOfRange)).unwrap();
    assert!(persistent(too_wide.wait().unwrap_err()).to_string().contains("OutOfRange"));
    // The kernel goes on.
    executor.submit(&empty()).unwrap().wait().unwrap();
    assert_eq!(executor.statistics().failed, 3);
}

#[test]
fn what_is_no_program_is_refused() {
    let device = device();
    let executor = executor_with(
        &device,
        PersistentConfig { domains: Domains::Linear, operations: 4, ..Default::default() },
    );
    let x = Buffer::from_slice(&device, &[1.0_f32; 4]).unwrap();
    let mut y = Buffer::zeroed(&device, 4).unwrap();
    let why = persistent(executor.record("nothing", || Ok(())).unwrap_err());
    assert!(matches!(why, PersistentError::Empty { .. }));
    let why = executor.record("copy", || y.copy_from_slice(&[0.0; 4])).unwrap_err();
    assert!(matches!(why, Error::Recording { .. }), "{why}");
    let five = executor
        .record("five", || (0..5).try_for_each(|_| axpby(&device, 1.0, &x, 0.0, &x, &mut y)));
    let why = persistent(executor.submit(&five.unwrap()).unwrap_err());
    assert!(matches!(why, PersistentError::TableFull { needed: 5, free: 4, .. }), "{why}");
    let mut out = Buffer::zeroed(&device, 4).unwrap();
    let why = executor.record("velocity", || velocity(&device, &x, &y, 0.5, &mut out));
    let why = persistent(why.unwrap_err());
    assert!(matches!(why, PersistentError::Operation { kernel: "velocity_f32", .. }), "{why}");
    let why = PersistentExecutor::new(&Device::Cpu, PersistentConfig::default()).unwrap_err();
    assert!(matches!(persistent(why), PersistentError::NoKernels { .. }));
    // Nothing is left of a recording that failed.
    axpby(&device, 1.0, &x, 0.0, &x, &mut y).unwrap();
    assert_eq!(y.to_vec().unwrap(), [1.0; 4]);
}

#[test]
fn a_full_ring_pushes_back() {
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(400), ..Default::default() };
    let executor = executor_with(&device, config);
    executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let empty = empty();
    for _ in 1..8 {
        executor.submit(&empty).unwrap();
    }
    let patience = Duration::from_millis(20);
    let options = ItemOptions { patience: Some(patience), ..Default::default() };
    let why = persistent(executor.submit_with(&empty, &options).unwrap_err());
    assert_eq!(why, PersistentError::TimedOut(patience));
    // A push that waits learns of the fault.
    match executor.submit(&empty) {
        Err(why) => assert_eq!(fault(why).unfinished, 8),
        Ok(ticket) => panic!("{ticket:?}"),
    }
}

#[test]
fn stopping_gives_back_what_was_not_begun() {
    let device = device();
    let (executor, long, submitted) = hanging(&device);
    // Its own deadline says nothing while it waits.
    let hour = Some(Duration::from_secs(3600));
    let options = ItemOptions { deadline: hour, ..Default::default() };
    let behind = executor.submit_with(&empty(), &options).unwrap();
    let begun = Instant::now();
    let unfinished = executor.stop();
    assert_took_the_rest(submitted, begun);
    assert_eq!(unfinished.len(), 2);
    assert_eq!((unfinished[1].ring, unfinished[1].sequence), (behind.ring(), behind.sequence()));
    assert_eq!((unfinished[0].descriptor.count, unfinished[1].descriptor.count), (1, 0));
    for ticket in [long, behind] {
        assert_eq!(persistent(ticket.wait().unwrap_err()), PersistentError::Stopped);
    }
}

/// How long the item of [`hanging`] may be in work.
const HANGS_FOR: Duration = Duration::from_secs(2);

/// An executor that gives nothing up by itself, an item in work that never ends, and when it was submitted.
fn hanging(device: &Device) -> (PersistentExecutor, Ticket, Instant) {
    let config = PersistentConfig { deadline: Duration::MAX, ..Default::default() };
    let executor = executor_with(device, config);
    let options = ItemOptions { deadline: Some(HANGS_FOR), ..Default::default() };
    let submitted = Instant::now();
    let program = Program::provoking(Provoke::Hang);
    let ticket = executor.submit_with(&program, &options).unwrap();
    thread::sleep(Duration::from_millis(100));
    (executor, ticket, submitted)
}

/// What began then, and has ended now, took what an item in work had left of its time.
#[track_caller]
fn assert_took_the_rest(submitted: Instant, begun: Instant) {
    let (since_submission, took) = (submitted.elapsed(), begun.elapsed());
    println!("{took:?}, {since_submission:?} after the submission");
    assert!(since_submission >= HANGS_FOR && took < 2 * HANGS_FOR, "{took:?}");
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

#[test]
fn a_stop_carries_out_nothing_more() {
    let device = device();
    for _ in 0..10 {
        let executor = executor(&device);
        let counter = Counter::new(&device, &executor);
        let tickets: Vec<_> = (0..8).map(|_| executor.submit(&counter.program).unwrap()).collect();
        let unfinished = executor.stop();
        let done = tickets.iter().filter(|ticket| ticket.wait().is_ok()).count();
        assert_eq!((done + unfinished.len(), counter.read()), (8, done as f64));
    }
}

#[test]
fn unfinished_items_were_not_carried_out() {
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(100), ..Default::default() };
    let executor = executor_with(&device, config);
    let counter = Counter::new(&device, &executor);
    executor.submit(&counter.program).unwrap();
    executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let behind = [(); 3].map(|()| executor.submit(&counter.program).unwrap());
    fault(behind[2].wait().unwrap_err());
    let (executor, unfinished) = recovered(executor);
    assert_eq!((unfinished.len(), counter.read()), (4, 1.0));
    for item in &unfinished[1..] {
        executor.submit(&item.program).unwrap();
    }
    assert_eq!(counter.read(), 4.0);
}

#[test]
fn items_of_any_width_follow_each_other() {
    let device = device();
    let config = PersistentConfig { small_groups: 1, ..Default::default() };
    let executor = executor_with(&device, config);
    let x = Buffer::from_slice(&device, &vec![1.0_f32; 10_000]).unwrap();
    let mut y = Buffer::zeroed(&device, 10_000).unwrap();
    let work = || (0..3).try_for_each(|_| axpby(&device, 2.0, &x, 1.0, &x, &mut y));
    let three = executor.record("three", work).unwrap();
    assert_eq!((three.blocks(), executor.groups()), (3, &[1, 3][..]));
    let narrow = three.inner.operations.iter().map(|op| Operation { blocks: 2, ..*op }).collect();
    let two = Program::of_operations("two", narrow, 2, Arc::clone(&three.inner.buffers));
    for _ in 0..30 {
        for program in [&three, &two, &two, &three] {
            executor.submit(program).unwrap();
        }
    }
    executor.drain().unwrap();
    assert_eq!(y.to_vec().unwrap(), vec![3.0; 10_000]);
}

#[test]
fn programs_and_buffers_are_one_executors() {
    let device = device();
    let (first, second) = (executor(&device), executor(&device));
    let counter = Counter::new(&device, &first);
    first.submit(&counter.program).unwrap();
    let why = persistent(second.submit(&counter.program).unwrap_err());
    assert_eq!(why, PersistentError::Foreign { what: "program" });
    let mut copy = Buffer::zeroed(&device, 1).unwrap();
    let work = || axpby(&device, 1.0, &counter.count, 0.0, &counter.count, &mut copy);
    let why = persistent(second.record("copy", work).unwrap_err());
    assert_eq!(why, PersistentError::Foreign { what: "buffer" });
    assert_eq!(counter.read(), 1.0);
}

#[test]
fn numbers_wrap_around() {
    let device = device();
    let config = PersistentConfig { ring_capacity: 4, ..Default::default() };
    let first = (1 << 32) - 6;
    let executor = PersistentExecutor::of_owner(u64::MAX, &device, config, first).unwrap();
    let counter = Counter::new(&device, &executor);
    let mut last = None;
    for _ in 0..20 {
        let after: Vec<_> = last.iter().collect();
        let options = ItemOptions { lane: 1, after: &after, ..Default::default() };
        let ticket = executor.submit_with(&counter.program, &options).unwrap();
        last = Some(ticket);
    }
    assert_eq!(last.unwrap().sequence(), first + 19);
    assert_eq!(counter.read(), 20.0);
}

#[test]
fn many_threads_submit_one_program() {
    let device = device();
    let executor = executor(&device);
    let counter = Counter::new(&device, &executor);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    executor.submit(&counter.program).unwrap();
                }
            });
        }
    });
    assert_eq!(counter.read(), 200.0);
}

#[test]
fn dropping_never_hangs() {
    let device = device();
    let begun = Instant::now();
    drop(executor(&device));
    assert!(begun.elapsed() < Duration::from_secs(20));
    let (executor, _, submitted) = hanging(&device);
    let begun = Instant::now();
    drop(executor);
    assert_took_the_rest(submitted, begun);
}

/// Memory as the driver frees it: once the kernel has left.
struct Memory {
    kernel: Weak<Shared>,
    freed: mpsc::Sender<bool>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let has_left =
            || self.kernel.upgrade().is_none_or(|kernel| kernel.presence() == Presence::Ended);
        let begun = Instant::now();
        while !has_left() && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.freed.send(has_left());
    }
}

/// Carries out a program whose last handle is the item's, and whose memory waits for a kernel.
fn leave_memory(executor: &PersistentExecutor, kernel: &Arc<Shared>) -> mpsc::Receiver<bool> {
    let (freed, is_freed) = mpsc::channel();
    let buffers = Arc::new(ResidentUse::default());
    buffers.keep(Box::new(Memory { kernel: Arc::downgrade(kernel), freed }));
    let program = Program::of_operations("last", Vec::new(), 1, buffers);
    executor.push_descriptor(program, 0, 0, 1);
    // Nobody but the watchdog looks at completions.
    wait_until(|| executor.statistics().completed == 1);
    is_freed
}

#[test]
fn a_watchdog_waits_for_no_memory() {
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(200), ..Default::default() };
    let executor = executor_with(&device, config);
    let is_freed = leave_memory(&executor, &executor.shared);
    let stuck = executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let found = fault(stuck.wait_for(Duration::from_secs(20)).unwrap_err());
    assert!(matches!(found.cause, FaultCause::Stalled { .. }), "{found}");
    assert!(is_freed.recv().unwrap());
}

#[test]
fn dropping_waits_for_no_memory() {
    let device = device();
    let [executor, other] = [(); 2].map(|()| executor(&device));
    let is_freed = leave_memory(&executor, &other.shared);
    drop(executor);
    assert!(is_freed.try_recv().is_err());
    drop(other);
    assert!(is_freed.recv().unwrap());
}

#[test]
fn an_idle_kernel_leaves_and_comes_back() {
    let device = device();
    let config = PersistentConfig { idle_limit: Duration::from_millis(30), ..Default::default() };
    let executor = executor_with(&device, config);
    let empty = empty();
    for _ in 0..3 {
        let before = executor.statistics().launches;
        executor.submit(&empty).unwrap().wait().unwrap();
        assert!(executor.statistics().launches > before);
        wait_until(|| executor.shared.presence() == Presence::Away);
    }
    // Also where the item comes while the kernel leaves.
    for round in 0..40 {
        thread::sleep(Duration::from_millis(30 + round % 7));
        executor.submit(&empty).unwrap().wait_for(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn a_host_that_shows_no_life_is_left_and_found_again() {
    let device = device();
    let config = PersistentConfig { host_limit: Duration::from_millis(20), ..Default::default() };
    let executor = executor_with(&device, config);
    let empty = empty();
    executor.submit(&empty).unwrap().wait().unwrap();
    {
        // The watchdog waits for this lock: no heartbeat.
        let held = executor.shared.resident();
        wait_until(|| held.reports().all(|group| group.state == GroupState::Deserted));
    }
    executor.submit(&empty).unwrap().wait_for(Duration::from_secs(20)).unwrap();
    assert!(executor.statistics().launches >= 2);
}

#[test]
fn futures_are_woken() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let device = device();
    let executor = executor(&device);
    let empty = empty();
    let waker = Arc::new(Unpark(thread::current())).into();
    for _ in 0..20 {
        let mut future = Box::pin(executor.submit(&empty).unwrap().into_future());
        let mut context = Context::from_waker(&waker);
        while future.as_mut().poll(&mut context).is_pending() {
            thread::park_timeout(Duration::from_secs(10));
        }
    }
    executor.drain().unwrap();
}

/// A fault wakes futures, and what is woken may ask for the kernel.
#[test]
fn who_is_woken_by_a_fault_may_ask_the_executor() {
    struct Ask(Mutex<mpsc::Sender<u64>>, Arc<PersistentExecutor>);
    impl Wake for Ask {
        fn wake(self: Arc<Self>) {
            let launches = self.1.statistics().launches;
            let _ = self.0.lock().unwrap().send(launches);
        }
    }
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(200), ..Default::default() };
    let executor = Arc::new(executor_with(&device, config));
    let (sender, answers) = mpsc::channel();
    let waker = Arc::new(Ask(Mutex::new(sender), Arc::clone(&executor))).into();
    let stuck = executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let mut future = Box::pin(stuck.into_future());
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let answer = answers.recv_timeout(Duration::from_secs(20));
    if answer.is_err() {
        // Its end would wait for the watchdog, which is stuck.
        std::mem::forget((future, waker, executor));
    }
    assert_eq!(answer, Ok(1), "what the watchdog woke did not come back");
}

#[test]
fn many_threads_submit() {
    let device = device();
    let executor = executor(&device);
    let empty = empty();
    thread::scope(|scope| {
        for lane in 0..4 {
            let (executor, empty) = (&executor, &empty);
            scope.spawn(move || {
                let options = ItemOptions { lane, ..Default::default() };
                for _ in 0..200 {
                    executor.submit_with(empty, &options).unwrap();
                }
            });
        }
    });
    executor.drain().unwrap();
    assert_eq!(executor.statistics().completed, 800);
}
