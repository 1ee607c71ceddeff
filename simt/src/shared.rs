//! A block's shared memory: one arena, the dynamic part first, then the static arrays as they come.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

/// Alignment of the dynamic part: what the widest swizzle asks for.
const ARENA_ALIGN: usize = 1024;
/// What unwritten shared memory holds: a NaN in every float type.
const POISON: u8 = 0xff;

/// Shared memory of one block.
pub(crate) struct SharedMemory {
    arena: Arena,
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
        let arena = Arena::new(0);
        Self { arena, statics: Vec::new(), dynamic: 0, used: 0, limit: 0 }
    }

    /// Begins a block with `dynamic` bytes, at most `limit`.
    pub(crate) fn begin_block(&mut self, dynamic: usize, limit: usize) {
        if self.arena.capacity < limit {
            self.arena = Arena::new(limit);
        }
        self.statics.clear();
        self.dynamic = dynamic;
        self.limit = limit;
        self.used = 0;
        self.extend_to(dynamic);
    }

    /// The array of this key, made when its first thread asks. `Err` holds the bytes that would be
    /// needed where they exceed the limit.
    pub(crate) fn static_array(
        &mut self,
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
        Ok(self.arena.base.wrapping_add(offset))
    }

    pub(crate) fn dynamic(&self) -> (*mut u8, usize) {
        (self.arena.base, self.dynamic)
    }

    /// Offset of an address from the start of shared memory, where all `bytes` lie inside.
    pub(crate) fn offset_of(&self, address: usize, bytes: usize) -> Option<usize> {
        let offset = address.checked_sub(self.arena.base.addr())?;
        (offset.checked_add(bytes)? <= self.used).then_some(offset)
    }

    /// Bytes in use, static and dynamic.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    fn extend_to(&mut self, end: usize) {
        // SAFETY: `used <= end <= limit <= capacity`, so the range lies inside the arena.
        unsafe { self.arena.base.add(self.used).write_bytes(POISON, end - self.used) };
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
