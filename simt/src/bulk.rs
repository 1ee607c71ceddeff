//! Bulk copies between global and shared memory, which run beside the threads.
//!
//! A copy is done as late as can be: when no thread of the cluster can go on without it, or when a thread
//! waits for its group. What a thread touches too early then differs from what the copy brings, and shows
//! as uninitialised memory or as a race: the copy is ordered after what its issuer did before, and before
//! whoever waits for its mbarrier or its group, and nothing else.

use std::panic::Location;
use std::slice;
use std::thread::panicking;

use crate::clock::Clock;
use crate::cluster::SplitMix;
use crate::context::{Context, current};
use crate::report::{Access, ClusterFault, Report, Space};
use crate::shadow::Touching;
use crate::thread_side::report_of;

type Place = &'static Location<'static>;

/// One contiguous part of a bulk copy.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Address in shared memory.
    pub shared: *mut u8,
    /// Address in global memory; null where a load fills with zeros.
    pub global: *mut u8,
    /// Length.
    pub bytes: usize,
}

/// The cluster's copies that are not done.
#[derive(Default)]
pub(crate) struct Bulk {
    queue: Vec<Copy>,
    /// Stores that are done and were not waited for.
    done: Vec<Done>,
    /// Groups that each thread has committed, by thread.
    committed: Vec<(usize, u32)>,
    /// Draws which copy comes next, if the block's order is shuffled.
    pub(crate) random: Option<SplitMix>,
}

struct Copy {
    issuer: usize,
    /// Its place among the threads, in the checking mode.
    agent: Option<usize>,
    location: Place,
    pieces: Vec<Piece>,
    stage: Stage,
}

/// What comes before who waits for a store: its reads, until they were waited for, and all of it.
struct Done {
    issuer: usize,
    group: u32,
    reads: Option<Clock>,
    all: Clock,
}

enum Stage {
    Load {
        mbarrier: usize,
    },
    /// A store of the issuer's group of this number; once it has read shared memory it holds the bytes.
    Store {
        group: u32,
        read: Option<Vec<u8>>,
    },
}

/// Issues a load of `pieces` whose bytes, all of them, go to the mbarrier at `word`.
///
/// # Safety
/// The pieces' global memory is readable and nobody writes it until the launch ends; their shared memory was
/// seen to be [`within`](crate::rt::within) this block's.
#[track_caller]
pub unsafe fn bulk_load(pieces: Vec<Piece>, word: *const u8) {
    current().issue(pieces, Stage::Load { mbarrier: word.addr() }, Location::caller());
}

/// As [`bulk_load`], to the same places of each block of the cluster whose bit is set in `blocks`, and to the mbarrier at
/// the same place there: a copy for each, for nothing orders them.
///
/// # Safety
/// As [`bulk_load`].
#[track_caller]
pub unsafe fn bulk_load_multicast(pieces: &[Piece], word: *const u8, blocks: u16) {
    if panicking() {
        return;
    }
    let (context, location) = (current(), Location::caller());
    let size = context.blocks.len() as u32;
    if blocks == 0 || u32::from(blocks) >> size != 0 {
        return context.misused_cluster(ClusterFault::Mask { blocks, size }, location);
    }
    let me = context.current.get();
    for block in (0..size as usize).filter(|block| blocks >> block & 1 == 1) {
        let touch = context.touch_of(me, Access::CopyWrite, location);
        if let Err(report) = context.check_there(me, block, touch) {
            return context.fail(report.into());
        }
        let there = |address: *const u8| {
            let (_, offset) = context.locate(address.addr());
            context.shared.borrow().at(block, offset)
        };
        let pieces = pieces.iter().map(|piece| Piece { shared: there(piece.shared), ..*piece });
        let mbarrier = there(word).addr();
        context.issue(pieces.collect(), Stage::Load { mbarrier }, location);
    }
}

/// Issues a store of `pieces`, in the thread's open group.
///
/// # Safety
/// The pieces' global memory is writable until the launch ends; their shared memory was seen to be
/// [`within`](crate::rt::within) this block's.
#[track_caller]
pub unsafe fn bulk_store(pieces: Vec<Piece>) {
    let context = current();
    let group = context.bulk.borrow().committed_by(context.current.get());
    context.issue(pieces, Stage::Store { group, read: None }, Location::caller());
}

/// Closes the thread's open group of stores.
pub fn bulk_commit() {
    let context = current();
    let me = context.current.get();
    let mut bulk = context.bulk.borrow_mut();
    match bulk.committed.iter_mut().find(|(thread, _)| *thread == me) {
        Some((_, count)) => *count += 1,
        None => bulk.committed.push((me, 1)),
    }
}

/// Waits until no more than `pending` of the thread's last groups are under way, or, with `reads`, have still
/// to read shared memory.
#[track_caller]
pub fn bulk_wait(pending: u32, reads: bool) {
    if panicking() {
        return;
    }
    let context = current();
    if let Err(report) = context.drain(context.current.get(), pending, reads) {
        context.fail(report.into());
    }
}

/// Shows what the thread knows to be written to later bulk copies.
pub fn proxy_fence() {
    let context = current();
    if context.launch.checks {
        context.shadow.borrow_mut().clocks().fence(context.current.get());
    }
}

impl Bulk {
    fn committed_by(&self, thread: usize) -> u32 {
        self.committed.iter().find(|(of, _)| *of == thread).map_or(0, |&(_, count)| count)
    }
}

impl Context {
    fn issue(&self, pieces: Vec<Piece>, stage: Stage, location: Place) {
        if panicking() {
            return;
        }
        let issuer = self.current.get();
        self.count_progress();
        let checks = self.launch.checks;
        if checks {
            self.make_room(1);
        }
        let agent = checks.then(|| self.shadow.borrow_mut().clocks().begin_copy(issuer));
        self.bulk.borrow_mut().queue.push(Copy { issuer, agent, location, pieces, stage });
    }

    /// A copy or a product may be done at any time: where too many are under way for `places` more, some are done now.
    pub(crate) fn make_room(&self, places: usize) {
        while !self.shadow.borrow_mut().clocks().has_room(places) {
            match self.advance_copies() {
                Ok(true) => {}
                Ok(false) => assert!(self.advance_products(), "the places are somebody's"),
                Err(report) => return self.fail(report.into()),
            }
        }
    }

    /// Does one of the copies that are under way, if there is any: whoever waits may then go on.
    pub(crate) fn advance_copies(&self) -> Result<bool, Report> {
        let index = {
            let mut bulk = self.bulk.borrow_mut();
            let count = bulk.queue.len();
            match &mut bulk.random {
                _ if count == 0 => return Ok(false),
                Some(random) => (random.next() % count as u64) as usize,
                None => 0,
            }
        };
        let copy = self.bulk.borrow_mut().queue.remove(index);
        let done = self.finish_copy(copy)?;
        self.bulk.borrow_mut().done.extend(done);
        self.count_progress();
        Ok(true)
    }

    /// A block is over: what still uses its shared memory is reported, its stores are done.
    pub(crate) fn end_copies(&self, block: usize) -> Result<(), Report> {
        let queue = std::mem::take(&mut self.bulk.borrow_mut().queue);
        for copy in queue {
            let issued_here = copy.issuer / self.stride == block;
            let access = match &copy.stage {
                Stage::Load { mbarrier } if self.locate(*mbarrier).0 == block => Access::CopyWrite,
                Stage::Store { read: None, .. } if issued_here => Access::CopyRead,
                Stage::Store { read: Some(_), .. } if issued_here => {
                    self.finish_copy(copy)?;
                    continue;
                }
                _ => {
                    self.bulk.borrow_mut().queue.push(copy);
                    continue;
                }
            };
            let touch = self.touch_of(copy.issuer, access, copy.location).into();
            let block = self.blocks[block].idx;
            return Err(Report::UnfinishedCopy { kernel: self.kernel(), block, touch });
        }
        Ok(())
    }

    /// Does the thread's stores but those of its last `pending` groups.
    fn drain(&self, thread: usize, pending: u32, reads: bool) -> Result<(), Report> {
        let closed = self.bulk.borrow().committed_by(thread).saturating_sub(pending);
        let mut done = std::mem::take(&mut self.bulk.borrow_mut().done);
        done.retain_mut(|done| {
            let waited = done.issuer == thread && done.group < closed;
            if waited && reads {
                self.learn(thread, done.reads.take().as_ref());
            } else if waited {
                self.learn(thread, Some(&done.all));
            }
            !waited || reads
        });
        self.bulk.borrow_mut().done = done;
        let mut at = 0;
        loop {
            let mut copy = {
                let mut bulk = self.bulk.borrow_mut();
                let wanted = |copy: &Copy| {
                    copy.issuer == thread
                        && matches!(copy.stage, Stage::Store { group, .. } if group < closed)
                };
                let Some(found) = bulk.queue.iter().skip(at).position(wanted) else {
                    return Ok(());
                };
                at += found;
                bulk.queue.remove(at)
            };
            if reads {
                let clock = self.read_shared(&mut copy)?;
                self.learn(thread, clock.as_ref());
                self.bulk.borrow_mut().queue.insert(at, copy);
                at += 1;
            } else {
                let done = self.finish_copy(copy)?;
                self.learn(thread, done.as_ref().map(|done| &done.all));
            }
        }
    }

    /// Does what is left of a copy; for a store the answer is what comes before those who wait for it.
    fn finish_copy(&self, mut copy: Copy) -> Result<Option<Done>, Report> {
        if let Stage::Load { mbarrier } = copy.stage {
            return self.load(&copy, mbarrier).map(|()| None);
        }
        let reads = self.read_shared(&mut copy)?;
        let Stage::Store { group, read: Some(bytes) } = &copy.stage else {
            unreachable!("a store has read by now")
        };
        let mut from = bytes.as_slice();
        for piece in &copy.pieces {
            self.check(&copy, Space::Global, piece.global.addr(), piece.bytes, Access::CopyWrite)?;
            let (part, rest) = from.split_at(piece.bytes);
            from = rest;
            // SAFETY: the issuer's contract: the piece is writable; `part` is memory of our own.
            unsafe { piece.global.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
        }
        let all = copy.agent.map(|agent| self.shadow.borrow_mut().clocks().end_copy(agent));
        let (issuer, group) = (copy.issuer, *group);
        Ok(all.map(|all| Done { issuer, group, reads, all }))
    }

    fn load(&self, copy: &Copy, mbarrier: usize) -> Result<(), Report> {
        let mut total = 0;
        for piece in &copy.pieces {
            self.check(copy, Space::Shared, piece.shared.addr(), piece.bytes, Access::CopyWrite)?;
            // SAFETY: the issuer's contract: the shared part is inside a block's, which has not left and no thread
            // touches while the scheduler or the current thread runs this; the global part is readable.
            unsafe {
                if piece.global.is_null() {
                    piece.shared.write_bytes(0, piece.bytes);
                } else {
                    piece.shared.copy_from(piece.global, piece.bytes);
                }
            }
            total += piece.bytes;
        }
        self.check(copy, Space::Shared, mbarrier, 8, Access::Mbarrier)?;
        if let Some(agent) = copy.agent {
            let touch = self.touch_of(copy.issuer, Access::CopyWrite, copy.location);
            self.note_reach(agent, self.locate(mbarrier).0, touch);
        }
        let clock = copy.agent.map(|agent| self.shadow.borrow_mut().clocks().end_copy(agent));
        self.complete_bytes(mbarrier, total, clock)
            .map_err(|fault| self.mbarrier_report(mbarrier, fault, copy.issuer, copy.location))
    }

    /// Lets a store read shared memory, if it has not; the answer comes before who waits for that.
    fn read_shared(&self, copy: &mut Copy) -> Result<Option<Clock>, Report> {
        if let Stage::Store { read: None, .. } = copy.stage {
            let mut bytes = Vec::new();
            for piece in &copy.pieces {
                let (address, length) = (piece.shared.addr(), piece.bytes);
                self.check(copy, Space::Shared, address, length, Access::CopyRead)?;
                // SAFETY: as in `load`: inside this block's shared memory, with nobody at it now. It
                // was written once at least, by the poison that it begins with.
                bytes.extend_from_slice(unsafe { slice::from_raw_parts(piece.shared, length) });
            }
            if let Stage::Store { read, .. } = &mut copy.stage {
                *read = Some(bytes);
            }
        }
        Ok(copy.agent.and_then(|agent| self.release_of(agent)))
    }

    /// Declares what a copy touches.
    fn check(
        &self,
        copy: &Copy,
        space: Space,
        address: usize,
        bytes: usize,
        access: Access,
    ) -> Result<(), Report> {
        let Some(agent) = copy.agent else { return Ok(()) };
        let touching = Touching { thread: agent, access, location: copy.location };
        let at = if space == Space::Shared {
            self.locate(address)
        } else {
            (copy.issuer / self.stride, 0)
        };
        let checked = match space {
            Space::Shared => self.shadow.borrow_mut().touch_shared(at, bytes, touching, address),
            Space::Global => self.shadow.borrow_mut().touch_global(address, bytes, touching),
        };
        checked.map_err(|finding| report_of(self, space, at, finding, touching))
    }
}
