//! Views that declare each access, as the device library's do, and short cuts for launches.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};

use kasmina_simt::rt::{self, Access};
use kasmina_simt::{Executor, Geometry, LaunchError, LaunchStats, Report};

/// A buffer in global memory that the kernel may write.
pub(crate) struct Global<T>(Vec<UnsafeCell<T>>);

// SAFETY: threads of one block run on one OS thread; the tests' blocks write disjoint elements.
unsafe impl<T: Send> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    pub(crate) fn new(values: &[T]) -> Self {
        Self(values.iter().map(|&value| UnsafeCell::new(value)).collect())
    }

    #[track_caller]
    pub(crate) fn read(&self, index: usize) -> T {
        self.declare(index, Access::Read);
        // SAFETY: the declaration above ends the thread where `index` is outside.
        unsafe { *self.0[index].get() }
    }

    #[track_caller]
    pub(crate) fn write(&self, index: usize, value: T) {
        self.declare(index, Access::Write);
        // SAFETY: as in `read`.
        unsafe { *self.0[index].get() = value };
    }

    #[track_caller]
    pub(crate) fn declare(&self, index: usize, access: Access) {
        let size = size_of::<T>();
        let base = self.0.as_ptr().cast();
        rt::access_global(base, self.0.len() * size, index * size, size, size, access, false);
    }

    pub(crate) fn at(&self, index: usize) -> *mut u8 {
        self.0[index].get().cast()
    }

    pub(crate) fn into_vec(self) -> Vec<T> {
        self.0.into_iter().map(UnsafeCell::into_inner).collect()
    }
}

impl Global<u32> {
    #[track_caller]
    pub(crate) fn fetch_add(&self, index: usize, value: u32) -> u32 {
        self.declare(index, Access::Atomic);
        self.atomic(index).fetch_add(value, Ordering::AcqRel)
    }

    #[track_caller]
    pub(crate) fn load(&self, index: usize) -> u32 {
        self.declare(index, Access::AtomicLoad);
        self.atomic(index).load(Ordering::Acquire)
    }

    #[track_caller]
    pub(crate) fn store(&self, index: usize, value: u32) {
        self.declare(index, Access::AtomicStore);
        self.atomic(index).store(value, Ordering::Release);
    }

    fn atomic(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the element is aligned and lives as long as the buffer; a test that uses it
        // atomically does so everywhere while the kernel runs, or orders the accesses.
        unsafe { AtomicU32::from_ptr(self.0[index].get()) }
    }
}

/// An array in shared memory.
pub(crate) struct Shared<T>(*mut u8, usize, PhantomData<T>);

/// The block's static array of this source location.
#[track_caller]
pub(crate) fn shared<T: Copy>(len: usize) -> Shared<T> {
    let key = std::ptr::from_ref(Location::caller()).addr();
    Shared(rt::shared_static(key, len * size_of::<T>(), align_of::<T>()), len, PhantomData)
}

/// The block's dynamic shared memory.
pub(crate) fn dynamic<T: Copy>() -> Shared<T> {
    let (base, bytes) = rt::dynamic_shared();
    Shared(base, bytes / size_of::<T>(), PhantomData)
}

impl<T: Copy> Shared<T> {
    pub(crate) fn at(&self, index: usize) -> *mut u8 {
        self.0.cast::<T>().wrapping_add(index).cast()
    }

    #[track_caller]
    pub(crate) fn read(&self, index: usize) -> T {
        self.declare(index, Access::Read);
        // SAFETY: the declaration above ends the thread where `index` is outside.
        unsafe { self.0.cast::<T>().add(index).read() }
    }

    #[track_caller]
    pub(crate) fn write(&self, index: usize, value: T) {
        self.declare(index, Access::Write);
        // SAFETY: as in `read`.
        unsafe { self.0.cast::<T>().add(index).write(value) };
    }

    #[track_caller]
    pub(crate) fn declare(&self, index: usize, access: Access) {
        let size = size_of::<T>();
        rt::access_shared(self.0, self.1 * size, index * size, size, size, access);
    }
}

/// This thread's number in its block.
pub(crate) fn me() -> usize {
    rt::linear_thread() as usize
}

/// The executor with its checks on, whatever the environment says.
pub(crate) fn checking() -> Executor {
    Executor::new().checks(true)
}

pub(crate) fn geometry(blocks: u32, threads: u32) -> Geometry {
    Geometry {
        grid: [blocks, 1, 1],
        cluster: [1; 3],
        block: [threads, 1, 1],
        dynamic_shared_bytes: 0,
    }
}

/// Runs one block with the checks on.
pub(crate) fn block(threads: u32, body: impl Fn() + Sync) -> Result<LaunchStats, LaunchError> {
    checking().launch("test", geometry(1, threads), &body)
}

/// The report of one block that must fail.
#[track_caller]
pub(crate) fn report(threads: u32, body: impl Fn() + Sync) -> Report {
    report_of(block(threads, body))
}

#[track_caller]
pub(crate) fn report_of(result: Result<LaunchStats, LaunchError>) -> Report {
    match result {
        Err(LaunchError::Report(report)) => report,
        other => panic!("expected a report, got {other:?}"),
    }
}
