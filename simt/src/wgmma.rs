//! Products of warpgroups, which run beside the threads as bulk copies do.
//!
//! A product is done as late as can be: when a thread waits for its group. Its reads of shared memory are declared
//! when it is issued, for it may read then already, and count as under way until it is waited for. Each warp's
//! quarter of a product is told apart: a warp that has waited knows that its own is done and nothing of the
//! others'. No quarter comes after more than what all lanes of its warp know.

use std::collections::VecDeque;
use std::panic::Location;
use std::slice;
use std::thread::panicking;

use crate::clock::{Clock, LANES};
use crate::context::{Context, current};
use crate::report::{Access, Report, Space, Wait, WgmmaFault};
use crate::shadow::Touching;
use crate::thread_side::report_of;

type Place = &'static Location<'static>;

/// Threads of a warpgroup.
const THREADS: usize = 4 * LANES;
const WARPS: usize = THREADS / LANES;

/// Bytes of one piece of an operand, which lies in one piece in shared memory.
pub const CHUNK_BYTES: usize = 16;

/// What computes a product, from the chunks' bytes in the order in which they were listed, the 128 threads' words
/// of an operand in registers, one thread after the other, and their accumulators likewise.
pub type Multiply = Box<dyn FnOnce(&[u8], &[u32], &mut [f32])>;

/// A product, as the last thread of the warpgroup to come describes it.
pub struct Product {
    /// The operands' chunks in shared memory, each [`CHUNK_BYTES`] long.
    pub chunks: Vec<*const u8>,
    /// What is computed.
    pub multiply: Multiply,
}

/// What one thread brings to a product.
#[derive(Clone, Copy)]
pub struct Share<'a> {
    /// What all threads of the warpgroup must bring alike.
    pub key: [u64; 8],
    /// The thread's accumulators.
    pub accumulators: Accumulators<'a>,
    /// The thread's part of an operand in registers, and when it was written.
    pub operand: Option<(&'a [u32], u64)>,
}

/// Where a thread's accumulators are.
#[derive(Clone, Copy)]
pub enum Accumulators<'a> {
    /// In its registers, written after this many fences.
    Registers(&'a [f32], u64),
    /// With the executor, under the number that an earlier product gave.
    InFlight(u64),
}

/// The block's warpgroups.
#[derive(Default)]
pub(crate) struct Wgmma {
    threads: Vec<Progress>,
    groups: Vec<Warpgroup>,
    banks: u64,
}

/// How far a thread is.
#[derive(Clone, Copy, Default)]
struct Progress {
    fences: u64,
    /// Groups that are closed.
    committed: u32,
    /// Groups that were waited for.
    waited: u32,
}

#[derive(Default)]
struct Warpgroup {
    meeting: Option<Meeting>,
    queue: VecDeque<InFlight>,
    done: Vec<Done>,
    banks: Vec<Bank>,
    /// The accumulators of the product that was issued last. No other can be before all threads have read it.
    last: u64,
}

/// A product that some threads have come to.
struct Meeting {
    key: [u64; 8],
    location: Place,
    first: usize,
    committed: u32,
    bank: Option<u64>,
    arrived: Vec<usize>,
    values: Vec<f32>,
    operand: Vec<u32>,
}

/// One that is issued and not done.
struct InFlight {
    /// Its quarters' places among the threads, in the checking mode.
    agents: Option<[usize; WARPS]>,
    location: Place,
    issuer: usize,
    product: Product,
    operand: Vec<u32>,
    bank: u64,
    group: u32,
}

/// One that is done: what its quarters hand on, and how many threads have not waited for it.
struct Done {
    group: u32,
    ends: [Clock; WARPS],
    left: usize,
}

/// The accumulators of a warpgroup, one thread's after the other's.
struct Bank {
    id: u64,
    values: Vec<f32>,
    /// The group of the last product on it.
    group: u32,
    /// Threads that have not taken theirs back.
    left: usize,
}

/// The thread's writes to its registers are ordered before later products.
pub fn wgmma_fence() {
    if !panicking() {
        current().wgmma(|wgmma, me| wgmma.threads[me].fences += 1);
    }
}

/// How many fences the thread has passed.
#[must_use]
pub fn wgmma_fences() -> u64 {
    current().wgmma(|wgmma, me| wgmma.threads[me].fences)
}

/// Closes the thread's open group of products.
pub fn wgmma_commit() {
    if !panicking() {
        current().wgmma(|wgmma, me| wgmma.threads[me].committed += 1);
    }
}

/// Issues a product, once all threads of the warpgroup have come to the same place with the same key. Answers under
/// which number the accumulators now are. Only the last thread to come is asked to describe it.
///
/// # Safety
/// The described chunks were seen to be [`within`](crate::rt::within) the block's shared memory.
#[track_caller]
pub unsafe fn wgmma(share: Share<'_>, describe: &dyn Fn() -> Product) -> u64 {
    if panicking() {
        return 0;
    }
    current().product(share, describe, Location::caller())
}

/// Waits until no more than `pending` of the thread's last groups of products are under way.
#[track_caller]
pub fn wgmma_wait(pending: u32) {
    if panicking() {
        return;
    }
    let context = current();
    if let Err(report) = context.wait_for_products(pending) {
        context.fail(report.into());
    }
}

/// Hands the thread's accumulators back to its registers.
#[track_caller]
pub fn wgmma_take(number: u64, registers: &mut [f32]) {
    if panicking() {
        return;
    }
    let (context, length) = (current(), registers.len());
    let taken = context.wgmma(|wgmma, me| {
        let waited = wgmma.threads[me].waited;
        let group = &mut wgmma.groups[me / THREADS];
        let at = group.banks.iter().position(|bank| bank.id == number)?;
        let bank = &mut group.banks[at];
        if bank.group >= waited {
            return None;
        }
        let first = me % THREADS * length;
        registers.copy_from_slice(&bank.values[first..first + length]);
        bank.left -= 1;
        if bank.left == 0 {
            group.banks.swap_remove(at);
        }
        Some(())
    });
    if taken.is_none() {
        context.misused_wgmma(WgmmaFault::NotWaited, Location::caller());
    }
}

impl Context {
    /// The current block's, and the number that the current thread has in it.
    fn wgmma<T>(&self, job: impl FnOnce(&mut Wgmma, usize) -> T) -> T {
        self.wgmma_of(self.current_block.get(), |wgmma| {
            job(wgmma, self.current.get() % self.stride)
        })
    }

    fn wgmma_of<T>(&self, block: usize, job: impl FnOnce(&mut Wgmma) -> T) -> T {
        let mut wgmma = self.blocks[block].wgmma.borrow_mut();
        if wgmma.threads.is_empty() {
            wgmma.threads.resize(self.block_threads, Progress::default());
            wgmma.groups.resize_with(self.block_threads.div_ceil(THREADS), Warpgroup::default);
        }
        job(&mut wgmma)
    }

    fn product(&self, share: Share<'_>, describe: &dyn Fn() -> Product, location: Place) -> u64 {
        self.count_progress();
        let met = self.wgmma(|wgmma, me| wgmma.meet(me, self.block_threads, &share, location));
        let group = self.current.get() % self.stride / THREADS;
        let first = self.current_block.get() * self.stride;
        match met {
            Err(Mismatch { fault, other }) => {
                let fault = match (fault, other) {
                    (WgmmaFault::Diverged { location, .. }, Some(other)) => {
                        WgmmaFault::Diverged { other: self.threads[first + other].idx, location }
                    }
                    (fault, _) => fault,
                };
                self.misused_wgmma(fault, location);
                return 0;
            }
            Ok(None) => self.wait(Wait::Warpgroup, location),
            Ok(Some(meeting)) => self.issue_product(meeting, describe()),
        }
        self.wgmma(|wgmma, _| wgmma.groups[group].last)
    }

    fn issue_product(&self, mut meeting: Meeting, product: Product) {
        let me = self.current.get();
        let group = me % self.stride / THREADS;
        let block = self.current_block.get() * self.stride;
        let first = block + group * THREADS;
        let agents = self.launch.checks.then(|| {
            std::array::from_fn(|warp| {
                self.make_room(WARPS - warp);
                let lanes = first + warp * LANES..first + (warp + 1) * LANES;
                self.shadow.borrow_mut().clocks().begin_shared(lanes)
            })
        });
        let arrived = std::mem::take(&mut meeting.arrived);
        let flight = self.wgmma(|wgmma, _| {
            let bank = meeting.bank.unwrap_or_else(|| {
                wgmma.banks += 1;
                let values = std::mem::take(&mut meeting.values);
                let bank = Bank { id: wgmma.banks, values, group: 0, left: THREADS };
                wgmma.groups[group].banks.push(bank);
                wgmma.banks
            });
            let Meeting { location, first: issuer, committed, operand, .. } = meeting;
            let group = &mut wgmma.groups[group];
            group.last = bank;
            if let Some(bank) = group.banks.iter_mut().find(|other| other.id == bank) {
                bank.group = committed;
            }
            InFlight { agents, location, issuer, product, operand, bank, group: committed }
        });
        if let Err(report) = self.declare_reads(&flight) {
            return self.fail(report.into());
        }
        self.wgmma(|wgmma, _| wgmma.groups[group].queue.push_back(flight));
        let others = arrived.into_iter().map(|thread| block + thread);
        for thread in others.filter(|&thread| thread != me) {
            self.make_ready(thread / LANES, 1 << (thread % LANES));
        }
    }

    /// Declares what a product reads, for each warp's quarter.
    fn declare_reads(&self, flight: &InFlight) -> Result<(), Report> {
        for agent in flight.agents.into_iter().flatten() {
            let touching =
                Touching { thread: agent, access: Access::WgmmaRead, location: flight.location };
            for chunk in &flight.product.chunks {
                let (address, at) = (chunk.addr(), self.locate(chunk.addr()));
                let checked =
                    self.shadow.borrow_mut().touch_shared(at, CHUNK_BYTES, touching, address);
                checked.map_err(|finding| report_of(self, Space::Shared, at, finding, touching))?;
            }
        }
        Ok(())
    }

    /// A barrier of a block that is alone orders the threads and not what runs beside them: products under way still read.
    pub(crate) fn renew_products(&self) -> Result<(), Report> {
        let wgmma = self.block().wgmma.borrow();
        wgmma
            .groups
            .iter()
            .flat_map(|group| &group.queue)
            .try_for_each(|flight| self.declare_reads(flight))
    }

    /// Does the oldest product that is under way, if there is any, so that its places are free.
    pub(crate) fn advance_products(&self) -> bool {
        (0..self.blocks.len()).any(|block| {
            let groups = &self.blocks[block].wgmma.borrow().groups;
            let group = groups.iter().position(|group| !group.queue.is_empty());
            group.is_some_and(|group| self.finish_product(block, group))
        })
    }

    fn finish_product(&self, block: usize, group: usize) -> bool {
        let Some(flight) = self.wgmma_of(block, |wgmma| wgmma.groups[group].queue.pop_front())
        else {
            return false;
        };
        let mut bytes = Vec::with_capacity(flight.product.chunks.len() * CHUNK_BYTES);
        for chunk in &flight.product.chunks {
            // SAFETY: the issuer's contract: inside this block's shared memory, which lives as long as the block and
            // was written once at least, by the poison that it begins with. Nobody is at it now.
            bytes.extend_from_slice(unsafe { slice::from_raw_parts(*chunk, CHUNK_BYTES) });
        }
        let ends = flight
            .agents
            .map(|agents| agents.map(|agent| self.shadow.borrow_mut().clocks().end_copy(agent)));
        self.wgmma_of(block, |wgmma| {
            let group = &mut wgmma.groups[group];
            if let Some(bank) = group.banks.iter_mut().find(|bank| bank.id == flight.bank) {
                (flight.product.multiply)(&bytes, &flight.operand, &mut bank.values);
            }
            group.done.extend(ends.map(|ends| Done { group: flight.group, ends, left: THREADS }));
        });
        true
    }

    fn wait_for_products(&self, pending: u32) -> Result<(), Report> {
        let (me, block) = (self.current.get(), self.current_block.get());
        let in_block = me % self.stride;
        let (group, warp) = (in_block / THREADS, in_block % THREADS / LANES);
        let (closed, waited) = self.wgmma(|wgmma, me| {
            let progress = &mut wgmma.threads[me];
            let closed = progress.committed.saturating_sub(pending).max(progress.waited);
            (closed, std::mem::replace(&mut progress.waited, closed))
        });
        while self.wgmma(|wgmma, _| {
            wgmma.groups[group].queue.front().is_some_and(|flight| flight.group < closed)
        }) {
            self.finish_product(block, group);
        }
        let mut done = self.wgmma(|wgmma, _| std::mem::take(&mut wgmma.groups[group].done));
        done.retain_mut(|done| {
            if (waited..closed).contains(&done.group) {
                self.learn(me, Some(&done.ends[warp]));
                done.left -= 1;
            }
            done.left > 0
        });
        self.wgmma(|wgmma, _| wgmma.groups[group].done = done);
        Ok(())
    }

    /// The block is over: a product that nobody waited for is reported.
    pub(crate) fn end_products(&self, block: usize) -> Result<(), Report> {
        let wgmma = self.blocks[block].wgmma.borrow();
        match wgmma.groups.iter().find_map(|group| group.queue.front()) {
            None => Ok(()),
            Some(flight) => {
                let issuer = block * self.stride + flight.issuer;
                Err(self.wgmma_report(WgmmaFault::Unfinished, issuer, flight.location))
            }
        }
    }

    #[cold]
    fn misused_wgmma(&self, fault: WgmmaFault, location: Place) {
        self.fail(self.wgmma_report(fault, self.current.get(), location).into());
    }

    fn wgmma_report(&self, fault: WgmmaFault, thread: usize, location: Place) -> Report {
        let touch = self.touch_of(thread, Access::WgmmaRead, location);
        Report::Wgmma { kernel: self.kernel(), block: touch.block, touch: touch.into(), fault }
    }
}

/// Why a thread does not belong to a meeting, and whom it differs from.
struct Mismatch {
    fault: WgmmaFault,
    other: Option<usize>,
}

impl Wgmma {
    /// A thread comes; the meeting is the answer once it is complete.
    fn meet(
        &mut self,
        me: usize,
        threads: usize,
        share: &Share<'_>,
        location: Place,
    ) -> Result<Option<Meeting>, Mismatch> {
        let fault = |fault| Mismatch { fault, other: None };
        if (me / THREADS + 1) * THREADS > threads {
            return Err(fault(WgmmaFault::NoWarpgroup));
        }
        let Progress { fences, committed, .. } = self.threads[me];
        let bank = match share.accumulators {
            Accumulators::Registers(_, written) if fences <= written => {
                return Err(fault(WgmmaFault::MissingFence));
            }
            Accumulators::Registers(..) => None,
            Accumulators::InFlight(bank) => Some(bank),
        };
        if share.operand.is_some_and(|(_, written)| fences <= written) {
            return Err(fault(WgmmaFault::MissingFence));
        }
        let group = &mut self.groups[me / THREADS];
        let meeting = group.meeting.get_or_insert_with(|| Meeting {
            key: share.key,
            location,
            first: me,
            committed,
            bank,
            arrived: Vec::with_capacity(THREADS),
            values: Vec::new(),
            operand: Vec::new(),
        });
        if (meeting.key, meeting.committed, meeting.bank) != (share.key, committed, bank)
            || meeting.location != location
        {
            let diverged = WgmmaFault::Diverged { other: [0; 3], location: meeting.location };
            return Err(Mismatch { fault: diverged, other: Some(meeting.first) });
        }
        let at = me % THREADS;
        if let Accumulators::Registers(values, _) = share.accumulators {
            meeting.values.resize(THREADS * values.len(), 0.0);
            meeting.values[at * values.len()..][..values.len()].copy_from_slice(values);
        }
        if let Some((words, _)) = share.operand {
            meeting.operand.resize(THREADS * words.len(), 0);
            meeting.operand[at * words.len()..][..words.len()].copy_from_slice(words);
        }
        meeting.arrived.push(me);
        let complete = meeting.arrived.len() == THREADS;
        Ok(if complete { group.meeting.take() } else { None })
    }
}
