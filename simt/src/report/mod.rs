//! The reports.

mod text;

use std::panic::Location;

pub(crate) use text::Triple;

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
    /// Nobody can run: lanes wait in a warp collective for lanes that left or wait elsewhere, threads wait at a cluster's
    /// barrier for others that wait elsewhere, or all live threads spin and nothing in the launch moved for the spin
    /// limit.
    Deadlock {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who waits where, in the block and then in the others of its cluster.
        waiting: Box<[Waiting]>,
        /// Threads of the block that left the kernel.
        exited: Vec<[u32; 3]>,
        /// Blocks of the cluster that left as a whole.
        left: Box<[[u32; 3]]>,
    },
    /// An access outside its view, or one that is not aligned.
    OutOfBounds {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who, how and where.
        touch: Box<Touch>,
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
    /// A read of shared memory that nobody had written when the read ran.
    UninitialisedShared {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who, how and where.
        touch: Box<Touch>,
        /// The block that the memory belongs to.
        owner: [u32; 3],
        /// The first byte that was not written, from the view's start.
        offset_bytes: usize,
    },
    /// Two threads of a block, or of a cluster, touched one byte, at least one of them wrote, and nothing orders them.
    Race {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// The memory that the byte lies in.
        space: Space,
        /// The block that shared memory belongs to, or that touched global memory second.
        owner: [u32; 3],
        /// The first common byte, from the start of the second access's view.
        offset_bytes: usize,
        /// The access that ran first here.
        first: Box<Touch>,
        /// The access that ran second here.
        second: Box<Touch>,
    },
    /// A bulk copy touched shared memory that ordinary stores had written, with no proxy fence between:
    /// on a GPU it may see what was there before.
    MissingProxyFence {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// The block that the memory belongs to.
        owner: [u32; 3],
        /// The first such byte, from the start of shared memory.
        offset_bytes: usize,
        /// The store.
        first: Box<Touch>,
        /// The copy.
        second: Box<Touch>,
    },
    /// An mbarrier that is used against its rules.
    Mbarrier {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who and where.
        touch: Box<Touch>,
        /// The block that it belongs to.
        owner: [u32; 3],
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
        touch: Box<Touch>,
        /// What is wrong.
        fault: WgmmaFault,
    },
    /// What the blocks of a cluster do with each other, against its rules.
    Cluster {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Thread index in x, y, z.
        thread: [u32; 3],
        /// Where in the source.
        location: &'static Location<'static>,
        /// What is wrong.
        fault: ClusterFault,
    },
    /// Every thread of the block left the kernel while a bulk copy still used its shared memory.
    UnfinishedCopy {
        /// The kernel's name.
        kernel: Box<str>,
        /// Block index in x, y, z.
        block: [u32; 3],
        /// Who issued it, how it uses shared memory, and where.
        touch: Box<Touch>,
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

/// A rule of clusters that was broken. A block's rank is its number in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterFault {
    /// A rank that no block of the cluster has.
    NoSuchBlock {
        /// The rank.
        rank: u32,
        /// Blocks of the cluster.
        blocks: u32,
    },
    /// A mask for a multicast that names no block, or one that is not in the cluster.
    Mask {
        /// Bit i stands for rank i.
        blocks: u16,
        /// Blocks of the cluster.
        size: u32,
    },
    /// An access to shared memory of a block that nothing shows to have begun.
    NotBegun {
        /// The block's rank.
        rank: u32,
    },
    /// An access to shared memory of a block that has left.
    Left {
        /// The block's rank.
        rank: u32,
    },
    /// An access to shared memory of a block that might as well have left before: its threads did not learn of it.
    LeavesFirst {
        /// The block's rank.
        rank: u32,
    },
    /// A thread came to the cluster's barrier again before it waited there.
    ArrivedTwice,
    /// A thread waited at the cluster's barrier and had not come.
    NotArrived,
}

/// One thread's access to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    /// Block index in x, y, z.
    pub block: [u32; 3],
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
    /// Block index in x, y, z.
    pub block: [u32; 3],
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
    /// The cluster's barrier.
    Cluster,
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
        matches!(self, Self::Warp { .. } | Self::Warpgroup | Self::Mbarrier { .. } | Self::Cluster)
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
