//! The thread on which programs go whose last handle was an item's.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use super::program::{Inner, Program};
use crate::error::Error;

/// Drops programs on a thread of its own.
///
/// With a program goes memory, which the driver may free only once no kernel runs. The watchdog cannot wait for that: it
/// alone ends a kernel whose item hangs. Nor should who waits for another item.
pub(super) struct Dropper(Sender<Option<Inner>>);

impl Dropper {
    pub(super) fn new() -> Result<Self, Error> {
        let (sender, programs) = channel();
        let thread = std::thread::Builder::new().name("kasmina-dropper".into());
        // Nobody waits for it: where a kernel never ends, the driver does not come back from freeing memory.
        thread
            .spawn(move || {
                while let Ok(Some(program)) = programs.recv() {
                    drop::<Inner>(program)
                }
            })
            .map_err(|source| Error::Thread { source })?;
        Ok(Self(sender))
    }

    /// Drops an item's handle of a program: here, unless it is the last one.
    pub(super) fn release(&self, program: Program) {
        if let Some(last) = Arc::into_inner(program.inner) {
            // Refused after the end, when there is no kernel: then it goes here.
            drop(self.0.send(Some(last)));
        }
    }

    /// Has the thread end after what it was given. The kernel has left.
    pub(super) fn end(&self) {
        drop(self.0.send(None));
    }
}
