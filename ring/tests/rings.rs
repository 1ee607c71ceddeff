//! What pushing, reaping, waiting and closing do, with a device that is played by hand or is a thread.
#![cfg(not(feature = "loom"))]

mod common;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Device, item};
use kasmina_ring::{
    CloseReason, Completion, Failure, HostWords, KEPT_FAILURES, Refusal, Rings, RingsError, Ticket,
    WaitError, Words,
};
use kasmina_types::manifold::{HEAD_WORDS, ItemStatus, LINE_WORDS, NEEDS, Need, data_of, tag_of};

type Shared = Arc<HostWords>;
type Made<T> = (Rings<Shared, T>, Device<Shared>);

fn make<T>(capacity: usize, first: &[u64]) -> Made<T> {
    let lines = Arc::new(HostWords::zeroed(first.len() * capacity * LINE_WORDS));
    let completions = Arc::new(HostWords::zeroed(first.len() * capacity));
    let rings =
        Rings::new(Arc::clone(&lines), Arc::clone(&completions), first.len(), capacity, first);
    let device = Device::new(lines, completions, capacity as u64, first);
    (rings.expect("sizes that fit"), device)
}

fn reaped<T>(rings: &Rings<Shared, T>) -> Vec<(Ticket, Result<(), Failure>, T)> {
    let mut all = Vec::new();
    rings.reap(|item| all.push((item.ticket, item.outcome, item.payload)));
    all
}

/// Counts its wake-ups.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn sizes_are_checked() {
    let words = HostWords::zeroed;
    let make = |lines, completions, rings, capacity, first: &[u64]| {
        Rings::<_, ()>::new(words(lines), words(completions), rings, capacity, first).err()
    };
    assert_eq!(make(2 * LINE_WORDS, 2, 1, 2, &[1]), None);
    for capacity in [0, 3, 1 << 31] {
        let expected = Some(RingsError::Capacity { got: capacity });
        assert_eq!(make(0, 0, 1, capacity, &[1]), expected);
    }
    assert_eq!(make(0, 0, 0, 2, &[]), Some(RingsError::RingCount { got: 0 }));
    let length = |area, expected, got| Some(RingsError::Length { area, expected, got });
    assert_eq!(make(31, 2, 1, 2, &[1]), length("lines", 32, 31));
    assert_eq!(make(32, 1, 1, 2, &[1]), length("completions", 2, 1));
    assert_eq!(make(32, 2, 1, 2, &[]), Some(RingsError::FirstCount { expected: 1, got: 0 }));
    assert_eq!(make(32, 2, 1, 2, &[0]), Some(RingsError::First { ring: 0, got: 0 }));
}

#[test]
fn no_line_looks_as_if_it_had_come() {
    // Zeroed words have the tag of item 2³², which is among the first here.
    for first in [1, (1 << 32) - 1, 1 << 32] {
        let (rings, device) = make::<()>(4, &[first]);
        assert!(device.look(0).is_none());
        assert_eq!(reaped(&rings), []);
        rings.try_push(0, item(7), ()).expect("room");
        assert_eq!(device.look(0), Some(item(7)));
    }
}

#[test]
fn places_and_numbers_wrap_around() {
    let (rings, mut device) = make(2, &[(1 << 32) - 3]);
    for round in 0..8 {
        let ticket = rings.try_push(0, item(round), round).expect("room");
        assert_eq!(ticket.sequence(), (1 << 32) - 3 + u64::from(round));
        assert!(device.step(|_, item| u32::from(item.first != round)));
        assert_eq!(reaped(&rings), [(ticket, Ok(()), round)]);
        assert!(rings.is_complete(ticket));
    }
    assert_eq!(tag_of(device.lines.load(0)), 4);
}

#[test]
fn a_full_ring_gives_the_payload_back() {
    let (rings, mut device) = make(2, &[1, 1]);
    let tickets = [10, 11].map(|payload| rings.try_push(0, item(0), payload).expect("room"));
    let refused = rings.try_push(0, item(0), 12).expect_err("full");
    assert!(matches!(refused.refusal, Refusal::Full) && refused.payload == 12);
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    let refused = rings.push(0, item(0), 12, deadline).expect_err("full");
    assert!(matches!(refused.refusal, Refusal::DeadlinePassed) && refused.payload == 12);
    let refused = rings.try_push(2, item(0), 13).expect_err("no ring");
    assert!(matches!(refused.refusal, Refusal::NoSuchRing { ring: 2, rings: 2 }));
    assert!(rings.depths().eq([2, 0]));
    assert_eq!((rings.oldest(0), rings.oldest(1)), (Some(tickets[0]), None));
    // The device being done is not enough: the completion has to be reaped.
    device.complete(0, 0);
    assert!(rings.try_push(0, item(0), 12).is_err());
    assert_eq!(reaped(&rings), [(tickets[0], Ok(()), 10)]);
    rings.push(0, item(0), 12, None).expect("room");
    assert!(rings.depths().eq([2, 0]));
}

#[test]
fn needs_are_checked_and_those_met_are_left_out() {
    let (rings, mut device) = make(4, &[1, 1]);
    let need = |ring, sequence| {
        let mut item = item(0);
        item.needs[1] = Need { ring, sequence };
        item
    };
    for (ring, sequence) in [(0, 1), (1, 1), (2, 1), (0, u32::MAX)] {
        let refused = rings.try_push(0, need(ring, sequence), ()).expect_err("not pushed");
        let expected = Need { ring, sequence };
        assert!(matches!(refused.refusal, Refusal::NeedNotPushed(need) if need == expected));
    }
    let a = rings.try_push(0, item(0), ()).expect("room");
    let b = rings.try_push(1, need(0, 1), ()).expect("room");
    assert_eq!(device.look(1), None);
    device.complete(0, 0);
    assert_eq!(device.look(1).map(|item| item.needs[0]), Some(a.need()));
    reaped(&rings);
    let c = rings.try_push_after(0, need(1, 1), &[a, b, b, b, b], ()).expect_err("five needs");
    assert!(matches!(c.refusal, Refusal::TooManyNeeds));
    rings.try_push_after(0, need(1, 1), &[a, b], ()).expect("room");
    let mut seen = Vec::new();
    rings.outstanding(|item| seen.push((item.ticket.ring(), item.descriptor.needs)));
    let (two, none) = ([b.need(), b.need(), Need::NONE, Need::NONE], [Need::NONE; NEEDS]);
    assert_eq!(seen[1], (0, two));
    device.complete(1, 0);
    reaped(&rings);
    rings.try_push_after(1, need(1, 1), &[a, b], ()).expect("room");
    let mut last = None;
    rings.outstanding(|item| last = Some(item.descriptor.needs));
    assert_eq!(last, Some(none));
    let (other, _) = make::<()>(4, &[100]);
    let foreign = other.try_push(0, item(0), ()).expect("room");
    let refused = rings.try_push_after(1, item(0), &[foreign], ()).expect_err("of others");
    assert!(matches!(refused.refusal, Refusal::NeedNotPushed(_)));
    assert!(matches!(rings.status(foreign), Some(Err(WaitError::NotPushed))));
}

/// The device looks at no word behind a head that names no need.
#[test]
fn needs_stand_in_the_first_places_of_a_line() {
    let (rings, mut device) = make::<()>(1 << 10, &[1, 1]);
    let push = |ring| rings.try_push(ring, item(0), ()).expect("room");
    let complete = push(0);
    device.complete(0, 0);
    reaped(&rings);
    let (first, second) = (push(0), push(0));
    // Each place of the descriptor: free, with a need that was met, or with one of two that were not.
    let kinds = [Need::NONE, complete.need(), first.need(), second.need()];
    for choice in 0..kinds.len().pow(NEEDS as u32) {
        let place = |index: usize| kinds[choice >> (2 * index) & 3];
        let mut item = item(7);
        item.needs = std::array::from_fn(place);
        let is_out = |need: &Need| ![Need::NONE, complete.need()].contains(need);
        let mut expected: Vec<_> = item.needs.into_iter().filter(is_out).collect();
        let mut after = Vec::new();
        if expected.len() < NEEDS && choice % 3 == 0 {
            after = vec![complete, second];
            expected.push(second.need());
        }
        expected.resize(NEEDS, Need::NONE);
        let ticket = rings.try_push_after(1, item, &after, ()).expect("room");
        let line = (rings.capacity() + ticket.sequence() as usize) * LINE_WORDS;
        let data = |word| data_of(device.lines.load(line + word));
        let places = (0..NEEDS).map(|place| HEAD_WORDS - 1 + 2 * place);
        let written: Vec<_> =
            places.map(|word| Need { ring: data(word), sequence: data(word + 1) }).collect();
        assert_eq!(written, expected, "{:?}", item.needs);
    }
}

#[test]
fn failures_are_kept_and_the_oldest_forgotten() {
    let (rings, mut device) = make(2, &[1]);
    let mut push = |status| {
        let ticket = rings.try_push(0, item(0), ()).expect("room");
        device.complete(0, status);
        let expected = Failure::check(status);
        assert_eq!(reaped(&rings), [(ticket, expected, ())]);
        ticket
    };
    let (done, refused, unknown) = (push(0), push(1), push(99));
    assert!(matches!(rings.status(done), Some(Ok(()))));
    for _ in 0..2 {
        let expected = Failure::Status(ItemStatus::OutOfRange);
        assert!(matches!(rings.status(refused), Some(Err(WaitError::Failed(f))) if f == expected));
        let expected = Failure::UnknownStatus(99);
        let waited = rings.wait(unknown, None, |_| {});
        assert!(matches!(waited, Err(WaitError::Failed(failure)) if failure == expected));
    }
    let later = push(0);
    for _ in 1..KEPT_FAILURES {
        push(2);
    }
    for forgotten in [done, refused] {
        assert!(matches!(rings.status(forgotten), Some(Err(WaitError::Forgotten))));
    }
    assert!(matches!(rings.status(unknown), Some(Err(WaitError::Failed(_)))));
    assert!(matches!(rings.status(later), Some(Ok(()))));
}

#[test]
fn a_waiter_looks_itself_then_sleeps_then_gives_up() {
    let (rings, mut device) = make(4, &[1]);
    let tickets = [0, 1, 2].map(|payload| rings.try_push(0, item(0), payload).expect("room"));
    device.complete(0, 0);
    device.complete(0, 0);
    let mut seen = Vec::new();
    assert!(rings.wait(tickets[1], None, |item| seen.push(item.payload)).is_ok());
    assert_eq!(seen, [0, 1]);
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    let late = rings.wait(tickets[2], deadline, |_| {});
    assert!(matches!(late, Err(WaitError::DeadlinePassed)));
    let rings = rings.with_spins(0);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| rings.wait(tickets[2], None, |_| {}));
        thread::sleep(Duration::from_millis(5));
        device.complete(0, 0);
        rings.reap(|_| {});
        assert!(waiter.join().expect("no panic").is_ok());
    });
}

#[test]
fn a_future_is_woken_once_and_forgets_its_waker() {
    let (rings, mut device) = make(4, &[1]);
    let rings = Arc::new(rings);
    let ticket = rings.try_push(0, item(0), ()).expect("room");
    let bells: [Arc<Bell>; 4] = std::array::from_fn(|_| Arc::default());
    let wakers = bells.clone().map(Waker::from);
    let poll = |future: &mut Completion<_, _, ()>, waker| {
        pin!(future).poll(&mut Context::from_waker(waker))
    };
    let mut moved = Completion::new(Arc::clone(&rings), ticket);
    let (mut dropped, mut second) = (rings.completion(ticket), rings.completion(ticket));
    assert!(pin!(&mut moved).poll(&mut Context::from_waker(&wakers[0])).is_pending());
    assert!(pin!(&mut moved).poll(&mut Context::from_waker(&wakers[1])).is_pending());
    assert!(poll_borrowed(&mut dropped, &wakers[2]).is_pending());
    assert!(poll_borrowed(&mut second, &wakers[3]).is_pending());
    drop(dropped);
    let counts = || bells.each_ref().map(|bell| bell.0.load(Ordering::SeqCst));
    assert_eq!(bells.each_ref().map(Arc::strong_count), [2, 3, 2, 3]);
    device.complete(0, 1);
    assert_eq!(counts(), [0; 4]);
    reaped(&rings);
    assert_eq!(counts(), [0, 1, 0, 1]);
    assert_eq!(bells.each_ref().map(Arc::strong_count), [2; 4]);
    assert!(matches!(poll(&mut moved, &wakers[1]), Poll::Ready(Err(WaitError::Failed(_)))));
    assert!(matches!(poll_borrowed(&mut second, &wakers[3]), Poll::Ready(Err(_))));
}

/// Panics.
struct Alarm;

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        panic!("a waker's own");
    }
}

#[test]
fn a_waker_that_panics_takes_nothing_along() {
    let (rings, mut device) = make(4, &[1]);
    let bell = Arc::new(Bell::default());
    let wakers = [Waker::from(Arc::new(Alarm)), Waker::from(Arc::clone(&bell))];
    let tickets = [1, 2].map(|payload| rings.try_push(0, item(0), payload).expect("room"));
    let mut futures: Vec<_> = Vec::new();
    for ticket in tickets {
        for waker in &wakers {
            let mut future = rings.completion(ticket);
            assert!(poll_borrowed(&mut future, waker).is_pending());
            futures.push(future);
        }
    }
    device.complete(0, 0);
    assert_eq!(reaped(&rings), [(tickets[0], Ok(()), 1)]);
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    let unfinished = rings.close(CloseReason::ShutDown, |_| unreachable!("the second is out"));
    assert_eq!(unfinished.iter().map(|item| item.payload).collect::<Vec<_>>(), [2]);
    assert_eq!(bell.0.load(Ordering::SeqCst), 2);
}

fn poll_borrowed<T>(
    future: &mut Completion<&Rings<Shared, T>, Shared, T>,
    waker: &Waker,
) -> Poll<Result<(), WaitError>> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

#[test]
fn closing_wakes_everybody_and_hands_everything_back_in_order() {
    #[derive(Debug, PartialEq)]
    struct Lost(u32);
    impl std::fmt::Display for Lost {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("lost")
        }
    }
    impl std::error::Error for Lost {}

    let (rings, mut device) = make(2, &[1, 1]);
    let rings = rings.with_spins(0);
    let tickets = [(1, "a"), (0, "b"), (1, "c"), (0, "d")]
        .map(|(ring, payload)| rings.try_push(ring, item(0), payload).expect("room"));
    let bell = Arc::new(Bell::default());
    let mut future = rings.completion(tickets[3]);
    assert!(poll_borrowed(&mut future, &Waker::from(Arc::clone(&bell))).is_pending());
    device.complete(0, 0);
    let is_lost = |reason: &CloseReason| match reason {
        CloseReason::Failed(error) => error.downcast_ref() == Some(&Lost(7)),
        CloseReason::ShutDown => false,
    };
    thread::scope(|scope| {
        let waiter = scope.spawn(|| rings.wait(tickets[2], None, |_| {}));
        let pusher = scope.spawn(|| rings.push(0, item(0), "e", None));
        thread::sleep(Duration::from_millis(5));
        let mut completed = Vec::new();
        let unfinished =
            rings.close(CloseReason::failed(Lost(7)), |item| completed.push(item.payload));
        assert_eq!(completed, ["b"]);
        let handed: Vec<_> = unfinished.iter().map(|item| (item.ticket, item.payload)).collect();
        assert_eq!(handed, [(tickets[0], "a"), (tickets[2], "c"), (tickets[3], "d")]);
        let waited = waiter.join().expect("no panic");
        assert!(matches!(waited, Err(WaitError::Closed(reason)) if is_lost(&reason)));
        let refused = pusher.join().expect("no panic").expect_err("closed");
        assert!(matches!(&refused.refusal, Refusal::Closed(reason) if is_lost(reason)));
        assert_eq!(refused.payload, "e");
    });
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    let polled = poll_borrowed(&mut future, Waker::noop());
    assert!(matches!(polled, Poll::Ready(Err(WaitError::Closed(_)))));
    assert!(rings.close(CloseReason::ShutDown, |_| {}).is_empty());
    assert!(rings.close_reason().is_some_and(|reason| is_lost(&reason)));
    assert!(rings.is_complete(tickets[1]) && matches!(rings.status(tickets[1]), Some(Ok(()))));
    // What the device does after that is of no consequence.
    device.complete(1, 0);
    assert_eq!(reaped(&rings), []);
    assert!(rings.depths().eq([0, 0]) && rings.oldest(1).is_none());
    rings.outstanding(|_| unreachable!("everything was handed back"));
    assert!(matches!(rings.status(tickets[0]), Some(Err(WaitError::Closed(_)))));
}

#[test]
fn many_threads_and_a_device_lose_nothing() {
    const PUSHERS: u32 = 3;
    const ITEMS: u32 = 3_000;
    let first = [1, (1 << 32) - 100];
    let (rings, mut device) = make(4, &first);
    let rings = rings.with_spins(20);
    let (is_over, seen) = (AtomicBool::new(false), Mutex::new(HashSet::new()));
    let (mut carried_out, mut torn) = (0, 0);
    let note = |payload| assert!(seen.lock().expect("no panic").insert(payload));
    thread::scope(|scope| {
        let reapers = [0, 1].map(|_| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    if rings.reap(|item| note(item.payload)) == 0 {
                        thread::yield_now();
                    }
                }
            })
        });
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let (rings, note) = (&rings, &note);
                scope.spawn(move || {
                    let mut before = None;
                    for index in 0..ITEMS {
                        let payload = pusher * ITEMS + index;
                        // Every item needs this pusher's last, which may be in the other ring.
                        let ring = payload % 2;
                        let mut item = item(payload);
                        item.count = payload;
                        let ticket = rings
                            .push_after(ring, item, before.as_slice(), payload, None)
                            .expect("open");
                        if index % 8 == 7 {
                            rings.wait(ticket, None, |item| note(item.payload)).expect("done");
                        }
                        before = Some(ticket);
                    }
                    rings.wait(before.expect("items"), None, |item| note(item.payload))
                })
            })
            .collect();
        let runner = scope.spawn(|| {
            let mut next = [0; PUSHERS as usize];
            while !is_over.load(Ordering::SeqCst) {
                let worked = device.step(|_, item| {
                    torn += u32::from(item.first != item.count);
                    // The order of each pusher's items, which needs alone make.
                    let (pusher, index) = (item.first / ITEMS, item.first % ITEMS);
                    torn += u32::from(next[pusher as usize] != index);
                    next[pusher as usize] = index + 1;
                    carried_out += 1;
                    0
                });
                if !worked {
                    thread::yield_now();
                }
            }
        });
        // Told before anything is checked, so that a failure ends the test instead of hanging it.
        let ends: Vec<_> = pushers.into_iter().map(|pusher| pusher.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        runner.join().expect("no panic");
        for reaper in reapers {
            reaper.join().expect("no panic");
        }
        for end in ends {
            end.expect("no panic").expect("done");
        }
    });
    rings.reap(|item| note(item.payload));
    assert_eq!((torn, carried_out), (0, PUSHERS * ITEMS));
    assert_eq!(seen.into_inner().expect("no panic").len() as u32, PUSHERS * ITEMS);
    assert!(rings.depths().eq([0, 0]));
}
