//! Resident kernels on a GPU. What makes one fail runs in a process of its own, under a time limit: nothing is left
//! spinning, and what happens to the context happens to nobody else.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kasmina::information::{axpby, tile_projection, velocity};
use kasmina::persistent::{
    Domains, Fault, FaultCause, ItemOptions, PersistentConfig, PersistentError, PersistentExecutor,
    Program, Provoke,
};
use kasmina::{Buffer, Device, Error};
use kasmina_tests::persistent::{
    check_axpby, check_belief_steps, check_gemv, check_layer, check_sequence, check_stream,
};

/// The environment variable that names the scenario of a child process.
const SCENARIO: &str = "KASMINA_FAULT";
/// The environment variable for the length of the soak, in seconds.
const SOAK: &str = "KASMINA_SOAK_SECONDS";
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
        "killed" => is_killed(&device),
        "frozen" => is_frozen(&device),
        other => panic!("no scenario {other}"),
    }
    true
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
        assert_eq!(self.y.to_vec().expect("a read"), [3.0, 6.0]);
    }
}

fn persistent(why: Error) -> PersistentError {
    match why {
        Error::Persistent(why) => *why,
        other => panic!("{other}"),
    }
}

/// A kernel that stalls or traps: found within the deadline, and reported with the item. Answers what was reported, the
/// executor that comes in its place if one does, and the work that went well before.
fn fails(
    device: &Device,
    provoke: Provoke,
) -> (Arc<Fault>, Result<PersistentExecutor, Error>, Good) {
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
    // What was complete is there, whatever became of the context.
    assert_eq!(good.y.to_vec().expect("mapped memory"), [3.0, 6.0]);
    (fault, executor, good)
}

/// A kernel that waits for what does not come leaves when it is told to: its context is as it was.
fn leaves(device: &Device, provoke: Provoke) {
    let (fault, executor, good) = fails(device, provoke);
    assert!(matches!(fault.cause, FaultCause::Stalled { .. }) && !fault.context_lost, "{fault}");
    let executor = executor.expect("a new executor");
    assert_eq!(good.x.to_vec().expect("the buffer is there"), [1.0, 2.0]);
    good.check(&executor);
}

/// A kernel that nothing ends: its context is given up, and another works beside it.
fn is_deaf(device: &Device) {
    let (fault, executor, good) = fails(device, Provoke::Deaf);
    assert!(matches!(fault.cause, FaultCause::Stalled { .. }) && fault.context_lost, "{fault}");
    let executor = executor.expect("a new executor");
    assert!(good.x.to_vec().is_err());
    drop(good);
    let device = executor.device().clone();
    for _ in 0..100 {
        Good::new(&device, &executor).check(&executor);
    }
}

/// A kernel that traps takes the process along: its executor cannot come back there, and says so.
fn traps(device: &Device) {
    let (fault, executor, good) = fails(device, Provoke::Trap);
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

/// Dropped with a kernel that never answers.
fn drops(device: &Device) {
    let begun = Instant::now();
    let executor = executor(device, 300);
    executor.submit(&Program::provoking(Provoke::Hang)).expect("an item");
    drop(executor);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

fn say_ready() {
    println!("{READY}");
    std::io::stdout().flush().expect("the parent reads");
}

/// At work until it is killed.
fn is_killed(device: &Device) {
    let executor = executor(device, 3_600_000);
    executor.submit(&Program::provoking(Provoke::Hang)).expect("an item");
    std::thread::sleep(Duration::from_millis(200));
    say_ready();
    std::thread::sleep(LIMIT);
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

fn spawn(scenario: &str) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.env(SCENARIO, scenario).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("a process")
}

/// Waits for a child, and kills one that takes too long.
fn finish(scenario: &str, mut child: Child) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        if begun.elapsed() > LIMIT {
            child.kill().expect("a kill");
            child.wait().expect("a status");
            panic!("`{scenario}` did not end within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if let Some(said) = child.stdout.take() {
        BufReader::new(said).lines().map_while(Result::ok).for_each(|line| println!("{line}"));
    }
    assert!(status.success(), "`{scenario}` ended with {status}");
}

/// Runs a scenario to its end, and finds the GPU as it was.
pub(super) fn scenario(scenario: &str, device: &Device) {
    finish(scenario, spawn(scenario));
    check_axpby(device, Domains::All, &[1000]);
}

fn wait_until_ready(child: &mut Child) {
    let said = child.stdout.as_mut().expect("piped");
    let mut line = String::new();
    // A byte at a time: what comes after the line stays in the pipe.
    while !line.ends_with('\n') {
        let mut byte = [0];
        std::io::Read::read_exact(said, &mut byte).expect("the child says that it is ready");
        line.push(byte[0].into());
    }
    assert_eq!(line.trim(), READY);
}

/// A process that is killed while its kernel spins leaves nothing on the GPU.
pub(super) fn killed(device: &Device) {
    let mut child = spawn("killed");
    wait_until_ready(&mut child);
    child.kill().expect("a kill");
    child.wait().expect("a status");
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
    let mut child = spawn("frozen");
    wait_until_ready(&mut child);
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(sent.expect("the command `kill`").success());
    };
    signal("-STOP");
    std::thread::sleep(Duration::from_secs(4));
    signal("-CONT");
    writeln!(child.stdin.as_mut().expect("piped"), "on").expect("the child reads");
    finish("frozen", child);
}
