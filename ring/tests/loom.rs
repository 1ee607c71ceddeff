//! The interleavings of the crate's own threads, explored by loom: `cargo test --release -p kasmina-ring --features loom
//! --test loom`.
//!
//! Every model is bounded to [`PREEMPTIONS`] involuntary switches of thread. Of a line's words [`EXPLORED`] are loom's, so
//! that a device can see a line in part; the others are std's, with nothing to explore. loom looks for deadlocks, so a lost wake-up ends a model with an error.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicU64 as PlainU64;
use std::task::{Context, Poll, Wake, Waker};

use common::{Device, item};
use kasmina_ring::{CloseReason, Refusal, Rings, WaitError, Words};
use kasmina_types::manifold::{HEAD_WORDS, LINE_WORDS};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Involuntary switches of thread in one execution.
const PREEMPTIONS: usize = 3;

/// Switches and choices in one execution; loom takes more for a loop that does not end.
const BRANCHES: usize = 10_000;

/// Lines of each ring.
const CAPACITY: usize = 2;

/// Words of a line that are explored: the first and the last of the head, and the one behind it.
const EXPLORED: [usize; 3] = [0, HEAD_WORDS - 1, HEAD_WORDS];

/// Words some of which are loom's; all of them where `stride`, the words of a line, is 1.
struct Memory {
    explored: Vec<AtomicU64>,
    plain: Vec<PlainU64>,
    stride: usize,
}

impl Memory {
    fn new(len: usize, stride: usize) -> Self {
        let is_explored = |index: &usize| Self::is_explored(*index, stride);
        Self {
            explored: (0..len).filter(is_explored).map(|_| AtomicU64::new(0)).collect(),
            plain: (0..len).map(|_| PlainU64::new(0)).collect(),
            stride,
        }
    }

    fn is_explored(index: usize, stride: usize) -> bool {
        stride == 1 || EXPLORED.contains(&(index % stride))
    }

    fn explored(&self, index: usize) -> Option<&AtomicU64> {
        if self.stride == 1 {
            return self.explored.get(index);
        }
        let place = EXPLORED.iter().position(|&word| word == index % self.stride)?;
        self.explored.get(index / self.stride * EXPLORED.len() + place)
    }
}

impl Words for Memory {
    fn len(&self) -> usize {
        self.plain.len()
    }

    fn load(&self, index: usize) -> u64 {
        match self.explored(index) {
            Some(word) => word.load(Ordering::Acquire),
            None => self.plain[index].load(std::sync::atomic::Ordering::Acquire),
        }
    }

    fn store(&self, index: usize, value: u64) {
        match self.explored(index) {
            Some(word) => word.store(value, Ordering::Release),
            None => self.plain[index].store(value, std::sync::atomic::Ordering::Release),
        }
    }
}

type Host = Arc<Rings<std::sync::Arc<Memory>, u32>>;

fn make(first: &[u64]) -> (Host, Device<std::sync::Arc<Memory>>) {
    let places = first.len() * CAPACITY;
    let lines = std::sync::Arc::new(Memory::new(places * LINE_WORDS, LINE_WORDS));
    let completions = std::sync::Arc::new(Memory::new(places, 1));
    let rings = Rings::new(lines.clone(), completions.clone(), first.len(), CAPACITY, first)
        .expect("sizes that fit")
        .with_spins(0);
    (Arc::new(rings), Device::new(lines, completions, CAPACITY as u64, first))
}

#[track_caller]
fn explore(name: &'static str, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = BRANCHES;
    let executions = std::sync::Arc::new(PlainU64::new(0));
    let counter = executions.clone();
    builder.check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!("{name}: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
}

/// Carries out `count` items, as they come.
fn work(device: &mut Device<std::sync::Arc<Memory>>, count: u32) {
    for _ in 0..count {
        while !device.step(|_, _| 0) {
            thread::yield_now();
        }
    }
}

/// Reaps until `count` items have come, and gives their payloads.
fn reap(host: &Host, count: usize) -> Vec<u32> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        if host.reap(|item| payloads.push(item.payload)) == 0 {
            thread::yield_now();
        }
    }
    payloads
}

/// Sleeps until it is woken.
#[derive(Default)]
struct Alarm {
    is_rung: Mutex<bool>,
    rung: Condvar,
}

impl Alarm {
    fn sleep(&self) {
        let mut is_rung = self.is_rung.lock().expect("no panic");
        while !std::mem::take(&mut *is_rung) {
            is_rung = self.rung.wait(is_rung).expect("no panic");
        }
    }
}

/// std's `Arc` makes a waker; what it wakes is loom's.
struct Ringer(Arc<Alarm>);

impl Wake for Ringer {
    fn wake(self: std::sync::Arc<Self>) {
        *self.0.is_rung.lock().expect("no panic") = true;
        self.0.rung.notify_one();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(std::sync::Arc::new(Ringer(alarm.clone())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => alarm.sleep(),
        }
    }
}

/// Both pushers may sleep, and each room wakes one of them.
#[test]
fn two_pushers_wait_for_room() {
    explore("two pushers, a full ring of 2", || {
        let (host, mut device) = make(&[1]);
        host.try_push(0, item(0), 0).expect("room");
        host.try_push(0, item(1), 1).expect("room");
        let pushers = [2, 3].map(|payload| {
            let host = host.clone();
            thread::spawn(move || host.push(0, item(payload), payload, None).expect("open"))
        });
        let mut payloads = Vec::new();
        for _ in 0..4 {
            work(&mut device, 1);
            payloads.extend(reap(&host, 1));
        }
        let mut sequences = pushers.map(|pusher| pusher.join().expect("no panic").sequence());
        sequences.sort_unstable();
        payloads.sort_unstable();
        assert_eq!((sequences, payloads), ([3, 4], vec![0, 1, 2, 3]));
    });
}

/// The device looks behind the head of a line where that names a need, and sees those words in part. What was there before
/// would be a need that is met.
#[test]
fn a_device_sees_needs_whole() {
    explore("a pusher of an item and of one that needs it, beside a device", || {
        let (host, mut device) = make(&[3, 3]);
        let pusher = {
            let host = host.clone();
            thread::spawn(move || {
                let needed = host.try_push(1, item(0), 0).expect("room");
                host.try_push_after(0, item(1), &[needed], 1).expect("room");
                needed.need()
            })
        };
        // The device looks first at the ring of the item that waits.
        let mut taken = Vec::new();
        while taken.len() < 2 {
            let carry_out = |_, item| {
                taken.push(item);
                0
            };
            if !device.step(carry_out) {
                thread::yield_now();
            }
        }
        let mut needing = item(1);
        needing.needs[0] = pusher.join().expect("no panic");
        assert_eq!(taken, [item(0), needing]);
        assert_eq!(host.reap(|_| {}), 2);
    });
}

/// The device looks at lines while they are written, and sees them in part.
#[test]
fn a_device_takes_whole_lines_over_the_wrap() {
    explore("a pusher, beside a device and reaper, over the wrap", || {
        let (host, mut device) = make(&[u64::from(u32::MAX)]);
        let pusher = {
            let host = host.clone();
            thread::spawn(move || {
                for payload in 0..3 {
                    host.push(0, item(payload), payload, None).expect("open");
                }
            })
        };
        // One thread: loom lets the first of two threads that poll go on for ever.
        for expected in 0..3 {
            let carry_out = |_, taken| {
                assert_eq!(taken, item(expected));
                0
            };
            while !device.step(carry_out) {
                thread::yield_now();
            }
            assert_eq!(reap(&host, 1), [expected]);
        }
        pusher.join().expect("no panic");
        assert!(host.depths().eq([0]));
    });
}

/// A place is used again while the device is at the next one.
#[test]
fn places_are_used_again_beside_the_device() {
    explore("a device beside a pusher that reaps, over the wrap", || {
        let (host, mut device) = make(&[u64::from(u32::MAX)]);
        let worker = thread::spawn(move || {
            for expected in 0..3 {
                let carry_out = |_, taken| {
                    assert_eq!(taken, item(expected));
                    0
                };
                while !device.step(carry_out) {
                    thread::yield_now();
                }
            }
        });
        host.try_push(0, item(0), 0).expect("room");
        host.try_push(0, item(1), 1).expect("room");
        let mut payloads = Vec::new();
        while payloads.len() < 3 {
            let reaped = host.reap(|done| {
                if done.payload == 0 {
                    host.try_push(0, item(2), 2).expect("room");
                }
                payloads.push(done.payload);
            });
            if reaped == 0 {
                thread::yield_now();
            }
        }
        worker.join().expect("no panic");
        assert_eq!(payloads, [0, 1, 2]);
    });
}

/// The reaper may come before, between and after the waiter's looks.
#[test]
fn a_waiter_is_woken() {
    explore("waiters of two items and a reaper", || {
        let (host, mut device) = make(&[1]);
        let waiters = [0, 1].map(|payload| {
            let ticket = host.try_push(0, item(payload), payload).expect("room");
            let host = host.clone();
            thread::spawn(move || host.wait(ticket, None, |_| unreachable!("it does not look")))
        });
        // One comes back before the other's item is carried out: it is not woken by that one's completion.
        for waiter in waiters {
            work(&mut device, 1);
            reap(&host, 1);
            waiter.join().expect("no panic").expect("done");
        }
    });
}

/// A waiter that looks takes the item from the reaper, or the other way round.
#[test]
fn an_item_is_given_out_once() {
    explore("a waiter that looks and a reaper", || {
        let (host, mut device) = make(&[1]);
        let host = Arc::new(
            Arc::try_unwrap(host).unwrap_or_else(|_| unreachable!("shared")).with_spins(1),
        );
        let ticket = host.try_push(0, item(0), 0).expect("room");
        let worker = thread::spawn(move || work(&mut device, 1));
        let reaper = {
            let host = host.clone();
            thread::spawn(move || {
                let mut count = 0;
                while !host.is_complete(ticket) {
                    count += host.reap(|_| {});
                    thread::yield_now();
                }
                count
            })
        };
        let mut count = 0;
        host.wait(ticket, None, |_| count += 1).expect("done");
        assert_eq!(count + reaper.join().expect("no panic"), 1);
        worker.join().expect("no panic");
    });
}

/// The waker is registered before the item is complete, or the future sees that it is.
#[test]
fn a_future_is_woken() {
    explore("two futures, one dropped, and a reaper", || {
        let (host, mut device) = make(&[1]);
        let ticket = host.try_push(0, item(0), 0).expect("room");
        let sleeper = {
            let host = host.clone();
            thread::spawn(move || block_on(host.completion(ticket)))
        };
        let dropper = {
            let host = host.clone();
            thread::spawn(move || {
                let mut future = host.completion(ticket);
                let _ = pin!(&mut future).poll(&mut Context::from_waker(Waker::noop()));
            })
        };
        work(&mut device, 1);
        reap(&host, 1);
        sleeper.join().expect("no panic").expect("done");
        dropper.join().expect("no panic");
    });
}

/// Every item is completed, handed back or refused, and nobody sleeps on.
#[test]
fn closing_meets_pushes_and_waits() {
    explore("close against a blocked push, a wait and a reap", || {
        let (host, mut device) = make(&[1]);
        let first = host.try_push(0, item(0), 0).expect("room");
        let second = host.try_push(0, item(1), 1).expect("room");
        let pusher = {
            let host = host.clone();
            thread::spawn(move || match host.push(0, item(2), 2, None) {
                Ok(_) => true,
                Err(error) => {
                    assert!(matches!(error.refusal, Refusal::Closed(_)) && error.payload == 2);
                    false
                }
            })
        };
        let waiter = {
            let host = host.clone();
            thread::spawn(move || host.wait(second, None, |_| unreachable!("it does not look")))
        };
        let closer = {
            let host = host.clone();
            thread::spawn(move || {
                let mut payloads = Vec::new();
                let unfinished = host.close(CloseReason::ShutDown, |item| {
                    payloads.push(item.payload);
                });
                payloads.extend(unfinished.into_iter().map(|item| item.payload));
                payloads
            })
        };
        work(&mut device, 1);
        let mut payloads = Vec::new();
        host.reap(|item| payloads.push(item.payload));
        payloads.extend(closer.join().expect("no panic"));
        payloads.sort_unstable();
        let was_pushed = pusher.join().expect("no panic");
        assert_eq!(payloads, if was_pushed { vec![0, 1, 2] } else { vec![0, 1] });
        let waited = waiter.join().expect("no panic");
        assert!(matches!(waited, Err(WaitError::Closed(_))));
        assert!(!was_pushed || host.is_complete(first));
        assert_eq!(matches!(host.status(first), Some(Ok(()))), host.is_complete(first));
    });
}
