//! The state of one running cluster that its threads and its scheduler share.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;

use corosensei::Yielder;

use crate::bulk::Bulk;
use crate::clock::LANES;
use crate::copy_async::Copies;
use crate::error::LaunchError;
use crate::mbarrier::Mbarrier;
use crate::neighbours::{ClusterBarrier, Neighbour};
use crate::report::Wait;
use crate::shadow::Shadow;
use crate::shared::SharedMemory;
use crate::sync::{BlockBarrier, Collective, NamedBarrier};
use crate::wgmma::Wgmma;

thread_local! {
    static CURRENT: Cell<*const Context> = const { Cell::new(ptr::null()) };
}

/// A launch's part of the context, the same for all its clusters.
#[derive(Clone)]
pub(crate) struct LaunchFacts {
    pub(crate) kernel: Arc<str>,
    pub(crate) grid: [u32; 3],
    pub(crate) cluster: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_shared: usize,
    pub(crate) shared_limit: usize,
    pub(crate) checks: bool,
}

impl LaunchFacts {
    /// Clusters of the grid along x, y and z.
    pub(crate) fn clusters(&self) -> [u32; 3] {
        std::array::from_fn(|axis| self.grid[axis] / self.cluster[axis])
    }
}

/// One cluster, mostly of one block: reached by its threads through a thread-local pointer while it runs.
///
/// Threads are numbered through all blocks, and each block's begin with a new warp.
pub(crate) struct Context {
    pub(crate) launch: LaunchFacts,
    pub(crate) blocks: Vec<Block>,
    /// Threads of a block.
    pub(crate) block_threads: usize,
    /// From the number of a block's first thread to that of the next block's.
    pub(crate) stride: usize,
    /// By their numbers. Those that only fill up a warp are never run.
    pub(crate) threads: Vec<Thread>,
    pub(crate) warps: Vec<Warp>,
    /// The thread that runs now, and its block.
    pub(crate) current: Cell<usize>,
    pub(crate) current_block: Cell<usize>,
    /// Threads that may be resumed.
    pub(crate) ready: Cell<usize>,
    pub(crate) spinning: Cell<usize>,
    pub(crate) exited: Cell<usize>,
    /// Counts what a thread did beside polling.
    pub(crate) progress: Cell<u64>,
    pub(crate) failure: Cell<Option<LaunchError>>,
    pub(crate) barrier: ClusterBarrier,
    pub(crate) bulk: RefCell<Bulk>,
    pub(crate) barriers: Cell<u64>,
    pub(crate) collectives: Cell<u64>,
    pub(crate) shared: RefCell<SharedMemory>,
    pub(crate) shadow: RefCell<Shadow>,
}

/// One block of the cluster.
pub(crate) struct Block {
    pub(crate) idx: [u32; 3],
    pub(crate) exited: Cell<usize>,
    /// Some thread waits for what can no longer happen: the block is not released any more.
    pub(crate) doomed: Cell<bool>,
    pub(crate) barrier: BlockBarrier,
    pub(crate) named: RefCell<Vec<NamedBarrier>>,
    pub(crate) mbarriers: RefCell<Vec<Mbarrier>>,
    pub(crate) wgmma: RefCell<Wgmma>,
    /// What the others did here.
    pub(crate) neighbours: RefCell<Neighbour>,
}

/// One thread of a block.
pub(crate) struct Thread {
    pub(crate) idx: [u32; 3],
    /// How it gives way, from its first resumption on.
    pub(crate) yielder: Cell<*const Yielder<(), ()>>,
    pub(crate) waits: Cell<Option<(Wait, &'static Location<'static>)>>,
    /// The phase of the cluster's barrier that it has come to and not waited for.
    pub(crate) cluster: Cell<Option<u64>>,
    /// Other blocks of the cluster that it knows to have begun.
    pub(crate) begun: Cell<u32>,
    /// How many agreed at the named barrier that let it go last.
    pub(crate) agreed: Cell<u32>,
    /// Its own copies that are under way.
    pub(crate) copies: RefCell<Copies>,
    /// Where a warp collective puts its result while the thread waits.
    pub(crate) result: Cell<*mut [u64; LANES]>,
}

/// One warp; bit i of each mask stands for lane i.
pub(crate) struct Warp {
    pub(crate) exists: u32,
    pub(crate) ready: Cell<u32>,
    pub(crate) spinning: Cell<u32>,
    pub(crate) exited: Cell<u32>,
    /// Collectives that some lane waits in.
    pub(crate) pending: RefCell<Vec<Collective>>,
}

/// The payload that unwinds a thread whose error is in `Context::failure`.
pub(crate) struct Failed;

impl Context {
    /// The blocks of the cluster at `place` in the grid of clusters.
    pub(crate) fn new(
        launch: LaunchFacts,
        place: [u32; 3],
        mut shared: SharedMemory,
        mut shadow: Shadow,
    ) -> Self {
        let [width, height, depth] = launch.block;
        let block_threads = (width * height * depth) as usize;
        let stride = block_threads.next_multiple_of(LANES);
        let blocks: Vec<_> = indices(launch.cluster)
            .map(|at| {
                Block::new(std::array::from_fn(|axis| {
                    place[axis] * launch.cluster[axis] + at[axis]
                }))
            })
            .collect();
        shared.begin(blocks.len(), launch.dynamic_shared, launch.shared_limit);
        if launch.checks {
            shadow.begin_cluster(blocks.len() * stride, blocks.len());
            shadow.grow_shared(shared.used());
        }
        let mut threads = Vec::with_capacity(blocks.len() * stride);
        let mut warps = Vec::with_capacity(blocks.len() * stride / LANES);
        for _ in &blocks {
            threads.extend(indices(launch.block).map(Thread::new));
            threads.resize_with(threads.len().next_multiple_of(LANES), || Thread::new([0; 3]));
            warps.extend((0..stride / LANES).map(|w| Warp::new(block_threads - w * LANES)));
        }
        Self {
            launch,
            block_threads,
            stride,
            threads,
            warps,
            current: Cell::new(0),
            current_block: Cell::new(0),
            ready: Cell::new(blocks.len() * block_threads),
            spinning: Cell::new(0),
            exited: Cell::new(0),
            progress: Cell::new(0),
            failure: Cell::new(None),
            barrier: ClusterBarrier::default(),
            bulk: RefCell::default(),
            barriers: Cell::new(0),
            collectives: Cell::new(0),
            shared: RefCell::new(shared),
            shadow: RefCell::new(shadow),
            blocks,
        }
    }

    /// Threads of all blocks.
    pub(crate) fn count(&self) -> usize {
        self.blocks.len() * self.block_threads
    }

    /// Whether some threads are not released any more.
    pub(crate) fn is_doomed(&self) -> bool {
        self.barrier.doomed.get() || self.blocks.iter().any(|block| block.doomed.get())
    }

    /// Makes this thread the one that runs.
    pub(crate) fn turn_to(&self, thread: usize) {
        self.current.set(thread);
        self.current_block.set(thread / self.stride);
    }

    /// The block of the thread that runs now.
    pub(crate) fn block(&self) -> &Block {
        &self.blocks[self.current_block.get()]
    }

    /// The numbers of a block's threads.
    pub(crate) fn threads_of(&self, block: usize) -> Range<usize> {
        block * self.stride..block * self.stride + self.block_threads
    }

    /// The index of a thread's block.
    pub(crate) fn block_idx_of(&self, thread: usize) -> [u32; 3] {
        self.blocks[thread / self.stride].idx
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.threads[self.current.get()]
    }

    pub(crate) fn kernel(&self) -> Box<str> {
        Box::from(&*self.launch.kernel)
    }

    /// Ends the thread, and with it the launch, with this error. Returns only in a thread that is
    /// being unwound already.
    #[cold]
    pub(crate) fn fail(&self, error: LaunchError) {
        if !std::thread::panicking() {
            self.failure.set(Some(error));
            std::panic::resume_unwind(Box::new(Failed));
        }
    }

    /// Lets the thread wait until it is made ready again.
    pub(crate) fn wait(&self, wait: Wait, location: &'static Location<'static>) {
        let thread = self.thread();
        thread.waits.set(Some((wait, location)));
        // SAFETY: the scheduler resumed this thread, so its coroutine has set the yielder, which
        // lives as long as the coroutine's stack, and this code runs on that stack.
        unsafe { (*thread.yielder.get()).suspend(()) };
        thread.waits.set(None);
    }

    pub(crate) fn make_ready(&self, warp: usize, lanes: u32) {
        let warp = &self.warps[warp];
        debug_assert_eq!(warp.ready.get() & lanes, 0, "a ready lane is not waiting");
        warp.ready.set(warp.ready.get() | lanes);
        self.ready.set(self.ready.get() + lanes.count_ones() as usize);
    }

    pub(crate) fn count_progress(&self) {
        self.progress.set(self.progress.get() + 1);
    }
}

impl Block {
    fn new(idx: [u32; 3]) -> Self {
        Self {
            idx,
            exited: Cell::new(0),
            doomed: Cell::new(false),
            barrier: BlockBarrier::default(),
            named: RefCell::default(),
            mbarriers: RefCell::default(),
            wgmma: RefCell::default(),
            neighbours: RefCell::default(),
        }
    }
}

impl Thread {
    fn new(idx: [u32; 3]) -> Self {
        Self {
            idx,
            yielder: Cell::new(ptr::null()),
            waits: Cell::new(None),
            cluster: Cell::new(None),
            begun: Cell::new(0),
            agreed: Cell::new(0),
            copies: RefCell::default(),
            result: Cell::new(ptr::null_mut()),
        }
    }
}

impl Warp {
    /// A warp of the first `threads` lanes, all of them where there are more.
    fn new(threads: usize) -> Self {
        let exists = if threads >= LANES { u32::MAX } else { (1 << threads) - 1 };
        Self {
            exists,
            ready: Cell::new(exists),
            spinning: Cell::new(0),
            exited: Cell::new(0),
            pending: RefCell::default(),
        }
    }
}

/// All indices below an extent, x fastest.
fn indices([width, height, depth]: [u32; 3]) -> impl Iterator<Item = [u32; 3]> {
    (0..depth).flat_map(move |z| (0..height).flat_map(move |y| (0..width).map(move |x| [x, y, z])))
}

/// Makes `context` the one that threads find, until the guard is dropped.
pub(crate) fn enter(context: &Context) -> Entered {
    Entered { outer: CURRENT.replace(ptr::from_ref(context)) }
}

/// See [`enter`].
pub(crate) struct Entered {
    outer: *const Context,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

/// The cluster that the calling thread belongs to.
#[inline]
#[track_caller]
pub(crate) fn current<'a>() -> &'a Context {
    let context = CURRENT.get();
    if context.is_null() {
        outside();
    }
    // SAFETY: `enter` set the pointer, and its guard outlives every thread that runs meanwhile;
    // callers keep the reference no longer than one call from a thread.
    unsafe { &*context }
}

#[cold]
#[track_caller]
fn outside() -> ! {
    panic!("this function belongs to a running kernel: call it inside of Executor::launch")
}
