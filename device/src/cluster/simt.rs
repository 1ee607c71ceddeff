//! The executor's clusters. What they do is its own; a place in another block is one in that block's array.

use kasmina_simt::rt::{self, Access};

use crate::mbarrier::Mbarrier;
use crate::shared::Place;

const WORD: usize = 4;

pub(super) type Remote = Place;

#[track_caller]
pub(super) fn rank() -> u32 {
    rt::cluster_rank()
}

#[track_caller]
pub(super) fn size() -> u32 {
    rt::cluster_dim().iter().product()
}

#[track_caller]
pub(super) fn id_x() -> u32 {
    rt::cluster_idx()[0]
}

#[track_caller]
pub(super) fn arrive() {
    rt::cluster_arrive();
}

#[track_caller]
pub(super) fn wait() {
    rt::cluster_wait();
}

#[track_caller]
pub(super) fn map(place: Place, rank: u32) -> Remote {
    place.mapped(rank)
}

#[track_caller]
pub(super) unsafe fn read(place: Remote) -> u32 {
    let from = place.accessed_in_cluster(WORD, Access::Read);
    // SAFETY: the access was seen to be inside its array.
    unsafe { from.cast::<u32>().read_unaligned() }
}

#[track_caller]
pub(super) unsafe fn read_four(place: Remote) -> [u32; 4] {
    let from = place.accessed_in_cluster(4 * WORD, Access::Read);
    // SAFETY: the access was seen to be inside its array.
    unsafe { from.cast::<[u32; 4]>().read_unaligned() }
}

#[track_caller]
pub(super) unsafe fn write(place: Remote, word: u32) {
    let to = place.accessed_in_cluster(WORD, Access::Write);
    // SAFETY: the access was seen to be inside its array.
    unsafe { to.cast::<u32>().write_unaligned(word) };
}

#[track_caller]
pub(super) unsafe fn arrive_remote(word: Remote) {
    rt::mbarrier_arrive_cluster(word.accessed_in_cluster(8, Access::Mbarrier));
}

#[track_caller]
pub(super) unsafe fn arrive_reader(word: Remote) {
    rt::mbarrier_arrive(word.accessed_in_cluster(8, Access::Mbarrier), 0);
}

#[track_caller]
pub(super) unsafe fn wait_acquire(mbarrier: Mbarrier, parity: bool) {
    rt::mbarrier_wait_cluster(mbarrier.place().accessed(8, Access::Mbarrier), parity);
}
