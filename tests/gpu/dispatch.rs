//! The dispatcher's ways on a GPU.

use std::sync::Arc;
use std::time::Duration;

use kasmina::dispatch::{Dispatch, DispatchCosts, Dispatcher, Way};
use kasmina::driver::Graph;
use kasmina::information::{axpby, velocity};
use kasmina::persistent::{
    ItemOptions, PersistentConfig, PersistentError, PersistentExecutor, Program, Provoke,
};
use kasmina::reduction::{Reduce, Segments};
use kasmina::{Buffer, Device, Error};

fn filled(device: &Device, len: usize, value: f32) -> Buffer<f32> {
    Buffer::from_slice(device, &vec![value; len]).expect("memory")
}

#[track_caller]
fn assert_all(what: &str, buffer: &Buffer<f32>, expected: f32) {
    let values = buffer.to_vec().expect("a read");
    let wrong = values.iter().position(|&value| value != expected);
    assert_eq!(wrong, None, "{what}: {} … of {}, expected {expected}", values[0], values.len());
}

#[track_caller]
fn way(dispatcher: &Dispatcher) -> Way {
    dispatcher.choice().expect("it has run").way
}

/// Graphs are replayed, updated, or instantiated anew, and give what the calls give.
pub(super) fn graph(device: &Device) {
    const OTHER_LEN: usize = 5000;
    let mut dispatcher = Dispatcher::new(device, Dispatch::Graph).expect("a GPU");
    let mut x = filled(device, 1000, 0.0);
    let mut y = filled(device, 1000, 0.0);
    let (long_x, mut long_y) = (filled(device, OTHER_LEN, 3.0), filled(device, OTHER_LEN, 0.0));
    // What is queued, how often the closure is called for it, and whether the graph before it may have been updated.
    let rounds = [
        ("first", 2.0, 2, false),
        ("the same", 2.0, 1, true),
        ("another factor", 5.0, 2, true),
        ("the same", 5.0, 1, true),
    ];
    for (round, (what, factor, calls, is_updated)) in (1_u8..).zip(rounds) {
        let (value, before) = (f32::from(round), dispatcher.instantiations());
        x.copy_from_slice(&vec![value; 1000]).expect("a copy");
        y.fill_bytes(0xff).expect("a fill");
        let mut called = 0;
        let run = dispatcher.run(|| {
            called += 1;
            axpby(device, factor, &x, 1.0, &x, &mut y)
        });
        run.expect("a graph");
        assert_eq!(called, calls, "calls of the closure: {what}");
        assert_eq!(way(&dispatcher), Way::Graph, "{what}");
        let made = dispatcher.instantiations() - before;
        assert_eq!(made, u64::from(!is_updated), "graphs instantiated: {what}");
        assert_all(what, &y, (factor as f32 + 1.0) * value);
    }
    // Another kernel, another length: an update where the driver takes it.
    y.fill_bytes(0xff).expect("a fill");
    let zeros = filled(device, 1000, 0.0);
    for calls in [2, 1] {
        let mut called = 0;
        let run = dispatcher.run(|| {
            called += 1;
            velocity(device, &x, &zeros, 0.5, &mut y)
        });
        run.expect("a graph");
        assert_eq!((called, way(&dispatcher)), (calls, Way::Graph), "another kernel");
        // (4 − 0)/0.5.
        assert_all("another kernel", &y, 8.0);
        y.fill_bytes(0xff).expect("a fill");
    }
    for calls in [2, 1] {
        long_y.fill_bytes(0xff).expect("a fill");
        let mut called = 0;
        let run = dispatcher.run(|| {
            called += 1;
            axpby(device, 2.0, &long_x, 1.0, &long_x, &mut long_y)
        });
        run.expect("a graph");
        assert_eq!((called, way(&dispatcher)), (calls, Way::Graph), "another length");
        assert_all("another length", &long_y, 9.0);
    }
    // Another shape is another graph.
    let before = dispatcher.instantiations();
    long_y.fill_bytes(0xff).expect("a fill");
    let run = dispatcher.run(|| {
        axpby(device, 2.0, &long_x, 1.0, &long_x, &mut long_y)?;
        axpby(device, 1.0, &x, 1.0, &x, &mut y)
    });
    run.expect("a graph");
    assert_eq!(dispatcher.instantiations(), before + 1, "two nodes in place of one");
    assert_all("the first of two", &long_y, 9.0);
    assert_all("the second of two", &y, 8.0);
    println!("{} graphs instantiated", dispatcher.instantiations());
}

/// The rule goes by what was measured once, and says why it leaves a way out.
pub(super) fn auto(device: &Device) {
    let costs = || DispatchCosts::of(device).expect("measured").expect("a GPU's");
    let first = costs();
    assert_eq!(first, costs(), "measured once");
    println!("{first:?}");
    assert!(first.item_us.is_some() && first.item_more_us.is_some(), "{first:?}");

    let mut dispatcher = Dispatcher::new(device, Dispatch::Auto).expect("a dispatcher");
    let (x, mut y) = (filled(device, 1024, 1.0), filled(device, 1024, 0.0));
    for _ in 0..3 {
        y.fill_bytes(0xff).expect("a fill");
        let run = dispatcher.run(|| axpby(device, 2.0, &x, 1.0, &x, &mut y));
        run.expect("a sequence");
        dispatcher.synchronize().expect("it is done");
        assert_all("one operation", &y, 3.0);
        let choice = dispatcher.choice().expect("it has run");
        let expected = &choice.expected_us;
        assert_eq!(expected.len(), 3, "{choice}");
        assert!(expected.iter().all(|&(_, us)| us.is_finite() && us > 0.0), "{choice}");
        let least = expected.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("three ways");
        assert_eq!(choice.way, least.0, "{choice}");
    }

    let run = dispatcher.run(|| velocity(device, &x, &x, 0.5, &mut y));
    run.expect("a sequence");
    assert_all("a kernel that is no operation", &y, 0.0);
    let choice = dispatcher.choice().expect("it has run");
    assert_eq!(choice.expected_us.len(), 2, "{choice}");
    assert!(choice.reason.contains("velocity_f32"), "{choice}");

    // Of f32 a block has 1024.
    let len = 500 * 1024;
    let (long_x, mut long_y) = (filled(device, len, 2.0), filled(device, len, 0.0));
    let run = dispatcher.run(|| axpby(device, 2.0, &long_x, 1.0, &long_x, &mut long_y));
    run.expect("a sequence");
    assert_all("500 blocks", &long_y, 6.0);
    let choice = dispatcher.choice().expect("it has run");
    assert_eq!(choice.expected_us.len(), 2, "{choice}");
    assert!(choice.reason.contains("500 blocks of `axpby_f32`"), "{choice}");

    let run = dispatcher.run(|| {
        y.copy_from_slice(&vec![7.0; 1024])?;
        axpby(device, 2.0, &long_x, 0.0, &long_x, &mut long_y)
    });
    run.expect("a sequence that copies");
    assert_eq!(way(&dispatcher), Way::Launches, "{:?}", dispatcher.choice());
    assert_all("what was copied", &y, 7.0);
    assert_all("what was launched", &long_y, 4.0);
}

pub(super) fn transitions(device: &Device) {
    within_a_dispatcher(device);
    between_dispatchers(device);
    by_hand(device);
}

/// Orders of three ways.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// One dispatcher that goes from items to graphs and launches in every order, with nobody waiting in between.
fn within_a_dispatcher(device: &Device) {
    const LEN: usize = 1000;
    let mut dispatcher = Dispatcher::new(device, Dispatch::Auto).expect("a dispatcher");
    let (x, mut y) = (filled(device, LEN, 1.0), filled(device, LEN, 0.0));
    let (mut next, mut other) = (filled(device, LEN, 0.0), filled(device, LEN, 0.0));
    let mut expected = 0.0_f32;
    let mut ways = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..50 {
        for which in ORDERS[round % ORDERS.len()] {
            let run = dispatcher.run(|| {
                match which {
                    // Two operations of a resident kernel.
                    0 => {}
                    // Many, with some that are none.
                    1 => (0..40).try_for_each(|_| velocity(device, &x, &x, 1.0, &mut other))?,
                    // What cannot be recorded.
                    _ => other.copy_from_slice(&[0.0; LEN])?,
                }
                axpby(device, 0.5, &y, 1.0, &x, &mut next)?;
                axpby(device, 1.0, &next, 0.0, &next, &mut y)
            });
            run.unwrap_or_else(|why| panic!("round {round}, sequence {which}: {why}"));
            let way = way(&dispatcher);
            if !ways[which].contains(&way) {
                ways[which].push(way);
            }
            expected = 0.5 * expected + 1.0;
        }
    }
    dispatcher.synchronize().expect("all are done");
    assert_all("a dispatcher that goes from way to way", &y, expected);
    println!("ways of three sequences: {ways:?}");
    assert_eq!(ways[2], [Way::Launches], "a sequence that copies");
}

/// Dispatchers of all ways in turn, each of which waits for the one before it.
fn between_dispatchers(device: &Device) {
    const LEN: usize = 1000;
    let executor = PersistentExecutor::new(device, PersistentConfig::default());
    let executor = Arc::new(executor.expect("an executor"));
    let (x, mut y) = (filled(device, LEN, 1.0), filled(device, LEN, 0.0));
    let mut next = filled(device, LEN, 0.0);
    let mut ways = [Dispatch::Persistent, Dispatch::Graph, Dispatch::Launches].map(|way| {
        let made = Dispatcher::new(device, way).expect("a dispatcher");
        if way == Dispatch::Persistent { made.with_executor(Arc::clone(&executor)) } else { made }
    });
    // Begins anew at times, to stay among the numbers that f32 has.
    let mut expected = 0.0_f32;
    for round in 0..50 {
        for which in ORDERS[round % ORDERS.len()] {
            let factor = if expected > 1000.0 { 0.0 } else { 2.0 };
            let run = ways[which].run(|| {
                axpby(device, factor, &y, 1.0, &x, &mut next)?;
                axpby(device, 1.0, &next, 0.0, &next, &mut y)
            });
            run.expect("a sequence");
            expected = factor as f32 * expected + 1.0;
            // Replays of a graph say nothing to the buffers: what follows in another dispatcher waits for them by hand.
            ways[which].synchronize().expect("it is done");
        }
        assert_all(&format!("dispatchers in turn, round {round}"), &y, expected);
    }
}

/// Items, replays of a graph and launches on the same buffers in every order. Items and launches wait for each other by
/// themselves.
fn by_hand(device: &Device) {
    const LEN: usize = 1000;
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let executor = PersistentExecutor::new(device, PersistentConfig::default());
    let executor = executor.expect("an executor");
    let x = filled(device, LEN, 1.0);
    let (mut y, mut next) = (filled(device, LEN, 0.0), filled(device, LEN, 0.0));
    let mut work = |factor| {
        axpby(device, factor, &y, 1.0, &x, &mut next)?;
        axpby(device, 1.0, &next, 0.0, &next, &mut y)
    };
    let graph = Graph::capture::<Error>(gpu.stream(), |_| work(0.5)).expect("a graph");
    let exec = graph.instantiate().expect("a graph");
    let program = executor.record("half", || work(0.5)).expect("a program");
    let mut expected = 0.0_f32;
    for round in 0..50 {
        for which in ORDERS[round % ORDERS.len()] {
            match which {
                0 => drop(executor.submit(&program).expect("an item")),
                1 => {
                    // A graph is no launch of the library's: it does not wait for items by itself.
                    executor.drain().expect("the item");
                    exec.launch(gpu.stream()).expect("a replay");
                    gpu.stream().synchronize().expect("the replay");
                }
                _ => work(0.5).expect("launches"),
            }
            expected = 0.5 * expected + 1.0;
        }
    }
    assert_all("items, replays and launches", &y, expected);
}

/// What an item cannot be goes another way, and a failed kernel is answered once.
pub(super) fn fallbacks(device: &Device) {
    scratch(device);
    two_dispatchers(device);
    failed_kernel(device);
}

/// An operation that makes its scratch memory when it first runs.
fn scratch(device: &Device) {
    let mut dispatcher = Dispatcher::new(device, Dispatch::Auto).expect("a dispatcher");
    let reduce = Reduce::new(device);
    let input = filled(device, 3_000_000, 1.0);
    let mut output = filled(device, 1, 0.0);
    for round in 0..3 {
        output.fill_bytes(0xff).expect("a fill");
        let run = dispatcher.run(|| reduce.sum_into(&input, &Segments::Whole, &mut output));
        run.unwrap_or_else(|why| panic!("a sum, run {round}: {why}"));
        assert_all("the sum", &output, 3e6);
        if round == 0 {
            let choice = dispatcher.choice().expect("it has run");
            assert_eq!(choice.way, Way::Launches, "{choice}");
            assert!(choice.reason.contains("cannot be recorded"), "{choice}");
        }
    }
}

/// Two dispatchers that share buffers: the items of one keep the other from having any.
fn two_dispatchers(device: &Device) {
    let costs = DispatchCosts::of(device).expect("measured").expect("a GPU's");
    let mut first = Dispatcher::new(device, Dispatch::Persistent).expect("a dispatcher");
    let mut second = Dispatcher::new(device, Dispatch::Auto).expect("a dispatcher");
    let (x, mut y, mut z) =
        (filled(device, 100, 1.0), filled(device, 100, 0.0), filled(device, 100, 0.0));
    for round in 0..3 {
        z.fill_bytes(0xff).expect("a fill");
        let run = first.run(|| axpby(device, 2.0, &x, 1.0, &x, &mut y));
        run.expect("an item");
        let run = second.run(|| axpby(device, 2.0, &y, 0.0, &y, &mut z));
        run.unwrap_or_else(|why| panic!("the second dispatcher, run {round}: {why}"));
        second.synchronize().expect("it is done");
        assert_all("the second dispatcher's", &z, 6.0);
    }
    assert_eq!(way(&first), Way::Persistent);
    let choice = second.choice().expect("it has run");
    let prefers_items = costs.item_us.is_some_and(|us| us < costs.launch_us.min(costs.graph_us));
    if prefers_items {
        assert_eq!(choice.way, Way::Launches, "{choice}");
        assert!(choice.reason.contains("another executor's"), "{choice}");
    } else {
        println!("items are not the cheapest here: {choice}");
    }
}

/// A kernel that is given up under a dispatcher.
fn failed_kernel(device: &Device) {
    let costs = DispatchCosts::of(device).expect("measured").expect("a GPU's");
    if !costs.item_us.is_some_and(|us| us < costs.launch_us.min(costs.graph_us)) {
        println!("items are not the cheapest here, so there is no kernel to fail: {costs:?}");
        return;
    }
    let deadline = Duration::from_millis(300);
    for is_lost in [false, true] {
        let executor = PersistentExecutor::new(device, PersistentConfig::default());
        let executor = Arc::new(executor.expect("an executor"));
        let mut dispatcher = Dispatcher::new(device, Dispatch::Auto).expect("a dispatcher");
        dispatcher = dispatcher.with_executor(Arc::clone(&executor));
        let (x, mut y) = (filled(device, 100, 1.0), filled(device, 100, 0.0));
        let mut run = |dispatcher: &mut Dispatcher| {
            dispatcher.run(|| axpby(device, 2.0, &x, 1.0, &x, &mut y))
        };
        run(&mut dispatcher).and_then(|()| dispatcher.synchronize()).expect("an item");
        assert_eq!(way(&dispatcher), Way::Persistent, "{:?}", dispatcher.choice());
        let options = ItemOptions { deadline: Some(deadline), ..Default::default() };
        let hang = Program::provoking(Provoke::Hang);
        let hang = executor.submit_with(&hang, &options).expect("an item");
        if is_lost {
            run(&mut dispatcher).expect("it waits behind the item that hangs");
        }
        let why = hang.wait().expect_err("the kernel is given up");
        assert!(is_fault(&why), "{why}");
        if is_lost {
            // Told by the next run, and that is that.
            let why = run(&mut dispatcher).expect_err("its item was not carried out");
            assert!(is_fault(&why), "{why}");
        }
        for round in 0..2 {
            let done = run(&mut dispatcher).and_then(|()| dispatcher.synchronize());
            done.unwrap_or_else(|why| panic!("run {round} behind a fault: {why}"));
        }
        assert_all("behind a fault", &y, 3.0);
    }
}

fn is_fault(why: &Error) -> bool {
    matches!(why, Error::Persistent(why) if matches!(**why, PersistentError::Fault(_)))
}
