//! The state of one running block that its threads and its scheduler share.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr;
use std::sync::Arc;

use corosensei::Yielder;

use crate::bulk::Bulk;
use crate::clock::LANES;
use crate::copy_async::Copies;
use crate::error::LaunchError;
use crate::mbarrier::Mbarrier;
use crate::report::Wait;
use crate::shadow::Shadow;
use crate::shared::SharedMemory;
use crate::sync::{BlockBarrier, Collective, NamedBarrier};
use crate::wgmma::Wgmma;

thread_local! {
    static CURRENT: Cell<*const Context> = const { Cell::new(ptr::null()) };
}

/// A launch's part of the context, the same for all its blocks.
#[derive(Clone)]
pub(crate) struct LaunchFacts {
    pub(crate) kernel: Arc<str>,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_shared: usize,
    pub(crate) shared_limit: usize,
    pub(crate) checks: bool,
}

/// One block: reached by its threads through a thread-local pointer while the block runs.
pub(crate) struct Context {
    pub(crate) launch: LaunchFacts,
    pub(crate) block_idx: [u32; 3],
    pub(crate) threads: Vec<Thread>,
    pub(crate) warps: Vec<Warp>,
    /// The thread that runs now.
    pub(crate) current: Cell<usize>,
    /// Threads that may be resumed.
    pub(crate) ready: Cell<usize>,
    pub(crate) spinning: Cell<usize>,
    pub(crate) exited: Cell<usize>,
    /// Counts what a thread did beside polling.
    pub(crate) progress: Cell<u64>,
    /// Some thread waits for what can no longer happen: the block is not released any more.
    pub(crate) doomed: Cell<bool>,
    pub(crate) failure: Cell<Option<LaunchError>>,
    pub(crate) barrier: BlockBarrier,
    pub(crate) named: RefCell<Vec<NamedBarrier>>,
    pub(crate) mbarriers: RefCell<Vec<Mbarrier>>,
    pub(crate) bulk: RefCell<Bulk>,
    pub(crate) wgmma: RefCell<Wgmma>,
    pub(crate) barriers: Cell<u64>,
    pub(crate) collectives: Cell<u64>,
    pub(crate) shared: RefCell<SharedMemory>,
    pub(crate) shadow: RefCell<Shadow>,
}

/// One thread of the block.
pub(crate) struct Thread {
    pub(crate) idx: [u32; 3],
    /// How it gives way, from its first resumption on.
    pub(crate) yielder: Cell<*const Yielder<(), ()>>,
    pub(crate) waits: Cell<Option<(Wait, &'static Location<'static>)>>,
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
    pub(crate) fn new(
        launch: LaunchFacts,
        block_idx: [u32; 3],
        mut shared: SharedMemory,
        mut shadow: Shadow,
    ) -> Self {
        let [width, height, depth] = launch.block;
        let count = (width * height * depth) as usize;
        shared.begin_block(launch.dynamic_shared, launch.shared_limit);
        if launch.checks {
            shadow.begin_block(count);
            shadow.grow_shared(shared.used());
        }
        let mut threads = Vec::with_capacity(count);
        for z in 0..depth {
            for y in 0..height {
                threads.extend((0..width).map(|x| Thread::new([x, y, z])));
            }
        }
        let warps = (0..count.div_ceil(LANES)).map(|w| Warp::new(count - w * LANES)).collect();
        Self {
            launch,
            block_idx,
            threads,
            warps,
            current: Cell::new(0),
            ready: Cell::new(count),
            spinning: Cell::new(0),
            exited: Cell::new(0),
            progress: Cell::new(0),
            doomed: Cell::new(false),
            failure: Cell::new(None),
            barrier: BlockBarrier::default(),
            named: RefCell::default(),
            mbarriers: RefCell::default(),
            bulk: RefCell::default(),
            wgmma: RefCell::default(),
            barriers: Cell::new(0),
            collectives: Cell::new(0),
            shared: RefCell::new(shared),
            shadow: RefCell::new(shadow),
        }
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

impl Thread {
    fn new(idx: [u32; 3]) -> Self {
        Self {
            idx,
            yielder: Cell::new(ptr::null()),
            waits: Cell::new(None),
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

/// The block that the calling thread belongs to.
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
