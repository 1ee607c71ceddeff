//! What one resident cluster needs of memory, kept between clusters and launches.

use std::io;
use std::sync::{Mutex, PoisonError};

use corosensei::stack::DefaultStack;

use crate::shadow::Shadow;
use crate::shared::SharedMemory;

/// A thread's stack: address space that costs memory only where it is touched. Room for a debug
/// build's frames and for printing a panic.
const STACK_BYTES: usize = 256 * 1024;
/// What is kept for later launches, at most.
const KEPT_STACKS: usize = 4096;
const KEPT_WORKSPACES: usize = 64;

/// Stacks, shared memory and shadow of one resident cluster.
pub(crate) struct Workspace {
    pub(crate) stacks: Vec<DefaultStack>,
    pub(crate) shared: SharedMemory,
    pub(crate) shadow: Shadow,
}

static POOL: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());

impl Workspace {
    /// A workspace with at least `threads` stacks.
    pub(crate) fn take(threads: usize) -> io::Result<Self> {
        let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = kept.unwrap_or_else(|| Self {
            stacks: Vec::new(),
            shared: SharedMemory::new(),
            shadow: Shadow::new(),
        });
        while workspace.stacks.len() < threads {
            workspace.stacks.push(DefaultStack::new(STACK_BYTES)?);
        }
        Ok(workspace)
    }

    /// Keeps the workspace for a later cluster, unless enough are kept.
    pub(crate) fn give_back(self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = pool.iter().map(|w| w.stacks.len()).sum();
        if kept + self.stacks.len() <= KEPT_STACKS && pool.len() < KEPT_WORKSPACES {
            pool.push(self);
        }
    }
}
