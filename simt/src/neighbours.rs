//! What the blocks of a cluster do with each other: their barrier, and accesses to each other's shared memory.
//!
//! Such an access has its place after the block that it goes to began and before that block ends. In the checking mode
//! both are matters of what happens before what, whatever ran when: something has to show the thread that the block has
//! begun, and the block's threads have to know of the access when the last of them leaves. Otherwise a block that has
//! left is reported, and no more.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::thread::panicking;

use crate::clock::{Clock, LANES};
use crate::context::{Context, current};
use crate::report::{Access, ClusterFault, Report, Touch, Wait};
use crate::sync::same;

type Place = &'static Location<'static>;

/// The barrier of the whole cluster. Who left the kernel is taken to have come.
#[derive(Default)]
pub(crate) struct ClusterBarrier {
    /// Threads that have come in this phase and are still there.
    arrived: Cell<usize>,
    location: Cell<Option<Place>>,
    /// Phases that are over.
    phase: Cell<u64>,
    /// Some came from another place than the others: nobody is released any more.
    pub(crate) doomed: Cell<bool>,
    /// What those know that came in this phase, and in the last. Nobody can end this phase before all have read the
    /// last one's.
    arriving: RefCell<Option<Clock>>,
    completed: RefCell<Option<Clock>>,
}

/// What a block has to know when it leaves.
#[derive(Default)]
pub(crate) struct Neighbour {
    /// What its threads that left know.
    ended: Option<Clock>,
    /// Of each thread or copy of another block the last access to its shared memory, and when it was.
    reached: Vec<(usize, u32, Touch)>,
}

/// Blocks of a cluster in x, y, z.
#[inline]
#[track_caller]
pub fn cluster_dim() -> [u32; 3] {
    current().launch.cluster
}

/// The cluster's index in the grid of clusters: x, y, z.
#[inline]
#[track_caller]
pub fn cluster_idx() -> [u32; 3] {
    let context = current();
    std::array::from_fn(|axis| context.blocks[0].idx[axis] / context.launch.cluster[axis])
}

/// The block's number in its cluster, x fastest.
#[inline]
#[track_caller]
pub fn cluster_rank() -> u32 {
    current().current_block.get() as u32
}

/// Says that the thread has come to the cluster's barrier: `barrier.cluster.arrive`.
#[track_caller]
pub fn cluster_arrive() {
    current().cluster_arrive(Location::caller());
}

/// Waits until all threads of the cluster that have not left the kernel have come: `barrier.cluster.wait`.
#[track_caller]
pub fn cluster_wait() {
    current().cluster_wait(Location::caller());
}

/// The address in the shared memory of block `rank` of the cluster where `address` is in this block's, which a static or
/// dynamic array begins with: `mapa`.
#[must_use]
#[track_caller]
pub fn map_shared(address: *const u8, rank: u32) -> *mut u8 {
    let (context, location) = (current(), Location::caller());
    let blocks = context.blocks.len() as u32;
    if rank >= blocks {
        context.misused_cluster(ClusterFault::NoSuchBlock { rank, blocks }, location);
        return address.cast_mut();
    }
    let shared = context.shared.borrow();
    let own = context.current_block.get();
    let offset = shared.offset_of(own, address.addr(), 0);
    shared.at(rank as usize, offset.expect("an address in the block's shared memory is mapped"))
}

impl Context {
    fn cluster_arrive(&self, location: Place) {
        if panicking() {
            return;
        }
        let (barrier, thread) = (&self.barrier, self.thread());
        if thread.cluster.get().is_some() {
            return self.misused_cluster(ClusterFault::ArrivedTwice, location);
        }
        self.count_progress();
        match barrier.location.get() {
            Some(first) if !same(first, location) => barrier.doomed.set(true),
            _ => barrier.location.set(Some(location)),
        }
        if let Some(clock) = self.release_of(self.current.get()) {
            self.shadow.borrow_mut().clocks().merge(&mut barrier.arriving.borrow_mut(), clock);
        }
        thread.cluster.set(Some(barrier.phase.get()));
        barrier.arrived.set(barrier.arrived.get() + 1);
        self.end_cluster_phase();
    }

    fn cluster_wait(&self, location: Place) {
        if panicking() {
            return;
        }
        let (barrier, thread) = (&self.barrier, self.thread());
        let Some(phase) = thread.cluster.get() else {
            return self.misused_cluster(ClusterFault::NotArrived, location);
        };
        self.count_progress();
        if barrier.phase.get() == phase {
            self.wait(Wait::Cluster, location);
        }
        thread.cluster.set(None);
        self.learn(self.current.get(), barrier.completed.borrow().as_ref());
    }

    /// The current thread left the kernel, and its block's count says so.
    pub(crate) fn left_cluster(&self) {
        if self.thread().cluster.take() == Some(self.barrier.phase.get()) {
            self.barrier.arrived.set(self.barrier.arrived.get() - 1);
        }
        if self.blocks.len() > 1
            && let Some(clock) = self.release_of(self.current.get())
        {
            let ended = &mut self.block().neighbours.borrow_mut().ended;
            self.shadow.borrow_mut().clocks().merge(ended, clock);
        }
        self.end_cluster_phase();
    }

    /// Ends the phase of the cluster's barrier if nobody lacks any more.
    fn end_cluster_phase(&self) {
        let barrier = &self.barrier;
        let arrived = barrier.arrived.get();
        if arrived == 0 || arrived + self.exited.get() < self.count() || barrier.doomed.get() {
            return;
        }
        barrier.arrived.set(0);
        barrier.location.set(None);
        barrier.phase.set(barrier.phase.get() + 1);
        let mut completed = barrier.arriving.take();
        if let Some(clock) = &mut completed {
            self.shadow.borrow_mut().clocks().fold(clock);
        }
        barrier.completed.replace(completed);
        for (number, thread) in self.threads.iter().enumerate() {
            if matches!(thread.waits.get(), Some((Wait::Cluster, _))) {
                self.make_ready(number / LANES, 1 << (number % LANES));
            }
        }
    }

    /// Whether a thread may reach into a block: it is its own, or is there.
    pub(crate) fn check_there(
        &self,
        thread: usize,
        block: usize,
        touch: Touch,
    ) -> Result<(), Report> {
        if block == thread / self.stride {
            return Ok(());
        }
        let rank = block as u32;
        if self.blocks[block].exited.get() == self.block_threads {
            return Err(self.cluster_report(touch, ClusterFault::Left { rank }));
        }
        let begun = &self.threads[thread].begun;
        if self.launch.checks && begun.get() >> rank & 1 == 0 {
            let others = self.threads_of(block);
            if !self.shadow.borrow_mut().clocks().knows_any(thread, others) {
                return Err(self.cluster_report(touch, ClusterFault::NotBegun { rank }));
            }
            begun.set(begun.get() | 1 << rank);
        }
        Ok(())
    }

    /// Notes that a thread of another block, or a copy, reaches into a block now.
    pub(crate) fn note_reach(&self, agent: usize, block: usize, touch: Touch) {
        if self.launch.checks && touch.block != self.blocks[block].idx {
            let stamp = self.shadow.borrow_mut().clocks().stamp(agent);
            let reached = &mut self.blocks[block].neighbours.borrow_mut().reached;
            match reached.iter_mut().find(|(other, ..)| *other == agent) {
                Some(last) => *last = (agent, stamp, touch),
                None => reached.push((agent, stamp, touch)),
            }
        }
    }

    /// All threads of a block left: nobody may be at its shared memory any more.
    pub(crate) fn end_block(&self, block: usize) -> Result<(), Report> {
        self.end_copies(block)?;
        self.end_products(block)?;
        let Neighbour { ended, reached } = self.blocks[block].neighbours.take();
        let missed = reached.into_iter().find(|&(agent, stamp, _)| {
            !ended
                .as_ref()
                .is_some_and(|clock| clock.knows(agent, stamp) || clock.knows_over(agent, stamp))
        });
        match missed {
            None => Ok(()),
            Some((_, _, touch)) => {
                Err(self.cluster_report(touch, ClusterFault::LeavesFirst { rank: block as u32 }))
            }
        }
    }

    /// What a thread does.
    pub(crate) fn touch_of(&self, thread: usize, access: Access, location: Place) -> Touch {
        let block = self.block_idx_of(thread);
        Touch { block, thread: self.threads[thread].idx, access, location }
    }

    #[cold]
    pub(crate) fn misused_cluster(&self, fault: ClusterFault, location: Place) {
        let (block, thread) = (self.block().idx, self.thread().idx);
        let kernel = self.kernel();
        self.fail(Report::Cluster { kernel, block, thread, location, fault }.into());
    }

    fn cluster_report(&self, touch: Touch, fault: ClusterFault) -> Report {
        let Touch { block, thread, location, .. } = touch;
        Report::Cluster { kernel: self.kernel(), block, thread, location, fault }
    }
}
