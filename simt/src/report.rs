//! The reports and how they read.

use std::fmt;
use std::panic::Location;

/// A mistake that a kernel made. `Display` names the kernel, the block, the threads, the source
/// locations and what to do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Report {
    /// A barrier that some thread of the block cannot reach: it left the kernel, or it waits at a
    /// barrier elsewhere.
    BarrierDivergence {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who waits where.
        waiting: Vec<Waiting>,
        /// Threads that left the kernel.
        exited: Vec<[u32; 3]>,
    },
    /// Nobody can run: lanes wait in a warp collective for lanes that left or wait elsewhere, or
    /// all live threads spin and nothing in the launch moved for the spin limit.
    Deadlock {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who waits where.
        waiting: Vec<Waiting>,
        /// Threads that left the kernel.
        exited: Vec<[u32; 3]>,
    },
    /// An access outside its view, or one that is not aligned.
    OutOfBounds {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who, how and where.
        touch: Touch,
        /// The memory that the view lies in.
        space: Space,
        /// First byte of the access, from the view's start.
        offset_bytes: usize,
        /// Length of the access.
        bytes: usize,
        /// Length of the view.
        len_bytes: usize,
        /// The alignment that the access needs.
        align: usize,
        /// The access lies inside the view, but its address is not a multiple of `align`.
        misaligned: bool,
    },
    /// A read of shared memory that no thread of the block had written when the read ran.
    UninitialisedShared {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who, how and where.
        touch: Touch,
        /// The first byte that was not written, from the view's start.
        offset_bytes: usize,
    },
    /// Two threads of a block touched one byte, at least one of them wrote, and nothing orders them.
    Race {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// The memory that the byte lies in.
        space: Space,
        /// The first common byte, from the start of the second access's view.
        offset_bytes: usize,
        /// The access that ran first here.
        first: Touch,
        /// The access that ran second here.
        second: Touch,
    },
    /// A bulk copy touched shared memory that ordinary stores had written, with no proxy fence between:
    /// on a GPU it may see what was there before.
    MissingProxyFence {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// The first such byte, from the start of shared memory.
        offset_bytes: usize,
        /// The store.
        first: Touch,
        /// The copy.
        second: Touch,
    },
    /// An mbarrier that is used against its rules.
    Mbarrier {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who and where.
        touch: Touch,
        /// The mbarrier, from the start of shared memory.
        offset_bytes: usize,
        /// What is wrong.
        fault: MbarrierFault,
    },
    /// A product of a warpgroup that is used against its rules.
    Wgmma {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who and where.
        touch: Touch,
        /// What is wrong.
        fault: WgmmaFault,
    },
    /// Every thread of the block left the kernel while a bulk copy still used its shared memory.
    UnfinishedCopy {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who issued it, how it uses shared memory, and where.
        touch: Touch,
    },
}

/// A rule of mbarriers that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MbarrierFault {
    /// Nobody initialised it, or somebody invalidated it.
    NotInitialised,
    /// Initialised for no arrivals, or for more than it can count.
    Count {
        /// The arrivals that were asked for.
        arrivals: u32,
    },
    /// One arrival more in a phase than it was initialised for.
    TooManyArrivals {
        /// The arrivals that it takes.
        expected: u32,
    },
    /// More bytes under way than it can count.
    TooManyBytes {
        /// Bytes that are expected less those that came.
        outstanding: i64,
    },
}

/// A rule of products of warpgroups that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WgmmaFault {
    /// The block has no whole warpgroup where the thread is.
    NoWarpgroup,
    /// Registers were written, and no fence came between that and the product.
    MissingFence,
    /// Accumulators were read before the group of their last product was waited for.
    NotWaited,
    /// Threads of one warpgroup came to a product from different places, with different operands, or with different
    /// groups behind them.
    Diverged {
        /// The thread that came first: index in x, y, z.
        other: [u32; 3],
        /// Where it came.
        location: &'static Location<'static>,
    },
    /// Every thread of the block left the kernel, and nobody had waited for the product.
    Unfinished,
}

/// One thread's access to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    /// Thread index in x, y, z.
    pub thread: [u32; 3],
    /// What it did.
    pub access: Access,
    /// Where in the source.
    pub location: &'static Location<'static>,
}

/// Threads that wait for one thing at one source location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What they wait for.
    pub wait: Wait,
    /// Where in the source.
    pub location: &'static Location<'static>,
    /// Thread indices in x, y, z.
    pub threads: Vec<[u32; 3]>,
}

/// What a thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The block's barrier.
    Barrier,
    /// A named barrier.
    NamedBarrier {
        /// The barrier's number, 1 to 15.
        id: u32,
        /// How many threads it takes.
        expected: u32,
    },
    /// A warp collective over the lanes of `mask`.
    Warp {
        /// Bit i stands for lane i.
        mask: u32,
    },
    /// Its turn, between two polls of something that another thread changes.
    Spin,
    /// The other threads of the warpgroup, at a product.
    Warpgroup,
    /// The end of a phase of an mbarrier.
    Mbarrier {
        /// The mbarrier, from the start of shared memory.
        offset_bytes: usize,
        /// The parity of the phase that is waited for.
        parity: bool,
        /// Arrivals that the phase lacks.
        arrivals: u32,
        /// Bytes that the phase lacks.
        bytes: i64,
    },
}

impl Wait {
    /// Whether a wait of this kind that never ends is a deadlock rather than a barrier's divergence.
    pub(crate) fn is_deadlock(self) -> bool {
        matches!(self, Self::Warp { .. } | Self::Warpgroup | Self::Mbarrier { .. })
    }
}

/// How memory is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Access {
    /// A plain load.
    Read,
    /// A plain store.
    Write,
    /// An atomic that reads and writes: acquires and releases.
    Atomic,
    /// An atomic load: acquires.
    AtomicLoad,
    /// An atomic store: releases.
    AtomicStore,
    /// An operation on an mbarrier.
    Mbarrier,
    /// A bulk copy that reads.
    CopyRead,
    /// A bulk copy that writes.
    CopyWrite,
    /// A product of a warpgroup that reads an operand.
    WgmmaRead,
}

impl Access {
    pub(crate) fn reads(self) -> bool {
        !matches!(self, Self::Write | Self::AtomicStore | Self::CopyWrite)
    }

    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::AtomicLoad | Self::CopyRead | Self::WgmmaRead)
    }

    /// Two of these never race.
    pub(crate) fn is_atomic(self) -> bool {
        self.synchronises() || self == Self::Mbarrier
    }

    /// Hands on, through the word, what threads know.
    pub(crate) fn synchronises(self) -> bool {
        matches!(self, Self::Atomic | Self::AtomicLoad | Self::AtomicStore)
    }
}

/// The memory that an access goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Device memory.
    Global,
    /// A block's shared memory, static or dynamic.
    Shared,
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BarrierDivergence { kernel, block, waiting, exited } => {
                write!(f, "barrier divergence in kernel `{kernel}`, block {}: ", Triple(*block))?;
                write_waiting(f, waiting, exited)?;
                f.write_str(
                    "; let every thread of the block reach the same barrier: no return and no branch around it",
                )
            }
            Self::Deadlock { kernel, block, waiting, exited } => {
                write!(f, "deadlock in kernel `{kernel}`, block {}: ", Triple(*block))?;
                write_waiting(f, waiting, exited)?;
                let any = |wanted: fn(&Wait) -> bool| waiting.iter().any(|w| wanted(&w.wait));
                f.write_str(if any(|wait| matches!(wait, Wait::Warp { .. })) {
                    "; name in the mask only lanes that reach this collective, at this place and with this mask"
                } else if any(|wait| matches!(wait, Wait::Warpgroup)) {
                    "; let all 128 threads of the warpgroup come to the product"
                } else if any(|wait| matches!(wait, Wait::Mbarrier { .. })) {
                    "; check the parity, the arrivals that the mbarrier was initialised for, and the bytes that \
                     were announced against those that are copied"
                } else {
                    "; check that some thread changes what is polled before it waits for the pollers itself"
                })
            }
            Self::OutOfBounds {
                kernel,
                block,
                touch,
                space,
                offset_bytes,
                bytes,
                len_bytes,
                align,
                misaligned,
            } => {
                let head = if *misaligned { "misaligned access" } else { "out of bounds" };
                write!(
                    f,
                    "{head} in kernel `{kernel}`, block {}: {touch} bytes {offset_bytes}..{} of a {space} \
                     view of {len_bytes} bytes; ",
                    Triple(*block),
                    offset_bytes.saturating_add(*bytes),
                )?;
                if *misaligned {
                    write!(
                        f,
                        "the address must be a multiple of {align}: align the view or take narrower vectors"
                    )
                } else {
                    f.write_str("check the index against the length before the access")
                }
            }
            Self::UninitialisedShared { kernel, block, touch, offset_bytes } => write!(
                f,
                "uninitialised shared memory in kernel `{kernel}`, block {}: {touch} byte {offset_bytes}, which no \
                 thread of the block had written; write it first, and place a barrier between",
                Triple(*block),
            ),
            Self::Race { kernel, block, space, offset_bytes, first, second } => write!(
                f,
                "race in kernel `{kernel}`, block {}, {space} memory: {second} byte {offset_bytes}, and {first} it \
                 too, with nothing between that orders them; place a barrier between the two (a warp_sync if both \
                 are lanes of one warp), wait at the mbarrier of a bulk copy, or make both atomic",
                Triple(*block),
            ),
            Self::MissingProxyFence { kernel, block, offset_bytes, first, second } => write!(
                f,
                "missing proxy fence in kernel `{kernel}`, block {}: {second} byte {offset_bytes} of shared memory, \
                 and {first} it before with an ordinary store; place a fence_proxy_async after the stores, before \
                 what orders them before the copy",
                Triple(*block),
            ),
            Self::Mbarrier { kernel, block, touch, offset_bytes, fault } => write!(
                f,
                "mbarrier misused in kernel `{kernel}`, block {}: {touch} byte {offset_bytes} of shared memory: {fault}",
                Triple(*block),
            ),
            Self::Wgmma { kernel, block, touch, fault } => write!(
                f,
                "product of a warpgroup misused in kernel `{kernel}`, block {}: thread {} at {}: {fault}",
                Triple(*block),
                Triple(touch.thread),
                touch.location,
            ),
            Self::UnfinishedCopy { kernel, block, touch } => write!(
                f,
                "unfinished copy in kernel `{kernel}`, block {}: {touch} shared memory that the block gave up: wait \
                 for the mbarrier of each load, and for the group of each store, before the last thread leaves",
                Triple(*block),
            ),
        }
    }
}

fn write_waiting(
    f: &mut fmt::Formatter<'_>,
    waiting: &[Waiting],
    exited: &[[u32; 3]],
) -> fmt::Result {
    for (i, group) in waiting.iter().enumerate() {
        let separator = if i == 0 { "" } else { "; " };
        write!(f, "{separator}{} at {}", Threads(&group.threads), group.location)?;
        match group.wait {
            Wait::Barrier => write!(f, " wait at the block's barrier")?,
            Wait::NamedBarrier { id, expected } => {
                write!(f, " wait at named barrier {id}, which takes {expected} threads")?;
            }
            Wait::Warp { mask } => write!(f, " wait in a warp collective over lanes {mask:#010x}")?,
            Wait::Spin => write!(f, " poll")?,
            Wait::Warpgroup => write!(f, " wait for the others of their warpgroup at a product")?,
            Wait::Mbarrier { offset_bytes, parity, arrivals, bytes } => write!(
                f,
                " wait for parity {} of the mbarrier at byte {offset_bytes} of shared memory, whose phase lacks \
                 {arrivals} arrivals and {bytes} bytes",
                u8::from(parity)
            )?,
        }
    }
    if !exited.is_empty() {
        write!(f, "; {} left the kernel", Threads(exited))?;
    }
    Ok(())
}

impl fmt::Display for MbarrierFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialised => f.write_str(
                "it is not initialised; let one thread initialise it, and a barrier follow",
            ),
            Self::Count { arrivals } => {
                write!(f, "it was to take {arrivals} arrivals; it counts 1 to 1048575")
            }
            Self::TooManyArrivals { expected } => write!(
                f,
                "it takes {expected} arrivals a phase and got one more; initialise it for all who arrive"
            ),
            Self::TooManyBytes { outstanding } => write!(
                f,
                "{outstanding} bytes are outstanding; it counts up to 1048575: announce what is copied, once"
            ),
        }
    }
}

impl fmt::Display for WgmmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWarpgroup => f.write_str(
                "a product takes four whole warps, the first at a multiple of four; launch more threads",
            ),
            Self::MissingFence => f.write_str(
                "accumulators or an operand in registers were written since the last fence; fence first",
            ),
            Self::NotWaited => f.write_str(
                "the accumulators' last product was not waited for; commit its group, and leave it not pending",
            ),
            Self::Diverged { other, location } => write!(
                f,
                "thread {} of the same warpgroup is at {location}, or brings other operands, other accumulators or \
                 another number of closed groups; let all 128 threads do the same",
                Triple(*other)
            ),
            Self::Unfinished => f.write_str("nobody waited for it before the block ended"),
        }
    }
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.access {
            Access::Read => "read",
            Access::Write => "wrote",
            Access::Atomic => "atomically updated",
            Access::AtomicLoad => "atomically read",
            Access::AtomicStore => "atomically wrote",
            Access::Mbarrier => "used as an mbarrier",
            Access::CopyRead => "let a bulk copy read",
            Access::CopyWrite => "let a bulk copy write",
            Access::WgmmaRead => "let a product read",
        };
        write!(f, "thread {} at {} {verb}", Triple(self.thread), self.location)
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
        })
    }
}

/// Prints an index or an extent as `(x, y, z)`.
pub(crate) struct Triple(pub(crate) [u32; 3]);

impl fmt::Display for Triple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.0;
        write!(f, "({x}, {y}, {z})")
    }
}

/// Prints a few threads of a list and counts the others.
struct Threads<'a>(&'a [[u32; 3]]);

impl fmt::Display for Threads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        f.write_str(if self.0.len() == 1 { "thread " } else { "threads " })?;
        for (i, thread) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{}", Triple(*thread))?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
