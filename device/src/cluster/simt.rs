//! The executor's clusters are of one block.

use kasmina_simt::rt::{self, Access};

use crate::mbarrier::Mbarrier;
use crate::shared::Place;

const WORD: usize = 4;

pub(super) type Remote = Place;

pub(super) fn rank() -> u32 {
    0
}

pub(super) fn size() -> u32 {
    1
}

#[track_caller]
pub(super) fn id_x() -> u32 {
    rt::block_idx()[0]
}

/// Who has come is known once he waits.
pub(super) fn arrive() {}

#[track_caller]
pub(super) fn wait() {
    rt::barrier();
}

#[track_caller]
pub(super) fn map(place: Place, rank: u32) -> Remote {
    assert!(rank == 0, "the cluster has one block, block {rank} is not in it");
    place
}

#[track_caller]
pub(super) unsafe fn read(place: Remote) -> u32 {
    let from = place.accessed(WORD, Access::Read);
    // SAFETY: the access was seen to be inside its array.
    unsafe { from.cast::<u32>().read_unaligned() }
}

#[track_caller]
pub(super) unsafe fn read_four(place: Remote) -> [u32; 4] {
    let from = place.accessed(4 * WORD, Access::Read);
    // SAFETY: the access was seen to be inside its array.
    unsafe { from.cast::<[u32; 4]>().read_unaligned() }
}

#[track_caller]
pub(super) unsafe fn write(place: Remote, word: u32) {
    let to = place.accessed(WORD, Access::Write);
    // SAFETY: the access was seen to be inside its array.
    unsafe { to.cast::<u32>().write_unaligned(word) };
}

#[track_caller]
pub(super) unsafe fn arrive_remote(word: Remote) {
    rt::mbarrier_arrive(word.accessed(8, Access::Mbarrier), 0);
}

#[track_caller]
pub(super) unsafe fn arrive_reader(word: Remote) {
    // SAFETY: the caller's contract.
    unsafe { arrive_remote(word) };
}

#[track_caller]
pub(super) unsafe fn wait_acquire(mbarrier: Mbarrier, parity: bool) {
    // SAFETY: the caller's contract.
    unsafe { mbarrier.wait(parity) };
}
