//! What a running kernel calls.

use std::panic::Location;
use std::sync::OnceLock;
use std::time::Instant;

use crate::context::{Context, current};
use crate::error::LaunchError;
use crate::report::{Access, Report, Space};
use crate::shadow::{Finding, Record, Touching};

/// The thread's index in its block: x, y, z.
#[inline]
#[track_caller]
pub fn thread_idx() -> [u32; 3] {
    current().thread().idx
}

/// The block's index in the grid: x, y, z.
#[inline]
#[track_caller]
pub fn block_idx() -> [u32; 3] {
    current().block().idx
}

/// Threads of a block: x, y, z.
#[inline]
#[track_caller]
pub fn block_dim() -> [u32; 3] {
    current().launch.block
}

/// Blocks of the grid: x, y, z.
#[inline]
#[track_caller]
pub fn grid_dim() -> [u32; 3] {
    current().launch.grid
}

/// The thread's number in its block, x fastest. Its warp is this over 32, its lane the rest.
#[inline]
#[track_caller]
pub fn linear_thread() -> u32 {
    let context = current();
    (context.current.get() - context.current_block.get() * context.stride) as u32
}

/// Waits for all threads of the block, as `bar.sync 0` does.
#[track_caller]
pub fn barrier() {
    current().block_barrier(false, Location::caller());
}

/// Waits for all threads of the block and returns how many of them came with `pred`, as
/// `bar.red.popc` does.
#[track_caller]
pub fn barrier_count(pred: bool) -> u32 {
    current().block_barrier(pred, Location::caller())
}

/// Waits until `threads` threads of the block have come to barrier `id`, from any source location,
/// as `bar.sync id, threads` does.
///
/// # Panics
/// Where `id` is not one of 1 to 15, or `threads` not a multiple of 32 up to the block's.
#[track_caller]
pub fn named_barrier(id: u32, threads: u32) {
    current().named_barrier(id, threads, false, Location::caller());
}

/// As [`named_barrier`], and how many of the threads came with `pred`, as `bar.red.popc` does.
///
/// # Panics
/// As [`named_barrier`].
#[track_caller]
pub fn named_barrier_count(id: u32, threads: u32, pred: bool) -> u32 {
    current().named_barrier(id, threads, pred, Location::caller())
}

/// Hands the value of every lane of `mask` to all of them, once all have come to the same source
/// location with the same mask. Lanes outside of the mask read as 0.
///
/// # Panics
/// Where `mask` lacks the calling lane.
#[track_caller]
pub fn warp_exchange(mask: u32, value: u64) -> [u64; 32] {
    let mut values = [0; 32];
    current().warp_collective(mask, value, Location::caller(), Some(&mut values));
    values
}

/// Waits for the lanes of `mask` at the same source location with the same mask.
///
/// # Panics
/// Where `mask` lacks the calling lane.
#[track_caller]
pub fn warp_sync(mask: u32) {
    current().warp_collective(mask, 0, Location::caller(), None);
}

/// The lanes of this warp that the block has, those that left included.
#[inline]
#[track_caller]
pub fn active_lanes() -> u32 {
    let context = current();
    context.warps[context.current.get() / 32].exists
}

/// The block's static shared array of this key, size and alignment: the same address for all
/// threads of the block, unwritten at first. A limit that is exceeded ends the launch with
/// [`LaunchError::SharedMemory`].
#[track_caller]
pub fn shared_static(key: usize, bytes: usize, align: usize) -> *mut u8 {
    let context = current();
    let mut shared = context.shared.borrow_mut();
    match shared.static_array(context.current_block.get(), key, bytes, align) {
        Ok(pointer) => {
            if context.launch.checks {
                context.shadow.borrow_mut().grow_shared(shared.used());
            }
            pointer
        }
        Err(needed_bytes) => {
            drop(shared);
            context.fail(LaunchError::SharedMemory {
                kernel: context.kernel(),
                needed_bytes,
                dynamic_bytes: context.launch.dynamic_shared,
                limit_bytes: context.launch.shared_limit,
            });
            unreachable!("no thread asks for new shared memory while it is unwound")
        }
    }
}

/// The block's dynamic shared memory, aligned to 1024 bytes, and its length in bytes.
#[inline]
#[track_caller]
pub fn dynamic_shared() -> (*mut u8, usize) {
    let context = current();
    context.shared.borrow().dynamic(context.current_block.get())
}

/// Declares an access of `bytes` bytes at `offset` of the shared array that starts at `base` and
/// has `len` bytes; the caller touches the memory itself right after. `align` is a power of two.
#[inline]
#[track_caller]
pub fn access_shared(
    base: *const u8,
    len: usize,
    offset: usize,
    bytes: usize,
    align: usize,
    access: Access,
) {
    let request = Request { base: base.addr(), len, offset, bytes, align, access };
    if !request.is_inside() {
        request.refuse(Space::Shared);
    }
    let context = current();
    if context.launch.checks {
        request.check_shared(context);
    }
}

/// As [`access_shared`], of the array that starts at `base` in the shared memory of any block of the cluster, which is
/// [mapped](crate::rt::map_shared).
#[track_caller]
pub fn access_cluster(
    base: *const u8,
    len: usize,
    offset: usize,
    bytes: usize,
    align: usize,
    access: Access,
) {
    let request = Request { base: base.addr(), len, offset, bytes, align, access };
    if !request.is_inside() {
        request.refuse(Space::Shared);
    }
    request.check_cluster(current());
}

/// Declares an access of `bytes` bytes at `offset` of the global view that starts at `base` and
/// has `len` bytes; the caller touches the memory itself right after. `align` is a power of two.
/// `read_only_view` says that nobody writes through any view of this memory during the launch: then
/// bounds are all there is to check.
#[inline]
#[track_caller]
pub fn access_global(
    base: *const u8,
    len: usize,
    offset: usize,
    bytes: usize,
    align: usize,
    access: Access,
    read_only_view: bool,
) {
    let request = Request { base: base.addr(), len, offset, bytes, align, access };
    if !request.is_inside() {
        request.refuse(Space::Global);
    }
    if read_only_view {
        return;
    }
    let context = current();
    if context.launch.checks {
        request.check_global(context);
    }
}

/// Called between two polls of something that another thread changes: lets the others run.
#[track_caller]
pub fn spin() {
    current().spin(Location::caller());
}

/// Nanoseconds since some moment before the process's first call. Never runs backwards.
#[inline]
pub fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// As the two above, and no more than the bounds: for memory that a bulk copy will touch later.
#[inline]
#[track_caller]
pub fn within(
    space: Space,
    base: *const u8,
    len: usize,
    offset: usize,
    bytes: usize,
    align: usize,
    access: Access,
) {
    let request = Request { base: base.addr(), len, offset, bytes, align, access };
    if !request.is_inside() {
        request.refuse(space);
    }
}

/// The report of what the shadow found in an access at an offset of its view, which is in this block's memory.
pub(crate) fn report_of(
    context: &Context,
    space: Space,
    (owner, offset): (usize, usize),
    finding: Finding,
    touching: Touching,
) -> Report {
    let touch = |thread: usize, stamp, access, location| {
        let issuer = context.shadow.borrow_mut().clocks().issuer(thread, stamp);
        context.touch_of(issuer, access, location)
    };
    let earlier_touch = |earlier: &Record| {
        touch(usize::from(earlier.thread), earlier.stamp, earlier.access, earlier.location)
    };
    let now = touch(touching.thread, u32::MAX, touching.access, touching.location);
    let (kernel, block, owner) = (context.kernel(), now.block, context.blocks[owner].idx);
    match finding {
        Finding::Uninitialised { offset: at } => {
            let offset_bytes = offset + at;
            Report::UninitialisedShared { kernel, block, touch: now.into(), owner, offset_bytes }
        }
        Finding::Race { offset: at, earlier } => Report::Race {
            kernel,
            block,
            space,
            owner,
            offset_bytes: offset + at,
            first: earlier_touch(&earlier).into(),
            second: now.into(),
        },
        Finding::Unfenced { offset: at, earlier } => Report::MissingProxyFence {
            kernel,
            block,
            owner,
            offset_bytes: offset + at,
            first: earlier_touch(&earlier).into(),
            second: now.into(),
        },
    }
}

/// An access to a view, as its caller declared it.
#[derive(Clone, Copy)]
struct Request {
    base: usize,
    len: usize,
    offset: usize,
    bytes: usize,
    align: usize,
    access: Access,
}

impl Request {
    #[inline]
    fn is_inside(&self) -> bool {
        let fits = self.bytes <= self.len && self.offset <= self.len - self.bytes;
        fits && self.base.wrapping_add(self.offset) & self.align.wrapping_sub(1) == 0
    }

    #[track_caller]
    fn check_shared(&self, context: &Context) {
        let (block, address) = (context.current_block.get(), self.base + self.offset);
        let Some(offset) = context.shared.borrow().offset_of(block, address, self.bytes) else {
            return self.refuse(Space::Shared);
        };
        self.check_at(context, (block, offset), self.touching(context));
    }

    #[track_caller]
    fn check_cluster(&self, context: &Context) {
        let Some(at) = context.shared.borrow().locate(self.base + self.offset, self.bytes) else {
            return self.refuse(Space::Shared);
        };
        let touching = self.touching(context);
        let touch = context.touch_of(touching.thread, self.access, touching.location);
        if let Err(report) = context.check_there(touching.thread, at.0, touch) {
            return context.fail(report.into());
        }
        if context.launch.checks {
            self.check_at(context, at, touching);
            context.note_reach(touching.thread, at.0, touch);
        }
    }

    fn check_at(&self, context: &Context, at: (usize, usize), touching: Touching) {
        let address = self.base + self.offset;
        let checked = context.shadow.borrow_mut().touch_shared(at, self.bytes, touching, address);
        if let Err(finding) = checked {
            self.report(context, Space::Shared, at.0, finding, touching);
        }
    }

    #[track_caller]
    fn check_global(&self, context: &Context) {
        let touching = self.touching(context);
        let address = self.base + self.offset;
        let checked = context.shadow.borrow_mut().touch_global(address, self.bytes, touching);
        if let Err(finding) = checked {
            let block = context.current_block.get();
            self.report(context, Space::Global, block, finding, touching);
        }
    }

    #[track_caller]
    fn touching(&self, context: &Context) -> Touching {
        let thread = context.current.get();
        Touching { thread, access: self.access, location: Location::caller() }
    }

    #[cold]
    #[track_caller]
    fn refuse(&self, space: Space) {
        let context = current();
        let fits = self.bytes <= self.len && self.offset <= self.len - self.bytes;
        let location = Location::caller();
        context.fail(
            Report::OutOfBounds {
                kernel: context.kernel(),
                block: context.block().idx,
                touch: context.touch_of(context.current.get(), self.access, location).into(),
                space,
                offset_bytes: self.offset,
                bytes: self.bytes,
                len_bytes: self.len,
                align: self.align,
                misaligned: fits,
            }
            .into(),
        );
    }

    #[cold]
    fn report(
        &self,
        context: &Context,
        space: Space,
        owner: usize,
        finding: Finding,
        touching: Touching,
    ) {
        let at = (owner, self.offset);
        context.fail(report_of(context, space, at, finding, touching).into());
    }
}
