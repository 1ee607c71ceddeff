//! A layer's state: what each seed is, and the blueprints.

use kasmina_types::blueprint::{BLUEPRINT_NONE, LINEAR};
use kasmina_types::{BlueprintKind, LayerArrays, SeedArrays, SeedLifecycle};
use ndarray::ArrayView2;

use super::graft::{GraftBuffers, GraftStates};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;

/// A state that means nothing: which array, where, what was expected and what is there.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Nothing to compute.
    #[error("layer state: {what} is 0; a layer has at least one seed of at least one column")]
    Empty {
        /// What is 0.
        what: &'static str,
    },
    /// An array of the wrong length.
    #[error("layer state: `{array}` has {got} elements, expected {expected} ({why})")]
    Length {
        /// The array.
        array: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements found.
        got: usize,
        /// Where the expectation comes from.
        why: &'static str,
    },
    /// A byte that is no state.
    #[error("layer state: `lifecycle[{seed}]` is {got}, expected 0 to 10")]
    Lifecycle {
        /// The seed.
        seed: usize,
        /// The byte.
        got: u8,
    },
    /// An id past the blueprints.
    #[error(
        "layer state: `blueprint_id[{seed}]` is {got}, expected less than {blueprints}, the number of \
         blueprints (0 means none)"
    )]
    BlueprintId {
        /// The seed.
        seed: usize,
        /// The id.
        got: u16,
        /// How many blueprints there are.
        blueprints: usize,
    },
    /// A byte that is no blueprint type.
    #[error("layer state: `blueprint_type[{blueprint}]` is {got}, expected 0 to 5")]
    BlueprintType {
        /// The blueprint.
        blueprint: usize,
        /// The byte.
        got: u8,
    },
    /// A LINEAR blueprint, where there is no W for it.
    #[error(
        "layer state: `blueprint_type[{blueprint}]` is {LINEAR}, LINEAR, whose matrix these arrays do not have; a \
         KasminaLayer computes it, of a checkpoint that has it"
    )]
    Linear {
        /// The blueprint.
        blueprint: usize,
    },
    /// A number that is NaN or infinite.
    #[error("layer state: `{array}[{index}]` is {got}, expected a finite number")]
    NotFinite {
        /// The array.
        array: &'static str,
        /// Where.
        index: usize,
        /// What.
        got: f32,
    },
    /// A number outside its range.
    #[error("layer state: `{array}[{index}]` is {got}, expected {expected}")]
    Range {
        /// The array.
        array: &'static str,
        /// Where.
        index: usize,
        /// What.
        got: f64,
        /// The range.
        expected: &'static str,
    },
    /// More columns than 32 bits count.
    #[error(
        "layer state: {num_seeds} seeds of {chunk_size} columns are more than 2³² columns together"
    )]
    TooManyColumns {
        /// Seeds.
        num_seeds: usize,
        /// Columns of each.
        chunk_size: usize,
    },
    /// More weights than a 32-bit offset reaches.
    #[error(
        "layer state: {blueprints} blueprints of {chunk_size} weights are more than 2³² together"
    )]
    TooManyWeights {
        /// Blueprints.
        blueprints: usize,
        /// Weights of each.
        chunk_size: usize,
    },
}

/// The state as plain arrays, before anything is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeedStates {
    /// [`SeedLifecycle`] bytes, `[num_seeds]`.
    pub lifecycle: Vec<u8>,
    /// Blueprint of each seed, 0 for none, `[num_seeds]`.
    pub blueprint_id: Vec<u16>,
    /// Blend factor, clipped to \[0, 1\] where it is used, `[num_seeds]`.
    pub alpha: Vec<f32>,
    /// [`BlueprintType`](kasmina_types::BlueprintType) bytes, or [`LINEAR`]'s, `[num_blueprints]`.
    pub blueprint_type: Vec<u8>,
    /// Weights, `[num_blueprints, chunk_size]`.
    pub blueprint_weights: Vec<f32>,
    /// Scales, `[num_blueprints]`.
    pub blueprint_scales: Vec<f32>,
    /// Columns of a seed.
    pub chunk_size: usize,
}

impl SeedStates {
    /// The state as the reference takes it.
    pub(crate) fn of_reference(&self) -> kasmina_reference::kasmina::LayerState<'_, f32> {
        let weights = (self.num_blueprints(), self.chunk_size);
        kasmina_reference::kasmina::LayerState {
            lifecycle: &self.lifecycle,
            blueprint_id: &self.blueprint_id,
            alpha: &self.alpha,
            blueprint_type: &self.blueprint_type,
            blueprint_weights: ArrayView2::from_shape(weights, &self.blueprint_weights)
                .expect("the state was checked"),
            blueprint_scales: &self.blueprint_scales,
        }
    }

    /// How many seeds there are.
    pub fn num_seeds(&self) -> usize {
        self.lifecycle.len()
    }

    /// How many blueprints there are.
    pub fn num_blueprints(&self) -> usize {
        self.blueprint_type.len()
    }

    /// The same, where seeds that hold a LINEAR blueprint hold none: what the passes over the elements take them for.
    pub(crate) fn without_linear(mut self) -> Self {
        for id in &mut self.blueprint_id {
            if self.blueprint_type.get(usize::from(*id)) == Some(&LINEAR) {
                *id = BLUEPRINT_NONE;
            }
        }
        self.blueprint_type.iter_mut().filter(|kind| **kind == LINEAR).for_each(|kind| *kind = 0);
        self
    }

    /// Checks lengths, codes, ids and numbers. A LINEAR blueprint is refused: its matrix is not here.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), StateError> {
        self.check_with_linear()?;
        match self.blueprint_type.iter().position(|&kind| kind == LINEAR) {
            Some(blueprint) => Err(StateError::Linear { blueprint }),
            None => Ok(()),
        }
    }

    /// As [`Self::check`], where the matrices of LINEAR blueprints are elsewhere.
    pub(crate) fn check_with_linear(&self) -> Result<(), StateError> {
        let (seeds, blueprints, chunk_size) =
            (self.num_seeds(), self.num_blueprints(), self.chunk_size);
        for (what, count) in [("num_seeds", seeds), ("chunk_size", chunk_size)] {
            if count == 0 {
                return Err(StateError::Empty { what });
            }
        }
        if seeds.saturating_mul(chunk_size) > u32::MAX as usize {
            return Err(StateError::TooManyColumns { num_seeds: seeds, chunk_size });
        }
        if blueprints.saturating_mul(chunk_size) > u32::MAX as usize {
            return Err(StateError::TooManyWeights { blueprints, chunk_size });
        }
        let per_seed = "one for each seed of `lifecycle`";
        let per_blueprint = "one for each of `blueprint_type`";
        let weights = "chunk_size for each of `blueprint_type`";
        for (array, expected, got, why) in [
            ("blueprint_id", seeds, self.blueprint_id.len(), per_seed),
            ("alpha", seeds, self.alpha.len(), per_seed),
            ("blueprint_scales", blueprints, self.blueprint_scales.len(), per_blueprint),
            ("blueprint_weights", blueprints * chunk_size, self.blueprint_weights.len(), weights),
        ] {
            if expected != got {
                return Err(StateError::Length { array, expected, got, why });
            }
        }
        for (seed, &got) in self.lifecycle.iter().enumerate() {
            SeedLifecycle::from_u8(got).ok_or(StateError::Lifecycle { seed, got })?;
        }
        for (seed, &got) in self.blueprint_id.iter().enumerate() {
            if got != BLUEPRINT_NONE && usize::from(got) >= blueprints {
                return Err(StateError::BlueprintId { seed, got, blueprints });
            }
        }
        for (blueprint, &got) in self.blueprint_type.iter().enumerate() {
            BlueprintKind::from_u8(got).ok_or(StateError::BlueprintType { blueprint, got })?;
        }
        for (array, values) in [
            ("alpha", &self.alpha),
            ("blueprint_scales", &self.blueprint_scales),
            ("blueprint_weights", &self.blueprint_weights),
        ] {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(StateError::NotFinite { array, index, got: values[index] });
            }
        }
        Ok(())
    }
}

/// A state on a device, seen to be right: every code is one, every id and offset is inside.
#[derive(Debug)]
pub struct LayerState {
    num_seeds: usize,
    chunk_size: usize,
    pub(crate) lifecycle: Buffer<u8>,
    pub(crate) blueprint_id: Buffer<u16>,
    pub(crate) alpha: Buffer<f32>,
    pub(crate) graft: GraftBuffers,
    /// Seeds that the adaptive numerical mode is strict with, `[num_seeds]`, 0 or 1.
    pub(crate) unstable: Buffer<u8>,
    pub(crate) blueprint_type: Buffer<u8>,
    pub(crate) blueprint_offset: Buffer<u32>,
    pub(crate) blueprint_scale: Buffer<f32>,
    pub(crate) weights: Buffer<f32>,
}

impl LayerState {
    /// Checks a state and copies it to the device. Its schedules are the defaults of [`GraftStates`].
    ///
    /// # Errors
    /// [`Error::State`] with what is wrong; memory exhausted, or a failed call.
    pub fn new(device: &Device, states: SeedStates) -> Result<Self, Error> {
        let graft = GraftStates::new(states.num_seeds());
        Self::with_graft(device, states, graft)
    }

    /// As [`Self::new`], with the schedules' state.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_graft(
        device: &Device,
        states: SeedStates,
        graft: GraftStates,
    ) -> Result<Self, Error> {
        states.check()?;
        graft.check(states.num_seeds())?;
        let offsets: Vec<u32> =
            (0..states.num_blueprints()).map(|id| (id * states.chunk_size) as u32).collect();
        Self::in_arena(device, &states, &graft, &offsets, &states.blueprint_weights)
    }

    /// A state whose weights lie in an arena, those of a blueprint from its offset on. The weights of
    /// `states` are not looked at; the rest has been checked.
    pub(crate) fn in_arena(
        device: &Device,
        states: &SeedStates,
        graft: &GraftStates,
        offsets: &[u32],
        arena: &[f32],
    ) -> Result<Self, Error> {
        let blueprints = states.num_blueprints();
        assert_eq!(offsets.len(), blueprints, "an offset for each blueprint");
        assert!(
            offsets.iter().all(|&start| start as usize + states.chunk_size <= arena.len()),
            "every blueprint's weights are inside the arena"
        );
        Ok(Self {
            num_seeds: states.num_seeds(),
            chunk_size: states.chunk_size,
            lifecycle: Buffer::from_slice(device, &states.lifecycle)?,
            blueprint_id: Buffer::from_slice(device, &states.blueprint_id)?,
            alpha: Buffer::from_slice(device, &states.alpha)?,
            graft: GraftBuffers::from_states(device, graft)?,
            unstable: Buffer::zeroed(device, states.num_seeds())?,
            blueprint_type: Buffer::from_slice(device, &states.blueprint_type)?,
            blueprint_offset: Buffer::from_slice(device, offsets)?,
            blueprint_scale: Buffer::from_slice(device, &states.blueprint_scales)?,
            weights: Buffer::from_slice(device, arena)?,
        })
    }

    /// How many seeds there are.
    pub fn num_seeds(&self) -> usize {
        self.num_seeds
    }

    /// Columns of a seed.
    pub fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// Columns of the layer: `num_seeds · chunk_size`.
    pub fn hidden(&self) -> usize {
        self.num_seeds * self.chunk_size
    }

    /// How many blueprints there are, 'none' among them.
    pub fn num_blueprints(&self) -> usize {
        self.blueprint_type.len()
    }

    /// The state as plain arrays, once everything queued before is done. The weights come in the order
    /// of the ids, wherever they lie on the device, and every id has a row: in the layer of a
    /// [`KasminaLayer`](super::KasminaLayer) those that are not loaded too. Its
    /// [`checkpoint`](super::KasminaLayer::checkpoint) has rows of what is loaded alone.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn read(&self) -> Result<SeedStates, Error> {
        let offsets = self.blueprint_offset.to_vec()?;
        let weights = self.weights.to_vec()?;
        Ok(SeedStates {
            lifecycle: self.lifecycle.to_vec()?,
            blueprint_id: self.blueprint_id.to_vec()?,
            alpha: self.alpha.to_vec()?,
            blueprint_type: self.blueprint_type.to_vec()?,
            blueprint_weights: offsets
                .iter()
                .flat_map(|&offset| &weights[offset as usize..][..self.chunk_size])
                .copied()
                .collect(),
            blueprint_scales: self.blueprint_scale.to_vec()?,
            chunk_size: self.chunk_size,
        })
    }

    /// As [`Self::read`], but only of the blueprints that have weights of their own, and their ids,
    /// ascending: `blueprint_id` has rows in the place of ids. In an arena an id that is not loaded shares
    /// the weights of 'none'.
    pub(crate) fn read_loaded(&self) -> Result<(SeedStates, Vec<u16>), Error> {
        let offsets = self.blueprint_offset.to_vec()?;
        let own = |&(id, &offset): &(u32, &u32)| id == 0 || offset != 0;
        // An id that no seed can hold has no row.
        let ids = (0..=u32::from(u16::MAX)).zip(&offsets).filter(own);
        let ids: Vec<u16> = ids.map(|(id, _)| id as u16).collect();
        let mut row_of = vec![None; offsets.len()];
        for (row, &id) in (0..=u16::MAX).zip(&ids) {
            row_of[usize::from(id)] = Some(row);
        }
        let mut blueprint_id = self.blueprint_id.to_vec()?;
        for (seed, held) in blueprint_id.iter_mut().enumerate() {
            let (got, blueprints) = (*held, offsets.len());
            *held = match row_of.get(usize::from(got)).copied().flatten() {
                Some(row) => row,
                None if got == BLUEPRINT_NONE => BLUEPRINT_NONE,
                None => return Err(StateError::BlueprintId { seed, got, blueprints }.into()),
            };
        }
        let (types, scales) = (self.blueprint_type.to_vec()?, self.blueprint_scale.to_vec()?);
        let mut blueprint_weights = Vec::with_capacity(ids.len() * self.chunk_size);
        for &id in &ids {
            let start = offsets[usize::from(id)] as usize;
            blueprint_weights.extend(self.weights.range_to_vec(start, self.chunk_size)?);
        }
        let states = SeedStates {
            lifecycle: self.lifecycle.to_vec()?,
            blueprint_id,
            alpha: self.alpha.to_vec()?,
            blueprint_type: ids.iter().map(|&id| types[usize::from(id)]).collect(),
            blueprint_weights,
            blueprint_scales: ids.iter().map(|&id| scales[usize::from(id)]).collect(),
            chunk_size: self.chunk_size,
        };
        Ok((states, ids))
    }

    /// The schedules' state as plain arrays, once everything queued before is done.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_graft(&self) -> Result<GraftStates, Error> {
        self.graft.read()
    }

    /// The state with one row of weights for each blueprint, as the reference takes it, and the flags of
    /// the adaptive numerical mode.
    pub(crate) fn read_for_reference(&self) -> Result<(SeedStates, Vec<u8>), Error> {
        Ok((self.read()?.without_linear(), self.unstable.to_vec()?))
    }

    /// What the passes read of the state.
    pub(crate) fn layer_arrays(&self) -> LayerArrays {
        LayerArrays {
            lifecycle: self.lifecycle.view(),
            blueprint_id: self.blueprint_id.view(),
            alpha: self.alpha.view(),
            blueprint_type: self.blueprint_type.view(),
            blueprint_offset: self.blueprint_offset.view(),
            blueprint_scale: self.blueprint_scale.view(),
            weights: self.weights.view(),
        }
    }

    /// Every per-seed array as a kernel writes it.
    pub(crate) fn seed_arrays(&mut self) -> SeedArrays {
        SeedArrays {
            lifecycle: self.lifecycle.view_mut(),
            blueprint_id: self.blueprint_id.view_mut(),
            alpha: self.alpha.view_mut(),
            schedule: self.graft.schedule.view_mut(),
            alpha_target: self.graft.alpha_target.view_mut(),
            ramp_epochs: self.graft.ramp_epochs.view_mut(),
            epochs_in_state: self.graft.epochs_in_state.view_mut(),
            baseline_loss: self.graft.baseline_loss.view_mut(),
            drift_history: self.graft.drift_history.view_mut(),
            drift_count: self.graft.drift_count.view_mut(),
            embargo_epochs: self.graft.embargo_epochs.view_mut(),
        }
    }
}
