//! Blueprints LINEAR, `T(x) = act(W·x + b)`: their matrices, and what the passes do for the seeds that hold them.
//!
//! To the kernels of the passes such a seed is the identity, and its b is the row of weights that every blueprint has.
//! Here its W·x_chunk + b is a product of a group, of all such seeds in one launch, and what it changes in the passes'
//! results is written over them.

mod cpu;
mod pass;

pub(crate) use pass::DensePass;

use kasmina_types::Activation;

use super::blend_forward::LayerElement;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;

/// A blueprint LINEAR as it is loaded: seeds that hold it compute `T(x) = act(W·x + b)` of their chunk of C columns.
///
/// ```
/// use kasmina::kasmina::LinearBlueprint;
/// use kasmina::linear::Activation;
///
/// // Swaps two columns.
/// let swap = LinearBlueprint {
///     weights: vec![0.0, 1.0, 1.0, 0.0],
///     bias: vec![0.0; 2],
///     activation: Activation::None,
/// };
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LinearBlueprint {
    /// W, `[C, C]` row-major, outputs × inputs. In the layer it is of the type of the inputs: rounded to that.
    pub weights: Vec<f32>,
    /// b, `[C]`; f32 in the layer.
    pub bias: Vec<f32>,
    /// What is applied to W·x + b.
    pub activation: Activation,
}

/// Where a loaded blueprint's W lies, and what it applies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DensePlace {
    /// W begins at `slot · C²`.
    pub(crate) slot: usize,
    pub(crate) activation: Activation,
}

/// The matrices of the blueprints that are loaded, and which are.
pub(crate) struct DenseStore<T: LayerElement> {
    chunk_size: usize,
    /// By slot, `[C, C]` each.
    pub(crate) weights: Buffer<T>,
    /// ∂W by slot, `[C, C]` each; made at the first backward pass.
    pub(crate) gradients: Option<Buffer<f32>>,
    /// By blueprint id; those that are no loaded LINEAR ones are `None`.
    places: Vec<Option<DensePlace>>,
    slots: usize,
    /// Changes with every change of which seed computes what: lists that were made before are no longer right.
    generation: u64,
}

impl<T: LayerElement> DenseStore<T> {
    /// A store of at most as many matrices as the budget holds and there are ids.
    pub(crate) fn new(
        device: &Device,
        chunk_size: usize,
        max_blueprints: usize,
        budget_bytes: usize,
    ) -> Result<Self, Error> {
        let slots = (budget_bytes / Self::matrix_bytes(chunk_size)).min(max_blueprints - 1);
        Ok(Self {
            chunk_size,
            weights: Buffer::zeroed(device, slots * chunk_size * chunk_size)?,
            gradients: None,
            places: vec![None; max_blueprints],
            slots,
            generation: 0,
        })
    }

    /// Bytes of a W.
    pub(crate) fn matrix_bytes(chunk_size: usize) -> usize {
        chunk_size.saturating_mul(chunk_size).saturating_mul(size_of::<T>())
    }

    /// Matrices that fit.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// A slot that no blueprint has.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        let mut taken = vec![false; self.slots];
        self.places.iter().flatten().for_each(|place| taken[place.slot] = true);
        taken.iter().position(|taken| !taken)
    }

    /// The place of a blueprint, if it is a loaded LINEAR one.
    pub(crate) fn place(&self, id: u16) -> Option<DensePlace> {
        self.places.get(usize::from(id)).copied().flatten()
    }

    /// The ids of those that are loaded, ascending, and their places.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = (u16, DensePlace)> + '_ {
        (0..=u16::MAX).zip(&self.places).filter_map(|(id, place)| place.map(|place| (id, place)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots == 0 || self.loaded().next().is_none()
    }

    /// Bytes of the matrices of those that are loaded.
    pub(crate) fn used_bytes(&self) -> usize {
        self.loaded().count() * Self::matrix_bytes(self.chunk_size)
    }

    /// Copies a W to a slot. Nobody has it until [`Self::record`].
    pub(crate) fn write(&mut self, slot: usize, weights: &[f32]) -> Result<(), Error> {
        let area = self.chunk_size * self.chunk_size;
        let values: Vec<T> = weights.iter().map(|&w| LayerElement::from_f32(w)).collect();
        self.weights.copy_range_from_slice(slot * area, &values)?;
        match &mut self.gradients {
            Some(gradients) => gradients.fill_range_bytes(slot * area, area, 0),
            None => Ok(()),
        }
    }

    /// The W in a slot.
    pub(crate) fn read(&self, slot: usize) -> Result<Vec<T>, Error> {
        let area = self.chunk_size * self.chunk_size;
        self.weights.range_to_vec(slot * area, area)
    }

    pub(crate) fn record(&mut self, id: u16, place: DensePlace) {
        self.places[usize::from(id)] = Some(place);
        self.changed();
    }

    pub(crate) fn forget(&mut self, id: u16) {
        if let Some(place) = self.places.get_mut(usize::from(id)) {
            *place = None;
        }
        self.changed();
    }

    /// Says that some seed may have another state or blueprint.
    pub(crate) fn changed(&mut self) {
        self.generation += 1;
    }

    /// Takes another store's place: no list that was made for that one is right for this one.
    pub(crate) fn follow(&mut self, before: &Self) {
        self.generation = before.generation + 1;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes the place for the gradients.
    pub(crate) fn prepare_training(&mut self, device: &Device) -> Result<(), Error> {
        if self.gradients.is_none() && self.slots > 0 {
            self.gradients = Some(Buffer::zeroed(device, self.weights.len())?);
        }
        Ok(())
    }
}
