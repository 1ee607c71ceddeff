//! What a layer remembers beside the state of its seeds and schedules, as it stands in a checkpoint.

use safetensors::Dtype;

use crate::kasmina::files::{Extent, FileError, Shape, Tensor, TensorFile};
use crate::kasmina::{SeedStates, StateError};

const IDS: &str = "layer_blueprint_ids";
const USE: &str = "layer_blueprint_use";
const GRADIENT_NORMS: &str = "layer_gradient_norms";
const RETIRED: &str = "layer_retired_ids";
const RUNNING_NORMS: &str = "layer_seed_running_norms";
const UNSTABLE: &str = "layer_unstable";

/// Every array of it, in the order of the names.
const NAMES: [&str; 6] = [IDS, USE, GRADIENT_NORMS, RETIRED, RUNNING_NORMS, UNSTABLE];

/// What a layer remembers beside its seeds' state: whose the rows of the blueprints are, and what its next
/// step depends on. P and S are the rows and the seeds of the checkpoint's `states`.
///
/// In a file these are the tensors `layer_blueprint_ids` U16 \[P\], `layer_blueprint_use` U32 \[P\],
/// `layer_gradient_norms` F32 \[S\], `layer_retired_ids` U16 \[any\], `layer_seed_running_norms` F32 \[S\] and
/// `layer_unstable` U8 \[S\]. A file may have none of them; one that has any has `layer_blueprint_ids`, and
/// each other that it lacks is as [`Self::new`] has it. `layer_running_norms` of older builds, one for each
/// blueprint, is not read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerMemory {
    /// The layer's id of each row of the blueprints, ascending from 0, 'none', `[P]`. These ids are loaded,
    /// and no others. The `blueprint_id` of `states` are rows, as everywhere.
    pub blueprint_ids: Vec<u16>,
    /// When each was last used: the blueprint with the lowest number goes first, `[P]`.
    pub blueprint_use: Vec<u32>,
    /// Ids that are not loaded any more, the one given up longest ago first. It is given to a new blueprint
    /// before the others, but after all that never were one.
    pub retired_ids: Vec<u16>,
    /// Seeds that the adaptive numerical mode is strict with, 0 or 1, `[S]`.
    pub unstable: Vec<u8>,
    /// The running norm of each seed's gradients, for adaptive clipping; NaN before there is one, `[S]`.
    pub running_norms: Vec<f32>,
    /// The norm of each seed's gradient in the last backward pass, which a GRAD_NORM_GATED schedule reads
    /// at the end of the epoch, `[S]`; none before the first.
    pub gradient_norms: Option<Vec<f32>>,
}

impl LayerMemory {
    /// The rows `blueprint_ids` of a layer of `num_seeds` seeds that has not run: used in the order of the
    /// ids, none retired, no seed unstable, no norms.
    pub fn new(num_seeds: usize, blueprint_ids: Vec<u16>) -> Self {
        let rows = blueprint_ids.len();
        Self {
            blueprint_use: (0..rows as u32).collect(),
            retired_ids: Vec::new(),
            unstable: vec![0; num_seeds],
            running_norms: vec![f32::NAN; num_seeds],
            gradient_norms: None,
            blueprint_ids,
        }
    }

    /// The ids of the rows but that of 'none', the one used least recently first.
    pub(crate) fn by_use(&self) -> Vec<u16> {
        let mut rows: Vec<_> = self.blueprint_use.iter().zip(&self.blueprint_ids).skip(1).collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, &id)| id).collect()
    }

    /// Checks lengths, ids, flags and norms against the states that it belongs to.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, states: &SeedStates) -> Result<(), StateError> {
        let (seeds, rows) = (states.num_seeds(), states.num_blueprints());
        let (per_seed, per_row) = ("one for each seed", "one for each row of the blueprints");
        let norms = self.gradient_norms.as_ref().map_or(seeds, Vec::len);
        for (array, expected, got, why) in [
            (IDS, rows, self.blueprint_ids.len(), per_row),
            (USE, rows, self.blueprint_use.len(), per_row),
            (RUNNING_NORMS, seeds, self.running_norms.len(), per_seed),
            (UNSTABLE, seeds, self.unstable.len(), per_seed),
            (GRADIENT_NORMS, seeds, norms, per_seed),
        ] {
            if expected != got {
                return Err(StateError::Length { array, expected, got, why });
            }
        }
        let wrong = |array, index, got: f64, expected| {
            Err(StateError::Range { array, index, got, expected })
        };
        let mut known = vec![false; 1 << 16];
        for (row, &id) in self.blueprint_ids.iter().enumerate() {
            match row.checked_sub(1).map(|before| self.blueprint_ids[before]) {
                None if id != 0 => return wrong(IDS, row, id.into(), "0, for row 0 is 'none'"),
                Some(before) if id <= before => {
                    return wrong(IDS, row, id.into(), "more than the id before it");
                }
                _ => known[usize::from(id)] = true,
            }
        }
        for (index, &id) in self.retired_ids.iter().enumerate() {
            if id == 0 || std::mem::replace(&mut known[usize::from(id)], true) {
                let expected = "an id that is not loaded, not 0, and there once";
                return wrong(RETIRED, index, id.into(), expected);
            }
        }
        if let Some(seed) = self.unstable.iter().position(|&flag| flag > 1) {
            return wrong(UNSTABLE, seed, self.unstable[seed].into(), "0 or 1");
        }
        match self.running_norms.iter().position(|&norm| norm < 0.0) {
            Some(seed) => {
                wrong(RUNNING_NORMS, seed, self.running_norms[seed].into(), "at least 0, or NaN")
            }
            None => Ok(()),
        }
    }

    pub(super) fn read(file: &TensorFile, states: &SeedStates) -> Result<Option<Self>, FileError> {
        if NAMES.iter().all(|name| file.raw(name).is_none()) {
            return Ok(None);
        }
        let exactly = |extent, why| Shape { extents: [Extent::Exactly(extent)], why };
        let per_seed = exactly(states.num_seeds(), "one for each seed of `lifecycle`");
        let per_row =
            exactly(states.num_blueprints(), "one for each blueprint of `blueprint_type`");
        let any = Shape { extents: [Extent::Any("any")], why: "ids that are not loaded any more" };
        let has = |name| file.raw(name).is_some();
        let ids = file.array(IDS, Dtype::U16, per_row)?.0;
        let mut memory = Self::new(states.num_seeds(), ids);
        if has(USE) {
            memory.blueprint_use = file.array(USE, Dtype::U32, per_row)?.0;
        }
        if has(RETIRED) {
            memory.retired_ids = file.array(RETIRED, Dtype::U16, any)?.0;
        }
        if has(UNSTABLE) {
            memory.unstable = file.array(UNSTABLE, Dtype::U8, per_seed)?.0;
        }
        if has(RUNNING_NORMS) {
            memory.running_norms = file.array(RUNNING_NORMS, Dtype::F32, per_seed)?.0;
        }
        if has(GRADIENT_NORMS) {
            memory.gradient_norms = Some(file.array(GRADIENT_NORMS, Dtype::F32, per_seed)?.0);
        }
        let path = file.path().to_owned();
        memory.check(states).map_err(|source| FileError::State { path, source })?;
        Ok(Some(memory))
    }

    /// Its arrays, in the order of their names.
    pub(super) fn tensors(&self) -> Vec<Tensor<'_>> {
        let (seeds, rows) = ([self.unstable.len()], [self.blueprint_ids.len()]);
        let mut tensors = vec![
            Tensor::of(IDS, Dtype::U16, &rows, &self.blueprint_ids),
            Tensor::of(USE, Dtype::U32, &rows, &self.blueprint_use),
            Tensor::of(RETIRED, Dtype::U16, &[self.retired_ids.len()], &self.retired_ids),
            Tensor::of(RUNNING_NORMS, Dtype::F32, &seeds, &self.running_norms),
            Tensor::of(UNSTABLE, Dtype::U8, &seeds, &self.unstable),
        ];
        if let Some(norms) = &self.gradient_norms {
            tensors.insert(2, Tensor::of(GRADIENT_NORMS, Dtype::F32, &seeds, norms));
        }
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> SeedStates {
        SeedStates {
            lifecycle: vec![0; 2],
            blueprint_type: vec![0; 3],
            chunk_size: 1,
            ..SeedStates::default()
        }
    }

    #[test]
    fn each_broken_array_is_named() {
        let good = LayerMemory::new(2, vec![0, 4, 9]);
        assert_eq!(good.check(&states()), Ok(()));
        type Break = fn(&mut LayerMemory);
        let breaks: [(&str, Break); 11] = [
            ("layer_blueprint_ids[0]", |m| m.blueprint_ids[0] = 1),
            ("layer_blueprint_ids[2]", |m| m.blueprint_ids[2] = 4),
            ("`layer_blueprint_ids` has 2", |m| m.blueprint_ids.truncate(2)),
            ("layer_blueprint_use", |m| m.blueprint_use.push(7)),
            ("layer_retired_ids[0]", |m| m.retired_ids = vec![0]),
            ("layer_retired_ids[1]", |m| m.retired_ids = vec![1, 9]),
            ("layer_retired_ids[1]", |m| m.retired_ids = vec![1, 1]),
            ("layer_unstable[1]", |m| m.unstable[1] = 2),
            ("layer_seed_running_norms[1]", |m| m.running_norms[1] = -1.0),
            ("layer_gradient_norms", |m| m.gradient_norms = Some(vec![0.0])),
            ("layer_seed_running_norms", |m| m.running_norms.clear()),
        ];
        for (said, spoil) in breaks {
            let mut bad = good.clone();
            spoil(&mut bad);
            let why = bad.check(&states()).expect_err(said).to_string();
            assert!(why.contains(said), "{said:?} is not in {why}");
        }
    }

    #[test]
    fn the_least_recently_used_comes_first() {
        let mut memory = LayerMemory::new(2, vec![0, 4, 9]);
        assert_eq!(memory.by_use(), [4, 9]);
        memory.blueprint_use = vec![0, 8, 3];
        assert_eq!(memory.by_use(), [9, 4]);
        memory.blueprint_use = vec![5, 3, 3];
        assert_eq!(memory.by_use(), [4, 9]);
    }

    #[test]
    fn the_arrays_are_in_the_order_of_their_names() {
        let mut memory = LayerMemory::new(2, vec![0, 4]);
        memory.gradient_norms = Some(vec![0.0; 2]);
        let names: Vec<_> = memory.tensors().iter().map(|t| t.name).collect();
        assert_eq!(names, NAMES);
        assert!(names.is_sorted());
    }
}
