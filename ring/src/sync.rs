//! What threads meet on: std's types, or loom's under the feature `loom`.

#[cfg(feature = "loom")]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
#[cfg(not(feature = "loom"))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use std::sync::PoisonError;
use std::time::Instant;

/// Locks. A panic in another holder leaves no state half changed here: no code of a user runs under a lock, but for
/// what `Rings::outstanding` is given, which only reads.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits to be notified; gives the guard and whether `deadline` has passed. A notification may be spurious.
pub(crate) fn wait<'m, T>(
    condvar: &Condvar,
    guard: MutexGuard<'m, T>,
    deadline: Option<Instant>,
) -> (MutexGuard<'m, T>, bool) {
    let Some(deadline) = deadline else {
        return (condvar.wait(guard).unwrap_or_else(PoisonError::into_inner), false);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return (guard, true);
    }
    (condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0, false)
}
