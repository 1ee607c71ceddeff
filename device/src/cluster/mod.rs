//! Clusters: blocks that are resident together, meet, and reach each other's shared memory (sm_90).
//!
//! A launch without clusters has clusters of one block, and everything here works there too: a kernel asks for
//! [`size`] and works with any.
//!
//! Nobody may reach into a block that has not begun or has ended: [`sync`] comes first and last. The executor reports
//! who does, or might on a GPU, as it does races through shared memory of other blocks, ranks and masks outside of the
//! cluster, and a barrier that some thread does not reach. Who has left the kernel counts as come.

use crate::mbarrier::Mbarrier;
use crate::shared::Place;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// The block's number in its cluster, `%cluster_ctarank`.
#[inline(always)]
pub fn rank() -> u32 {
    imp::rank()
}

/// Blocks of a cluster, `%cluster_nctarank`.
#[inline(always)]
pub fn size() -> u32 {
    imp::size()
}

/// The cluster's x in the grid of clusters, `%clusterid.x`.
#[inline(always)]
#[track_caller]
pub fn id_x() -> u32 {
    imp::id_x()
}

/// Says that the thread has come, and what it did before is to be seen: `barrier.cluster.arrive.aligned`, which
/// releases. Every thread of the cluster calls it, from the same place, and then [`wait`].
#[inline(always)]
#[track_caller]
pub fn arrive() {
    imp::arrive();
}

/// Waits until all threads of the cluster have come: `barrier.cluster.wait.aligned`, which acquires.
#[inline(always)]
#[track_caller]
pub fn wait() {
    imp::wait();
}

/// [`arrive`] and [`wait`]: a barrier of the cluster.
#[inline(always)]
#[track_caller]
pub fn sync() {
    arrive();
    wait();
}

/// A place in the shared memory of a block of the cluster.
#[derive(Clone, Copy)]
pub struct RemotePlace {
    place: imp::Remote,
}

/// The same place of block `rank`: `mapa.shared::cluster`.
#[inline(always)]
#[track_caller]
pub fn map(place: Place, rank: u32) -> RemotePlace {
    RemotePlace { place: imp::map(place, rank) }
}

impl RemotePlace {
    /// Reads a word there: `ld.shared::cluster`.
    ///
    /// # Safety
    /// The word is inside its array, aligned and written, and an order of the cluster is between. The block is there.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn read(self) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { imp::read(self.place) }
    }

    /// Reads four words from there in one access: `ld.shared::cluster.v4`.
    ///
    /// # Safety
    /// As [`Self::read`] for each of them; the first is at a multiple of 16 bytes.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn read_four(self) -> [u32; 4] {
        // SAFETY: the caller's contract.
        unsafe { imp::read_four(self.place) }
    }

    /// Writes a word there: `st.shared::cluster`.
    ///
    /// # Safety
    /// As [`Self::read`]; no other thread accesses it until an order of the cluster.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn write(self, word: u32) {
        // SAFETY: the caller's contract.
        unsafe { imp::write(self.place, word) };
    }
}

/// An mbarrier of a block of the cluster.
#[derive(Clone, Copy)]
pub struct RemoteMbarrier {
    word: imp::Remote,
}

/// The same mbarrier of block `rank`.
#[inline(always)]
#[track_caller]
pub fn map_mbarrier(mbarrier: Mbarrier, rank: u32) -> RemoteMbarrier {
    RemoteMbarrier { word: imp::map(mbarrier.place(), rank) }
}

impl RemoteMbarrier {
    /// Arrives once, by the calling thread alone: `mbarrier.arrive.release.cluster.shared::cluster`. What the thread did
    /// before is seen by who waits for the phase with [`wait_acquire`].
    ///
    /// # Safety
    /// It is initialised, a [`sync`] has followed, this phase still takes an arrival, and the block is there.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn arrive(self) {
        // SAFETY: the caller's contract.
        unsafe { imp::arrive_remote(self.word) };
    }

    /// As [`Self::arrive`], by a thread that has only read, of its own block's shared memory, what the waiting thread then
    /// copies over: `mbarrier.arrive.release.cta.shared::cluster`. It orders no writes between blocks, and so needs no
    /// fence of the device, which [`Self::arrive`] is mostly made of.
    ///
    /// # Safety
    /// As [`Self::arrive`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn arrive_reader(self) {
        // SAFETY: the caller's contract.
        unsafe { imp::arrive_reader(self.word) };
    }
}

/// [`Mbarrier::wait`] that also acquires what threads of other blocks did before they arrived:
/// `mbarrier.try_wait.parity.acquire.cluster`.
///
/// # Safety
/// As [`Mbarrier::wait`].
#[inline(always)]
#[track_caller]
pub unsafe fn wait_acquire(mbarrier: Mbarrier, parity: bool) {
    // SAFETY: the caller's contract.
    unsafe { imp::wait_acquire(mbarrier, parity) };
}
