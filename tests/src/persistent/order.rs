//! Which items come first, and what a kernel says of itself.

use std::time::{Duration, Instant};

use kasmina::information::axpby;
use kasmina::persistent::{
    Domains, ItemOptions, ItemPriority, PersistentConfig, PersistentExecutor, Program,
};
use kasmina::{Buffer, Device};

use super::{executor, number};

/// What comes in moments, on a busy machine in seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// A program of one block that takes a while.
fn long(device: &Device, executor: &PersistentExecutor, operations: usize) -> Program {
    let [mut a, mut b] = [(); 2].map(|()| Buffer::<f64>::zeroed(device, 1024).expect("memory"));
    let program = executor.record("long", || {
        (0..operations / 2).try_for_each(|_| {
            axpby(device, 1.0, &a, 0.0, &a, &mut b)?;
            axpby(device, 1.0, &b, 0.0, &b, &mut a)
        })
    });
    let program = program.expect("a program");
    assert_eq!(program.blocks(), 1, "{program:?}");
    program
}

/// Behind a long item two of normal priority wait, and then comes one of high priority: it is before them where its lane is
/// another one's of the same group, and behind them in theirs.
#[track_caller]
pub fn check_priorities(device: &Device) {
    let executor = executor(device, Domains::All);
    let one = number(device, 1.0);
    let (mut x, mut y) = (number(device, 0.0), number(device, 0.0));
    let mut program = |name, add| {
        let program = executor.record(name, || {
            axpby(device, 2.0, &x, add, &one, &mut y)?;
            axpby(device, 1.0, &y, 0.0, &y, &mut x)
        });
        program.expect("a program")
    };
    let (double, odd) = (program("x ← 2x", 0.0), program("x ← 2x + 1", 1.0));
    // Of three small groups, lane 3 has that of lane 0.
    for (lane, expected) in [(3, 4.0), (0, 1.0)] {
        let was_waiting = [200, 800, 3200].into_iter().any(|operations| {
            x.copy_from_slice(&[0.0]).expect("a copy");
            let long = executor.submit(&long(device, &executor, operations)).expect("an item");
            let normal = [(); 2].map(|()| executor.submit(&double).expect("an item"));
            let priority = ItemPriority::High;
            let options = ItemOptions { lane, priority, ..Default::default() };
            let high = executor.submit_with(&odd, &options).expect("an item");
            // Whoever comes once the long item is through says nothing of the order.
            let was_waiting = !long.poll().expect("an item");
            assert_eq!([normal[0].ring(), high.ring()], [1, 0]);
            executor.drain().expect("all items");
            let got = x.to_vec().expect("a read")[0];
            assert!(!was_waiting || got == expected, "lane {lane}: {got}, expected {expected}");
            was_waiting
        });
        assert!(was_waiting, "lane {lane}: a long item was through before three were submitted");
    }
}

/// Idle shares and heartbeats of a kernel with one group that works and others that do not.
#[track_caller]
pub fn check_figures(device: &Device) {
    let idle_limit = Duration::from_secs(60);
    let config = PersistentConfig { idle_limit, deadline: idle_limit, ..Default::default() };
    let executor = PersistentExecutor::new(device, config).expect("an executor");
    let program = long(device, &executor, 800);
    let begun = Instant::now();
    // The device says every millisecond or so how long it has worked.
    let shares = loop {
        executor.submit(&program).and_then(|ticket| ticket.wait()).expect("an item");
        let shares = executor.statistics().idle_shares;
        if shares[0] < 1.0 || begun.elapsed() > LIMIT {
            break shares;
        }
    };
    assert!(shares[0] > 0.0 && shares[0] < 1.0, "idle shares {shares:?}: the first group works");
    assert!(shares[1..].iter().all(|&share| share == 1.0), "idle shares {shares:?}");
    let before = executor.statistics().beats_ns;
    let begun = Instant::now();
    loop {
        let now = executor.statistics().beats_ns;
        if now.iter().zip(&before).all(|(now, before)| now > before) {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "beats {before:?}, and then {now:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(executor.statistics().launches, 1);
}
