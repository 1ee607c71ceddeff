//! The thread that watches over a resident kernel.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use kasmina_ring::Ticket;
use kasmina_types::manifold::{Command, GROUP_RINGS, NO_RING, Need};

use super::error::FaultCause;
use super::shared::{Presence, Shared};
use crate::driver::launchers::manifold::{Condition, Resident};

/// From one look to the next, while items are out.
const BUSY_INTERVAL: Duration = Duration::from_micros(50);
/// While none is.
const IDLE_INTERVAL: Duration = Duration::from_millis(2);

/// What the watchdog remembers of a group.
#[derive(Clone, Copy)]
struct Seen {
    /// The item at work, or waiting at the head.
    item: Ticket,
    since: Instant,
}

/// Watches until it is told to quit: completions, heartbeat, deadlines, idleness, failures.
pub(super) fn watch(shared: &Arc<Shared>) {
    let mut seen = vec![None; shared.groups.len()];
    let mut last_busy = Instant::now();
    loop {
        shared.reap();
        let outstanding = shared.outstanding();
        let now = Instant::now();
        if outstanding > 0 {
            last_busy = now;
        }
        let presence = {
            let mut resident = shared.resident();
            resident.beat();
            look(shared, &mut resident, &mut seen, last_busy);
            shared.presence()
        };
        let quits = shared.quits.lock().unwrap_or_else(PoisonError::into_inner);
        if *quits {
            break;
        }
        let interval = match (presence, outstanding) {
            (Presence::Ended, _) => Duration::MAX,
            (Presence::Away, 0) => Duration::MAX,
            (_, 0) => IDLE_INTERVAL,
            _ => BUSY_INTERVAL,
        };
        // Whoever launches the kernel, or ends this, notifies.
        let limit = interval.min(Duration::from_secs(3600));
        drop(shared.wakes_watchdog.wait_timeout(quits, limit));
    }
    leave(shared);
}

/// One look at the kernel.
fn look(
    shared: &Arc<Shared>,
    resident: &mut Resident,
    seen: &mut [Option<Seen>],
    last_busy: Instant,
) {
    match resident.condition() {
        Condition::Away => {}
        Condition::Running => {
            check_deadlines(shared, resident, seen);
            let idle = shared.outstanding() == 0 && last_busy.elapsed() > shared.config.idle_limit;
            if idle && shared.presence() == Presence::Running {
                resident.command(Command::Stop);
                shared.set_presence(resident, Presence::Leaving);
            } else if shared.presence() == Presence::Running && deserted(resident) {
                // A group left that missed the host for a while: the others follow, and all come back.
                resident.command(Command::Stop);
                shared.set_presence(resident, Presence::Leaving);
            }
        }
        Condition::Ended => {
            seen.fill(None);
            if shared.presence() == Presence::Ended {
                return;
            }
            // Under the lock, and after the kernel has left: an item that is not seen here finds it away.
            shared.set_presence(resident, Presence::Away);
            shared.reap();
            if shared.outstanding() > 0 {
                match resident.launch() {
                    Ok(()) => shared.set_presence(resident, Presence::Running),
                    Err(why) => {
                        let message = why.to_string();
                        shared.fail(resident, FaultCause::Launch { message }, None);
                    }
                }
            }
        }
        Condition::Failed(why) => {
            let item = in_work(shared, resident).next().flatten();
            shared.fail(resident, FaultCause::failed(&why), item);
        }
    }
}

fn deserted(resident: &Resident) -> bool {
    resident.reports().any(|group| group.state == kasmina_types::manifold::GroupState::Deserted)
}

/// Of each group the item in work, or that would be next.
///
/// A ring's items are complete in their order: the one in work is the oldest of its ring. A group says which it took where both
/// rings had one; else it took what had been pushed before the other came.
fn in_work<'a>(
    shared: &'a Shared,
    resident: &'a Resident,
) -> impl Iterator<Item = Option<Ticket>> + 'a {
    resident.reports().enumerate().map(|(group, report)| {
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
                let mut pushed_first = normal;
                let mut is_first = true;
                shared.rings.outstanding(|outstanding| {
                    let head = [high, normal].into_iter().find(|head| *head == outstanding.ticket);
                    if let (Some(head), true) = (head, is_first) {
                        (pushed_first, is_first) = (head, false);
                    }
                });
                Some(pushed_first)
            }
        }
    })
}

/// Fails the kernel if a group has had the same item for too long.
fn check_deadlines(shared: &Arc<Shared>, resident: &mut Resident, seen: &mut [Option<Seen>]) {
    let now = Instant::now();
    let at_work: Vec<_> = in_work(shared, resident).collect();
    for (seen, at_work) in seen.iter_mut().zip(at_work) {
        let Some(item) = at_work else {
            *seen = None;
            continue;
        };
        match seen {
            Some(seen) if seen.item == item => {}
            _ => *seen = Some(Seen { item, since: now }),
        }
        let since = seen.expect("set above").since;
        let after = now - since;
        let Some((deadline, needs)) = of_item(shared, item) else { continue };
        if after <= deadline {
            continue;
        }
        // An item that waits for another group's is not late; that group's is, if any.
        if needs.iter().any(|need| is_out(shared, need)) {
            *seen = Some(Seen { item, since: now });
            continue;
        }
        shared.fail(resident, FaultCause::Stalled { after }, Some(item));
        return;
    }
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
        !kasmina_types::manifold::has_reached(
            (oldest.sequence() as u32).wrapping_sub(1),
            need.sequence,
        )
    })
}

/// The executor is gone or stopped: the kernel leaves, by itself or not.
fn leave(shared: &Arc<Shared>) {
    let begun = Instant::now();
    let mut resident = shared.resident();
    if shared.presence() != Presence::Ended {
        resident.command(Command::Stop);
        shared.set_presence(&resident, Presence::Ended);
    }
    while resident.is_launched() {
        resident.beat();
        match resident.condition() {
            Condition::Running if begun.elapsed() > shared.config.deadline => {
                shared.close(kasmina_ring::CloseReason::ShutDown, || {
                    if let Err(why) = resident.destroy() {
                        tracing::error!(%why, "a kernel that did not leave could not be ended");
                    }
                });
            }
            Condition::Running => std::thread::sleep(BUSY_INTERVAL),
            Condition::Away | Condition::Ended => {}
            Condition::Failed(why) => {
                tracing::error!(%why, "the kernel failed while it was to leave")
            }
        }
    }
    // What was complete before the kernel left is not unfinished.
    shared.close(kasmina_ring::CloseReason::ShutDown, || {});
}
