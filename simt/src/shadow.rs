//! The checking mode's memory: who touched which byte, and what happened before what.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::panic::Location;

use crate::clock::LANES;
use crate::clocks::{AddressHasher, Clocks};
use crate::report::Access;

/// Bytes of memory that one word of the shadow stands for.
const WORD_BYTES: usize = 4;
/// Words of one page of the global shadow.
const PAGE_WORDS: usize = 64;
/// When a block has touched this many pages (4 MiB of its memory) the oldest knowledge goes.
const MAX_PAGES: usize = 16 * 1024;
/// Stamps start anew, and the shadow with them, long before they would wrap.
const MAX_STAMP: u32 = 1 << 31;

/// One access that the shadow remembers. `stamp` 0 is an empty slot.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub(crate) location: &'static Location<'static>,
    pub(crate) stamp: u32,
    /// A thread of the cluster, or a bulk copy.
    pub(crate) thread: u16,
    /// Which of the word's four bytes.
    bytes: u8,
    pub(crate) access: Access,
}

/// What is remembered of one word: as many accesses as fit a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Word([Record; 4]);

const _: () = assert!(size_of::<Record>() == 16 && size_of::<Word>() == 64);

impl Word {
    fn empty() -> Self {
        let location = Location::caller();
        Self([Record { location, stamp: 0, thread: 0, bytes: 0, access: Access::Read }; 4])
    }
}

/// A mistake that the shadow found. Offsets count from the start of the checked access.
pub(crate) enum Finding {
    /// Nobody wrote this byte of shared memory.
    Uninitialised { offset: usize },
    /// An earlier access of another thread that nothing orders before this one.
    Race { offset: usize, earlier: Record },
    /// An ordinary store that no proxy fence has shown to this bulk copy.
    Unfenced { offset: usize, earlier: Record },
}

/// Who touches memory, how and where.
#[derive(Clone, Copy)]
pub(crate) struct Touching {
    pub(crate) thread: usize,
    pub(crate) access: Access,
    pub(crate) location: &'static Location<'static>,
}

/// Shadow of one cluster. It is used again by later ones: stamps only grow, so that what earlier ones
/// left behind is older than every barrier and needs no clearing.
pub(crate) struct Shadow {
    clocks: Clocks,
    /// Each block's shared memory.
    shared: Vec<SharedShadow>,
    pages: Vec<Box<[Word]>>,
    pages_used: usize,
    page_of: HashMap<usize, usize, BuildHasherDefault<AddressHasher>>,
    /// The page that was asked for last: neighbours ask for it again.
    last_page: (usize, usize),
}

/// What is remembered of one block's shared memory.
#[derive(Default)]
struct SharedShadow {
    words: Vec<Word>,
    /// For each word the bytes that were written.
    written: Vec<u8>,
}

impl Shadow {
    pub(crate) fn new() -> Self {
        Self {
            clocks: Clocks::new(),
            shared: Vec::new(),
            pages: Vec::new(),
            pages_used: 0,
            page_of: HashMap::default(),
            last_page: (usize::MAX, 0),
        }
    }

    /// Forgets everything: new blocks begin, of `threads` in all, as [`Clocks::begin_cluster`] counts them.
    pub(crate) fn begin_cluster(&mut self, threads: usize, blocks: usize) {
        if self.clocks.latest() >= MAX_STAMP {
            *self = Self::new();
        }
        self.clocks.begin_cluster(threads, blocks);
        self.shared.resize_with(blocks, SharedShadow::default);
        self.shared.iter_mut().for_each(|shared| shared.written.fill(0));
        self.forget_pages();
    }

    /// Shared memory of each block now ends at `bytes`.
    pub(crate) fn grow_shared(&mut self, bytes: usize) {
        let words = bytes.div_ceil(WORD_BYTES);
        for shared in self.shared.iter_mut().filter(|shared| words > shared.words.len()) {
            shared.words.resize_with(words, Word::empty);
            shared.written.resize(words, 0);
        }
    }

    /// All threads of a block that is alone met.
    pub(crate) fn block_barrier(&mut self) {
        self.clocks.barrier();
    }

    /// The lanes of `mask` met; `exists` are all lanes of the warp.
    pub(crate) fn warp_met(&mut self, warp: usize, mask: u32, exists: u32) {
        self.clocks.warp_met(warp, mask, exists);
    }

    /// These threads met.
    pub(crate) fn threads_met(&mut self, threads: impl Iterator<Item = usize> + Clone) {
        self.clocks.threads_met(threads);
    }

    /// The clocks, for what orders threads and copies beside memory.
    pub(crate) fn clocks(&mut self) -> &mut Clocks {
        &mut self.clocks
    }

    /// Checks and records an access to a block's shared memory at `offset` from its start.
    pub(crate) fn touch_shared(
        &mut self,
        (block, offset): (usize, usize),
        bytes: usize,
        touching: Touching,
        address: usize,
    ) -> Result<(), Finding> {
        self.clocks.acquire(address, touching);
        let shared = &mut self.shared[block];
        for (index, mask, first) in words(offset, bytes) {
            let written = &mut shared.written[index];
            let missing = mask & !*written;
            if touching.access.reads() && missing != 0 {
                return Err(Finding::Uninitialised { offset: byte(index, missing) - offset });
            }
            if touching.access.writes() {
                *written |= mask;
            }
            unfenced(&shared.words[index], &self.clocks, mask, touching, first)?;
            touch(&mut shared.words[index], &self.clocks, mask, touching)
                .map_err(|earlier| race(earlier, mask, first))?;
        }
        self.clocks.release(address, touching);
        Ok(())
    }

    /// Checks and records an access to global memory.
    pub(crate) fn touch_global(
        &mut self,
        address: usize,
        bytes: usize,
        touching: Touching,
    ) -> Result<(), Finding> {
        self.clocks.acquire(address, touching);
        for (index, mask, first) in words(address, bytes) {
            let page = self.page(index / PAGE_WORDS);
            touch(&mut self.pages[page][index % PAGE_WORDS], &self.clocks, mask, touching)
                .map_err(|earlier| race(earlier, mask, first))?;
        }
        self.clocks.release(address, touching);
        Ok(())
    }

    /// Drops what points to memory of its own, before the shadow is put away.
    pub(crate) fn end(&mut self) {
        self.clocks.forget_far();
        self.forget_pages();
    }

    fn page(&mut self, key: usize) -> usize {
        if self.last_page.0 == key {
            return self.last_page.1;
        }
        let index = match self.page_of.get(&key) {
            Some(&index) => index,
            None => self.add_page(key),
        };
        self.last_page = (key, index);
        index
    }

    fn add_page(&mut self, key: usize) -> usize {
        if self.pages_used == MAX_PAGES {
            self.forget_pages();
        }
        let index = self.pages_used;
        match self.pages.get_mut(index) {
            Some(page) => page.fill(Word::empty()),
            None => self.pages.push(vec![Word::empty(); PAGE_WORDS].into_boxed_slice()),
        }
        self.pages_used += 1;
        self.page_of.insert(key, index);
        index
    }

    fn forget_pages(&mut self) {
        if self.pages_used > 0 {
            self.page_of.clear();
            self.pages_used = 0;
            self.last_page = (usize::MAX, 0);
        }
    }
}

/// The words of `start..start + bytes`: index, mask of the bytes inside, offset of the word's first
/// byte from `start` (negative for a first word that begins before it).
fn words(start: usize, bytes: usize) -> impl Iterator<Item = (usize, u8, isize)> {
    let end = start + bytes;
    (start / WORD_BYTES..end.div_ceil(WORD_BYTES)).map(move |index| {
        let first = index * WORD_BYTES;
        let skip = start.saturating_sub(first);
        let keep = (end - first).min(WORD_BYTES);
        let mask = (0xf << skip) & (0xf >> (WORD_BYTES - keep));
        (index, mask, first as isize - start as isize)
    })
}

/// Offset of the lowest byte of `mask` in the word at `index`.
fn byte(index: usize, mask: u8) -> usize {
    index * WORD_BYTES + mask.trailing_zeros() as usize
}

fn race(earlier: Record, mask: u8, first: isize) -> Finding {
    let common = (earlier.bytes & mask).trailing_zeros() as isize;
    Finding::Race { offset: (first + common) as usize, earlier }
}

/// Compares an access with what the word remembers, then remembers it.
///
/// An old record may go once a later access that happened after it stands for it: whoever races with
/// the old one then races with the new one too. Where nothing may go, readers of one warp share a
/// slot, because a writer of another warp races with each of them alike.
fn touch(word: &mut Word, clocks: &Clocks, mask: u8, touching: Touching) -> Result<(), Record> {
    let Touching { thread, access, location } = touching;
    let new = Record {
        location,
        stamp: clocks.stamp(thread),
        thread: thread as u16,
        bytes: mask,
        access,
    };
    let mut free = None;
    let mut same_warp_reader = None;
    for (slot, old) in word.0.iter().enumerate() {
        if clocks.before_barrier(old.stamp) {
            free = Some(slot);
            continue;
        }
        let own = usize::from(old.thread) == thread;
        if !own && !clocks.ordered(thread, old) && !clocks.may_copy_over(touching, old) {
            if old.bytes & mask != 0 && conflict(old.access, access) {
                return Err(*old);
            }
            if !old.access.writes() && usize::from(old.thread) / LANES == thread / LANES {
                same_warp_reader = Some(slot);
            }
        } else if old.bytes & !mask == 0 && stands_for(access, old.access) {
            free = Some(slot);
        }
    }
    let reader = !access.writes();
    if let Some(slot) = free.or(same_warp_reader.filter(|_| reader)) {
        word.0[slot] = new;
    } else if !reader {
        // A write tells most: it takes the place of a read, or else of the first record.
        let slot = word.0.iter().position(|old| !old.access.writes()).unwrap_or(0);
        word.0[slot] = new;
    }
    Ok(())
}

/// Whether a bulk copy meets what an ordinary store wrote, with an order between the two but no fence.
fn unfenced(
    word: &Word,
    clocks: &Clocks,
    mask: u8,
    touching: Touching,
    first: isize,
) -> Result<(), Finding> {
    if !clocks.is_agent(touching.thread) {
        return Ok(());
    }
    let met = word.0.iter().find(|old| {
        old.access == Access::Write
            && old.bytes & mask != 0
            && (clocks.before_barrier(old.stamp) || clocks.ordered(touching.thread, old))
            && !clocks.is_fenced(old)
    });
    match met {
        None => Ok(()),
        Some(&earlier) => {
            let common = (earlier.bytes & mask).trailing_zeros() as isize;
            Err(Finding::Unfenced { offset: (first + common) as usize, earlier })
        }
    }
}

fn conflict(a: Access, b: Access) -> bool {
    (a.writes() || b.writes()) && !(a.is_atomic() && b.is_atomic())
}

fn stands_for(new: Access, old: Access) -> bool {
    (new.writes() || !old.writes()) && (!new.is_atomic() || old.is_atomic())
}
