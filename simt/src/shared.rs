//! Shared memory of a cluster's blocks: an arena each, the dynamic part first, then the static arrays as they come.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

/// Alignment of the dynamic part: what the widest swizzle asks for.
const ARENA_ALIGN: usize = 1024;
/// What unwritten shared memory holds: a NaN in every float type.
const POISON: u8 = 0xff;

/// Shared memory of the blocks of a cluster, all laid out alike.
pub(crate) struct SharedMemory {
    arenas: Vec<Arena>,
    statics: Vec<StaticArray>,
    dynamic: usize,
    used: usize,
    limit: usize,
}

/// One static array: its key is a source location or marker, and generic code may use one key
/// with several sizes.
struct StaticArray {
    key: usize,
    bytes: usize,
    align: usize,
    offset: usize,
}

impl SharedMemory {
    pub(crate) fn new() -> Self {
        Self { arenas: Vec::new(), statics: Vec::new(), dynamic: 0, used: 0, limit: 0 }
    }

    /// Begins `blocks` blocks with `dynamic` bytes each, at most `limit`.
    pub(crate) fn begin(&mut self, blocks: usize, dynamic: usize, limit: usize) {
        self.arenas.retain(|arena| arena.capacity >= limit);
        self.arenas.truncate(blocks);
        self.arenas.resize_with(blocks, || Arena::new(limit));
        self.statics.clear();
        self.dynamic = dynamic;
        self.limit = limit;
        self.used = 0;
        self.extend_to(dynamic);
    }

    /// The block's array of this key, made when the first thread asks. `Err` holds the bytes that would be
    /// needed where they exceed the limit.
    pub(crate) fn static_array(
        &mut self,
        block: usize,
        key: usize,
        bytes: usize,
        align: usize,
    ) -> Result<*mut u8, usize> {
        let known =
            self.statics.iter().find(|s| s.key == key && s.bytes == bytes && s.align == align);
        let offset = match known {
            Some(array) => array.offset,
            None => {
                let offset = self.used.next_multiple_of(align.max(1));
                let end = offset.saturating_add(bytes);
                if end > self.limit {
                    return Err(end);
                }
                self.extend_to(end);
                self.statics.push(StaticArray { key, bytes, align, offset });
                offset
            }
        };
        Ok(self.at(block, offset))
    }

    pub(crate) fn dynamic(&self, block: usize) -> (*mut u8, usize) {
        (self.at(block, 0), self.dynamic)
    }

    /// The address of a block's byte.
    pub(crate) fn at(&self, block: usize, offset: usize) -> *mut u8 {
        self.arenas[block].base.wrapping_add(offset)
    }

    /// Offset of an address from the start of the block's shared memory, where all `bytes` lie inside.
    pub(crate) fn offset_of(&self, block: usize, address: usize, bytes: usize) -> Option<usize> {
        let offset = address.checked_sub(self.arenas[block].base.addr())?;
        (offset.checked_add(bytes)? <= self.used).then_some(offset)
    }

    /// In which block's shared memory the `bytes` at an address lie, and at which offset.
    pub(crate) fn locate(&self, address: usize, bytes: usize) -> Option<(usize, usize)> {
        (0..self.arenas.len())
            .find_map(|block| self.offset_of(block, address, bytes).map(|offset| (block, offset)))
    }

    /// Bytes in use in each block, static and dynamic.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    fn extend_to(&mut self, end: usize) {
        for arena in &self.arenas {
            // SAFETY: `used <= end <= limit <= capacity`, so the range lies inside the arena.
            unsafe { arena.base.add(self.used).write_bytes(POISON, end - self.used) };
        }
        self.used = end;
    }
}

/// Memory that is owned, aligned and not yet initialised.
struct Arena {
    base: *mut u8,
    capacity: usize,
}

// SAFETY: the arena is the only owner of its memory.
unsafe impl Send for Arena {}

impl Arena {
    fn new(capacity: usize) -> Self {
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is at least one alignment.
        let base = unsafe { alloc(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Self { base, capacity }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity.max(ARENA_ALIGN), ARENA_ALIGN)
            .expect("a capacity below 4 GiB makes a layout")
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc` with this layout.
        unsafe { dealloc(self.base, Self::layout(self.capacity)) };
    }
}
