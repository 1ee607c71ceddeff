//! How long a push and a reap take. Not a test of anything: `cargo test --release -p kasmina-ring --test speed --
//! --ignored --nocapture`.
#![cfg(not(feature = "loom"))]

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use common::{Device, item};
use kasmina_ring::{HostWords, Rings};
use kasmina_types::manifold::LINE_WORDS;

const RINGS: usize = 2;
const CAPACITY: usize = 64;
const ROUNDS: u32 = 1_000_000;
const REPEATS: usize = 5;

#[test]
#[ignore = "prints times, checks none"]
fn push_and_reap() {
    let lines = Arc::new(HostWords::zeroed(RINGS * CAPACITY * LINE_WORDS));
    let completions = Arc::new(HostWords::zeroed(RINGS * CAPACITY));
    let first = [1; RINGS];
    let rings = Rings::new(Arc::clone(&lines), Arc::clone(&completions), RINGS, CAPACITY, &first)
        .expect("sizes that fit");
    let mut device = Device::new(lines, completions, CAPACITY as u64, &first);
    let report = |name: &str, start: Instant| {
        println!("{name}: {:.1} ns", start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
    };
    for _ in 0..REPEATS {
        let start = Instant::now();
        for round in 0..ROUNDS {
            rings.try_push(0, item(round), round).expect("room");
            device.complete(0, 0);
            rings.reap_ring(0, |completed| consume(completed.payload));
        }
        report("push, the device's completion and reap of the ring", start);
        let mut last = rings.try_push(1, item(0), 0).expect("room");
        assert!(device.step(|_, _| 0) && rings.reap(|_| {}) == 1);
        let start = Instant::now();
        for round in 0..ROUNDS {
            last = rings.try_push_after(1, item(round), &[last], round).expect("room");
            device.complete(1, 0);
            rings.reap(|completed| consume(completed.payload));
        }
        report("the same with a need and a reap of both rings", start);
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(rings.reap(|completed| consume(completed.payload)));
        }
        report("a reap of both rings in vain", start);
    }
}

fn consume(payload: u32) {
    black_box(payload);
}
