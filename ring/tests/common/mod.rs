//! A device that is a thread: the other side of the protocol over words in the host's memory.

use kasmina_ring::{Words, protocol};
use kasmina_types::manifold::{
    HEAD_WORDS, ItemDescriptor, LINE_WORDS, NEEDS, NO_RING, Need, names_need, tagged,
};

/// Groups of two rings each, which carry items out by calling a function.
pub(crate) struct Device<W> {
    pub(crate) lines: W,
    pub(crate) completions: W,
    pub(crate) capacity: u64,
    /// The last complete item of each ring.
    pub(crate) done: Vec<u32>,
}

impl<W: Words> Device<W> {
    /// A device that has completed everything before the numbers `first`.
    pub(crate) fn new(lines: W, completions: W, capacity: u64, first: &[u64]) -> Self {
        let done = first.iter().map(|&first| protocol::wire(first).wrapping_sub(1)).collect();
        Self { lines, completions, capacity, done }
    }

    /// The next item of a ring, if it has come and its needs are met.
    pub(crate) fn look(&self, ring: u32) -> Option<ItemDescriptor> {
        let expected = self.done[ring as usize].wrapping_add(1);
        let line = self.place(ring, expected) * LINE_WORDS;
        let mut words = [0; LINE_WORDS];
        let mut index = 0;
        let mut count = HEAD_WORDS;
        while index < count {
            words[index] = self.lines.load(line + index);
            if !protocol::has_come(&words[index..=index], expected) {
                return None;
            }
            index += 1;
            if index == HEAD_WORDS {
                count = protocol::words_of_look(names_need(words[index - 1], expected));
            }
        }
        let item = protocol::descriptor_of(&words);
        let done = |ring: u32| self.done[ring as usize];
        item.needs.iter().all(|&need| protocol::is_met(need, done)).then_some(item)
    }

    /// Completes the next item of a ring.
    pub(crate) fn complete(&mut self, ring: u32, status: u32) {
        let sequence = self.done[ring as usize].wrapping_add(1);
        self.done[ring as usize] = sequence;
        self.completions.store(self.place(ring, sequence), tagged(status, sequence));
    }

    /// Looks at the rings once, in order, and carries out the first item that can be.
    pub(crate) fn step(&mut self, mut carry_out: impl FnMut(u32, ItemDescriptor) -> u32) -> bool {
        for ring in 0..self.done.len() as u32 {
            if let Some(item) = self.look(ring) {
                let status = carry_out(ring, item);
                self.complete(ring, status);
                return true;
            }
        }
        false
    }

    fn place(&self, ring: u32, sequence: u32) -> usize {
        let place = protocol::place_of(u64::from(sequence), self.capacity);
        (u64::from(ring) * self.capacity + place) as usize
    }
}

/// An item that names itself `first` and needs nothing.
pub(crate) fn item(first: u32) -> ItemDescriptor {
    ItemDescriptor {
        first,
        count: 1,
        blocks: 1,
        edition: 0,
        reaches_host: false,
        needs: [Need { ring: NO_RING, sequence: 0 }; NEEDS],
    }
}
