//! One resident cluster, mostly of one block: its threads as coroutines, and the order in which they run.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::clock::LANES;
use crate::context::{Context, Failed, LaunchFacts, enter};
use crate::diagnose;
use crate::error::LaunchError;
use crate::executor::LaunchStats;
use crate::report::Report;
use crate::shadow::Shadow;
use crate::shared::SharedMemory;
use crate::workspace::Workspace;

type Fiber = Coroutine<(), (), (), DefaultStack>;

/// A cluster that was started and has not finished. It stays on the OS thread that started it.
pub(crate) struct Cluster<'k> {
    /// Before the context, so that it is dropped first: coroutines hold pointers into the context.
    fibers: Vec<Fiber>,
    context: Box<Context>,
    order: Order,
    stacks: Vec<DefaultStack>,
    resumes: u64,
    body: std::marker::PhantomData<&'k ()>,
}

/// How far a cluster came.
pub(crate) enum Outcome {
    Finished(LaunchStats),
    /// All live threads poll.
    Polling,
    /// Some did more than poll, but nobody goes on by himself.
    Yielding,
    /// Another cluster's error made this one pointless.
    Abandoned,
    Failed(LaunchError),
}

impl<'k> Cluster<'k> {
    /// Prepares the threads; the workspace must have a stack for each.
    pub(crate) fn start(
        launch: &LaunchFacts,
        place: [u32; 3],
        seed: Option<u64>,
        mut workspace: Workspace,
        body: &'k (dyn Fn() + Sync),
    ) -> Self {
        let context = Context::new(launch.clone(), place, workspace.shared, workspace.shadow);
        let context = Box::new(context);
        let kept = workspace.stacks.len() - context.count();
        let stacks = workspace.stacks.drain(kept..);
        let numbers = (0..context.blocks.len()).flat_map(|block| context.threads_of(block));
        let fibers = numbers.zip(stacks).map(|(thread, stack)| {
            let cell = ptr::from_ref(&context.threads[thread].yielder);
            let run = move |yielder: &Yielder<(), ()>, ()| {
                // SAFETY: the context is boxed, and `fibers` is dropped before it.
                unsafe { (*cell).set(yielder) };
                body();
            };
            // SAFETY: `body` outlives 'k and so this cluster, which owns the coroutine.
            unsafe { Fiber::with_stack_unchecked(stack, run) }
        });
        let fibers = fibers.collect();
        let order = Order::new(&context, seed);
        context.bulk.borrow_mut().random = seed.map(SplitMix);
        let stacks = workspace.stacks;
        Self { fibers, context, order, stacks, resumes: 0, body: std::marker::PhantomData }
    }

    /// Runs until the cluster ends, fails, is told to stop, or does nothing but poll.
    ///
    /// `pulse` is called after every few threads with whether they did anything beside polling, and
    /// answers whether to go on.
    pub(crate) fn run(&mut self, pulse: &dyn Fn(bool) -> bool) -> Outcome {
        let _entered = enter(&self.context);
        loop {
            self.wake_pollers();
            let before = self.context.progress.get();
            if let Err(outcome) = self.run_ready(pulse) {
                return outcome;
            }
            let context = &self.context;
            if context.exited.get() == context.count() {
                return Outcome::Finished(self.stats());
            }
            // Nobody goes on by himself: time for the copies.
            match context.advance_copies() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(report) => return Outcome::Failed(report.into()),
            }
            if context.is_doomed() || context.spinning.get() == 0 {
                return Outcome::Failed(diagnose::stuck(context).into());
            }
            // A poller may meet others between two polls: what it waits for may still be another cluster's to do.
            return if context.progress.get() == before {
                Outcome::Polling
            } else {
                Outcome::Yielding
            };
        }
    }

    /// Whether no thread has run yet.
    pub(crate) fn is_new(&self) -> bool {
        self.resumes == 0
    }

    /// The report for a cluster that polled too long.
    pub(crate) fn spun_out(&self) -> Report {
        diagnose::spun_out(&self.context)
    }

    /// Takes back what the cluster was given. Threads that have not finished are unwound.
    pub(crate) fn into_workspace(mut self) -> Workspace {
        let mut stacks = mem::take(&mut self.stacks);
        let entered = enter(&self.context);
        for (at, mut fiber) in mem::take(&mut self.fibers).into_iter().enumerate() {
            let (block, thread) =
                (at / self.context.block_threads, at % self.context.block_threads);
            self.context.turn_to(block * self.context.stride + thread);
            fiber.force_unwind();
            stacks.push(fiber.into_stack());
        }
        drop(entered);
        let shared = self.context.shared.replace(SharedMemory::new());
        let mut shadow = self.context.shadow.replace(Shadow::new());
        shadow.end();
        Workspace { stacks, shared, shadow }
    }

    fn wake_pollers(&self) {
        self.context.spinning.set(0);
        for (index, warp) in self.context.warps.iter().enumerate() {
            self.context.make_ready(index, warp.spinning.take());
        }
    }

    /// Runs threads, warp by warp, until none is ready.
    fn run_ready(&mut self, pulse: &dyn Fn(bool) -> bool) -> Result<(), Outcome> {
        while self.context.ready.get() > 0 {
            for at in 0..self.order.warps.len() {
                let (warp, lanes) = self.order.warps[at];
                loop {
                    let before = self.context.progress.get();
                    let ready = self.context.warps[warp].ready.take();
                    if ready == 0 {
                        break;
                    }
                    self.context.ready.set(self.context.ready.get() - ready.count_ones() as usize);
                    for lane in lanes {
                        if ready >> lane & 1 == 1 {
                            let thread = warp * LANES + usize::from(lane);
                            self.resume(thread).map_err(Outcome::Failed)?;
                        }
                    }
                    if !pulse(self.context.progress.get() != before) {
                        return Err(Outcome::Abandoned);
                    }
                }
            }
        }
        Ok(())
    }

    fn resume(&mut self, thread: usize) -> Result<(), LaunchError> {
        self.context.turn_to(thread);
        self.resumes += 1;
        let unused = self.context.stride - self.context.block_threads;
        let fiber = &mut self.fibers[thread - self.context.current_block.get() * unused];
        match catch_unwind(AssertUnwindSafe(|| fiber.resume(()))) {
            Ok(CoroutineResult::Yield(())) => Ok(()),
            Ok(CoroutineResult::Return(())) => {
                self.context.thread_exited().map_err(LaunchError::from)
            }
            Err(payload) => Err(self.error_of(payload)),
        }
    }

    fn error_of(&self, payload: Box<dyn Any + Send>) -> LaunchError {
        if payload.is::<Failed>()
            && let Some(error) = self.context.failure.take()
        {
            return error;
        }
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        let message = text
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a payload that is not text".to_string());
        LaunchError::Panic {
            kernel: self.context.kernel(),
            block: self.context.block().idx,
            thread: self.context.thread().idx,
            message,
        }
    }

    fn stats(&self) -> LaunchStats {
        LaunchStats {
            blocks: self.context.blocks.len() as u64,
            threads: self.context.count() as u64,
            barriers: self.context.barriers.get(),
            warp_collectives: self.context.collectives.get(),
            resumes: self.resumes,
            shared_bytes: self.context.shared.borrow().used(),
        }
    }
}

/// The order in which warps, and the lanes of each, are resumed.
struct Order {
    warps: Vec<(usize, [u8; LANES])>,
}

impl Order {
    fn new(context: &Context, seed: Option<u64>) -> Self {
        let ascending = std::array::from_fn(|lane| lane as u8);
        let mut warps: Vec<_> = (0..context.warps.len()).map(|warp| (warp, ascending)).collect();
        if let Some(seed) = seed {
            let [x, y, z] = context.blocks[0].idx.map(u64::from);
            let mut random = SplitMix(seed ^ x ^ y.rotate_left(24) ^ z.rotate_left(48));
            random.shuffle(&mut warps);
            warps.iter_mut().for_each(|(_, lanes)| random.shuffle(lanes));
        }
        Self { warps }
    }
}

/// A small generator of permutations (splitmix64).
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}
