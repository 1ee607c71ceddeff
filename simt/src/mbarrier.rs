//! mbarriers: barriers in shared memory that count arrivals and the bytes of bulk copies.
//!
//! A phase is over when all its arrivals have come and no byte is outstanding; the next one then begins
//! by itself. Who waits for a phase comes after those of its block that arrived in it and after its copies, and after
//! those of other blocks that released to the cluster where it acquires from there. Of all others it knows that what
//! they did is over: enough to copy over what they read.

use std::cell::RefCell;
use std::panic::Location;
use std::thread::panicking;

use crate::clock::{Clock, LANES};
use crate::context::{Context, current};
use crate::report::{Access, MbarrierFault, Report, Wait};

type Place = &'static Location<'static>;

/// What an mbarrier can count, arrivals and bytes alike.
const MOST: u32 = (1 << 20) - 1;

/// One that is initialised.
pub(crate) struct Mbarrier {
    address: usize,
    expected: u32,
    pending: u32,
    /// Bytes that are announced and have not come.
    outstanding: i64,
    /// Phases that are over.
    phase: u64,
    /// What the arrivals of this phase know, and those of the last.
    arriving: Known,
    completed: Known,
    waiters: Vec<Waiter>,
}

/// What arrivals know: those of the block and of copies, those of other blocks that release to the cluster, and those
/// that do not.
#[derive(Clone, Default)]
struct Known([Option<Clock>; 3]);

/// How an arrival releases: its place in [`Known`].
#[derive(Clone, Copy)]
enum Release {
    Near,
    Cluster,
    Block,
}

struct Waiter {
    thread: usize,
    parity: bool,
    /// Whether it acquires what other blocks did.
    cluster: bool,
}

impl Mbarrier {
    /// Whether the phase of this parity is over: it is the one before the current.
    fn is_over(&self, parity: bool) -> bool {
        (self.phase & 1 == 1) != parity
    }
}

/// Makes the 8 bytes at `word` an mbarrier whose phases take `arrivals`. The caller declares the access, a
/// plain write.
#[track_caller]
pub fn mbarrier_init(word: *const u8, arrivals: u32) {
    let (context, location) = (current(), Location::caller());
    if !(1..=MOST).contains(&arrivals) {
        context.misused(word.addr(), MbarrierFault::Count { arrivals }, location);
        return;
    }
    let mut mbarriers = context.mbarriers_at(word.addr()).borrow_mut();
    mbarriers.retain(|mbarrier| mbarrier.address != word.addr());
    mbarriers.push(Mbarrier {
        address: word.addr(),
        expected: arrivals,
        pending: arrivals,
        outstanding: 0,
        phase: 0,
        arriving: Known::default(),
        completed: Known::default(),
        waiters: Vec::new(),
    });
    context.count_progress();
}

/// Makes the mbarrier ordinary memory again. The caller declares the access, a plain write.
#[track_caller]
pub fn mbarrier_invalidate(word: *const u8) {
    let context = current();
    let found = context.with_mbarrier(word.addr(), |_| Ok(()));
    if let Err(fault) = found {
        return context.misused(word.addr(), fault, Location::caller());
    }
    let mut mbarriers = context.mbarriers_at(word.addr()).borrow_mut();
    mbarriers.retain(|mbarrier| mbarrier.address != word.addr());
}

/// Announces `bytes` to the current phase, then arrives once. The caller declares the access. It releases to the block:
/// at an mbarrier of another one it says that what the thread knows is over, so that a copy may write over it.
#[track_caller]
pub fn mbarrier_arrive(word: *const u8, bytes: u32) {
    current().arrive(word, bytes, Release::Block, Location::caller());
}

/// As [`mbarrier_arrive`] with no bytes, and releases to the cluster.
#[track_caller]
pub fn mbarrier_arrive_cluster(word: *const u8) {
    current().arrive(word, 0, Release::Cluster, Location::caller());
}

/// Whether the phase of this parity is over; if it is, the thread comes after what its block did. The caller declares the
/// access.
#[track_caller]
pub fn mbarrier_test(word: *const u8, parity: bool) -> bool {
    current().is_over(word, parity, false, Location::caller())
}

/// Waits until the phase of this parity is over, and acquires what the block and its copies did. The caller declares the
/// access.
#[track_caller]
pub fn mbarrier_wait(word: *const u8, parity: bool) {
    current().wait_for_phase(word, parity, false, Location::caller());
}

/// As [`mbarrier_wait`], and acquires what other blocks released to the cluster.
#[track_caller]
pub fn mbarrier_wait_cluster(word: *const u8, parity: bool) {
    current().wait_for_phase(word, parity, true, Location::caller());
}

impl Context {
    fn arrive(&self, word: *const u8, bytes: u32, release: Release, location: Place) {
        if panicking() {
            return;
        }
        self.count_progress();
        let clock = self.release_of(self.current.get());
        let arrived = self.with_mbarrier(word.addr(), |mbarrier| {
            mbarrier.outstanding += i64::from(bytes);
            if mbarrier.outstanding > i64::from(MOST) {
                return Err(MbarrierFault::TooManyBytes { outstanding: mbarrier.outstanding });
            }
            if mbarrier.pending == 0 {
                return Err(MbarrierFault::TooManyArrivals { expected: mbarrier.expected });
            }
            mbarrier.pending -= 1;
            Ok(())
        });
        let own = self.locate(word.addr()).0 == self.current_block.get();
        match arrived {
            Ok(()) => self.settle(word.addr(), clock, if own { Release::Near } else { release }),
            Err(fault) => self.misused(word.addr(), fault, location),
        }
    }

    fn is_over(&self, word: *const u8, parity: bool, cluster: bool, location: Place) -> bool {
        let found = self.with_mbarrier(word.addr(), |mbarrier| {
            Ok(mbarrier.is_over(parity).then(|| mbarrier.completed.clone()))
        });
        match found {
            Ok(Some(completed)) => {
                self.learn_phase(self.current.get(), &completed, cluster);
                true
            }
            Ok(None) => false,
            Err(fault) => {
                self.misused(word.addr(), fault, location);
                true
            }
        }
    }

    fn wait_for_phase(&self, word: *const u8, parity: bool, cluster: bool, location: Place) {
        if panicking() || self.is_over(word, parity, cluster, location) {
            return;
        }
        let thread = self.current.get();
        self.count_progress();
        let joined = self.with_mbarrier(word.addr(), |mbarrier| {
            mbarrier.waiters.push(Waiter { thread, parity, cluster });
            Ok(())
        });
        debug_assert!(joined.is_ok(), "it was tested");
        let (_, offset_bytes) = self.locate(word.addr());
        // Who looks at a standstill fills in what the phase lacks then.
        let wait = Wait::Mbarrier { offset_bytes, parity, arrivals: 0, bytes: 0 };
        self.wait(wait, location);
    }

    fn with_mbarrier<T>(
        &self,
        address: usize,
        job: impl FnOnce(&mut Mbarrier) -> Result<T, MbarrierFault>,
    ) -> Result<T, MbarrierFault> {
        let mut mbarriers = self.mbarriers_at(address).borrow_mut();
        let found = mbarriers.iter_mut().find(|mbarrier| mbarrier.address == address);
        job(found.ok_or(MbarrierFault::NotInitialised)?)
    }

    /// Bytes of a bulk copy have come.
    pub(crate) fn complete_bytes(
        &self,
        address: usize,
        bytes: usize,
        clock: Option<Clock>,
    ) -> Result<(), MbarrierFault> {
        self.with_mbarrier(address, |mbarrier| {
            mbarrier.outstanding -= bytes as i64;
            if mbarrier.outstanding < -i64::from(MOST) {
                return Err(MbarrierFault::TooManyBytes { outstanding: mbarrier.outstanding });
            }
            Ok(())
        })?;
        self.settle(address, clock, Release::Near);
        Ok(())
    }

    /// Adds what an arrival knows to the phase, and ends the phase if it lacks nothing more.
    fn settle(&self, address: usize, clock: Option<Clock>, release: Release) {
        let mut woken = Vec::new();
        let mut completed = Known::default();
        let settled = self.with_mbarrier(address, |mbarrier| {
            if let Some(clock) = clock {
                let known = &mut mbarrier.arriving.0[release as usize];
                self.shadow.borrow_mut().clocks().merge(known, clock);
            }
            if mbarrier.pending > 0 || mbarrier.outstanding != 0 {
                return Ok(());
            }
            mbarrier.completed = std::mem::take(&mut mbarrier.arriving);
            mbarrier.phase += 1;
            mbarrier.pending = mbarrier.expected;
            completed = mbarrier.completed.clone();
            let waiters = std::mem::take(&mut mbarrier.waiters);
            for waiter in waiters {
                let over = mbarrier.is_over(waiter.parity);
                let list = if over { &mut woken } else { &mut mbarrier.waiters };
                list.push(waiter);
            }
            Ok(())
        });
        debug_assert!(settled.is_ok(), "the caller found it");
        for Waiter { thread, cluster, .. } in woken {
            self.learn_phase(thread, &completed, cluster);
            self.make_ready(thread / LANES, 1 << (thread % LANES));
        }
    }

    fn learn_phase(&self, thread: usize, Known([near, released, over]): &Known, cluster: bool) {
        self.learn(thread, near.as_ref());
        if cluster {
            self.learn(thread, released.as_ref());
        }
        for clock in [released, over].into_iter().flatten() {
            self.shadow.borrow_mut().clocks().join_over(thread, clock);
        }
    }

    /// What the phase of a block's mbarrier lacks: arrivals and bytes.
    pub(crate) fn lacks(&self, block: usize, offset_bytes: usize) -> (u32, i64) {
        let address = self.shared.borrow().at(block, offset_bytes).addr();
        let mbarriers = self.blocks[block].mbarriers.borrow();
        mbarriers
            .iter()
            .find(|mbarrier| mbarrier.address == address)
            .map_or((0, 0), |mbarrier| (mbarrier.pending, mbarrier.outstanding))
    }

    /// What the thread knows, in the checking mode.
    pub(crate) fn release_of(&self, thread: usize) -> Option<Clock> {
        self.launch.checks.then(|| self.shadow.borrow_mut().clocks().release_thread(thread))
    }

    pub(crate) fn learn(&self, thread: usize, clock: Option<&Clock>) {
        if let Some(clock) = clock {
            self.shadow.borrow_mut().clocks().join_thread(thread, clock);
        }
    }

    /// An address as a block and an offset in its shared memory.
    pub(crate) fn locate(&self, address: usize) -> (usize, usize) {
        let found = self.shared.borrow().locate(address, 1);
        found.unwrap_or((self.current_block.get(), 0))
    }

    fn mbarriers_at(&self, address: usize) -> &RefCell<Vec<Mbarrier>> {
        &self.blocks[self.locate(address).0].mbarriers
    }

    #[cold]
    fn misused(&self, address: usize, fault: MbarrierFault, location: Place) {
        let thread = self.current.get();
        self.fail(self.mbarrier_report(address, fault, thread, location).into());
    }

    pub(crate) fn mbarrier_report(
        &self,
        address: usize,
        fault: MbarrierFault,
        thread: usize,
        location: Place,
    ) -> Report {
        let touch = self.touch_of(thread, Access::Mbarrier, location);
        let (owner, offset_bytes) = self.locate(address);
        let (kernel, block, owner) = (self.kernel(), touch.block, self.blocks[owner].idx);
        Report::Mbarrier { kernel, block, touch: touch.into(), owner, offset_bytes, fault }
    }
}
