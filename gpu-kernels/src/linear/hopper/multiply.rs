//! The products of a warpgroup over the tiles of k.

use kasmina_device::shared::DynamicShared;
use kasmina_device::swizzle::Swizzle;
use kasmina_device::wgmma::{
    self, Accumulator, Descriptor, Fragment, InOrder, Layout, Major, Multiply, Shape, State,
};

use super::SPAN;
use super::shared_map::SharedMap;
use super::stage::{Barriers, Turn};

/// Bytes from one product's operand to the next along k: 32 bytes of a row, or 16 rows.
const fn step<M: Major>() -> u32 {
    if M::TRANSPOSED { 16 * SPAN as u32 } else { 32 }
}

const fn layout<M: Major>() -> Layout {
    if M::TRANSPOSED {
        Layout::columns(Swizzle::Bytes128, 64)
    } else {
        Layout::rows(Swizzle::Bytes128)
    }
}

/// Waits for a stage, and issues the products of its tiles: of the warpgroup's rows, those from 64 · `group` on. They are
/// added to d, or begin it where not `accumulate`.
///
/// # Safety
/// All threads of the warpgroup are here, with the same arguments; the stage is not released before the products' group
/// was waited for.
#[inline(always)]
pub(super) unsafe fn issue<E, MA: Major, MB: Major, const R: usize>(
    d: &mut Accumulator<R>,
    map: &SharedMap,
    barriers: &Barriers,
    turn: Turn,
    group: usize,
    accumulate: bool,
) where
    E: InOrder<MA> + InOrder<MB>,
    State<R>: Multiply<E> + Shape,
{
    let shared = DynamicShared::<u8>::whole();
    // SAFETY: it is initialised, and the stage cannot be filled again before it is released.
    unsafe { barriers.full(turn.stage()).wait(turn.parity) };
    let at = turn.stage() * map.stage_bytes;
    let a = Descriptor::<MA>::new(shared.place(at + group * 64 * SPAN), layout::<MA>());
    let b = Descriptor::<MB>::new(shared.place(at + map.first_bytes), layout::<MB>());
    let (next_a, next_b) = (step::<MA>(), step::<MB>());
    d.fence();
    // SAFETY: the whole warpgroup is here; both tiles have come, by bulk copies that were waited for, and stay until the
    // stage is released. What is past k is zeros.
    unsafe {
        d.multiply_add::<E, MA, MB>(a, b, accumulate);
        d.multiply_add::<E, MA, MB>(a.plus(next_a), b.plus(next_b), true);
        d.multiply_add::<E, MA, MB>(a.plus(2 * next_a), b.plus(2 * next_b), true);
        d.multiply_add::<E, MA, MB>(a.plus(3 * next_a), b.plus(3 * next_b), true);
    }
    wgmma::commit_group();
}

/// Adds up the products of `count` tiles, 1 or more, in the order in which they come, from 0; the warpgroup's rows are
/// those from 64 · `group` on. One group of products is under way while the next is issued; `meanwhile` is run while the
/// last is. A stage is released in each of the `sharers` blocks of the cluster that load for each other.
///
/// # Safety
/// All threads of the warpgroup are here, with the same arguments; one thread of the block loads as many stages.
#[inline(always)]
pub(crate) unsafe fn multiply<E, MA: Major, MB: Major, X, const R: usize, const STAGES: usize>(
    map: &SharedMap,
    barriers: &Barriers,
    turn: &mut Turn,
    (group, sharers): (usize, u32),
    count: u32,
    meanwhile: impl FnOnce() -> X,
) -> (Fragment<R>, X)
where
    E: InOrder<MA> + InOrder<MB>,
    State<R>: Multiply<E> + Shape,
{
    let mut d = Accumulator::<R>::unset();
    let mut before = STAGES as u32;
    let mut left = count;
    while left > 0 {
        // SAFETY: the caller's contract; the stage is released after the wait of the next turn, or the last.
        unsafe { issue::<E, MA, MB, R>(&mut d, map, barriers, *turn, group, left < count) };
        wgmma::wait_group::<1>();
        if before < STAGES as u32 {
            // SAFETY: its products were waited for.
            unsafe { barriers.release(before as usize, sharers) };
        }
        before = turn.stage() as u32;
        turn.advance(STAGES);
        left -= 1;
    }
    let found = meanwhile();
    let sums = d.wait::<0>();
    // SAFETY: as above.
    unsafe { barriers.release(before as usize, sharers) };
    (sums, found)
}
