//! Keeps what waits for a whole context apart from graph captures: such a wait, from any thread, breaks every capture
//! in progress.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::DriverError;

type Job = Box<dyn FnOnce() + Send>;

/// The captures in progress on a device, and what has to wait for their end.
#[derive(Default)]
pub(super) struct Quiet {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    captures: usize,
    deferred: Vec<Job>,
}

impl Quiet {
    /// Counts a capture in; it waits for a context-wide wait in progress.
    pub(super) fn begin_capture(&self) {
        self.lock().captures += 1;
    }

    /// Counts a capture out, and after the last one does what was deferred.
    pub(super) fn end_capture(&self) {
        let mut state = self.lock();
        state.captures -= 1;
        if state.captures == 0 {
            for job in std::mem::take(&mut state.deferred) {
                job();
            }
        }
    }

    /// Does `work` while no capture can begin.
    ///
    /// # Errors
    /// [`DriverError::Capturing`] where one is in progress.
    pub(super) fn without_captures(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let state = self.lock();
        if state.captures > 0 { Err(DriverError::Capturing { what }) } else { work() }
    }

    /// Does `job` now, or after the captures in progress. It must not come back to this gate.
    pub(super) fn when_quiet(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        if state.captures > 0 { state.deferred.push(Box::new(job)) } else { job() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn jobs_wait_for_the_last_capture() {
        let (quiet, done) = (Quiet::default(), Arc::new(AtomicU32::new(0)));
        let count = || {
            let done = Arc::clone(&done);
            move || {
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        quiet.when_quiet(count());
        assert_eq!(done.load(Ordering::Relaxed), 1, "nothing is captured");
        quiet.begin_capture();
        quiet.begin_capture();
        quiet.when_quiet(count());
        quiet.end_capture();
        assert_eq!(done.load(Ordering::Relaxed), 1, "one capture is left");
        quiet.end_capture();
        assert_eq!(done.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn waits_are_refused_during_a_capture() {
        let quiet = Quiet::default();
        quiet.begin_capture();
        let refused = quiet.without_captures("a wait", || panic!("it must not run"));
        assert_eq!(refused, Err(DriverError::Capturing { what: "a wait" }));
        quiet.end_capture();
        assert_eq!(quiet.without_captures("a wait", || Ok(())), Ok(()));
    }
}
