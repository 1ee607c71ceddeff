//! Memory that host and device share, a word at a time.

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

/// Words of 64 bits that another party, a device or a thread, reads and writes at the same time.
///
/// Each word is read and written whole. A load that sees a store's value also sees what the storing thread did before.
/// Stores to different words may become visible in any order: the protocol asks for no more, for every word has a tag.
/// They become visible without further ado, which ordinary memory mapped into a GPU's address space does, and
/// write-combined memory does not.
pub trait Words: Send + Sync {
    /// Words.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a word, with acquire order. `index` is less than [`Self::len`], or this may panic.
    fn load(&self, index: usize) -> u64;

    /// Writes a word, with release order. `index` is less than [`Self::len`], or this may panic.
    fn store(&self, index: usize, value: u64);
}

impl<W: Words + ?Sized> Words for Arc<W> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn load(&self, index: usize) -> u64 {
        (**self).load(index)
    }

    fn store(&self, index: usize, value: u64) {
        (**self).store(index, value);
    }
}

/// Words in the host's memory, for a device that is a thread. Indices outside panic.
#[derive(Debug)]
pub struct HostWords(Box<[AtomicU64]>);

impl HostWords {
    /// `len` words of zero.
    pub fn zeroed(len: usize) -> Self {
        Self((0..len).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Words for HostWords {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Acquire)
    }

    fn store(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::Release);
    }
}
