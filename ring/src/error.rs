//! What can come instead of a completed item.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use kasmina_types::manifold::{ItemStatus, NEEDS, Need};

/// Memory, numbers or a capacity of which no rings can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingsError {
    /// The lines of a ring are not a power of two, 1 to 2³⁰.
    Capacity {
        /// Lines of a ring.
        got: usize,
    },
    /// There are no rings, or more than a need can name.
    RingCount {
        /// Rings.
        got: usize,
    },
    /// An area of another length than rings and capacity ask for.
    Length {
        /// `lines` or `completions`.
        area: &'static str,
        /// Words expected.
        expected: usize,
        /// Words found.
        got: usize,
    },
    /// Not one first number for each ring.
    FirstCount {
        /// Rings.
        expected: usize,
        /// Numbers.
        got: usize,
    },
    /// A first number that is 0 or over 2⁶³.
    First {
        /// The ring.
        ring: usize,
        /// The number.
        got: u64,
    },
}

impl fmt::Display for RingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity { got } => {
                write!(f, "rings of {got} lines; a power of two, 1 to 2^30, is expected")
            }
            Self::RingCount { got } => write!(f, "{got} rings; 1 to 2^32 - 2 are expected"),
            Self::Length { area, expected, got } => {
                write!(f, "`{area}` has {got} words, expected {expected}")
            }
            Self::FirstCount { expected, got } => {
                write!(f, "{got} first numbers for {expected} rings; give each its own")
            }
            Self::First { ring, got } => {
                write!(f, "ring {ring} begins at {got}; 1 to 2^63 is expected")
            }
        }
    }
}

impl Error for RingsError {}

/// Why rings were closed.
#[derive(Clone, Debug)]
pub enum CloseReason {
    /// Their user is done with them.
    ShutDown,
    /// The device or its driver failed.
    Failed(Arc<dyn Error + Send + Sync>),
}

impl CloseReason {
    /// Closed because of an error.
    pub fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(error))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShutDown => f.write_str("shut down"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// What the device says went wrong with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// A status that is not [`ItemStatus::Done`].
    Status(ItemStatus),
    /// A number that is no status: the device and this crate are of different versions, or memory was overwritten.
    UnknownStatus(u32),
}

impl Failure {
    /// The outcome that a status's number stands for.
    ///
    /// # Errors
    /// Every number but that of [`ItemStatus::Done`].
    pub fn check(number: u32) -> Result<(), Self> {
        match ItemStatus::from_u32(number) {
            Some(ItemStatus::Done) => Ok(()),
            Some(status) => Err(Self::Status(status)),
            None => Err(Self::UnknownStatus(number)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the device refused the item: {status:?}"),
            Self::UnknownStatus(number) => {
                write!(f, "the device answered with {number}, which is no status of an item")
            }
        }
    }
}

impl Error for Failure {}

/// Why an item was not pushed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The ring has no room; it has when its oldest item is complete and reaped.
    Full,
    /// The ring had no room until the deadline.
    DeadlinePassed,
    /// The rings are closed.
    Closed(CloseReason),
    /// There is no such ring.
    NoSuchRing {
        /// The ring asked for.
        ring: u32,
        /// Rings.
        rings: usize,
    },
    /// A need on an item that was not pushed yet, or on a ring that there is not: the item could wait for ever.
    NeedNotPushed(Need),
    /// More needs than [`NEEDS`].
    TooManyNeeds,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the ring is full"),
            Self::DeadlinePassed => f.write_str("the ring was full until the deadline"),
            Self::Closed(reason) => write!(f, "the rings are closed: {reason}"),
            Self::NoSuchRing { ring, rings } => write!(f, "ring {ring} of {rings}"),
            Self::NeedNotPushed(Need { ring, sequence }) => {
                write!(f, "needs item {sequence} of ring {ring}, which was not pushed")
            }
            Self::TooManyNeeds => write!(f, "an item can need {NEEDS} others at most"),
        }
    }
}

/// A push that came to nothing: why, and the payload.
pub struct PushError<T> {
    /// Why.
    pub refusal: Refusal,
    /// What was to be pushed.
    pub payload: T,
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError").field("refusal", &self.refusal).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl<T> Error for PushError<T> {}

/// Why waiting for an item ended without its being done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WaitError {
    /// It is complete, and failed.
    Failed(Failure),
    /// It is complete. Whether it failed is not known any more: [`KEPT_FAILURES`](crate::KEPT_FAILURES) later items did.
    Forgotten,
    /// It was not complete when the rings were closed.
    Closed(CloseReason),
    /// It was not complete at the deadline.
    DeadlinePassed,
    /// These rings have no such item: the ticket is of others.
    NotPushed,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Forgotten => f.write_str("too many items failed since to know whether it did"),
            Self::Closed(reason) => write!(f, "the rings were closed: {reason}"),
            Self::DeadlinePassed => f.write_str("the item was not complete at the deadline"),
            Self::NotPushed => f.write_str("the item was not pushed to these rings"),
        }
    }
}

impl Error for WaitError {}
