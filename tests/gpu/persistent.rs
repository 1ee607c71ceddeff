//! Resident kernels on a GPU. What makes one fail runs in a process of its own, under a time limit: nothing is left
//! spinning, and what happens to the context happens to nobody else.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kasmina::driver::DriverError;
use kasmina::information::{axpby, tile_projection, velocity};
use kasmina::persistent::{
    Domains, Fault, FaultCause, ItemOptions, PersistentConfig, PersistentError, PersistentExecutor,
    Program, Provoke, Ticket, UnfinishedItem,
};
use kasmina::{Buffer, Device, Error};
use kasmina_tests::persistent::{
    check_axpby, check_belief_steps, check_figures, check_gemv, check_layer, check_mapped,
    check_needs, check_priorities, check_sequence, check_shared_models, check_stream,
};

/// The environment variable that names the scenario of a child process.
const SCENARIO: &str = "KASMINA_FAULT";
/// The environment variable for the length of the soak, in seconds.
const SOAK: &str = "KASMINA_SOAK_SECONDS";
/// The environment variable with the number of the process that started a child.
const PARENT: &str = "KASMINA_FAULT_PARENT";
/// What a child says when its kernel is at work.
const READY: &str = "ready";
/// A child that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(60);

const ALL: [Domains; 4] = [Domains::Layer, Domains::Information, Domains::Linear, Domains::All];

pub(super) fn operations(device: &Device) {
    for domains in ALL {
        check_axpby(device, domains, &[1, 257, 5000, 1 << 20]);
    }
    for domains in [Domains::Linear, Domains::All] {
        check_gemv(device, domains, &[(1, 4), (10, 64), (300, 20), (2000, 1000)]);
    }
    for domains in [Domains::Information, Domains::All] {
        check_belief_steps(device, domains, &[3, 40, 64, 70, 200]);
        let shapes = [(65, 64), (70, 40), (70, 70), (200, 200)];
        check_shared_models(device, domains, &shapes);
    }
    for domains in [Domains::Layer, Domains::All] {
        let shapes = [(3, 10, 4), (40, 9, 64), (5, 3, 1028), (32, 1000, 64), (1, 7, 32)];
        check_layer(device, domains, &shapes);
    }
}

pub(super) fn sequence(device: &Device) {
    check_sequence(device, 1024);
    check_sequence(device, 100_000);
}

pub(super) fn needs(device: &Device) {
    let begun = Instant::now();
    check_needs(device, 100_000);
    println!("100 000 rounds in {:?}", begun.elapsed());
}

pub(super) fn priorities(device: &Device) {
    check_priorities(device);
}

pub(super) fn figures(device: &Device) {
    check_figures(device);
}

pub(super) fn mapped(device: &Device) {
    // Each length with both lanes.
    check_mapped(device, &[1, 4096, 100_000], 10_000);
}

/// Ten million items.
pub(super) fn stream(device: &Device) {
    let streamed = check_stream(device, 10_000_000, Duration::ZERO);
    println!(
        "{streamed:?}: {:.2} µs an item",
        streamed.took.as_secs_f64() * 1e6 / streamed.items as f64
    );
}

/// Items for as long as the environment says, five minutes by default, with memory flat.
pub(super) fn soak(device: &Device) {
    let seconds = std::env::var(SOAK).ok().and_then(|s| s.parse().ok()).unwrap_or(300);
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let free = || gpu.device().memory_info().expect("a figure").free_bytes;
    check_stream(device, 1000, Duration::ZERO);
    let (free_before, resident_before) = (free(), resident_bytes());
    let streamed = check_stream(device, 1000, Duration::from_secs(seconds));
    let (free_after, resident_after) = (free(), resident_bytes());
    println!(
        "{streamed:?}; GPU {free_before} then {free_after} bytes free, process {resident_before} then {resident_after}"
    );
    assert!(
        free_after + (8 << 20) >= free_before,
        "{free_before} then {free_after} bytes are free"
    );
    let limit = resident_before + (16 << 20);
    assert!(resident_after <= limit, "{resident_before} then {resident_after} bytes of the host");
}

/// Bytes of this process in memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("a Linux system");
    let pages = status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a count of pages") * 4096
}

/// Runs the scenario that the environment names, if it does. Answers whether it did.
pub(super) fn child() -> bool {
    let Ok(scenario) = std::env::var(SCENARIO) else { return false };
    // First of all: whatever comes, no kernel spins for longer than somebody waits for this process.
    std::thread::spawn(end_with_parent);
    let device = Device::cuda(0).expect("a GPU");
    match scenario.as_str() {
        "hang" => leaves(&device, Provoke::Hang),
        "unmet" => leaves(&device, Provoke::Unmet),
        "deaf" => is_deaf(&device),
        "trap" => traps(&device),
        "refused" => refuses(&device),
        "full" => full(&device),
        "stop" => stops(&device),
        "idle" => idles(&device),
        "aside" => steps_aside(&device),
        "drop" => drops(&device),
        "beside" => launches_beside(&device),
        "killed" => is_killed(&device),
        "frozen" => is_frozen(&device),
        other => panic!("no scenario {other}"),
    }
    true
}

/// Ends this process when the one that started it is gone, or does not wait any more. Not by `exit`, in which the driver
/// waits for the kernel.
fn end_with_parent() {
    let parent = std::env::var(PARENT).ok().and_then(|id| id.parse().ok());
    let begun = Instant::now();
    while Some(parent_id()) == parent && begun.elapsed() < LIMIT + Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::process::abort();
}

fn executor(device: &Device, deadline_ms: u64) -> PersistentExecutor {
    let deadline = Duration::from_millis(deadline_ms);
    let config = PersistentConfig {
        deadline,
        ring_capacity: 8,
        idle_limit: Duration::from_millis(500),
        host_limit: Duration::from_secs(1),
        ..Default::default()
    };
    PersistentExecutor::new(device, config).expect("an executor")
}

/// A program that works, with its result.
struct Good {
    x: Buffer<f32>,
    y: Buffer<f32>,
    program: Program,
}

impl Good {
    fn new(device: &Device, executor: &PersistentExecutor) -> Self {
        let x = Buffer::from_slice(device, &[1.0, 2.0]).expect("memory");
        // In the host's memory: the results of complete items outlive the context.
        let mut y = Buffer::mapped(device, 2).expect("memory");
        let work = || axpby(device, 2.0, &x, 1.0, &x, &mut y);
        let program = executor.record("good", work).expect("a program");
        Self { x, y, program }
    }

    fn check(&self, executor: &PersistentExecutor) {
        executor.submit(&self.program).and_then(|t| t.wait()).expect("an item");
        self.check_result();
    }

    #[track_caller]
    fn check_result(&self) {
        assert_eq!(self.y.to_vec().expect("mapped memory"), [3.0, 6.0]);
    }
}

fn persistent(why: Error) -> PersistentError {
    match why {
        Error::Persistent(why) => *why,
        other => panic!("{other}"),
    }
}

/// What is there after a kernel failed.
struct Failed {
    fault: Arc<Fault>,
    /// The one that comes in its place, if one does.
    executor: Result<PersistentExecutor, Error>,
    /// Of the program that fails, and of the one that works.
    unfinished: Vec<UnfinishedItem>,
    /// The work that went well before.
    good: Good,
}

/// A kernel that stalls or traps: found within the deadline, and reported with the item. Reads none of the results: what
/// is read waits for the stream, and so finds a lost context by itself.
fn fails(device: &Device, provoke: Provoke) -> Failed {
    let executor = executor(device, 500);
    let good = Good::new(device, &executor);
    good.check(&executor);
    let begun = Instant::now();
    let bad = executor.submit(&Program::provoking(provoke)).expect("an item");
    let behind = executor.submit(&good.program).expect("an item");
    let why = persistent(bad.wait().expect_err("the kernel failed"));
    let took = begun.elapsed();
    let PersistentError::Fault(fault) = why else { panic!("{why}") };
    println!("after {took:?}: {fault}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let [item] = &fault.items[..] else { panic!("{fault}") };
    assert_eq!((item.ring, item.sequence), (bad.ring(), bad.sequence()));
    assert!(matches!(
        persistent(behind.wait().expect_err("not complete")),
        PersistentError::Fault(_)
    ));
    let (executor, unfinished) = executor.recover();
    let names: Vec<_> = unfinished.iter().map(|item| item.program.name().to_owned()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().any(|name| name == "good"), "{names:?}");
    Failed { fault, executor, unfinished, good }
}

/// A kernel that waits for what does not come leaves when it is told to: its context is as it was.
fn leaves(device: &Device, provoke: Provoke) {
    let Failed { fault, executor, good, .. } = fails(device, provoke);
    good.check_result();
    assert!(matches!(fault.cause, FaultCause::Stalled { .. }) && !fault.context_lost, "{fault}");
    let executor = executor.expect("a new executor");
    assert_eq!(good.x.to_vec().expect("the buffer is there"), [1.0, 2.0]);
    good.check(&executor);
}

/// A kernel that nothing ends: its context is given up, and another works beside it.
fn is_deaf(device: &Device) {
    let Failed { fault, executor, unfinished, good } = fails(device, Provoke::Deaf);
    assert!(matches!(fault.cause, FaultCause::Stalled { .. }) && fault.context_lost, "{fault}");
    let executor = executor.expect("a new executor");
    // Its buffers are in the lost context. The other program would hang once more.
    for item in unfinished.iter().filter(|item| item.program.name() == "good") {
        for _ in 0..2 {
            let refused = executor.submit(&item.program).map(|ticket| ticket.sequence());
            assert!(
                matches!(refused, Err(Error::Driver(DriverError::ContextLost { .. }))),
                "{refused:?}, expected a lost context"
            );
        }
    }
    // What was complete is there, whatever became of the context.
    good.check_result();
    assert!(good.x.to_vec().is_err());
    drop((good, unfinished));
    let device = executor.device().clone();
    for _ in 0..100 {
        Good::new(&device, &executor).check(&executor);
    }
}

/// A kernel that traps takes the process along: its executor cannot come back there, and says so.
fn traps(device: &Device) {
    let Failed { fault, executor, good, .. } = fails(device, Provoke::Trap);
    good.check_result();
    assert!(matches!(fault.cause, FaultCause::Failed { .. }) && fault.context_lost, "{fault}");
    let why = executor.expect_err("the driver refuses every call").to_string();
    assert!(why.contains("restart the process"), "{why}");
    assert!(good.x.to_vec().is_err());
}

/// Operations and descriptors that there are not.
fn refuses(device: &Device) {
    let executor = executor(device, 2000);
    let good = Good::new(device, &executor);
    for provoke in [Provoke::UnknownOperation, Provoke::OutOfRange] {
        let ticket = executor.submit(&Program::provoking(provoke)).expect("an item");
        let why = persistent(ticket.wait().expect_err("a refusal"));
        assert!(why.to_string().contains(&format!("{provoke:?}")), "{why}");
        good.check(&executor);
    }
    assert_eq!(executor.statistics().failed, 2);
}

/// A ring that stays full.
fn full(device: &Device) {
    let executor = executor(device, 1000);
    let good = Good::new(device, &executor);
    executor.submit(&Program::provoking(Provoke::Hang)).expect("an item");
    for _ in 1..8 {
        executor.submit(&good.program).expect("an item");
    }
    let patience = Duration::from_millis(50);
    let options = ItemOptions { patience: Some(patience), ..Default::default() };
    let why = persistent(executor.submit_with(&good.program, &options).expect_err("full"));
    assert_eq!(why, PersistentError::TimedOut(patience));
    let (executor, unfinished) = executor.recover();
    assert_eq!(unfinished.len(), 8);
    good.check(&executor.expect("a new executor"));
}

/// A stop while items are in work.
fn stops(device: &Device) {
    let executor = executor(device, 5000);
    let x = Buffer::from_slice(device, &vec![1.0_f32; 1 << 22]).expect("memory");
    let mut y = Buffer::zeroed(device, 1 << 22).expect("memory");
    let work = || (0..50).try_for_each(|_| axpby(device, 2.0, &x, 1.0, &x, &mut y));
    let long = executor.record("long", work).expect("a program");
    let tickets: Vec<_> = (0..8).map(|_| executor.submit(&long).expect("an item")).collect();
    tickets[0].wait().expect("the first");
    let begun = Instant::now();
    let unfinished = executor.stop();
    println!("stopped after {:?}, {} items not begun", begun.elapsed(), unfinished.len());
    assert!(!unfinished.is_empty() && unfinished.len() < 8);
    let first = unfinished[0].sequence;
    for ticket in &tickets {
        let done = ticket.wait();
        assert_eq!(done.is_ok(), ticket.sequence() < first, "{ticket:?}: {done:?}");
    }
    assert!(y.to_vec().expect("a read").iter().all(|&v| v == 3.0));
}

/// No work for a while: the kernel leaves, and what waits for the whole GPU goes on.
fn idles(device: &Device) {
    let executor = executor(device, 5000);
    let good = Good::new(device, &executor);
    good.check(&executor);
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let launches = executor.statistics().launches;
    std::thread::sleep(Duration::from_millis(1500));
    good.check(&executor);
    assert_eq!(executor.statistics().launches, launches + 1, "it left, and came back");
    // Nor does it have to be idle for that long.
    let begun = Instant::now();
    gpu.device().synchronize().expect("the kernel leaves");
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    good.check(&executor);
    assert_eq!(executor.statistics().launches, launches + 2);
}

/// What has to wait for the whole GPU beside a kernel that is always at work: modules, memory.
fn steps_aside(device: &Device) {
    let config = PersistentConfig { idle_limit: Duration::from_secs(60), ..Default::default() };
    let executor = PersistentExecutor::new(device, config).expect("an executor");
    let good = Good::new(device, &executor);
    good.check(&executor);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let items = scope.spawn(|| {
            let mut items = 0;
            while !ends.load(Ordering::Relaxed) {
                executor.submit(&good.program).and_then(|t| t.wait()).expect("an item");
                items += 1;
            }
            items
        });
        let begun = Instant::now();
        // Kernels that are loaded for the first time, and memory that comes and goes.
        let work = || -> Result<(), Error> {
            let x = Buffer::from_slice(device, &[1.0, 2.0])?;
            let mut y = Buffer::zeroed(device, 2)?;
            velocity(device, &x, &x, 0.5, &mut y)?;
            tile_projection(device, &x, &mut y)?;
            for _ in 0..20 {
                drop(Buffer::<f32>::mapped(device, 1 << 20)?);
            }
            device.synchronize()
        };
        let worked = work();
        let took = begun.elapsed();
        ends.store(true, Ordering::Relaxed);
        worked.expect("it goes on");
        let items = items.join().expect("the items are complete");
        let launches = executor.statistics().launches;
        println!("{items} items and {launches} launches in {took:?}");
        assert!(took < Duration::from_secs(20) && items > 10 && launches > 10);
    });
}

/// An item in work that never ends and may be for `deadline`, and when it was submitted.
fn hang(executor: &PersistentExecutor, deadline: Duration) -> (Ticket, Instant) {
    let submitted = Instant::now();
    let options = ItemOptions { deadline: Some(deadline), ..Default::default() };
    let program = Program::provoking(Provoke::Hang);
    let ticket = executor.submit_with(&program, &options).expect("an item");
    std::thread::sleep(Duration::from_millis(100));
    (ticket, submitted)
}

/// Dropped, or stopped, with a kernel that never answers: that takes what the item in work has left of its deadline,
/// whatever the configuration says, and what waits behind it.
fn drops(device: &Device) {
    let deadline = Duration::from_secs(1);
    for stops in [false, true] {
        let executor = executor(device, 15_000);
        let good = Good::new(device, &executor);
        good.check(&executor);
        let (_, submitted) = hang(&executor, deadline);
        let hour = Some(Duration::from_secs(3600));
        let options = ItemOptions { deadline: hour, ..Default::default() };
        executor.submit_with(&good.program, &options).expect("an item");
        let begun = Instant::now();
        if stops {
            assert_eq!(executor.stop().len(), 2);
        } else {
            drop(executor);
        }
        let (took, since_submission) = (begun.elapsed(), submitted.elapsed());
        println!("{took:?}, {since_submission:?} after the submission");
        assert!(since_submission >= deadline && took < 2 * deadline, "{took:?}, of {deadline:?}");
    }
}

/// Launches while an item is in work come to their ends, on buffers of their own, and the resident kernel stays.
fn launches_beside(device: &Device) {
    const LEN: usize = 5000;
    let executor = executor(device, 5000);
    let good = Good::new(device, &executor);
    let x = Buffer::from_slice(device, &[1.0_f32; LEN]).expect("memory");
    let mut y = Buffer::zeroed(device, LEN).expect("memory");
    // Loads the kernel, for which the driver would wait for the resident one.
    axpby(device, 1.0, &x, 0.0, &x, &mut y)
        .and_then(|()| device.synchronize())
        .expect("a launch before");
    good.check(&executor);
    assert_eq!(executor.statistics().launches, 1);
    let (stuck, _) = hang(&executor, Duration::from_secs(5));
    let begun = Instant::now();
    for _ in 0..10 {
        axpby(device, 2.0, &x, 1.0, &x, &mut y).expect("a launch");
        device.synchronize().expect("the launch ends");
    }
    let took = begun.elapsed();
    let in_work = stuck.poll();
    println!("ten launches took {took:?}");
    assert!(took < Duration::from_millis(100), "ten launches took {took:?}");
    assert!(matches!(in_work, Ok(false)), "{in_work:?}, expected an item in work");
    assert_eq!(y.to_vec().expect("a read"), [3.0; LEN]);
    assert_eq!(executor.statistics().launches, 1, "the kernel stayed");
}

fn say_ready() {
    println!("{READY}");
    std::io::stdout().flush().expect("the parent reads");
}

/// At work until it is killed.
fn is_killed(device: &Device) {
    let executor = executor(device, 3_600_000);
    hang(&executor, Duration::from_secs(3600));
    say_ready();
    std::thread::sleep(LIMIT);
    // Its drop would wait for the item.
    std::process::abort();
}

/// Frozen for longer than the kernel waits for a sign of life, then goes on.
fn is_frozen(device: &Device) {
    let executor = executor(device, 5000);
    let good = Good::new(device, &executor);
    good.check(&executor);
    say_ready();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent writes");
    good.check(&executor);
    let launches = executor.statistics().launches;
    assert!(launches >= 2, "the kernel left while the host was frozen: {launches} launches");
}

/// A process, which does not outlive this handle, and what it says.
struct Scenario {
    name: &'static str,
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Scenario {
    fn spawn(name: &'static str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.env(SCENARIO, name).env(PARENT, std::process::id().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, said) = mpsc::channel();
        // Ends with the process's output.
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { name, child, said }
    }

    fn wait_until_ready(&self) {
        let said = self.said.recv_timeout(LIMIT);
        assert_eq!(said.as_deref(), Ok(READY), "`{}` within {LIMIT:?}", self.name);
    }

    fn kill(&mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("a status");
    }

    /// Waits for its end.
    fn finish(mut self) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                break Some(status);
            }
            if begun.elapsed() > LIMIT {
                self.kill();
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.said.iter().for_each(|line| println!("{line}"));
        let name = self.name;
        let status = status.unwrap_or_else(|| panic!("`{name}` did not end within {LIMIT:?}"));
        assert!(status.success(), "`{name}` ended with {status}");
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // Refused where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a scenario to its end, and finds the GPU as it was.
pub(super) fn scenario(name: &'static str, device: &Device) {
    Scenario::spawn(name).finish();
    check_axpby(device, Domains::All, &[1000]);
}

/// A process that is killed while its kernel spins leaves nothing on the GPU.
pub(super) fn killed(device: &Device) {
    let mut killed = Scenario::spawn("killed");
    killed.wait_until_ready();
    killed.kill();
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    // A grid of every multiprocessor's blocks at once finds room only on an empty GPU.
    let begun = Instant::now();
    let config = PersistentConfig { share: 1.0, ..Default::default() };
    let executor = PersistentExecutor::new(device, config).expect("an executor");
    Good::new(device, &executor).check(&executor);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(executor.groups().iter().sum::<u32>(), gpu.device().info().sm_count);
}

/// A process that is frozen: its kernel leaves, and comes back with it.
pub(super) fn frozen(_device: &Device) {
    let mut frozen = Scenario::spawn("frozen");
    frozen.wait_until_ready();
    let child = &mut frozen.child;
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(sent.expect("the command `kill`").success());
    };
    signal("-STOP");
    std::thread::sleep(Duration::from_secs(4));
    signal("-CONT");
    writeln!(child.stdin.as_mut().expect("piped"), "on").expect("the child reads");
    frozen.finish();
}
