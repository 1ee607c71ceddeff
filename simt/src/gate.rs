//! Lets threads of rayon's pool help with a launch while it lasts.
//!
//! A scope of rayon would wait for every helper that it asked for, and so for whatever keeps the
//! pool busy, such as another launch that polls until this one's caller goes on. Here a helper that
//! comes late finds the gate closed and leaves.

use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::worker::Launch;

/// Runs a launch on this thread and at most `helpers` of the pool.
pub(crate) fn run(launch: &Launch<'_>, helpers: usize) {
    let gate = Arc::new(Gate::default());
    let _closed_at_the_end = Closing(&gate);
    for _ in 0..helpers {
        let (gate, launch) = (gate.clone(), Lent(ptr::from_ref(launch).cast()));
        rayon::spawn(move || gate.pass(launch));
    }
    launch.work();
}

/// How many helpers are inside, and whether more may come.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    inside: usize,
}

/// A launch whose lifetime only the gate knows.
struct Lent(*const Launch<'static>);

// SAFETY: a launch is shared by reference between threads; that it still lives is `Gate::pass`'s.
unsafe impl Send for Lent {}

impl Gate {
    fn pass(&self, launch: Lent) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.inside += 1;
        drop(state);
        // SAFETY: the gate was open and counts this thread, so `Closing` keeps `run`, which borrows
        // the launch, from returning before `inside` is back at 0.
        unsafe { (*launch.0).work() };
        self.lock().inside -= 1;
        self.left.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the gate and waits for those inside.
struct Closing<'g>(&'g Gate);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        while state.inside > 0 {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
