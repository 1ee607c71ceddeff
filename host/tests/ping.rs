//! Items without operations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use kasmina::information::axpby;
use kasmina::persistent::{PersistentConfig, PersistentError, PersistentExecutor};
use kasmina::{Buffer, Device, Error, Executor};

fn executor(device: &Device) -> PersistentExecutor {
    PersistentExecutor::new(device, PersistentConfig::default()).unwrap()
}

#[test]
fn a_ping_comes_back_behind_what_was_submitted_before() {
    let device = Device::Simt(Executor::new().checks(false));
    let executor = executor(&device);
    for _ in 0..50 {
        executor.ping().unwrap().wait_for(Duration::from_secs(20)).unwrap();
    }
    let x = Buffer::from_slice(&device, &vec![1.0_f32; 2000]).unwrap();
    let mut y = Buffer::zeroed(&device, 2000).unwrap();
    let program = executor.record("y", || axpby(&device, 2.0, &x, 1.0, &x, &mut y)).unwrap();
    assert_eq!(program.blocks(), 1, "in the group of the pings");
    let item = executor.submit(&program).unwrap();
    let ping = executor.ping().unwrap();
    assert_eq!((ping.ring(), ping.sequence()), (item.ring(), item.sequence() + 1));
    ping.wait().unwrap();
    assert!(item.poll().unwrap());
    assert_eq!(y.to_vec().unwrap(), vec![3.0; 2000]);
    // Who waits may learn of an item a moment before it is counted.
    let late = Instant::now() + Duration::from_secs(20);
    while executor.statistics().completed < 52 && Instant::now() < late {
        std::thread::yield_now();
    }
    let statistics = executor.statistics();
    assert_eq!((statistics.submitted, statistics.completed, statistics.failed), (52, 52, 0));
    assert_eq!((statistics.launches, statistics.latencies.count()), (1, 52));
}

#[test]
fn a_ping_is_no_part_of_a_recording() {
    let device = Device::Simt(Executor::new().checks(false));
    let executor = executor(&device);
    let why = executor.record("ping", || executor.ping().map(drop)).unwrap_err();
    assert!(matches!(why, Error::Recording { .. }), "{why}");
    let Err(Error::Persistent(why)) = executor.record("nothing", || Ok(())) else {
        panic!("a program has operations")
    };
    assert!(matches!(*why, PersistentError::Empty { .. }), "{why}");
}
