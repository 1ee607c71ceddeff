//! Every step that the host, the memory or the device can take.

use kasmina_ring::protocol::{completion_of, has_room, is_met};
use kasmina_types::manifold::{ItemDescriptor, tagged};

use crate::bounds::{Fault, GROUPS, RINGS, RINGS_OF};
use crate::look::{Seen, Written};
use crate::numbers::{CAPACITY, Needs, behind, minus, place, plus, wide};
use crate::state::{Broken, Command, Fate, Group, Model, Presence, State};

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "traces print the fields")]
pub(crate) enum Step {
    /// The host begins to write the words of an item's line.
    Write {
        ring: usize,
        needs: Needs,
    },
    /// The words are written: the item counts.
    Count {
        ring: usize,
    },
    /// Who pushed launches the device if it is away.
    Wake,
    Reap {
        ring: usize,
    },
    Drain,
    Stop,
    Revoke,
    /// The host finds all groups gone.
    FindGone,
    /// Behind that it looks for items, and launches the device if there are any.
    LookForItems,
    /// The last words of a line appear.
    Appear {
        ring: usize,
    },
    Take {
        group: usize,
        ring: usize,
    },
    StoreDone {
        group: usize,
    },
    Complete {
        group: usize,
    },
    Leave {
        group: usize,
    },
    Desert {
        group: usize,
    },
}

impl Step {
    /// Whether a host that only wants its items carried out takes this step, or somebody who is not the host does.
    pub(crate) fn helps(self, model: &Model) -> bool {
        match self {
            Self::Write { .. } | Self::Revoke | Self::Desert { .. } => false,
            // One of the two is how the host has the device leave.
            Self::Drain => model.has(Fault::DrainIsNeverStopped),
            _ => true,
        }
    }

    /// Whether a device that runs, and a host that pushes an item to its end and reaps, take this step: no launch, no
    /// command.
    pub(crate) fn is_plain_work(self) -> bool {
        matches!(
            self,
            Self::Count { .. }
                | Self::Appear { .. }
                | Self::Reap { .. }
                | Self::Take { .. }
                | Self::StoreDone { .. }
                | Self::Complete { .. }
        )
    }
}

/// Takes one step of the model: which, and what it changes.
type Go<'g> = dyn FnMut(Step, &dyn Fn(&mut State) -> Result<(), Broken>) + 'g;

/// What a group concludes from one look at its rings.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    Take {
        ring: usize,
        read: ItemDescriptor,
    },
    /// Something has come, and waits for what it needs.
    Wait,
    Nothing,
}

impl State {
    /// Every step that can be taken, with what comes of it.
    pub(crate) fn steps(&self, model: &Model, mut step: impl FnMut(Step, Result<Self, Broken>)) {
        let mut go = |which, change: &dyn Fn(&mut Self) -> Result<(), Broken>| {
            let mut state = *self;
            let result = change(&mut state).and_then(|()| state.check()).map(|()| {
                let is_launch = matches!(which, Step::Wake | Step::LookForItems);
                if !model.has(Fault::DoneIsCopied) || is_launch {
                    state.copied = state.done;
                }
                state
            });
            step(which, result);
        };
        for ring in 0..RINGS {
            self.push_steps(model, ring, &mut go);
            self.reap_steps(model, ring, &mut go);
        }
        self.command_steps(model, &mut go);
        self.presence_steps(model, &mut go);
        for group in 0..GROUPS {
            self.group_steps(model, group, &mut go);
        }
    }

    fn push_steps(&self, model: &Model, ring: usize, go: &mut Go<'_>) {
        let next = self.next[ring];
        if self.writes[ring] {
            go(Step::Count { ring }, &|state| {
                state.writes[ring] = false;
                state.next[ring] = plus(next, 1);
                state.wakes |= !model.has(Fault::WakesEarly);
                Ok(())
            });
            return;
        }
        let depth = behind(self.oldest[ring], next);
        let early = u64::from(model.has(Fault::PlaceReusedEarly));
        let has_room = has_room(0, u64::from(depth), CAPACITY as u64 + early);
        let waits = !self.reads_needs_rightly(ring) && !model.has(Fault::OldNeedsWait);
        if !has_room || waits || !model.may_push(ring, self.pushed[ring]) {
            return;
        }
        for needs in self.choices(ring) {
            go(Step::Write { ring, needs }, &|state| {
                if depth >= CAPACITY as u8 {
                    return Err("a line is overwritten before its item is complete");
                }
                state.needs[ring][place(next)] = needs;
                state.fates[ring][place(next)] = Fate::Waits;
                state.writes[ring] = true;
                state.wakes |= model.has(Fault::WakesEarly);
                if model.counts_pushes(ring) {
                    state.pushed[ring] += 1;
                }
                Ok(())
            });
        }
    }

    fn reap_steps(&self, model: &Model, ring: usize, go: &mut Go<'_>) {
        let oldest = self.oldest[ring];
        let word = tagged(0, wide(self.completions[ring][place(oldest)]));
        let has_completed =
            model.has(Fault::CompletionUnchecked) || completion_of(word, wide(oldest)).is_some();
        // A ring's lock is held while a line is written.
        if has_completed && oldest != self.next[ring] && !self.writes[ring] {
            go(Step::Reap { ring }, &|state| state.reap(ring));
        }
    }

    fn command_steps(&self, model: &Model, go: &mut Go<'_>) {
        let mut command = |step, from: &[Command], to| {
            if !self.are_all_away() && from.contains(&self.command) {
                go(step, &|state| {
                    state.command = to;
                    Ok(())
                });
            }
        };
        command(Step::Drain, &[Command::Run, Command::Revoked], Command::Drain);
        command(Step::Revoke, &[Command::Drain], Command::Revoked);
        if !model.has(Fault::DrainIsNeverStopped) {
            command(Step::Stop, &[Command::Run, Command::Drain, Command::Revoked], Command::Stop);
        }
    }

    /// Launches, and what leads to them.
    fn presence_steps(&self, model: &Model, go: &mut Go<'_>) {
        let launch = |state: &mut Self| {
            state.presence = Presence::There;
            state.command = Command::Run;
            state.groups = [Group::Looks; GROUPS];
            if model.has(Fault::LaunchRepeatsItem) {
                state.done = state.done.map(|done| minus(done, 1));
            }
        };
        let is_locked = matches!(self.presence, Presence::NewlyAway | Presence::FoundIdle);
        // Who sees that the device is there does not wait for the lock.
        let seems_away = matches!(self.presence, Presence::NewlyAway | Presence::Away);
        if self.wakes && !(seems_away && is_locked) {
            go(Step::Wake, &|state| {
                state.wakes = false;
                if seems_away {
                    launch(state);
                }
                Ok(())
            });
        }
        if self.presence == Presence::There && self.are_all_away() {
            go(Step::FindGone, &|state| {
                state.presence = Presence::NewlyAway;
                if model.has(Fault::AwayIsSaidLate) {
                    state.presence = Presence::FoundIdle;
                    if state.has_outstanding() {
                        launch(state);
                    }
                }
                Ok(())
            });
        }
        if is_locked {
            go(Step::LookForItems, &|state| {
                state.presence = Presence::Away;
                if self.presence == Presence::NewlyAway && state.has_outstanding() {
                    launch(state);
                }
                Ok(())
            });
        }
    }

    fn group_steps(&self, model: &Model, group: usize, go: &mut Go<'_>) {
        let set = |to: Group| {
            move |state: &mut Self| {
                state.groups[group] = to;
                Ok(())
            }
        };
        match self.groups[group] {
            Group::Away => {}
            Group::Works(ring) => {
                go(Step::StoreDone { group }, &|state| {
                    let ring = usize::from(ring);
                    state.done[ring] = plus(state.done[ring], 1);
                    state.fates[ring][place(state.done[ring])] = Fate::CarriedOut;
                    state.groups[group] = Group::Tells(ring as u8);
                    Ok(())
                });
                if model.has(Fault::StopEndsWork) && self.command == Command::Stop {
                    go(Step::Leave { group }, &set(Group::Away));
                }
            }
            Group::Tells(ring) => {
                go(Step::Complete { group }, &|state| {
                    let ring = usize::from(ring);
                    let done = state.done[ring];
                    state.completions[ring][place(done)] = done;
                    state.groups[group] = Group::Looks;
                    Ok(())
                });
                if model.has(Fault::StopAbandonsItem) && self.command == Command::Stop {
                    go(Step::Leave { group }, &set(Group::Away));
                }
            }
            Group::Looks => {
                for &ring in RINGS_OF[group] {
                    // A line that nobody looks at, for its group is at work, may as well be whole when it looks.
                    if matches!(self.line(ring, plus(self.done[ring], 1)), Written::Partly(_)) {
                        go(Step::Appear { ring }, &|state| {
                            state.is_whole[ring] = true;
                            Ok(())
                        });
                    }
                }
                // A host that stops takes no step for a while, and a group may find it so at any time.
                go(Step::Desert { group }, &set(Group::Away));
                if self.command == Command::Stop {
                    go(Step::Leave { group }, &set(Group::Away));
                }
                // It may not have seen the command yet, and take an item all the same.
                for look in self.looks(model, RINGS_OF[group]) {
                    match look {
                        Look::Take { ring, read } => go(Step::Take { group, ring }, &|state| {
                            state.groups[group] = Group::Works(ring as u8);
                            state.begin(ring, &read)
                        }),
                        Look::Nothing
                            if matches!(self.command, Command::Drain | Command::Revoked) =>
                        {
                            go(Step::Leave { group }, &set(Group::Away));
                        }
                        Look::Wait | Look::Nothing => {}
                    }
                }
            }
        }
    }

    /// All that one look of a group at its rings may find.
    fn looks(&self, model: &Model, rings: &[usize]) -> Vec<Look> {
        let lines = rings.iter().map(|&ring| {
            let expected = plus(self.done[ring], 1);
            model.looks.at(expected, self.line(ring, expected))
        });
        let mut mixes: Vec<Vec<Seen>> = vec![Vec::new()];
        for line in lines {
            let with = |mix: &Vec<Seen>| {
                let mix = mix.clone();
                line.iter().map(move |&seen| [mix.as_slice(), &[seen]].concat())
            };
            mixes = mixes.iter().flat_map(with).collect();
        }
        let mut looks = Vec::new();
        for look in mixes.iter().map(|mix| self.look(model, rings, mix)) {
            if !looks.contains(&look) {
                looks.push(look);
            }
        }
        looks
    }

    fn look(&self, model: &Model, rings: &[usize], lines: &[Seen]) -> Look {
        // A warp looks at both lines, and at all words of both where one of them names a need.
        let rest = lines.iter().any(|seen| seen.names_need);
        let mut look = Look::Nothing;
        for (&ring, seen) in rings.iter().zip(lines) {
            let Some(read) = seen.item(rest) else { continue };
            look = Look::Wait;
            let done = |ring: u32| wide(self.copied[ring as usize]);
            let is_met = read.needs.iter().all(|&need| is_met(need, done));
            if is_met || model.has(Fault::NeedsIgnored) {
                return Look::Take { ring, read };
            }
            if model.has(Fault::UnmetNeedBlocks) {
                break;
            }
        }
        look
    }
}
