//! The model: a host, the memory, and a device of two groups, and every step that one of them can take.
//!
//! Rings 0 (high) and 1 (normal) are the first group's, ring 2 the second's. Numbers have [`BITS`] bits and wrap around.
//! The functions of the protocol take 32 bits: they get the numbers as the upper ones, where wrapping is the same.
//! A line has two words, the item's and its need's. Its words become visible one by one. The first says whether there is a
//! need; the device looks at the second only where there is.

use kasmina_ring::protocol::{completion_of, has_come, has_room, is_met, place_of};
use kasmina_types::manifold::{NO_RING, Need, tagged};

pub(crate) const RINGS: usize = 3;
const CAPACITY: usize = 2;
const WORDS: usize = 2;
const GROUPS: usize = 2;

/// Each group's rings, in the order in which it looks at them.
const RINGS_OF: [&[usize]; GROUPS] = [&[0, 1], &[2]];

/// Bits of a number.
const BITS: u32 = 3;

/// The first number of each ring: it wraps around soon.
const FIRST: u8 = 6;

/// No need, where an item's need is kept.
const NONE: u8 = u8::MAX;

/// A number on the wire.
fn wide(number: u8) -> u32 {
    u32::from(number) << (32 - BITS)
}

fn plus(number: u8, more: u8) -> u8 {
    number.wrapping_add(more) & ((1 << BITS) - 1)
}

/// How far `number` is behind `ahead`.
fn behind(number: u8, ahead: u8) -> u8 {
    ahead.wrapping_sub(number) & ((1 << BITS) - 1)
}

fn place(number: u8) -> usize {
    place_of(u64::from(number), CAPACITY as u64) as usize
}

fn need_of(packed: u8) -> Need {
    match packed {
        NONE => Need::NONE,
        packed => Need { ring: u32::from(packed >> BITS), sequence: wide(plus(packed, 0)) },
    }
}

/// A fault that is built in, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line has come when its first word has, whatever that says of a need.
    FirstWordIsEnough,
    /// A group whose high ring has an item with an unmet need does not look at the normal one.
    UnmetNeedBlocks,
    /// The host uses a place again one item early.
    PlaceReusedEarly,
    /// Told to stop, a group leaves before it has written the completion of its item.
    StopAbandonsItem,
    /// A new launch begins at the last complete item.
    LaunchRepeatsItem,
    /// Needs are not looked at.
    NeedsIgnored,
    /// The host goes on pushing to a ring while an old need on it waits, half of all numbers and more.
    OldNeedsWait,
    /// The host asks a group to leave when there is no work, and never tells it to stop.
    DrainIsNeverStopped,
    /// Needs are looked up in a copy of `done` that was made at the launch.
    DoneIsCopied,
    /// The host takes a completion's word without looking at its number.
    CompletionUnchecked,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Pushes to each ring; `u8::MAX` for any number of them.
    pub(crate) pushes: [u8; RINGS],
    pub(crate) fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Command {
    Run,
    Drain,
    /// [`Self::Run`] after [`Self::Drain`], which a group may have seen, or see late.
    Revoked,
    Stop,
}

/// What a group is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Group {
    /// Not launched yet, or gone.
    Away,
    /// Looks for work.
    Looks,
    /// Carries out the next item of a ring.
    Works(u8),
    /// Has stored `done`, and not written the completion.
    Tells(u8),
}

/// How far an outstanding item is. The model knows it; nobody reads it but the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Fate {
    Waits,
    InWork,
    CarriedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    // The host.
    oldest: [u8; RINGS],
    next: [u8; RINGS],
    pushed: [u8; RINGS],
    needs: [[u8; CAPACITY]; RINGS],
    // The memory: tags, for the data go with them.
    lines: [[[u8; WORDS]; CAPACITY]; RINGS],
    completions: [[u8; CAPACITY]; RINGS],
    command: Command,
    // The device.
    done: [u8; RINGS],
    /// Follows `done`, except with [`Fault::DoneIsCopied`], or states would differ in it alone.
    copied: [u8; RINGS],
    groups: [Group; GROUPS],
    // The checks.
    fates: [[Fate; CAPACITY]; RINGS],
}

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "traces print the fields")]
pub(crate) enum Step {
    Push { ring: usize, need: u8 },
    Appear { ring: usize, word: usize },
    Reap { ring: usize },
    Drain,
    Stop,
    Revoke,
    Launch,
    Take { group: usize, ring: usize },
    StoreDone { group: usize },
    Complete { group: usize },
    Leave { group: usize },
    Desert { group: usize },
}

impl Step {
    /// Whether a host that only wants its items carried out takes this step, or somebody who is not the host does.
    pub(crate) fn helps(self, bounds: &Bounds) -> bool {
        match self {
            Self::Push { .. } | Self::Drain | Self::Revoke | Self::Desert { .. } => false,
            Self::Stop => bounds.fault != Some(Fault::DrainIsNeverStopped),
            _ => true,
        }
    }

    /// Whether a device that runs, and a host that reaps, take this step: no launch, no command.
    pub(crate) fn is_plain_work(self) -> bool {
        matches!(
            self,
            Self::Appear { .. }
                | Self::Reap { .. }
                | Self::Take { .. }
                | Self::StoreDone { .. }
                | Self::Complete { .. }
        )
    }
}

/// Which property a step breaks.
pub(crate) type Broken = &'static str;

impl State {
    pub(crate) fn first() -> Self {
        let before = |offset| plus(FIRST, offset + (1 << BITS) - CAPACITY as u8);
        let mut tags = [0; CAPACITY];
        (0..CAPACITY as u8).for_each(|offset| tags[place(plus(FIRST, offset))] = before(offset));
        Self {
            oldest: [FIRST; RINGS],
            next: [FIRST; RINGS],
            pushed: [0; RINGS],
            needs: [[NONE; CAPACITY]; RINGS],
            lines: [tags.map(|tag| [tag; WORDS]); RINGS],
            completions: [tags; RINGS],
            command: Command::Run,
            done: [plus(FIRST, (1 << BITS) - 1); RINGS],
            copied: [plus(FIRST, (1 << BITS) - 1); RINGS],
            groups: [Group::Away; GROUPS],
            fates: [[Fate::Waits; CAPACITY]; RINGS],
        }
    }

    pub(crate) fn has_outstanding(&self) -> bool {
        self.oldest != self.next
    }

    /// Whether every group is there, and nobody told any to leave.
    pub(crate) fn runs(&self) -> bool {
        self.command == Command::Run && !self.groups.contains(&Group::Away)
    }

    fn is_outstanding(&self, ring: usize, number: u8) -> bool {
        behind(self.oldest[ring], number) < behind(self.oldest[ring], self.next[ring])
    }

    /// Every step that can be taken, with what comes of it.
    pub(crate) fn steps(&self, bounds: &Bounds, mut step: impl FnMut(Step, Result<Self, Broken>)) {
        let mut go = |which, change: &dyn Fn(&mut Self) -> Result<(), Broken>| {
            let mut state = *self;
            let result = change(&mut state).and_then(|()| state.check()).map(|()| {
                if bounds.fault != Some(Fault::DoneIsCopied) || matches!(which, Step::Launch) {
                    state.copied = state.done;
                }
                state
            });
            step(which, result);
        };
        self.memory_steps(&mut go);
        self.host_steps(bounds, &mut go);
        for group in 0..GROUPS {
            self.group_steps(bounds, group, &mut go);
        }
    }

    fn memory_steps(&self, go: &mut Go<'_>) {
        for ring in 0..RINGS {
            // Nobody looks at a later line: its words may as well appear when somebody does.
            let number = plus(self.done[ring], 1);
            for word in 0..WORDS {
                let is_late = self.lines[ring][place(number)][word] != number;
                if self.is_outstanding(ring, number) && is_late {
                    go(Step::Appear { ring, word }, &|state| {
                        state.lines[ring][place(number)][word] = number;
                        Ok(())
                    });
                }
            }
        }
    }

    fn host_steps(&self, bounds: &Bounds, go: &mut Go<'_>) {
        let is_away = self.groups.iter().all(|&group| group == Group::Away);
        for ring in 0..RINGS {
            self.pushes(bounds, ring, go);
            let oldest = self.oldest[ring];
            let word = tagged(0, wide(self.completions[ring][place(oldest)]));
            let unchecked = bounds.fault == Some(Fault::CompletionUnchecked);
            let has_completed = unchecked || completion_of(word, wide(oldest)).is_some();
            if has_completed && self.is_outstanding(ring, oldest) {
                go(Step::Reap { ring }, &|state| state.reap(ring));
            }
        }
        let mut command = |step, from: &[Command], to| {
            if !is_away && from.contains(&self.command) {
                go(step, &|state| {
                    state.command = to;
                    Ok(())
                });
            }
        };
        command(Step::Drain, &[Command::Run, Command::Revoked], Command::Drain);
        command(Step::Revoke, &[Command::Drain], Command::Revoked);
        if bounds.fault != Some(Fault::DrainIsNeverStopped) {
            command(Step::Stop, &[Command::Run, Command::Drain, Command::Revoked], Command::Stop);
        }
        if is_away {
            go(Step::Launch, &|state| {
                state.command = Command::Run;
                state.groups = [Group::Looks; GROUPS];
                if bounds.fault == Some(Fault::LaunchRepeatsItem) {
                    state.done = state.done.map(|done| plus(done, (1 << BITS) - 1));
                }
                Ok(())
            });
        }
    }

    fn pushes(&self, bounds: &Bounds, ring: usize, go: &mut Go<'_>) {
        let next = self.next[ring];
        let depth = behind(self.oldest[ring], next);
        let early = u64::from(bounds.fault == Some(Fault::PlaceReusedEarly));
        let has_room = has_room(0, u64::from(depth), CAPACITY as u64 + early);
        if !has_room || self.pushed[ring] == bounds.pushes[ring] && bounds.pushes[ring] != u8::MAX {
            return;
        }
        // Nothing checks this in the crate: it takes half of all numbers to break it.
        let is_read_rightly = (0..RINGS * CAPACITY).all(|at| {
            let need = self.needs[at / CAPACITY][at % CAPACITY];
            let is_here = need != NONE && usize::from(need >> BITS) == ring;
            !is_here || behind(plus(need, 0), next) < 1 << (BITS - 1)
        });
        if !is_read_rightly && bounds.fault != Some(Fault::OldNeedsWait) {
            return;
        }
        // Of the items of another ring, the last is the one that is complete last.
        let on = (0..RINGS).filter(|&of| of != ring && self.oldest[of] != self.next[of]);
        let last = |of: usize| (of as u8) << BITS | plus(self.next[of], (1 << BITS) - 1);
        for need in std::iter::once(NONE).chain(on.map(last)) {
            go(Step::Push { ring, need }, &|state| {
                if behind(state.oldest[ring], state.next[ring]) >= CAPACITY as u8 {
                    return Err("a line is overwritten before its item is complete");
                }
                state.needs[ring][place(next)] = need;
                state.fates[ring][place(next)] = Fate::Waits;
                state.next[ring] = plus(next, 1);
                if bounds.pushes[ring] != u8::MAX {
                    state.pushed[ring] += 1;
                }
                Ok(())
            });
        }
    }

    fn reap(&mut self, ring: usize) -> Result<(), Broken> {
        let at = place(self.oldest[ring]);
        if self.fates[ring][at] != Fate::CarriedOut {
            return Err("an item is lost: it counts as complete and was not carried out");
        }
        self.oldest[ring] = plus(self.oldest[ring], 1);
        // Forgotten, so that states that differ in the past alone are one.
        (self.needs[ring][at], self.fates[ring][at]) = (NONE, Fate::Waits);
        Ok(())
    }

    fn group_steps(&self, bounds: &Bounds, group: usize, go: &mut Go<'_>) {
        let set = |to: Group| {
            move |state: &mut Self| {
                state.groups[group] = to;
                Ok(())
            }
        };
        match self.groups[group] {
            Group::Away => {}
            Group::Works(ring) => go(Step::StoreDone { group }, &|state| {
                let ring = usize::from(ring);
                state.done[ring] = plus(state.done[ring], 1);
                state.fates[ring][place(state.done[ring])] = Fate::CarriedOut;
                state.groups[group] = Group::Tells(ring as u8);
                Ok(())
            }),
            Group::Tells(ring) => {
                go(Step::Complete { group }, &|state| {
                    let ring = usize::from(ring);
                    let done = state.done[ring];
                    state.completions[ring][place(done)] = done;
                    state.groups[group] = Group::Looks;
                    Ok(())
                });
                if bounds.fault == Some(Fault::StopAbandonsItem) && self.command == Command::Stop {
                    go(Step::Leave { group }, &set(Group::Away));
                }
            }
            Group::Looks => {
                // A host that stops takes no step for a while, and a group may find it so at any time.
                go(Step::Desert { group }, &set(Group::Away));
                if self.command == Command::Stop {
                    go(Step::Leave { group }, &set(Group::Away));
                }
                // It may not have seen the command yet, and take an item all the same.
                let mut is_idle = true;
                for &ring in RINGS_OF[group] {
                    let Some(need) = self.look(bounds, ring) else { continue };
                    is_idle = false;
                    let done = |ring: u32| wide(self.copied[ring as usize]);
                    if is_met(need, done) || bounds.fault == Some(Fault::NeedsIgnored) {
                        go(Step::Take { group, ring }, &|state| {
                            state.groups[group] = Group::Works(ring as u8);
                            state.take(ring)
                        });
                        break;
                    }
                    if bounds.fault == Some(Fault::UnmetNeedBlocks) {
                        break;
                    }
                }
                if is_idle && matches!(self.command, Command::Drain | Command::Revoked) {
                    go(Step::Leave { group }, &set(Group::Away));
                }
            }
        }
    }

    /// The need of a ring's next item as its line has it, if the line has come.
    fn look(&self, bounds: &Bounds, ring: usize) -> Option<Need> {
        let expected = plus(self.done[ring], 1);
        let tags = self.lines[ring][place(expected)];
        let words = tags.map(|tag| tagged(0, wide(tag)));
        let need = self.needs[ring][place(expected)];
        let is_enough = need == NONE || bounds.fault == Some(Fault::FirstWordIsEnough);
        let looked_at = if is_enough { &words[..1] } else { &words[..] };
        let need = if tags[1] == expected { need } else { NONE };
        has_come(looked_at, wide(expected)).then(|| need_of(need))
    }

    /// Checks the beginning of a ring's next item.
    fn take(&mut self, ring: usize) -> Result<(), Broken> {
        let number = plus(self.done[ring], 1);
        let at = place(number);
        if !self.is_outstanding(ring, number) || self.fates[ring][at] != Fate::Waits {
            return Err("an item is carried out twice, or was never pushed");
        }
        let words = if self.needs[ring][at] == NONE { 1 } else { WORDS };
        if self.lines[ring][at][..words].iter().any(|&word| word != number) {
            return Err("a torn line is taken");
        }
        let before = (0..behind(self.oldest[ring], number)).map(|i| plus(self.oldest[ring], i));
        let is_done = |ring: usize, number| {
            !self.is_outstanding(ring, number)
                || self.fates[ring][place(number)] == Fate::CarriedOut
        };
        if !before.into_iter().all(|number| is_done(ring, number)) {
            return Err("an item is carried out before one that was pushed earlier");
        }
        let need = self.needs[ring][at];
        if need != NONE && !is_done(usize::from(need >> BITS), plus(need, 0)) {
            return Err("an item is carried out before one that it needs");
        }
        self.fates[ring][at] = Fate::InWork;
        Ok(())
    }

    /// What holds in every state.
    fn check(&self) -> Result<(), Broken> {
        for (group, rings) in RINGS_OF.iter().enumerate() {
            let is_away = self.groups[group] == Group::Away;
            for &ring in *rings {
                if is_away && self.fates[ring].contains(&Fate::InWork) {
                    return Err("a group leaves in the midst of an item");
                }
                let done = self.done[ring];
                if is_away && self.completions[ring][place(done)] != done {
                    return Err("a group leaves without saying that its item is complete");
                }
            }
        }
        Ok(())
    }
}

/// Takes one step of the model: which, and what it changes.
type Go<'g> = dyn FnMut(Step, &dyn Fn(&mut State) -> Result<(), Broken>) + 'g;

const _: () = assert!(NO_RING == Need::NONE.ring);
