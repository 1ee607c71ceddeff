//! mbarriers: barriers in shared memory that count arrivals of threads and bytes of bulk copies.
//!
//! A phase is over when as many have arrived as [`Mbarrier::init`] said, and every byte that was announced
//! has come. The next phase then begins by itself. A wait names a phase by its parity: the first has parity
//! `false`, the second `true`, and so on; waiting for the phase before the first returns at once. Nobody may
//! be two phases late.
//!
//! Needs compute capability 9.0 (PTX 8.0). Under the executor a phase that never ends is a reported deadlock,
//! and whoever reads what a copy brings without waiting for it is reported too.
//! [`Pipeline`](crate::pipeline::Pipeline) keeps stages and parities for a ring of buffers.

use crate::shared::{DynamicShared, Place, Shared};

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// An mbarrier of the block: eight bytes of shared memory that nothing else uses.
#[derive(Clone, Copy)]
pub struct Mbarrier {
    word: Place,
}

impl Mbarrier {
    /// The mbarrier in element `index` of an array of words.
    #[inline(always)]
    pub fn of<const N: usize>(words: &Shared<u64, N>, index: usize) -> Self {
        Self { word: words.place(index) }
    }

    /// The mbarrier in word `index` of dynamic shared memory.
    #[inline(always)]
    pub fn of_dynamic(words: &DynamicShared<u64>, index: usize) -> Self {
        Self { word: words.place(index) }
    }

    /// Begins its first phase, of `arrivals` arrivals each: `mbarrier.init` (sm_80), by one thread.
    /// [`fence_init`] and a barrier of the block come before anyone uses it.
    ///
    /// # Safety
    /// The word is inside its array, and no other thread uses it until that barrier. `arrivals` is 1 to
    /// 2²⁰ − 1.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn init(self, arrivals: u32) {
        // SAFETY: the caller's contract.
        unsafe { imp::init(self.word, arrivals) };
    }

    /// Ends its use, so that the word may hold something else: `mbarrier.inval` (sm_80), by one thread.
    ///
    /// # Safety
    /// It is initialised, nobody waits at it, no copy is under way to it, and a barrier orders all uses before.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn invalidate(self) {
        // SAFETY: the caller's contract.
        unsafe { imp::invalidate(self.word) };
    }

    /// Arrives once, with no thought of the answer: `mbarrier.arrive` (sm_80), by the calling thread alone.
    /// Releases: what the thread did before is seen by who waits for the phase.
    ///
    /// # Safety
    /// It is initialised, and this phase still takes an arrival.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn arrive(self) {
        // SAFETY: the caller's contract.
        unsafe { imp::arrive(self.word) };
    }

    /// Announces `bytes` of bulk copies to this phase and arrives once: `mbarrier.arrive.expect_tx` (sm_90),
    /// by the calling thread alone. Releases as [`Self::arrive`].
    ///
    /// # Safety
    /// As [`Self::arrive`]; less than 2²⁰ bytes are outstanding. Copies of exactly as many bytes complete on
    /// it, or no phase ends.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn arrive_expect_tx(self, bytes: u32) {
        // SAFETY: the caller's contract.
        unsafe { imp::arrive_expect_tx(self.word, bytes) };
    }

    /// Whether the phase of this parity is over, without waiting: `mbarrier.test_wait.parity` (sm_90), by
    /// the calling thread alone. Acquires if it is.
    ///
    /// # Safety
    /// It is initialised.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn test(self, parity: bool) -> bool {
        // SAFETY: the caller's contract.
        unsafe { imp::test(self.word, parity) }
    }

    /// Waits until the phase of this parity is over: a loop of `mbarrier.try_wait.parity` (sm_90), by the
    /// calling thread alone; lanes of a warp may be let go one after the other. Acquires: what was done before
    /// the arrivals, and what the copies brought, is seen.
    ///
    /// # Safety
    /// It is initialised, and the phase is the current one or the one before.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn wait(self, parity: bool) {
        // SAFETY: the caller's contract.
        unsafe { imp::wait(self.word, parity) };
    }

    /// Where it is.
    #[inline(always)]
    pub fn place(self) -> Place {
        self.word
    }
}

/// Makes the calling thread's [`Mbarrier::init`]s visible to bulk copies and to the block's cluster, once a
/// barrier has followed: `fence.mbarrier_init.release.cluster` and `fence.proxy.async.shared::cta` (sm_90).
#[inline(always)]
#[track_caller]
pub fn fence_init() {
    imp::fence_init();
}
