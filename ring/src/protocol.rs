//! The rules of the protocol as functions without state: what [`Rings`](crate::Rings) calls, what a device that is a
//! thread can call, and what `tests/model/` explores.

use kasmina_types::manifold::{
    DESCRIPTOR_WORDS, HEAD_WORDS, ItemDescriptor, LINE_WORDS, NEEDS, NO_RING, Need, counts_of,
    data_of, has_reached, tag_of, tagged,
};

/// The place of an item in its ring. `capacity` is a power of two, so that the number on the wire, which wraps around,
/// has the same place.
#[inline]
pub const fn place_of(sequence: u64, capacity: u64) -> u64 {
    sequence & (capacity - 1)
}

/// Whether the item `next` may be written where everything before `oldest` is complete: the item `capacity` before it
/// has to be.
#[inline]
pub const fn has_room(oldest: u64, next: u64, capacity: u64) -> bool {
    next.wrapping_sub(oldest) < capacity
}

/// Writes a need to the first place that is free; answers whether there was one. So needs are in the first places, which a
/// device relies on that goes by a line's head.
#[inline]
pub fn add_need(needs: &mut [Need; NEEDS], need: Need) -> bool {
    let free = needs.iter_mut().find(|place| place.ring == NO_RING);
    free.map(|place| *place = need).is_some()
}

/// The words of an item's line: the descriptor's, and zeros behind them, all tagged.
#[inline]
pub fn line_words(descriptor: &ItemDescriptor, sequence: u32) -> [u64; LINE_WORDS] {
    let mut words = [tagged(0, sequence); LINE_WORDS];
    for (word, data) in words.iter_mut().zip(descriptor.words()) {
        *word = tagged(data, sequence);
    }
    words
}

/// The words of a line that a look goes by, from the first on: the head, or all of the descriptor where
/// [`names_need`](kasmina_types::manifold::names_need) finds a need. A look at several lines goes by all words of each
/// where one of them names a need.
#[inline]
pub const fn words_of_look(names_need: bool) -> usize {
    if names_need { DESCRIPTOR_WORDS } else { HEAD_WORDS }
}

/// Whether words of a line, those that a look goes by, are all of that item.
#[inline]
pub fn has_come(words: &[u64], sequence: u32) -> bool {
    words.iter().all(|&word| tag_of(word) == sequence)
}

/// What a line that has come asks for. Where the head names no need, the words behind it may be of an earlier item.
pub fn descriptor_of(line: &[u64; LINE_WORDS]) -> ItemDescriptor {
    let data = |index: usize| data_of(line[index]);
    let mut needs = [Need::NONE; NEEDS];
    if data(HEAD_WORDS - 1) != NO_RING {
        for (index, need) in needs.iter_mut().enumerate() {
            let first = DESCRIPTOR_WORDS - 2 * (NEEDS - index);
            *need = Need { ring: data(first), sequence: data(first + 1) };
        }
    }
    let (count, blocks, edition, reaches_host) = counts_of(data(1), data(2));
    ItemDescriptor { first: data(0), count, blocks, edition, reaches_host, needs }
}

/// Whether a need is met where `done` is the last complete item of its ring; `None` stands for no need.
#[inline]
pub fn is_met(need: Need, done: impl FnOnce(u32) -> u32) -> bool {
    need.ring == NO_RING || has_reached(done(need.ring), need.sequence)
}

/// The number of a status, if a completion's word is that item's.
#[inline]
pub const fn completion_of(word: u64, sequence: u32) -> Option<u32> {
    if tag_of(word) == sequence { Some(data_of(word)) } else { None }
}

/// The number on the wire.
#[inline]
pub const fn wire(sequence: u64) -> u32 {
    sequence as u32
}

/// The item that a number on the wire means where `last` was pushed last: the latest of that number. `None` for one
/// that was not pushed yet, going by [`has_reached`], and for one before all items.
pub const fn unwire(number: u32, last: u64) -> Option<u64> {
    if !has_reached(wire(last), number) {
        return None;
    }
    last.checked_sub(wire(last).wrapping_sub(number) as u64)
}
