//! The state of host, memory and device, and what holds in it.

use kasmina_types::manifold::ItemDescriptor;

use crate::bounds::{ANY, Bounds, Fault, GROUPS, RINGS, RINGS_OF};
use crate::look::{Looks, Written, item};
use crate::numbers::{CAPACITY, FIRST, HALF, Needed, Needs, behind, minus, place, plus};

/// What does not change from state to state.
pub(crate) struct Model {
    bounds: Bounds,
    pub(crate) looks: Looks,
}

impl Model {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, looks: Looks::new(bounds.fault) }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.bounds.fault == Some(fault)
    }

    /// Whether so many pushes to a ring are fewer than are explored.
    pub(crate) fn may_push(&self, ring: usize, pushed: u8) -> bool {
        !self.counts_pushes(ring) || pushed < self.bounds.pushes[ring]
    }

    pub(crate) fn counts_pushes(&self, ring: usize) -> bool {
        self.bounds.pushes[ring] != ANY
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Command {
    Run,
    Drain,
    /// [`Self::Run`] after [`Self::Drain`], which a group may have seen, or see late.
    Revoked,
    Stop,
}

/// Whether the host takes the device to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Presence {
    There,
    /// Away; who found it gone has not looked for items yet, and holds the lock.
    NewlyAway,
    /// With [`Fault::AwayIsSaidLate`]: still said to be there; who found it gone has seen no items, and holds the lock.
    FoundIdle,
    Away,
}

/// What a group is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Group {
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
pub(crate) enum Fate {
    Waits,
    InWork,
    CarriedOut,
}

/// Which property a step breaks.
pub(crate) type Broken = &'static str;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    // The host. Items from `oldest` on are outstanding, and those before `next` count as pushed.
    pub(crate) oldest: [u8; RINGS],
    pub(crate) next: [u8; RINGS],
    /// Whether the words of item `next` are being written, under the ring's lock.
    pub(crate) writes: [bool; RINGS],
    pub(crate) pushed: [u8; RINGS],
    pub(crate) needs: [[Needs; CAPACITY]; RINGS],
    pub(crate) presence: Presence,
    /// Whether somebody has pushed, and not looked yet whether the device is there.
    pub(crate) wakes: bool,
    // The memory. Lines follow from numbers and needs; of completions the tags are kept, for the data go with them.
    /// Whether all words of the line that the device expects next are there for it. Nobody looks at a later line: its
    /// words may as well appear when somebody does.
    pub(crate) is_whole: [bool; RINGS],
    pub(crate) completions: [[u8; CAPACITY]; RINGS],
    pub(crate) command: Command,
    // The device.
    pub(crate) done: [u8; RINGS],
    /// Follows `done`, except with [`Fault::DoneIsCopied`], or states would differ in it alone.
    pub(crate) copied: [u8; RINGS],
    pub(crate) groups: [Group; GROUPS],
    // The checks.
    pub(crate) fates: [[Fate; CAPACITY]; RINGS],
}

impl State {
    pub(crate) fn first() -> Self {
        let mut tags = [0; CAPACITY];
        for number in (0..CAPACITY as u8).map(|offset| plus(FIRST, offset)) {
            tags[place(number)] = minus(number, CAPACITY as u8);
        }
        Self {
            oldest: [FIRST; RINGS],
            next: [FIRST; RINGS],
            writes: [false; RINGS],
            pushed: [0; RINGS],
            needs: [[[None; 2]; CAPACITY]; RINGS],
            presence: Presence::Away,
            wakes: false,
            is_whole: [false; RINGS],
            completions: [tags; RINGS],
            command: Command::Run,
            done: [minus(FIRST, 1); RINGS],
            copied: [minus(FIRST, 1); RINGS],
            groups: [Group::Away; GROUPS],
            fates: [[Fate::Waits; CAPACITY]; RINGS],
        }
    }

    /// Whether items count as pushed that are not complete.
    pub(crate) fn has_outstanding(&self) -> bool {
        self.oldest != self.next
    }

    /// Whether every item is complete, and none is on its way.
    pub(crate) fn is_over(&self) -> bool {
        !self.has_outstanding() && self.writes == [false; RINGS]
    }

    /// Whether every group is there, and nobody told any to leave.
    pub(crate) fn runs(&self) -> bool {
        self.command == Command::Run && !self.groups.contains(&Group::Away)
    }

    pub(crate) fn are_all_away(&self) -> bool {
        self.groups == [Group::Away; GROUPS]
    }

    /// The item behind the last of a ring that has words in its line.
    fn end(&self, ring: usize) -> u8 {
        plus(self.next[ring], self.writes[ring].into())
    }

    fn is_outstanding(&self, ring: usize, number: u8) -> bool {
        behind(self.oldest[ring], number) < behind(self.oldest[ring], self.end(ring))
    }

    /// What the line has that the device expects next, as far as it can be seen.
    pub(crate) fn line(&self, ring: usize, number: u8) -> Written {
        let needs = self.needs[ring][place(number)];
        match behind(number, self.end(ring)) as usize {
            1..=CAPACITY if self.is_whole[ring] => Written::Whole(needs),
            1..=CAPACITY => Written::Partly(needs),
            _ => Written::Nothing,
        }
    }

    /// Whether the host may push to a ring, which nothing checks in the crate: it takes half of all numbers for a need to
    /// be misread.
    pub(crate) fn reads_needs_rightly(&self, ring: usize) -> bool {
        let needs = self.needs.as_flattened().as_flattened().iter().flatten();
        needs
            .filter(|need| need.ring() == ring)
            .all(|need| behind(need.number(), self.next[ring]) < HALF)
    }

    /// What a new item of a ring can need: of the items of each other ring, the last is the one that is complete last.
    pub(crate) fn choices(&self, ring: usize) -> Vec<Needs> {
        let mut choices = vec![[None; 2]];
        for of in (0..RINGS).filter(|&of| of != ring && self.oldest[of] != self.next[of]) {
            let last = Some(Needed::new(of, minus(self.next[of], 1)));
            for index in 0..choices.len() {
                let [first, second] = choices[index];
                let more = if first.is_none() { [last, second] } else { [first, last] };
                choices.push(more);
            }
        }
        choices
    }

    /// A group begins the next item of a ring, as it has read it.
    pub(crate) fn begin(&mut self, ring: usize, read: &ItemDescriptor) -> Result<(), Broken> {
        let number = plus(self.done[ring], 1);
        let at = place(number);
        if !self.is_outstanding(ring, number) || self.fates[ring][at] != Fate::Waits {
            return Err("an item is carried out twice, or was never pushed");
        }
        let is_done = |ring: usize, number| {
            !self.is_outstanding(ring, number)
                || self.fates[ring][place(number)] == Fate::CarriedOut
        };
        let mut before = (0..behind(self.oldest[ring], number)).map(|i| plus(self.oldest[ring], i));
        if !before.all(|number| is_done(ring, number)) {
            return Err("an item is carried out before one that was pushed earlier");
        }
        let needs = self.needs[ring][at];
        if !needs.iter().flatten().all(|need| is_done(need.ring(), need.number())) {
            return Err("an item is carried out before one that it needs");
        }
        if *read != item(number, needs) {
            return Err("a torn line is taken");
        }
        self.fates[ring][at] = Fate::InWork;
        // Nobody looks at the line any more.
        self.is_whole[ring] = false;
        Ok(())
    }

    /// The host takes the oldest item of a ring as complete.
    pub(crate) fn reap(&mut self, ring: usize) -> Result<(), Broken> {
        let at = place(self.oldest[ring]);
        if self.fates[ring][at] != Fate::CarriedOut {
            return Err("an item is lost: it counts as complete and was not carried out");
        }
        self.oldest[ring] = plus(self.oldest[ring], 1);
        // Forgotten, so that states that differ in the past alone are one.
        (self.needs[ring][at], self.fates[ring][at]) = ([None; 2], Fate::Waits);
        Ok(())
    }

    /// What holds in every state.
    pub(crate) fn check(&self) -> Result<(), Broken> {
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
