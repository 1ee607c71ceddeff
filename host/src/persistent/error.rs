//! What can come instead of a completed item.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kasmina_types::ItemDescriptor;

use crate::error::Error;

/// Why an item or an executor came to nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PersistentError {
    /// A setting that means nothing.
    #[error("persistent execution: `{setting}` is {got}, expected {expected}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        got: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A device without kernels that could stay, or without graphs.
    #[error("{what}, not {device}; call the operations themselves")]
    NoKernels {
        /// What was asked for, and what it needs.
        what: &'static str,
        /// The device.
        device: String,
    },
    /// A program without operations.
    #[error("program `{program}` has no operations; record at least one call")]
    Empty {
        /// The program.
        program: String,
    },
    /// An operation that the resident kernel lacks.
    #[error(
        "program `{program}` needs `{kernel}`, which is not among the operations of the resident kernel of {domains}; \
         launch it, capture a graph, or take other domains"
    )]
    Operation {
        /// The program.
        program: String,
        /// The kernel.
        kernel: &'static str,
        /// The executor's domains.
        domains: String,
    },
    /// Blocks that wait for each other, more than the largest group has.
    #[error(
        "program `{program}`: the {needed} blocks of `{kernel}` wait for each other, and the largest group has {group}; \
         raise `share`"
    )]
    Blocks {
        /// The program.
        program: String,
        /// The kernel.
        kernel: &'static str,
        /// Its blocks.
        needed: u32,
        /// Blocks of the largest group.
        group: u32,
    },
    /// No room in the table of operations.
    #[error(
        "program `{program}` has {needed} operations, and the table has room for {free} more; raise `operations`"
    )]
    TableFull {
        /// The program.
        program: String,
        /// Its operations.
        needed: usize,
        /// The longest run of free places.
        free: usize,
    },
    /// A program, a ticket or a buffer of another executor, or of another device.
    #[error("the {what} is another executor's, or of another device; record it here")]
    Foreign {
        /// What it is.
        what: &'static str,
    },
    /// More items to wait for than a descriptor names.
    #[error("an item can wait for {most} others that are not complete; chain them")]
    TooManyNeeds {
        /// The most.
        most: usize,
    },
    /// The ring stayed full until the deadline, or the item was not complete at the deadline of a wait.
    #[error("nothing came within {0:?}")]
    TimedOut(Duration),
    /// The device refused the item.
    #[error("the item failed: {reason}")]
    Item {
        /// What the device says.
        reason: String,
    },
    /// The executor was stopped before the item was complete.
    #[error("the executor was stopped before the item was complete")]
    Stopped,
    /// The kernel stalled or failed.
    #[error(transparent)]
    Fault(Arc<Fault>),
}

/// A resident kernel that stalled or failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What happened.
    pub cause: FaultCause,
    /// The item that stalled. Where the kernel failed, the item that each group had in work, if it had one: one of them
    /// is to blame.
    pub items: Vec<FaultItem>,
    /// Items that were not complete.
    pub unfinished: usize,
    /// Whether the device's context is lost, and with it every buffer in its memory.
    pub context_lost: bool,
}

/// What happened to a resident kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultCause {
    /// An item was in work, or a ring left alone, for longer than the deadline.
    Stalled {
        /// For how long.
        after: Duration,
    },
    /// The kernel ended with an error.
    Failed {
        /// What the driver or the executor says.
        message: String,
    },
    /// The kernel could not be launched again.
    Launch {
        /// What the driver or the executor says.
        message: String,
    },
}

/// The item that a resident kernel worked on when it failed.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultItem {
    /// Its program.
    pub program: String,
    /// Its ring.
    pub ring: u32,
    /// Its number there.
    pub sequence: u64,
    /// What the device was given.
    pub descriptor: ItemDescriptor,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            FaultCause::Stalled { after } => {
                write!(f, "the resident kernel gave no answer for {after:?}")?;
            }
            FaultCause::Failed { message } => write!(f, "the resident kernel failed: {message}")?,
            FaultCause::Launch { message } => {
                write!(f, "the resident kernel could not be launched: {message}")?;
            }
        }
        for FaultItem { program, ring, sequence, descriptor } in &self.items {
            write!(
                f,
                "; in work was item {sequence} of ring {ring}, program `{program}` (operations {} to {} on {} blocks)",
                descriptor.first,
                descriptor.first + descriptor.count,
                descriptor.blocks
            )?;
        }
        if self.context_lost {
            write!(f, "; the context is lost, and with it every buffer on the device")?;
        }
        write!(f, "; {} items are not complete; `recover` gives them back", self.unfinished)
    }
}

impl std::error::Error for Fault {}

impl FaultCause {
    pub(super) fn failed(why: &Error) -> Self {
        Self::Failed { message: why.to_string() }
    }
}
