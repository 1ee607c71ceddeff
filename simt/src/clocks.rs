//! The clocks of a cluster's threads and of its bulk copies, and what joins them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use crate::clock::{Clock, LANES};
use crate::report::Access;
use crate::shadow::{Record, Touching};

/// Bulk copies and quarters of products that are told apart, for each block: each takes one of these places while it is
/// under way.
const AGENTS: usize = 4 * LANES;

/// The clocks of a cluster's threads, up to a whole warp of each block's, and behind them those of its bulk copies,
/// which run beside the threads as if each was one.
pub(crate) struct Clocks {
    threads: Vec<Clock>,
    agents: Vec<Agent>,
    /// Everything with a smaller stamp lies before the cluster began, or before the last barrier of a block that is
    /// alone.
    floor: u32,
    /// The same for each warp's lanes and their last meeting of the whole warp.
    warp_floor: Vec<u32>,
    /// The largest stamp in use.
    top: u32,
    /// Whether some clock knows of other warps.
    any_far: bool,
    /// What each word that atomics touched hands on.
    words: HashMap<usize, Clock, BuildHasherDefault<AddressHasher>>,
    /// Where this cluster's stamps begin.
    first_stamp: u32,
    /// What a proxy fence has shown to bulk copies: everything before this stamp, and of each thread
    /// everything up to a stamp.
    fenced_floor: u32,
    fenced: Vec<u32>,
}

/// A place for a bulk copy.
#[derive(Clone, Default)]
struct Agent {
    under_way: bool,
    /// When it was taken last.
    taken: u64,
    /// Who took it, and the stamp from which on it was his.
    issuers: Vec<(u32, usize)>,
}

impl Agent {
    fn issuer(&self) -> Option<usize> {
        self.issuers.last().map(|&(_, issuer)| issuer)
    }
}

impl Clocks {
    pub(crate) fn new() -> Self {
        Self {
            threads: Vec::new(),
            agents: Vec::new(),
            floor: 1,
            warp_floor: Vec::new(),
            top: 0,
            any_far: false,
            words: HashMap::default(),
            first_stamp: 0,
            fenced_floor: 0,
            fenced: Vec::new(),
        }
    }

    /// Begins `blocks` blocks, whose threads are the first `threads`, those that fill up warps included.
    pub(crate) fn begin_cluster(&mut self, threads: usize, blocks: usize) {
        self.forget_far();
        let (first_agent, agents) = (threads.next_multiple_of(LANES), AGENTS * blocks);
        let all = first_agent + agents;
        self.threads.truncate(all);
        for thread in 0..all {
            // A place that was a copy's may now be a thread's.
            match self.threads.get_mut(thread) {
                Some(clock) if clock.warp == thread / LANES => {}
                Some(clock) => *clock = Clock::new(thread / LANES),
                None => self.threads.push(Clock::new(thread / LANES)),
            }
        }
        self.warp_floor.resize(all / LANES, 0);
        self.warp_floor[first_agent / LANES..].fill(0);
        self.agents.clear();
        self.agents.resize_with(agents, Agent::default);
        self.barrier();
        self.first_stamp = self.floor;
        self.fenced_floor = 0;
        self.fenced.clear();
        self.fenced.resize(all, 0);
    }

    /// Whether the thread knows anything that one of these threads did since they began.
    pub(crate) fn knows_any(&self, thread: usize, others: Range<usize>) -> bool {
        let clock = &self.threads[thread];
        others.into_iter().any(|other| {
            clock.stamp_of(other) >= self.first_stamp || clock.knows_over(other, self.first_stamp)
        })
    }

    /// Whether this many more may begin.
    pub(crate) fn has_room(&self, places: usize) -> bool {
        self.agents.iter().filter(|agent| !agent.under_way).count() >= places
    }

    /// A bulk copy begins, where there is room: what its issuer did before is before it. Answers the copy's
    /// place among the threads.
    pub(crate) fn begin_copy(&mut self, issuer: usize) -> usize {
        let clock = self.release_thread(issuer);
        self.begin(issuer, &clock)
    }

    /// As [`Self::begin_copy`], of several threads: what all of them know is before it.
    pub(crate) fn begin_shared(&mut self, issuers: Range<usize>) -> usize {
        let (first, all) = (issuers.start, self.threads.len());
        let mut known = vec![u32::MAX; all];
        for issuer in issuers {
            let clock = self.release_thread(issuer);
            for (thread, stamp) in known.iter_mut().enumerate() {
                *stamp = (*stamp).min(clock.stamp_of(thread));
            }
        }
        let mut clock = Clock::new(first / LANES);
        clock.far = Some(known.into());
        self.begin(first, &clock)
    }

    fn begin(&mut self, issuer: usize, clock: &Clock) -> usize {
        let turn = self.agents.iter().map(|agent| agent.taken).max().unwrap_or(0) + 1;
        // Its own again, or else the one that was free longest.
        let place = (0..self.agents.len())
            .filter(|&place| !self.agents[place].under_way)
            .min_by_key(|&place| {
                let agent = &self.agents[place];
                (agent.issuer().is_some_and(|other| other != issuer), agent.taken)
            })
            .expect("the caller saw that there is room");
        let (thread, all) = (self.first_agent() + place, self.threads.len());
        let stamp = self.stamp(thread) + 1;
        let agent = &mut self.agents[place];
        (agent.under_way, agent.taken) = (true, turn);
        if agent.issuer() != Some(issuer) {
            agent.issuers.push((stamp, issuer));
        }
        let mut own = Clock::new(thread / LANES);
        own.local[place % LANES] = stamp;
        own.join(clock, all);
        self.threads[thread] = own;
        self.top = self.top.max(stamp);
        self.any_far = true;
        thread
    }

    /// The copy is done; who joins the answer comes after it.
    pub(crate) fn end_copy(&mut self, thread: usize) -> Clock {
        let place = thread - self.first_agent();
        self.agents[place].under_way = false;
        self.release_thread(thread)
    }

    /// What the thread knows now, itself included; what it does next is not in it.
    pub(crate) fn release_thread(&mut self, thread: usize) -> Clock {
        let floor = self.warp_floor[thread / LANES];
        let clock = materialise(&mut self.threads[thread], floor).clone();
        self.advance(thread);
        clock
    }

    /// The thread learns what `clock` knows.
    pub(crate) fn join_thread(&mut self, thread: usize, clock: &Clock) {
        let all = self.threads.len();
        let mine = &mut self.threads[thread];
        mine.join(clock, all);
        self.any_far |= mine.far.is_some() || mine.over.is_some();
    }

    /// The thread learns that what `clock` knows is over, and no more.
    pub(crate) fn join_over(&mut self, thread: usize, clock: &Clock) {
        let all = self.threads.len();
        self.threads[thread].learn_over(clock, all);
        self.any_far = true;
    }

    /// Joins two things that threads will learn of together.
    pub(crate) fn merge(&self, into: &mut Option<Clock>, clock: Clock) {
        match into {
            Some(known) => known.join(&clock, self.threads.len()),
            None => *into = Some(clock),
        }
    }

    /// Lets a clone of what threads will learn of together say everything by its shared part.
    pub(crate) fn fold(&self, clock: &mut Clock) {
        clock.fold(self.threads.len());
    }

    /// All that the thread knows to be written is shown to later bulk copies.
    pub(crate) fn fence(&mut self, thread: usize) {
        self.fenced_floor = self.fenced_floor.max(self.floor);
        let clock = self.release_thread(thread);
        for (other, fenced) in self.fenced.iter_mut().enumerate() {
            *fenced = (*fenced).max(clock.stamp_of(other));
        }
    }

    /// Whether a bulk copy would see what a thread's ordinary store wrote at this stamp.
    pub(crate) fn is_fenced(&self, old: &Record) -> bool {
        let stamp = old.stamp;
        stamp < self.first_stamp
            || stamp < self.fenced_floor
            || stamp <= self.fenced[usize::from(old.thread)]
    }

    /// Whether the number stands for a bulk copy.
    pub(crate) fn is_agent(&self, thread: usize) -> bool {
        thread >= self.first_agent()
    }

    /// The thread itself, or the one that issued the copy which had this stamp.
    pub(crate) fn issuer(&self, thread: usize, stamp: u32) -> usize {
        let Some(place) = thread.checked_sub(self.first_agent()) else { return thread };
        let issuers = &self.agents[place].issuers;
        let later = issuers.partition_point(|&(first, _)| first <= stamp);
        issuers[later.saturating_sub(1)].1
    }

    fn first_agent(&self) -> usize {
        self.threads.len() - self.agents.len()
    }

    /// All threads met.
    pub(crate) fn barrier(&mut self) {
        self.forget_far();
        self.top += 1;
        self.floor = self.top;
        for (thread, clock) in self.threads.iter_mut().enumerate() {
            clock.local[thread % LANES] = self.floor;
        }
    }

    pub(crate) fn forget_far(&mut self) {
        if self.any_far {
            for clock in &mut self.threads {
                (clock.far, clock.over) = (None, None);
            }
            self.any_far = false;
        }
        if !self.words.is_empty() {
            self.words.clear();
        }
    }

    pub(crate) fn warp_met(&mut self, warp: usize, mask: u32, exists: u32) {
        let first = warp * LANES;
        if mask == exists && !self.any_far {
            let lanes = first..(first + LANES).min(self.threads.len());
            let next = lanes.clone().map(|t| self.stamp(t)).max().unwrap_or(0) + 1;
            lanes.for_each(|t| self.threads[t].local[t % LANES] = next);
            self.warp_floor[warp] = next;
            self.top = self.top.max(next);
            return;
        }
        let lanes = || (0..LANES).filter(|lane| mask >> lane & 1 == 1).map(|lane| first + lane);
        let padded = self.padded();
        let mut met = Clock::new(warp);
        for lane in lanes() {
            met.join(materialise(&mut self.threads[lane], self.warp_floor[warp]), padded);
        }
        for lane in lanes() {
            self.threads[lane].local = met.local;
            self.threads[lane].far = met.far.clone();
            self.threads[lane].over = met.over.clone();
            self.advance(lane);
        }
    }

    pub(crate) fn threads_met(&mut self, threads: impl Iterator<Item = usize> + Clone) {
        let Some(first) = threads.clone().next() else { return };
        let padded = self.padded();
        let mut met = Clock::new(first / LANES);
        for thread in threads.clone() {
            let floor = self.warp_floor[thread / LANES];
            met.join(materialise(&mut self.threads[thread], floor), padded);
        }
        met.fold(padded);
        for thread in threads {
            self.threads[thread].far = met.far.clone();
            self.threads[thread].over = met.over.clone();
            self.advance(thread);
        }
        self.any_far = true;
    }

    /// An atomic that reads learns what the word hands on.
    pub(crate) fn acquire(&mut self, address: usize, touching: Touching) {
        if touching.access.synchronises()
            && touching.access.reads()
            && let Some(word) = self.words.get(&address)
        {
            let padded = self.threads.len();
            let clock = &mut self.threads[touching.thread];
            clock.join(word, padded);
            self.any_far |= clock.far.is_some() || clock.over.is_some();
        }
    }

    /// An atomic that writes hands on what its thread knows.
    pub(crate) fn release(&mut self, address: usize, touching: Touching) {
        if touching.access.synchronises() && touching.access.writes() {
            let (thread, padded) = (touching.thread, self.padded());
            let floor = self.warp_floor[thread / LANES];
            let clock = materialise(&mut self.threads[thread], floor);
            match self.words.get_mut(&address) {
                Some(word) => word.join(clock, padded),
                None => {
                    self.words.insert(address, clock.clone());
                }
            }
            self.advance(thread);
        }
    }

    /// The largest stamp in use.
    pub(crate) fn latest(&self) -> u32 {
        self.top
    }

    pub(crate) fn stamp(&self, thread: usize) -> u32 {
        self.threads[thread].local[thread % LANES]
    }

    fn advance(&mut self, thread: usize) {
        let stamp = &mut self.threads[thread].local[thread % LANES];
        *stamp += 1;
        self.top = self.top.max(*stamp);
    }

    pub(crate) fn before_barrier(&self, stamp: u32) -> bool {
        stamp < self.floor
    }

    /// Whether `old`, an access of another thread since the floor, happened before now.
    pub(crate) fn ordered(&self, thread: usize, old: &Record) -> bool {
        let other = usize::from(old.thread);
        let warp = thread / LANES;
        (other / LANES == warp && old.stamp < self.warp_floor[warp])
            || self.threads[thread].knows(other, old.stamp)
    }

    /// Whether a copy may write over what `old` read, or what it copied there.
    pub(crate) fn may_copy_over(&self, touching: Touching, old: &Record) -> bool {
        touching.access == Access::CopyWrite
            && (!old.access.writes() || old.access == Access::CopyWrite)
            && self.threads[touching.thread].knows_over(usize::from(old.thread), old.stamp)
    }

    fn padded(&self) -> usize {
        self.threads.len()
    }
}

/// Writes into a clock what its warp's floor says without being written down.
fn materialise(clock: &mut Clock, warp_floor: u32) -> &Clock {
    let known = warp_floor.saturating_sub(1);
    clock.local.iter_mut().for_each(|stamp| *stamp = (*stamp).max(known));
    clock
}

/// A multiplicative hash: addresses need no protection from an adversary.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(usize::from(byte));
        }
    }

    fn write_usize(&mut self, value: usize) {
        let product = u128::from(self.0 ^ value as u64) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}
