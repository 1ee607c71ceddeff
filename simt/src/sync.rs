//! Where threads meet: the block's barrier, named barriers and warp collectives.
//!
//! A thread that is being unwound meets nobody any more: its destructors pass straight through.

use std::cell::Cell;
use std::panic::Location;
use std::ptr;
use std::thread::panicking;

use crate::clock::LANES;
use crate::context::Context;
use crate::report::{Report, Wait};

type Place = &'static Location<'static>;

/// The barrier of the whole block.
#[derive(Default)]
pub(crate) struct BlockBarrier {
    arrived: Cell<usize>,
    agreeing: Cell<u32>,
    location: Cell<Option<Place>>,
    /// How many agreed in the meeting that was completed last. Nobody can complete the next one
    /// before all threads have read it.
    result: Cell<u32>,
}

/// A barrier of some of the block's threads.
pub(crate) struct NamedBarrier {
    id: u32,
    expected: u32,
    arrived: Vec<u32>,
    agreeing: u32,
}

/// A warp collective that some lanes have reached.
pub(crate) struct Collective {
    mask: u32,
    location: Place,
    arrived: u32,
    values: [u64; LANES],
}

impl Context {
    /// Waits for all threads of the block and counts those that come with `agrees`.
    pub(crate) fn block_barrier(&self, agrees: bool, location: Place) -> u32 {
        if panicking() {
            return 0;
        }
        let block = self.block();
        let barrier = &block.barrier;
        let agreeing = barrier.agreeing.get() + u32::from(agrees);
        let arrived = barrier.arrived.get() + 1;
        self.count_progress();
        match barrier.location.get() {
            Some(first) if !same(first, location) => block.doomed.set(true),
            _ => barrier.location.set(Some(location)),
        }
        if block.exited.get() > 0 {
            block.doomed.set(true);
        }
        if arrived < self.block_threads || block.doomed.get() {
            barrier.arrived.set(arrived);
            barrier.agreeing.set(agreeing);
            self.wait(Wait::Barrier, location);
            return barrier.result.get();
        }
        barrier.arrived.set(0);
        barrier.agreeing.set(0);
        barrier.location.set(None);
        barrier.result.set(agreeing);
        self.barriers.set(self.barriers.get() + 1);
        let (me, threads) = (self.current.get(), self.threads_of(self.current_block.get()));
        for index in threads.start / LANES..threads.end.div_ceil(LANES) {
            let mine = if index == me / LANES { 1 << (me % LANES) } else { 0 };
            self.make_ready(index, self.warps[index].exists & !mine);
        }
        if self.launch.checks && self.blocks.len() > 1 {
            self.shadow.borrow_mut().threads_met(threads);
        } else if self.launch.checks {
            self.shadow.borrow_mut().block_barrier();
            if let Err(report) = self.renew_products() {
                self.fail(report.into());
            }
        }
        agreeing
    }

    /// Waits until `expected` threads have come to barrier `id`, and counts those that came with `agrees`.
    #[track_caller]
    pub(crate) fn named_barrier(
        &self,
        id: u32,
        expected: u32,
        agrees: bool,
        location: Place,
    ) -> u32 {
        assert!((1..16).contains(&id), "a named barrier is one of 1 to 15, got {id}");
        assert!(
            expected > 0
                && expected.is_multiple_of(LANES as u32)
                && expected as usize <= self.block_threads,
            "named barrier {id} takes a multiple of 32 threads, at most the block's {}, got {expected}",
            self.block_threads
        );
        if panicking() {
            return 0;
        }
        let me = self.current.get() as u32;
        self.count_progress();
        let mut named = self.block().named.borrow_mut();
        let index = named.iter().position(|barrier| barrier.id == id).unwrap_or_else(|| {
            named.push(NamedBarrier { id, expected, arrived: Vec::new(), agreeing: 0 });
            named.len() - 1
        });
        let barrier = &mut named[index];
        if barrier.arrived.is_empty() {
            barrier.expected = expected;
        }
        assert_eq!(
            barrier.expected, expected,
            "named barrier {id} is waited at for different numbers of threads"
        );
        barrier.arrived.push(me);
        barrier.agreeing += u32::from(agrees);
        if barrier.arrived.len() < expected as usize {
            drop(named);
            self.wait(Wait::NamedBarrier { id, expected }, location);
            return self.thread().agreed.get();
        }
        let agreeing = std::mem::take(&mut barrier.agreeing);
        if self.launch.checks {
            self.shadow
                .borrow_mut()
                .threads_met(barrier.arrived.iter().map(|&thread| thread as usize));
        }
        for thread in barrier.arrived.drain(..).filter(|&thread| thread != me) {
            self.threads[thread as usize].agreed.set(agreeing);
            self.make_ready(thread as usize / LANES, 1 << (thread as usize % LANES));
        }
        agreeing
    }

    /// Waits for the lanes of `mask` at the same location and hands each lane's value to all.
    #[track_caller]
    pub(crate) fn warp_collective(
        &self,
        mask: u32,
        value: u64,
        location: Place,
        result: Option<&mut [u64; LANES]>,
    ) {
        if panicking() {
            return;
        }
        let (index, lane) = (self.current.get() / LANES, self.current.get() % LANES);
        let me = 1 << lane;
        assert!(mask & me != 0, "lane {lane} calls a warp collective over lanes {mask:#010x}");
        let warp = &self.warps[index];
        self.count_progress();
        let mut pending = warp.pending.borrow_mut();
        let at = pending
            .iter()
            .position(|c| c.mask == mask && same(c.location, location))
            .unwrap_or_else(|| {
                pending.push(Collective { mask, location, arrived: 0, values: [0; LANES] });
                pending.len() - 1
            });
        let collective = &mut pending[at];
        collective.arrived |= me;
        collective.values[lane] = value;
        if collective.arrived != mask {
            if mask & (warp.exited.get() | !warp.exists) != 0 {
                self.block().doomed.set(true);
            }
            drop(pending);
            let result = result.map_or(ptr::null_mut(), ptr::from_mut);
            self.threads[self.current.get()].result.set(result);
            self.wait(Wait::Warp { mask }, location);
            return;
        }
        let others = mask & !me;
        for other in (0..LANES).filter(|other| others >> other & 1 == 1) {
            let place = self.threads[index * LANES + other].result.get();
            if !place.is_null() {
                // SAFETY: `place` is a variable of a lane that waits in this collective: it stays
                // on that lane's stack, and nobody else uses it, until the lane is resumed.
                unsafe { place.write(collective.values) };
            }
        }
        if let Some(result) = result {
            *result = collective.values;
        }
        pending.swap_remove(at);
        self.collectives.set(self.collectives.get() + 1);
        self.make_ready(index, others);
        if self.launch.checks {
            self.shadow.borrow_mut().warp_met(index, mask, warp.exists);
        }
    }

    /// Gives way to the others until they have had their turn.
    pub(crate) fn spin(&self, location: Place) {
        if panicking() {
            return;
        }
        let warp = &self.warps[self.current.get() / LANES];
        warp.spinning.set(warp.spinning.get() | 1 << (self.current.get() % LANES));
        self.spinning.set(self.spinning.get() + 1);
        self.wait(Wait::Spin, location);
    }

    /// The current thread left the kernel.
    pub(crate) fn thread_exited(&self) -> Result<(), Report> {
        let block = self.block();
        let warp = &self.warps[self.current.get() / LANES];
        let me = 1 << (self.current.get() % LANES);
        warp.exited.set(warp.exited.get() | me);
        self.exited.set(self.exited.get() + 1);
        block.exited.set(block.exited.get() + 1);
        self.count_progress();
        let missed = warp.pending.borrow().iter().any(|c| c.mask & me != 0);
        if missed || block.barrier.arrived.get() > 0 {
            block.doomed.set(true);
        }
        self.left_cluster();
        if block.exited.get() == self.block_threads {
            self.end_block(self.current_block.get())?;
        }
        Ok(())
    }
}

/// One source location may have several addresses.
pub(crate) fn same(a: Place, b: Place) -> bool {
    ptr::eq(a, b) || a == b
}
