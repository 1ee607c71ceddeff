//! How the reports read.

use std::fmt;

use super::{Access, ClusterFault, MbarrierFault, Report, Space, Touch, Wait, Waiting, WgmmaFault};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BarrierDivergence { kernel, block, waiting, exited } => {
                write!(f, "barrier divergence in kernel `{kernel}`, block {}: ", Triple(*block))?;
                write_waiting(f, *block, waiting, exited)?;
                f.write_str(
                    "; let every thread of the block reach the same barrier: no return and no branch around it",
                )
            }
            Self::Deadlock { kernel, block, waiting, exited, left } => {
                write!(f, "deadlock in kernel `{kernel}`, block {}: ", Triple(*block))?;
                write_waiting(f, *block, waiting, exited)?;
                for block in left {
                    write!(f, "; block {} left", Triple(*block))?;
                }
                let any = |wanted: fn(&Wait) -> bool| waiting.iter().any(|w| wanted(&w.wait));
                f.write_str(if any(|wait| matches!(wait, Wait::Warp { .. })) {
                    "; name in the mask only lanes that reach this collective, at this place and with this mask"
                } else if any(|wait| matches!(wait, Wait::Warpgroup)) {
                    "; let all 128 threads of the warpgroup come to the product"
                } else if any(|wait| matches!(wait, Wait::Mbarrier { .. })) {
                    "; check the parity, the arrivals that the mbarrier was initialised for, and the bytes that \
                     were announced against those that are copied"
                } else if any(|wait| matches!(wait, Wait::Cluster)) {
                    "; let every thread of each block of the cluster come to its barrier from the same place, or leave \
                     the kernel"
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
            Self::UninitialisedShared { kernel, block, touch, owner, offset_bytes } => write!(
                f,
                "uninitialised shared memory in kernel `{kernel}`, block {}: {touch} byte {offset_bytes}{}, which no \
                 thread had written; write it first, and place a barrier between",
                Triple(*block),
                Other(*owner, *block),
            ),
            Self::Race { kernel, block, space, owner, offset_bytes, first, second } => write!(
                f,
                "race in kernel `{kernel}`, block {}, {space} memory{}: {second} byte {offset_bytes}, and {first}{} it \
                 too, with nothing between that orders them; place a barrier between the two (a warp_sync if both \
                 are lanes of one warp, one of the cluster if they are of two blocks), wait at the mbarrier of a bulk \
                 copy, or make both atomic",
                Triple(*block),
                Other(*owner, *block),
                Other(first.block, *block),
            ),
            Self::MissingProxyFence { kernel, block, owner, offset_bytes, first, second } => {
                write!(
                    f,
                    "missing proxy fence in kernel `{kernel}`, block {}: {second} byte {offset_bytes} of shared memory{}, \
                 and {first}{} it before with an ordinary store; place a fence_proxy_async after the stores, before \
                 what orders them before the copy",
                    Triple(*block),
                    Other(*owner, *block),
                    Other(first.block, *block),
                )
            }
            Self::Mbarrier { kernel, block, touch, owner, offset_bytes, fault } => write!(
                f,
                "mbarrier misused in kernel `{kernel}`, block {}: {touch} byte {offset_bytes} of shared memory{}: \
                 {fault}",
                Triple(*block),
                Other(*owner, *block),
            ),
            Self::Wgmma { kernel, block, touch, fault } => write!(
                f,
                "product of a warpgroup misused in kernel `{kernel}`, block {}: thread {} at {}: {fault}",
                Triple(*block),
                Triple(touch.thread),
                touch.location,
            ),
            Self::Cluster { kernel, block, thread, location, fault } => write!(
                f,
                "cluster misused in kernel `{kernel}`, block {}: thread {} at {location}: {fault}",
                Triple(*block),
                Triple(*thread),
            ),
            Self::UnfinishedCopy { kernel, block, touch } => write!(
                f,
                "unfinished copy in kernel `{kernel}`, block {}: {touch}{} shared memory that the block gave up: wait \
                 for the mbarrier of each load, and for the group of each store, before the last thread leaves",
                Triple(*block),
                Other(touch.block, *block),
            ),
        }
    }
}

fn write_waiting(
    f: &mut fmt::Formatter<'_>,
    block: [u32; 3],
    waiting: &[Waiting],
    exited: &[[u32; 3]],
) -> fmt::Result {
    for (i, group) in waiting.iter().enumerate() {
        let separator = if i == 0 { "" } else { "; " };
        let other = Other(group.block, block);
        write!(f, "{separator}{}{other} at {}", Threads(&group.threads), group.location)?;
        match group.wait {
            Wait::Barrier => write!(f, " wait at the block's barrier")?,
            Wait::Cluster => write!(f, " wait at the cluster's barrier")?,
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

impl fmt::Display for ClusterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchBlock { rank, blocks } => {
                write!(
                    f,
                    "the cluster has {blocks} blocks, and none of rank {rank}; ask for its size"
                )
            }
            Self::Mask { blocks, size } => write!(
                f,
                "a multicast to the blocks of mask {blocks:#x} in a cluster of {size}; set bits of its blocks alone, \
                 one at least"
            ),
            Self::NotBegun { rank } => write!(
                f,
                "nothing shows that block {rank} of the cluster has begun, whose shared memory it reaches for; place a \
                 barrier of the cluster before"
            ),
            Self::Left { rank } => write!(
                f,
                "block {rank} of the cluster has left, whose shared memory it reaches for; place a barrier of the \
                 cluster before blocks end"
            ),
            Self::LeavesFirst { rank } => write!(
                f,
                "nothing keeps block {rank} of the cluster from leaving before it has reached for its shared memory; \
                 place a barrier of the cluster before blocks end"
            ),
            Self::ArrivedTwice => f.write_str(
                "it came to the cluster's barrier again and had not waited; wait between",
            ),
            Self::NotArrived => {
                f.write_str("it waits at the cluster's barrier and has not come; arrive before")
            }
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

/// Prints which block it is, where that is not the second, which the report is about.
struct Other([u32; 3], [u32; 3]);

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { Ok(()) } else { write!(f, " of block {}", Triple(self.0)) }
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
