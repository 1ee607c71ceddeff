//! Breadth-first search through all states of the model.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use crate::state::{Broken, Model, State};

/// What a search found.
pub(crate) struct Found {
    /// States that can be reached, or were before something broke.
    pub(crate) states: usize,
    /// Steps among them.
    pub(crate) steps: usize,
    /// What broke first, and the steps to it.
    pub(crate) broken: Option<(Broken, Vec<String>)>,
}

/// Explores everything within the model's bounds.
pub(crate) fn search(model: &Model) -> Found {
    let mut seen = Seen::default();
    seen.insert(State::first());
    let mut parents = vec![0_u32];
    let mut edges = Edges::default();
    let mut steps = 0;
    let mut at = 0;
    while at < seen.states.len() {
        let state = seen.states[at];
        let mut broken = None;
        state.steps(model, |step, result| {
            steps += 1;
            match result {
                Ok(next) => {
                    let index = seen.insert(next);
                    if index as usize == parents.len() {
                        parents.push(at as u32);
                    }
                    let is_plain = step.is_plain_work();
                    if step.helps(model) {
                        edges.all.push((index, at as u32, is_plain));
                    }
                }
                Err(what) => broken = broken.or(Some((what, step))),
            }
        });
        if let Some((what, step)) = broken {
            let mut trace = trace(&seen, &parents, at, model);
            trace.push(format!("{step:?}"));
            return Found { states: seen.states.len(), steps, broken: Some((what, trace)) };
        }
        at += 1;
    }
    let states = &seen.states;
    let dead_end = edges
        .dead_end(states, |_| true, |_| true)
        .map(|at| ("a dead end: items stay outstanding whatever is launched", at))
        .or_else(|| {
            edges
                .dead_end(states, |is_plain| is_plain, State::runs)
                .map(|at| ("a dead end: items stay outstanding until a new launch", at))
        });
    let broken = dead_end.map(|(what, at)| (what, trace(&seen, &parents, at, model)));
    Found { states: states.len(), steps, broken }
}

/// The steps to a state.
fn trace(seen: &Seen, parents: &[u32], mut at: usize, model: &Model) -> Vec<String> {
    let mut trace = Vec::new();
    while at != 0 {
        let parent = parents[at] as usize;
        let mut taken = None;
        seen.states[parent].steps(model, |step, result| {
            if taken.is_none() && result == Ok(seen.states[at]) {
                taken = Some(format!("{step:?}"));
            }
        });
        trace.extend(taken);
        at = parent;
    }
    trace.reverse();
    trace
}

/// Steps that help to get items carried out: to, from, and whether it is plain work.
#[derive(Default)]
struct Edges {
    all: Vec<(u32, u32, bool)>,
}

impl Edges {
    /// A state, of those that `counts` names, from which no steps that are `allowed` lead to one with nothing
    /// outstanding.
    fn dead_end(
        &self,
        states: &[State],
        allowed: impl Fn(bool) -> bool,
        counts: impl Fn(&State) -> bool,
    ) -> Option<usize> {
        // Where each state's incoming steps begin, in the order of the states they lead to.
        let mut starts = vec![0_u32; states.len() + 1];
        for edge in self.all.iter().filter(|edge| allowed(edge.2)) {
            starts[edge.0 as usize + 1] += 1;
        }
        (0..states.len()).for_each(|index| starts[index + 1] += starts[index]);
        let mut ends = starts.clone();
        let mut sources = vec![0_u32; starts[states.len()] as usize];
        for &(to, from, _) in self.all.iter().filter(|edge| allowed(edge.2)) {
            sources[ends[to as usize] as usize] = from;
            ends[to as usize] += 1;
        }
        let mut reaches: Vec<bool> = states.iter().map(State::is_over).collect();
        let mut open: Vec<u32> =
            (0..states.len() as u32).filter(|&i| reaches[i as usize]).collect();
        while let Some(to) = open.pop() {
            for at in starts[to as usize]..starts[to as usize + 1] {
                let from = sources[at as usize];
                if !std::mem::replace(&mut reaches[from as usize], true) {
                    open.push(from);
                }
            }
        }
        (0..states.len()).find(|&index| counts(&states[index]) && !reaches[index])
    }
}

/// The states found so far, numbered in that order, and a hash table of the numbers.
#[derive(Default)]
struct Seen {
    states: Vec<State>,
    /// A power of two of places, each a number or `u32::MAX`.
    table: Vec<u32>,
    keys: RandomState,
}

impl Seen {
    /// The number of a state, which is new if it is the last.
    fn insert(&mut self, state: State) -> u32 {
        if self.table.len() <= 2 * self.states.len() {
            self.grow();
        }
        let place = self.place(&state);
        if self.table[place] == u32::MAX {
            self.table[place] = self.states.len() as u32;
            self.states.push(state);
        }
        self.table[place]
    }

    fn grow(&mut self) {
        self.table = vec![u32::MAX; (4 * self.states.len()).next_power_of_two().max(1 << 10)];
        for index in 0..self.states.len() {
            let place = self.place(&self.states[index]);
            self.table[place] = index as u32;
        }
    }

    /// Where a state is, or would be.
    fn place(&self, state: &State) -> usize {
        let mask = self.table.len() - 1;
        let mut hasher = Mixer(self.keys.hash_one(0));
        state.hash(&mut hasher);
        let mut place = hasher.finish() as usize & mask;
        while let Some(found) = self.states.get(self.table[place] as usize) {
            if found == state {
                break;
            }
            place = (place + 1) & mask;
        }
        place
    }
}

/// A quick hash of small values.
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
