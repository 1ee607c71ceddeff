//! The executor's mbarriers. Their words in shared memory are never read; they show who used them when.

use kasmina_simt::rt::{self, Access};

use crate::shared::Place;

const BYTES: usize = 8;

#[track_caller]
pub(super) unsafe fn init(word: Place, arrivals: u32) {
    rt::mbarrier_init(word.accessed(BYTES, Access::Write), arrivals);
}

#[track_caller]
pub(super) unsafe fn invalidate(word: Place) {
    rt::mbarrier_invalidate(word.accessed(BYTES, Access::Write));
}

#[track_caller]
pub(super) unsafe fn arrive(word: Place) {
    rt::mbarrier_arrive(word.accessed(BYTES, Access::Mbarrier), 0);
}

#[track_caller]
pub(super) unsafe fn arrive_expect_tx(word: Place, bytes: u32) {
    rt::mbarrier_arrive(word.accessed(BYTES, Access::Mbarrier), bytes);
}

#[track_caller]
pub(super) unsafe fn test(word: Place, parity: bool) -> bool {
    rt::mbarrier_test(word.accessed(BYTES, Access::Mbarrier), parity)
}

#[track_caller]
pub(super) unsafe fn wait(word: Place, parity: bool) {
    rt::mbarrier_wait(word.accessed(BYTES, Access::Mbarrier), parity);
}

#[track_caller]
pub(super) fn fence_init() {
    rt::proxy_fence();
}
