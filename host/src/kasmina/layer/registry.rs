//! Which blueprints are loaded, where their weights lie, and which goes when there is no room.
//!
//! This is bookkeeping alone: a decision is made first, carried out on the device, and only then
//! recorded, so that a failed copy changes nothing here.

use kasmina_types::BlueprintType;
use serde::Serialize;

use super::error::LayerError;

/// A blueprint as it is loaded: what the seeds that hold it compute.
///
/// ```
/// use kasmina::kasmina::Blueprint;
/// use kasmina::types::BlueprintType;
///
/// let scale = Blueprint { kind: BlueprintType::Scale, weights: vec![0.5; 16], scale: 2.0 };
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// The transformation.
    pub kind: BlueprintType,
    /// Weights, `[chunk_size]`; a CONV_FILTER may have its taps alone.
    pub weights: Vec<f32>,
    /// The scale s.
    pub scale: f32,
}

/// What loading a blueprint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LoadedBlueprint {
    /// Its id.
    pub id: u16,
    /// The blueprint that went for it.
    pub evicted: Option<u16>,
}

/// What the registry has done and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RegistryStatistics {
    /// Blueprints loaded now.
    pub loaded: usize,
    /// Blueprints that fit the budget.
    pub slots: usize,
    /// Bytes of the weights of those loaded.
    pub used_bytes: usize,
    /// Loads so far.
    pub loads: u64,
    /// Replacements so far.
    pub replacements: u64,
    /// Evictions so far.
    pub evictions: u64,
    /// LINEAR blueprints loaded now.
    pub linear: usize,
    /// Their matrices that fit `linear_budget_bytes`.
    pub linear_slots: usize,
    /// Bytes of the matrices of those loaded.
    pub linear_bytes: usize,
}

/// Where a blueprint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) id: u16,
    /// From 1: slot 0 is that of 'none'.
    pub(crate) slot: usize,
    pub(crate) evicts: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: usize,
    last_used: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// By id; that of 0 stays empty.
    entries: Vec<Option<Entry>>,
    /// When the id was last given up, by id; 0 for never.
    given_up: Vec<u64>,
    /// Whether the slot is taken, by slot; slot 0 always is.
    taken: Vec<bool>,
    clock: u64,
    blueprint_bytes: usize,
    budget_bytes: usize,
    loads: u64,
    replacements: u64,
    evictions: u64,
}

impl Registry {
    /// A registry of `max_blueprints` ids, of which as many are loaded at a time as the budget holds.
    pub(crate) fn new(max_blueprints: usize, chunk_size: usize, budget: Option<usize>) -> Self {
        let blueprint_bytes = chunk_size * size_of::<f32>();
        let most = max_blueprints - 1;
        let slots = budget.map_or(most, |bytes| (bytes / blueprint_bytes).min(most));
        let mut taken = vec![false; slots + 1];
        taken[0] = true;
        Self {
            entries: vec![None; max_blueprints],
            given_up: vec![0; max_blueprints],
            taken,
            clock: 0,
            blueprint_bytes,
            budget_bytes: budget.unwrap_or(most * blueprint_bytes),
            loads: 0,
            replacements: 0,
            evictions: 0,
        }
    }

    /// Blueprints that fit.
    pub(crate) fn slots(&self) -> usize {
        self.taken.len() - 1
    }

    /// Where a new blueprint would go. `pinned` says of an id whether a seed uses it.
    ///
    /// The id is the lowest that never was one, else the one that was given up longest ago: ids that a
    /// caller may still remember come back as late as possible.
    pub(crate) fn place(&self, pinned: impl Fn(u16) -> bool) -> Result<Placement, LayerError> {
        if let Some(slot) = self.taken.iter().position(|taken| !taken) {
            let id = self.free_id(None).expect("there are at least as many ids as slots");
            return Ok(Placement { id, slot, evicts: None });
        }
        let (victim, entry) = self
            .loaded()
            .filter(|&(id, _)| !pinned(id))
            .min_by_key(|(_, entry)| entry.last_used)
            .ok_or(LayerError::BudgetExhausted {
                slots: self.slots(),
                budget_bytes: self.budget_bytes,
            })?;
        let id = self.free_id(Some(victim)).expect("the victim's at least");
        Ok(Placement { id, slot: entry.slot, evicts: Some(victim) })
    }

    /// As [`Self::place`], in the place of one of the `candidates`, whatever room there is.
    pub(crate) fn place_over(&self, candidates: impl Fn(u16) -> bool) -> Option<Placement> {
        let (victim, entry) = self
            .loaded()
            .filter(|&(id, _)| candidates(id))
            .min_by_key(|(_, entry)| entry.last_used)?;
        let id = self.free_id(Some(victim)).expect("the victim's at least");
        Some(Placement { id, slot: entry.slot, evicts: Some(victim) })
    }

    /// Records a placement that was carried out.
    pub(crate) fn record(&mut self, placement: Placement) -> LoadedBlueprint {
        if let Some(victim) = placement.evicts {
            self.evict(victim);
        }
        self.clock += 1;
        self.taken[placement.slot] = true;
        self.entries[usize::from(placement.id)] =
            Some(Entry { slot: placement.slot, last_used: self.clock });
        self.loads += 1;
        LoadedBlueprint { id: placement.id, evicted: placement.evicts }
    }

    /// The slot of a loaded blueprint.
    pub(crate) fn slot(&self, id: u16) -> Result<usize, LayerError> {
        let entry = self.entries.get(usize::from(id)).copied().flatten();
        let evicted = self.given_up.get(usize::from(id)).is_some_and(|&when| when > 0);
        entry.map(|entry| entry.slot).ok_or(LayerError::NotLoaded { id, evicted })
    }

    /// Whether the id is loaded.
    #[cfg(test)]
    pub(crate) fn is_loaded(&self, id: u16) -> bool {
        self.slot(id).is_ok()
    }

    /// Marks a blueprint as used just now.
    pub(crate) fn touch(&mut self, id: u16) {
        self.clock += 1;
        if let Some(Some(entry)) = self.entries.get_mut(usize::from(id)) {
            entry.last_used = self.clock;
        }
    }

    /// Records a replacement: id and slot stay.
    pub(crate) fn replaced(&mut self, id: u16) {
        self.touch(id);
        self.replacements += 1;
    }

    /// Forgets a loaded blueprint.
    pub(crate) fn give_up(&mut self, id: u16) {
        if let Some(entry) = self.entries[usize::from(id)].take() {
            self.clock += 1;
            self.taken[entry.slot] = false;
            self.given_up[usize::from(id)] = self.clock;
        }
    }

    /// As [`Self::give_up`], for another blueprint; nothing where that has been done.
    pub(crate) fn evict(&mut self, id: u16) {
        if self.entries[usize::from(id)].is_some() {
            self.give_up(id);
            self.evictions += 1;
        }
    }

    /// A registry in which exactly `ids` are loaded, in ascending slots.
    pub(crate) fn with_loaded(&self, ids: &[u16]) -> Result<Self, LayerError> {
        if ids.len() > self.slots() {
            let (slots, budget_bytes) = (self.slots(), self.budget_bytes);
            return Err(LayerError::BudgetExhausted { slots, budget_bytes });
        }
        let mut registry = self.clone();
        for (id, _) in self.loaded() {
            registry.give_up(id);
        }
        for (slot, &id) in (1..).zip(ids) {
            registry.record(Placement { id, slot, evicts: None });
        }
        Ok(registry)
    }

    /// A registry in which exactly `by_use` are loaded, the one used least recently first, and that has
    /// given up `retired`, the one longest ago first; both are ids of this registry, each once.
    pub(crate) fn restored(&self, by_use: &[u16], retired: &[u16]) -> Result<Self, LayerError> {
        let mut empty = self.clone();
        empty.entries.fill(None);
        empty.given_up.fill(0);
        empty.taken[1..].fill(false);
        for &id in retired {
            empty.clock += 1;
            empty.given_up[usize::from(id)] = empty.clock;
        }
        empty.with_loaded(by_use)
    }

    /// The rank of each of `ids` in the order of their last use, from 1; 0 of one that is not loaded.
    pub(crate) fn use_ranks(&self, ids: &[u16]) -> Vec<u32> {
        let mut by_use: Vec<_> = self.loaded().map(|(id, entry)| (entry.last_used, id)).collect();
        by_use.sort_unstable();
        let mut ranks = vec![0; self.entries.len()];
        for (rank, (_, id)) in (1..).zip(by_use) {
            ranks[usize::from(id)] = rank;
        }
        ids.iter().map(|&id| ranks[usize::from(id)]).collect()
    }

    /// The ids that were given up and are not loaded, the one longest ago first.
    pub(crate) fn retired(&self) -> Vec<u16> {
        let known = (0..=u16::MAX).zip(self.given_up.iter().zip(&self.entries));
        let mut retired: Vec<_> = known
            .filter(|(_, (when, entry))| **when > 0 && entry.is_none())
            .map(|(id, (when, _))| (*when, id))
            .collect();
        retired.sort_unstable();
        retired.into_iter().map(|(_, id)| id).collect()
    }

    /// The ids that are loaded, ascending.
    pub(crate) fn ids(&self) -> Vec<u16> {
        self.loaded().map(|(id, _)| id).collect()
    }

    pub(crate) fn statistics(&self) -> RegistryStatistics {
        let loaded = self.loaded().count();
        RegistryStatistics {
            loaded,
            slots: self.slots(),
            used_bytes: loaded * self.blueprint_bytes,
            loads: self.loads,
            replacements: self.replacements,
            evictions: self.evictions,
            ..RegistryStatistics::default()
        }
    }

    fn loaded(&self) -> impl Iterator<Item = (u16, Entry)> + '_ {
        (0..=u16::MAX).zip(&self.entries).filter_map(|(id, entry)| entry.map(|entry| (id, entry)))
    }

    /// An id for a new blueprint, with `victim` about to be given up.
    fn free_id(&self, victim: Option<u16>) -> Option<u16> {
        (1..self.entries.len() as u32)
            .map(|id| id as u16)
            .filter(|&id| self.entries[usize::from(id)].is_none())
            .min_by_key(|&id| (self.given_up[usize::from(id)], id))
            .or(victim)
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
