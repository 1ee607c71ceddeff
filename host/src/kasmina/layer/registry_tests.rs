//! The registry against a model: a list of ids by recency.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

const CHUNK: usize = 4;
const BYTES: usize = CHUNK * size_of::<f32>();

/// Least recently used first.
#[derive(Default)]
struct Model {
    order: VecDeque<u16>,
    never_used: BTreeSet<u16>,
    given_up: VecDeque<u16>,
}

impl Model {
    fn touch(&mut self, id: u16) {
        if let Some(at) = self.order.iter().position(|&other| other == id) {
            self.order.remove(at);
            self.order.push_back(id);
        }
    }

    fn give_up(&mut self, id: u16) {
        self.order.retain(|&other| other != id);
        self.given_up.push_back(id);
    }
}

#[test]
fn it_agrees_with_the_model() {
    for seed in 0..200 {
        let mut numbers = SmallRng::seed_from_u64(seed);
        let ids = numbers.random_range(2..12_u16);
        let slots = numbers.random_range(1..8_usize).min(usize::from(ids) - 1);
        let budget = slots * BYTES + numbers.random_range(0..BYTES);
        let mut registry = Registry::new(usize::from(ids), CHUNK, Some(budget));
        let mut model = Model { never_used: (1..ids).collect(), ..Model::default() };
        let mut pinned = BTreeSet::new();
        for _ in 0..300 {
            let id = numbers.random_range(1..ids);
            match numbers.random_range(0..10) {
                0..5 => load(&mut registry, &mut model, &pinned, slots),
                5 => {
                    registry.touch(id);
                    model.touch(id);
                }
                6 => {
                    if registry.is_loaded(id) {
                        registry.replaced(id);
                        model.touch(id);
                    }
                }
                7 => {
                    if registry.is_loaded(id) && !pinned.contains(&id) {
                        registry.give_up(id);
                        model.give_up(id);
                    }
                }
                8 => {
                    if registry.is_loaded(id) {
                        pinned.insert(id);
                    }
                }
                _ => {
                    pinned.remove(&id);
                }
            }
            let mut loaded: Vec<u16> = model.order.iter().copied().collect();
            loaded.sort_unstable();
            assert_eq!(registry.ids(), loaded, "seed {seed}");
            assert!(pinned.iter().all(|&id| registry.is_loaded(id)), "a pinned one is gone");
            let used: HashMap<usize, u16> =
                loaded.iter().map(|&id| (registry.slot(id).expect("loaded"), id)).collect();
            assert_eq!(used.len(), loaded.len(), "two blueprints in one slot");
            assert!(used.keys().all(|&slot| (1..=slots).contains(&slot)));
            assert!(registry.statistics().used_bytes <= budget);
        }
    }
}

fn load(registry: &mut Registry, model: &mut Model, pinned: &BTreeSet<u16>, slots: usize) {
    let placed = registry.place(|id| pinned.contains(&id));
    let mut evicted = None;
    if model.order.len() == slots {
        let victim = model.order.iter().copied().find(|id| !pinned.contains(id));
        let Some(victim) = victim else {
            assert!(matches!(placed, Err(LayerError::BudgetExhausted { .. })), "{placed:?}");
            return;
        };
        evicted = Some(victim);
    }
    let id = match (model.never_used.pop_first(), evicted) {
        (Some(id), _) => id,
        (None, None) => model.given_up.pop_front().expect("an id is free"),
        (None, Some(victim)) => model.given_up.pop_front().unwrap_or(victim),
    };
    if let Some(victim) = evicted {
        model.give_up(victim);
        model.given_up.retain(|&other| other != id);
    }
    model.order.push_back(id);
    let placement = placed.expect("there is room");
    assert_eq!(registry.record(placement), LoadedBlueprint { id, evicted });
}

#[test]
fn the_budget_counts_whole_blueprints() {
    for (budget, slots) in
        [(None, 9), (Some(BYTES), 1), (Some(3 * BYTES - 1), 2), (Some(1 << 20), 9)]
    {
        assert_eq!(Registry::new(10, CHUNK, budget).slots(), slots);
    }
}

#[test]
fn what_is_gone_says_so() {
    let mut registry = Registry::new(4, CHUNK, Some(BYTES));
    let first = registry.place(|_| false).map(|p| registry.record(p)).expect("room");
    assert_eq!(registry.slot(2), Err(LayerError::NotLoaded { id: 2, evicted: false }));
    let second = registry.place(|_| false).map(|p| registry.record(p)).expect("room");
    assert_eq!(second, LoadedBlueprint { id: 2, evicted: Some(first.id) });
    assert_eq!(registry.slot(1), Err(LayerError::NotLoaded { id: 1, evicted: true }));
    assert_eq!(registry.slot(0), Err(LayerError::NotLoaded { id: 0, evicted: false }));
    assert_eq!(registry.slot(900), Err(LayerError::NotLoaded { id: 900, evicted: false }));
}

#[test]
fn a_restored_registry_goes_on_as_the_one_before() {
    for seed in 0..200 {
        let mut numbers = SmallRng::seed_from_u64(seed);
        let ids = numbers.random_range(2..12_u16);
        let mut registry = Registry::new(usize::from(ids), CHUNK, Some(5 * BYTES));
        let turn = |registry: &mut Registry, number: u16| {
            let id = 1 + number % (ids - 1);
            match number % 5 {
                0 => registry.give_up(id),
                1 if registry.is_loaded(id) => registry.touch(id),
                _ => drop(registry.place(|_| false).map(|placement| registry.record(placement))),
            }
        };
        for _ in 0..numbers.random_range(0..40) {
            turn(&mut registry, numbers.random());
        }
        let loaded = registry.ids();
        let mut by_use: Vec<_> = registry.use_ranks(&loaded).into_iter().zip(loaded).collect();
        by_use.sort_unstable();
        let by_use: Vec<u16> = by_use.into_iter().map(|(_, id)| id).collect();
        // Into one with a history of its own.
        let mut other = Registry::new(usize::from(ids), CHUNK, Some(5 * BYTES));
        for _ in 0..numbers.random_range(0..40) {
            turn(&mut other, numbers.random());
        }
        let mut restored = other.restored(&by_use, &registry.retired()).expect("as many slots");
        for _ in 0..40 {
            let number = numbers.random();
            turn(&mut registry, number);
            turn(&mut restored, number);
            assert_eq!(restored.ids(), registry.ids(), "seed {seed}");
            assert_eq!(restored.retired(), registry.retired(), "seed {seed}");
        }
    }
}

#[test]
fn every_id_may_be_loaded() {
    let mut registry = Registry::new(1 << 16, CHUNK, None);
    let all: Vec<u16> = (1..=u16::MAX).collect();
    registry = registry.with_loaded(&all).expect("room");
    assert_eq!(registry.ids(), all);
    registry.give_up(u16::MAX);
    assert_eq!(registry.retired(), [u16::MAX]);
    assert_eq!(registry.place(|_| true).expect("room").id, u16::MAX);
}
