//! The pool's bookkeeping over a fake of the driver.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use super::*;

const MIB: usize = 1 << 20;

/// Hands out addresses up to a capacity; a fence is a number that has passed when it is at most `time`.
#[derive(Default)]
struct Fake {
    capacity_bytes: usize,
    next: Cell<u64>,
    live: RefCell<BTreeMap<u64, usize>>,
    time: Cell<u64>,
    waited_for: RefCell<Vec<Option<u64>>>,
}

impl Backend for &Fake {
    type Fence = u64;

    fn allocate(&self, bytes: usize) -> Result<u64, DriverError> {
        let used: usize = self.live.borrow().values().sum();
        let free_bytes = self.capacity_bytes - used;
        if bytes > free_bytes {
            return Err(DriverError::OutOfMemory {
                requested_bytes: bytes,
                free_bytes,
                total_bytes: self.capacity_bytes,
            });
        }
        self.next.set(self.next.get() + 256);
        self.live.borrow_mut().insert(self.next.get(), bytes);
        Ok(self.next.get())
    }

    fn free(&self, address: u64, fence: Option<u64>) {
        assert!(
            self.live.borrow_mut().remove(&address).is_some(),
            "{address} was freed twice or never given"
        );
        self.waited_for.borrow_mut().push(fence);
    }

    fn has_passed(&self, fence: &u64) -> bool {
        *fence <= self.time.get()
    }
}

fn fake() -> Fake {
    Fake { capacity_bytes: 64 * MIB, ..Fake::default() }
}

#[test]
fn the_same_stream_reuses_at_once() {
    let fake = fake();
    let mut core = Core::new(&fake);
    let first = core.take(1000, 7).unwrap();
    core.give(first, 1000, 7, Some(99));
    assert_eq!(core.take(900, 7).unwrap(), first, "1000 and 900 bytes share a class");
    assert_eq!(core.statistics.reuses, 1);
    assert_eq!(core.statistics.driver_allocations, 1);
}

#[test]
fn another_stream_reuses_only_after_the_fence() {
    let fake = fake();
    let mut core = Core::new(&fake);
    let first = core.take(4096, 1).unwrap();
    core.give(first, 4096, 1, Some(10));
    let second = core.take(4096, 2).unwrap();
    assert_ne!(second, first, "the fence has not passed");
    fake.time.set(10);
    assert_eq!(core.take(4096, 2).unwrap(), first);
}

#[test]
fn a_block_without_a_fence_stays_with_its_stream() {
    let fake = fake();
    let mut core = Core::new(&fake);
    let first = core.take(4096, 1).unwrap();
    core.give(first, 4096, 1, None);
    fake.time.set(u64::MAX);
    assert_ne!(core.take(4096, 2).unwrap(), first);
    assert_eq!(core.take(4096, 1).unwrap(), first);
}

#[test]
fn live_blocks_are_disjoint() {
    let fake = fake();
    let mut core = Core::new(&fake);
    let mut live = BTreeSet::new();
    for round in 0..100_u64 {
        let address = core.take(512 << (round % 5), round % 3).unwrap();
        assert!(live.insert(address), "{address} is in use");
        if round % 2 == 0 {
            live.remove(&address);
            core.give(address, 512 << (round % 5), round % 3, Some(round));
        }
        fake.time.set(round / 2);
    }
}

#[test]
fn exhausted_memory_trims_and_tries_again() {
    let fake = fake();
    let mut core = Core::new(&fake);
    let first = core.take(40 * MIB, 1).unwrap();
    core.give(first, 40 * MIB, 1, Some(5));
    core.take(48 * MIB, 1).unwrap();
    assert_eq!(core.statistics.trims, 1);
    assert_eq!(*fake.waited_for.borrow(), [Some(5)], "the cached block is freed after its fence");
    assert_eq!(core.statistics.reserved_bytes, 48 * MIB);
    assert_eq!(core.statistics.peak_reserved_bytes, 48 * MIB);
}

#[test]
fn exhausted_memory_with_nothing_cached_is_an_error() {
    let fake = fake();
    let mut core = Core::new(&fake);
    core.take(40 * MIB, 1).unwrap();
    let before = core.statistics;
    let error = core.take(40 * MIB, 1).unwrap_err();
    assert!(
        matches!(error, DriverError::OutOfMemory { free_bytes, .. } if free_bytes == 24 * MIB),
        "{error}"
    );
    assert_eq!(core.statistics.in_use_bytes, before.in_use_bytes);
    assert_eq!(core.statistics.allocations, before.allocations);
}

#[test]
fn statistics_follow_the_blocks() {
    let fake = fake();
    let mut core = Core::new(&fake);
    let (a, b) = (core.take(MIB, 1).unwrap(), core.take(MIB, 1).unwrap());
    core.give(a, MIB, 1, None);
    core.give(b, MIB, 1, None);
    core.take(MIB, 1).unwrap();
    let expected = PoolStatistics {
        in_use_bytes: MIB,
        peak_in_use_bytes: 2 * MIB,
        reserved_bytes: 2 * MIB,
        peak_reserved_bytes: 2 * MIB,
        allocations: 3,
        reuses: 1,
        driver_allocations: 2,
        trims: 0,
    };
    assert_eq!(core.statistics, expected);
    assert_eq!(core.trim(), MIB);
    assert_eq!(core.statistics.reserved_bytes, MIB);
}

#[test]
fn dropping_the_pool_frees_what_it_cached() {
    let fake = fake();
    let mut core = Core::new(&fake);
    let address = core.take(MIB, 1).unwrap();
    core.give(address, MIB, 1, Some(3));
    drop(core);
    assert!(fake.live.borrow().is_empty());
}

#[test]
fn classes_hold_the_request_and_waste_at_most_a_quarter() {
    for bytes in
        (513..100_000).step_by(37).chain([LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 1 << 40])
    {
        let class = class_bytes(bytes);
        assert!(class >= bytes && class - bytes <= bytes / 4, "{bytes} bytes take {class}");
        assert_eq!(class_bytes(class), class, "a class is its own class");
    }
    assert_eq!(class_bytes(1), SMALLEST_CLASS_BYTES);
    assert_eq!(class_bytes(usize::MAX), usize::MAX);
}
