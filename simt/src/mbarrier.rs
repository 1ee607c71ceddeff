//! mbarriers: barriers in shared memory that count arrivals and the bytes of bulk copies.
//!
//! A phase is over when all its arrivals have come and no byte is outstanding; the next one then begins
//! by itself. Who waits for a phase comes after those that arrived in it and after its copies, of whichever block of
//! the cluster they are.

use std::cell::RefCell;
use std::panic::Location;
use std::thread::panicking;

use crate::clock::{Clock, LANES};
use crate::context::{Context, current};
use crate::report::{Access, MbarrierFault, Report, Wait};

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
    arriving: Option<Clock>,
    completed: Option<Clock>,
    waiters: Vec<(usize, bool)>,
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
        arriving: None,
        completed: None,
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

/// Announces `bytes` to the current phase, then arrives once. The caller declares the access.
#[track_caller]
pub fn mbarrier_arrive(word: *const u8, bytes: u32) {
    if panicking() {
        return;
    }
    let context = current();
    context.count_progress();
    let clock = context.release_of(context.current.get());
    let arrived = context.with_mbarrier(word.addr(), |mbarrier| {
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
    match arrived {
        Ok(()) => context.settle(word.addr(), clock),
        Err(fault) => context.misused(word.addr(), fault, Location::caller()),
    }
}

/// Whether the phase of this parity is over; if it is, the thread comes after it. The caller declares the
/// access.
#[track_caller]
pub fn mbarrier_test(word: *const u8, parity: bool) -> bool {
    let context = current();
    let found = context.with_mbarrier(word.addr(), |mbarrier| {
        Ok(mbarrier.is_over(parity).then(|| mbarrier.completed.clone()))
    });
    match found {
        Ok(Some(completed)) => {
            context.learn(context.current.get(), completed.as_ref());
            true
        }
        Ok(None) => false,
        Err(fault) => {
            context.misused(word.addr(), fault, Location::caller());
            true
        }
    }
}

/// Waits until the phase of this parity is over. The caller declares the access.
#[track_caller]
pub fn mbarrier_wait(word: *const u8, parity: bool) {
    if panicking() || mbarrier_test(word, parity) {
        return;
    }
    let context = current();
    let me = context.current.get();
    context.count_progress();
    let joined = context.with_mbarrier(word.addr(), |mbarrier| {
        mbarrier.waiters.push((me, parity));
        Ok(())
    });
    debug_assert!(joined.is_ok(), "it was tested");
    let (_, offset_bytes) = context.locate(word.addr());
    // Who looks at a standstill fills in what the phase lacks then.
    let wait = Wait::Mbarrier { offset_bytes, parity, arrivals: 0, bytes: 0 };
    context.wait(wait, Location::caller());
}

impl Context {
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
        self.settle(address, clock);
        Ok(())
    }

    /// Adds what an arrival knows to the phase, and ends the phase if it lacks nothing more.
    fn settle(&self, address: usize, clock: Option<Clock>) {
        let mut woken = Vec::new();
        let mut completed = None;
        let settled = self.with_mbarrier(address, |mbarrier| {
            if let Some(clock) = clock {
                self.shadow.borrow_mut().clocks().merge(&mut mbarrier.arriving, clock);
            }
            if mbarrier.pending > 0 || mbarrier.outstanding != 0 {
                return Ok(());
            }
            mbarrier.completed = mbarrier.arriving.take();
            mbarrier.phase += 1;
            mbarrier.pending = mbarrier.expected;
            completed = mbarrier.completed.clone();
            let waiters = std::mem::take(&mut mbarrier.waiters);
            for waiter in waiters {
                let list =
                    if mbarrier.is_over(waiter.1) { &mut woken } else { &mut mbarrier.waiters };
                list.push(waiter);
            }
            Ok(())
        });
        debug_assert!(settled.is_ok(), "the caller found it");
        for (thread, _) in woken {
            self.learn(thread, completed.as_ref());
            self.make_ready(thread / LANES, 1 << (thread % LANES));
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
    fn misused(&self, address: usize, fault: MbarrierFault, location: &'static Location<'static>) {
        let thread = self.current.get();
        self.fail(self.mbarrier_report(address, fault, thread, location).into());
    }

    pub(crate) fn mbarrier_report(
        &self,
        address: usize,
        fault: MbarrierFault,
        thread: usize,
        location: &'static Location<'static>,
    ) -> Report {
        let touch = self.touch_of(thread, Access::Mbarrier, location);
        let (owner, offset_bytes) = self.locate(address);
        let (kernel, block, owner) = (self.kernel(), touch.block, self.blocks[owner].idx);
        Report::Mbarrier { kernel, block, touch, owner, offset_bytes, fault }
    }
}
