//! Stops, what they leave undone, and what is dropped.

use super::*;

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
