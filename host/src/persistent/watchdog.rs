//! The thread that watches over a resident kernel.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use kasmina_ring::{CloseReason, Ticket};
use kasmina_types::manifold::{Command, GROUP_RINGS, GroupState, NO_RING, Need, has_reached};

use super::error::FaultCause;
use super::shared::{Presence, Shared, nanoseconds};
use crate::driver::launchers::manifold::{Condition, GroupReport, Resident};

/// From one look to the next, while items are out.
const BUSY_INTERVAL: Duration = Duration::from_micros(50);
/// While none is.
const IDLE_INTERVAL: Duration = Duration::from_millis(2);
/// While there is no kernel.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);
/// After a pause of this length this process did not run: nothing is late because of it.
const FROZEN: Duration = Duration::from_millis(500);
/// How long a kernel may take to leave once the executor is gone or stopped, whatever the deadlines are.
const LEAVING_LIMIT: Duration = Duration::from_secs(600);
/// How long a launch may wait for room on the device.
const LAUNCH_LIMIT: Duration = Duration::from_secs(60);

/// What the watchdog remembers.
struct Memory {
    /// Of each group the item in work, or at the head, and since when.
    items: Vec<Option<(Ticket, Instant)>>,
    last_busy: Instant,
    last_look: Instant,
    /// Since when a launch has had no group.
    absent_since: Option<Instant>,
}

impl Memory {
    /// Notes a look, and forgets since when things are late if this process did not run. Answers the time.
    fn look(&mut self) -> Instant {
        let now = Instant::now();
        if now - self.last_look > FROZEN {
            self.items.fill(None);
            self.absent_since = None;
        }
        self.last_look = now;
        now
    }
}

/// Watches until it is told to quit: completions, heartbeat, deadlines, idleness, failures.
pub(super) fn watch(shared: &Arc<Shared>) {
    let now = Instant::now();
    let items = vec![None; shared.groups.len()];
    let mut memory = Memory { items, last_busy: now, last_look: now, absent_since: None };
    loop {
        // Whatever is wrong here, the kernel does not go unwatched.
        let looked = catch_unwind(AssertUnwindSafe(|| {
            shared.reap();
            look(shared, shared.resident(), &mut memory);
        }));
        if looked.is_err() {
            let message = "a panic on the watchdog's thread".to_owned();
            shared.fail(shared.resident(), FaultCause::Failed { message }, &[]);
        }
        let interval = match (shared.presence(), shared.outstanding()) {
            (Presence::Ended | Presence::Away, _) => AWAY_INTERVAL,
            (_, 0) => IDLE_INTERVAL,
            _ => BUSY_INTERVAL,
        };
        if shared.await_orders(interval) {
            break;
        }
    }
    leave(shared, &mut memory);
}

/// One look at the kernel.
fn look(shared: &Shared, mut resident: MutexGuard<'_, Resident>, memory: &mut Memory) {
    resident.beat();
    let now = memory.look();
    if shared.outstanding() > 0 {
        memory.last_busy = now;
    }
    match resident.condition() {
        // An item that came too late for the last launch, if one ever does.
        Condition::Away if shared.presence() == Presence::Away && shared.outstanding() > 0 => {
            shared.launch(resident);
        }
        Condition::Away => {}
        Condition::Running if shared.presence() != Presence::Ended => {
            let reports: Vec<_> = resident.reports().collect();
            match late(shared, &reports, memory) {
                Some(Late { item: Some(item), after }) => {
                    return shared.fail(resident, FaultCause::Stalled { after }, &[item]);
                }
                Some(Late { item: None, after }) => {
                    let message = format!("the device had no room for it within {after:?}");
                    return shared.fail(resident, FaultCause::Launch { message }, &[]);
                }
                None if shared.presence() == Presence::Leaving => return,
                None => {}
            }
            let idle = now - memory.last_busy > shared.config.idle_limit;
            // A group that missed the host for a while has left: the others follow, and all come back.
            let deserted = reports.iter().any(|group| group.state == GroupState::Deserted);
            if idle || deserted {
                resident.command(Command::Stop);
                shared.set_presence(&resident, Presence::Leaving);
            }
        }
        Condition::Running => {}
        Condition::Ended => {
            memory.items.fill(None);
            if shared.presence() == Presence::Ended {
                return;
            }
            // Under the lock, and after the kernel has left: an item that is not seen here finds it away.
            shared.set_presence(&resident, Presence::Away);
            fence(Ordering::SeqCst);
            if shared.outstanding() > 0 {
                shared.launch(resident);
            }
        }
        Condition::Failed(why) => {
            let items: Vec<_> = in_work(shared, resident.reports()).flatten().collect();
            shared.fail(resident, FaultCause::failed(&why), &items);
        }
    }
}

/// Of each group the item in work, or that would be next.
///
/// A ring's items are complete in their order: the one in work is the oldest of its ring. A group says which it took where
/// both rings had one; else it took what had been pushed before the other came.
fn in_work(
    shared: &Shared,
    reports: impl Iterator<Item = GroupReport>,
) -> impl Iterator<Item = Option<Ticket>> {
    reports.enumerate().map(|(group, report)| {
        let first = (group * GROUP_RINGS) as u32;
        let heads = [first, first + 1].map(|ring| shared.rings.oldest(ring));
        let (ring, sequence) = report.taken;
        let is_taken = |head: &Ticket| head.ring() == ring && head.sequence() as u32 == sequence;
        match heads {
            [None, head] | [head, None] => head,
            [Some(high), Some(normal)] if is_taken(&high) || is_taken(&normal) => {
                Some(if is_taken(&high) { high } else { normal })
            }
            [Some(high), Some(normal)] => {
                let mut pushed_first = None;
                shared.rings.outstanding(|outstanding| {
                    if [high, normal].contains(&outstanding.ticket) {
                        pushed_first.get_or_insert(outstanding.ticket);
                    }
                });
                pushed_first
            }
        }
    })
}

/// What is late.
struct Late {
    /// The item, or none where the whole kernel is.
    item: Option<Ticket>,
    /// For how long it has been in work, or away.
    after: Duration,
}

/// Whether a group has had the same item for too long, or the device had no room for the kernel.
fn late(shared: &Shared, reports: &[GroupReport], memory: &mut Memory) -> Option<Late> {
    let now = Instant::now();
    if reports.iter().all(|group| group.state == GroupState::Away) {
        // The device has no room for it yet: nobody is late, but not for ever.
        let since = *memory.absent_since.get_or_insert(now);
        let after = now - since;
        let is_late = after > LAUNCH_LIMIT.max(shared.config.deadline);
        return is_late.then_some(Late { item: None, after });
    }
    memory.absent_since = None;
    let heads: Vec<_> = in_work(shared, reports.iter().copied()).collect();
    for ((seen, head), report) in memory.items.iter_mut().zip(heads).zip(reports) {
        let Some(item) = head.filter(|_| report.state == GroupState::Running) else {
            *seen = None;
            continue;
        };
        let since = match *seen {
            Some((same, since)) if same == item => since,
            _ => now,
        };
        *seen = Some((item, since));
        let after = now - since;
        // Looking an item up is not for every look.
        if nanoseconds(after) <= shared.least_deadline_ns.load(Ordering::Relaxed) {
            continue;
        }
        let Some((deadline, needs)) = of_item(shared, item) else { continue };
        if after <= deadline {
            continue;
        }
        // An item that waits for another group's is not late; that group's is, if any.
        if needs.iter().any(|need| is_out(shared, need)) {
            *seen = Some((item, now));
            continue;
        }
        return Some(Late { item: Some(item), after });
    }
    None
}

/// An item's deadline and needs.
fn of_item(shared: &Shared, item: Ticket) -> Option<(Duration, Vec<Need>)> {
    let mut found = None;
    shared.rings.outstanding(|outstanding| {
        if outstanding.ticket == item {
            let needs = outstanding.descriptor.needs.iter();
            let needs = needs.copied().filter(|need| need.ring != NO_RING).collect();
            found = Some((outstanding.payload.deadline, needs));
        }
    });
    found
}

fn is_out(shared: &Shared, need: &Need) -> bool {
    let oldest = shared.rings.oldest(need.ring);
    oldest.is_some_and(|oldest| {
        !has_reached((oldest.sequence() as u32).wrapping_sub(1), need.sequence)
    })
}

/// The executor is gone or stopped: the kernel leaves, by itself or not.
fn leave(shared: &Shared, memory: &mut Memory) {
    let begun = Instant::now();
    {
        let resident = shared.resident();
        if shared.presence() != Presence::Ended {
            resident.command(Command::Stop);
            shared.set_presence(&resident, Presence::Ended);
        }
    }
    loop {
        // So that a group's oldest item is the one in work.
        shared.reap();
        let mut resident = shared.resident();
        if !resident.is_launched() {
            break;
        }
        resident.beat();
        memory.look();
        match resident.condition() {
            Condition::Running => {
                let reports: Vec<_> = resident.reports().collect();
                if late(shared, &reports, memory).is_none() && begun.elapsed() < LEAVING_LIMIT {
                    drop(resident);
                    std::thread::sleep(BUSY_INTERVAL);
                } else if let Err(why) = resident.destroy() {
                    tracing::error!(%why, "a kernel that did not leave could not be ended");
                }
            }
            Condition::Away | Condition::Ended => {}
            Condition::Failed(why) => {
                let items: Vec<_> = in_work(shared, resident.reports()).flatten().collect();
                shared.fail(resident, FaultCause::failed(&why), &items);
            }
        }
    }
    // What was complete before the kernel left is not unfinished.
    shared.close(CloseReason::ShutDown);
    shared.dropper.end();
}
