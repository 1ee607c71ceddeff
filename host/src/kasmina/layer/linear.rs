//! LINEAR blueprints of a layer: loading, reading, and their gradients.

use kasmina_types::blueprint::LINEAR;
use kasmina_types::{Activation, BlueprintKind};

use super::blueprints::user_of;
use super::error::LayerError;
use super::registry::LoadedBlueprint;
use super::{KasminaLayer, LayerElement};
use crate::error::Error;
use crate::kasmina::LinearBlueprint;
use crate::kasmina::checkpoint::LinearStates;
use crate::kasmina::dense::{DensePlace, DenseStore};

impl<T: LayerElement> KasminaLayer<T> {
    /// Loads a blueprint whose seeds grow a dense block, `T(x) = act(W·x + b)`. It has an id and a row, its b, as every
    /// blueprint, and its W in an arena of `linear_budget_bytes`. Where that is used up, the LINEAR blueprint goes that
    /// was used least recently of those that no seed uses; where there are no more rows, as in
    /// [`load_blueprint`](Self::load_blueprint).
    ///
    /// ```
    /// use kasmina::kasmina::{KasminaLayer, LinearBlueprint};
    /// use kasmina::linear::Activation;
    /// use kasmina::{Buffer, Device};
    ///
    /// # fn main() -> Result<(), kasmina::Error> {
    /// let mut layer = KasminaLayer::<f32>::builder(2, 4).linear_budget_bytes(16).build(&Device::Cpu)?;
    /// let weights = vec![0.0, 1.0, -1.0, 0.0];
    /// let block = LinearBlueprint { weights, bias: vec![1.0, 0.0], activation: Activation::Relu };
    /// let id = layer.load_linear_blueprint(&block)?.id;
    /// layer.germinate(0, id)?;
    /// layer.advance(0)?;
    /// layer.advance(0)?;
    /// layer.set_alpha(0, 1.0)?;
    /// let x = Buffer::from_slice(&Device::Cpu, &[3.0_f32, 2.0, 3.0, 2.0])?;
    /// assert_eq!(layer.forward(&x)?.to_vec()?, [3.0, 0.0, 3.0, 2.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`] without a `linear_budget_bytes`; a matrix or a bias that does not fit the layer, a budget
    /// that is used up by blueprints in use, or a state that something else changed, which change nothing; or a failed
    /// call, after which the one that was to go may be gone.
    pub fn load_linear_blueprint(
        &mut self,
        blueprint: &LinearBlueprint,
    ) -> Result<LoadedBlueprint, Error> {
        self.check_linear(blueprint)?;
        let mut found = self.found()?;
        let users = found.users(&self.state)?;
        let pinned = |id: u16| user_of(&users, id).is_some();
        let placement = match self.dense.free_slot() {
            Some(_) => self.registry.place(pinned)?,
            None => {
                let may_go = |id| self.dense.place(id).is_some() && !pinned(id);
                self.registry.place_over(may_go).ok_or_else(|| self.linear_budget_exhausted())?
            }
        };
        self.make_room(&mut found, &placement, &users)?;
        let slot = self.dense.free_slot().ok_or_else(|| self.linear_budget_exhausted())?;
        self.dense.write(slot, &blueprint.weights)?;
        let entry = (placement.id, placement.slot);
        self.write_blueprint(&mut found, entry, LINEAR, &blueprint.bias, 1.0)?;
        self.dense.record(entry.0, DensePlace { slot, activation: blueprint.activation });
        Ok(self.registry.record(placement))
    }

    /// Puts a LINEAR blueprint in the place of one that is loaded, of any kind. It keeps its id, and the seeds that use
    /// it go on with the new one.
    ///
    /// # Errors
    /// As [`Self::load_linear_blueprint`]; an id that is not loaded. No other blueprint goes for it: where the one that is
    /// replaced is not LINEAR and all matrices are taken, the budget is used up.
    pub fn replace_linear_blueprint(
        &mut self,
        id: u16,
        blueprint: &LinearBlueprint,
    ) -> Result<(), Error> {
        self.check_linear(blueprint)?;
        let row = self.registry.slot(id)?;
        let mut found = self.found()?;
        let slot = match self.dense.place(id) {
            Some(place) => place.slot,
            None => self.dense.free_slot().ok_or_else(|| self.linear_budget_exhausted())?,
        };
        self.dense.write(slot, &blueprint.weights)?;
        self.write_blueprint(&mut found, (id, row), LINEAR, &blueprint.bias, 1.0)?;
        self.dense.record(id, DensePlace { slot, activation: blueprint.activation });
        self.registry.replaced(id);
        Ok(())
    }

    /// A loaded LINEAR blueprint as it is on the device, once everything queued before is done.
    ///
    /// # Errors
    /// An id that is not loaded, or of another kind; or a failed call.
    pub fn linear_blueprint(&self, id: u16) -> Result<LinearBlueprint, Error> {
        let (place, row) = self.linear_place(id)?;
        let chunk_size = self.state.chunk_size();
        let weights = self.dense.read(place.slot)?;
        Ok(LinearBlueprint {
            weights: weights.into_iter().map(LayerElement::to_f32).collect(),
            bias: self.state.weights.range_to_vec(row * chunk_size, chunk_size)?,
            activation: place.activation,
        })
    }

    /// ∂L/∂W of the last backward pass, `[C, C]`, once everything queued before is done; 0 where no seed trains the
    /// blueprint, and where it was loaded or replaced since. ∂L/∂b is the blueprint's row of
    /// [`gradients`](Self::gradients)'s weights, and the seeds' gradient norms there are those of their part of it.
    ///
    /// # Errors
    /// An id that is not loaded, or of another kind; no backward pass yet; or a failed call.
    pub fn linear_gradient(&self, id: u16) -> Result<Vec<f32>, Error> {
        let (place, _) = self.linear_place(id)?;
        let area = self.state.chunk_size().pow(2);
        match (&self.dense.gradients, &self.training) {
            (Some(gradients), Some(_)) => gradients.range_to_vec(place.slot * area, area),
            _ => Err(LayerError::NoGradients.into()),
        }
    }

    /// The matrices after a step of gradient descent; none where there are none.
    pub(super) fn descended_matrices(&self, learning_rate: f32) -> Result<Option<Vec<T>>, Error> {
        let Some(gradients) = self.dense.gradients.as_ref().filter(|_| !self.dense.is_empty())
        else {
            return Ok(None);
        };
        let (mut weights, gradients) = (self.dense.weights.to_vec()?, gradients.to_vec()?);
        let area = self.state.chunk_size().pow(2);
        for (id, place) in self.dense.loaded() {
            let range = place.slot * area..(place.slot + 1) * area;
            for (weight, gradient) in weights[range.clone()].iter_mut().zip(&gradients[range]) {
                *weight = T::from_f32(LayerElement::to_f32(*weight) - learning_rate * gradient);
                let value = LayerElement::to_f32(*weight);
                if !value.is_finite() {
                    let what = format!("a parameter of blueprint {id} after the step");
                    let (got, expected) = (value.into(), "a finite number");
                    return Err(LayerError::OutOfRange { what, got, expected }.into());
                }
            }
        }
        Ok(Some(weights))
    }

    /// What a checkpoint has of the blueprints `ids`, its rows.
    pub(super) fn linear_states(&self, ids: &[u16]) -> Result<LinearStates, Error> {
        let mut linear = LinearStates::default();
        for (row, &id) in (0..=u16::MAX).zip(ids) {
            let Some(place) = self.dense.place(id) else { continue };
            linear.rows.push(row);
            linear.activations.push(place.activation as u8);
            let weights = self.dense.read(place.slot)?;
            linear.weights.extend(weights.into_iter().map(LayerElement::to_f32));
        }
        Ok(linear)
    }

    /// A store with the matrices of a checkpoint, whose rows are the blueprints `ids`.
    pub(super) fn replaced_matrices(
        &self,
        ids: &[u16],
        linear: &LinearStates,
    ) -> Result<DenseStore<T>, Error> {
        let (config, chunk_size) = (&self.config, self.state.chunk_size());
        if linear.rows.len() > self.dense.slots() {
            return Err(self.linear_budget_exhausted().into());
        }
        let budget = config.linear_budget_bytes;
        let mut store = DenseStore::new(&self.device, chunk_size, config.max_blueprints, budget)?;
        store.follow(&self.dense);
        let matrices = linear.weights.chunks_exact(chunk_size * chunk_size);
        let rows = linear.rows.iter().zip(&linear.activations).zip(matrices);
        for (slot, ((&row, &activation), weights)) in rows.enumerate() {
            store.write(slot, weights)?;
            let activation = Activation::ALL[usize::from(activation)];
            store.record(ids[usize::from(row)], DensePlace { slot, activation });
        }
        Ok(store)
    }

    /// The place of its W, and the slot of its row.
    fn linear_place(&self, id: u16) -> Result<(DensePlace, usize), Error> {
        let row = self.registry.slot(id)?;
        if let Some(place) = self.dense.place(id) {
            return Ok((place, row));
        }
        let at = usize::from(id);
        let byte = self.state.blueprint_type.range_to_vec(at, 1)?[0];
        let kind = self.code("blueprint_type", at, byte, BlueprintKind::from_u8(byte))?;
        let advice = "read it by `blueprint`, and its gradients by `gradients`";
        Err(LayerError::OtherKind { id, kind, advice }.into())
    }

    fn linear_budget_exhausted(&self) -> LayerError {
        let (slots, budget_bytes) = (self.dense.slots(), self.config.linear_budget_bytes);
        LayerError::LinearBudgetExhausted { slots, budget_bytes }
    }

    fn check_linear(&self, blueprint: &LinearBlueprint) -> Result<(), LayerError> {
        if self.dense.slots() == 0 {
            let (what, option) = ("a LINEAR blueprint", "linear_budget_bytes");
            return Err(LayerError::TurnedOff { what, option });
        }
        let wrong = |why| Err(LayerError::Blueprint { why });
        if LINEAR >= self.config.max_blueprint_types {
            let most = self.config.max_blueprint_types;
            return wrong(format!("LINEAR is none of the first {most} types that may be loaded"));
        }
        let chunk_size = self.state.chunk_size();
        for (what, expected, got) in [
            ("weights", chunk_size * chunk_size, blueprint.weights.len()),
            ("bias", chunk_size, blueprint.bias.len()),
        ] {
            if got != expected {
                let why = format!("its {what} has {got} numbers, expected {expected}");
                return wrong(format!("{why}, for {chunk_size} columns of a seed"));
            }
        }
        // As they are in the layer: a number may be too large for its type.
        let weights = blueprint.weights.iter().map(|&w| LayerElement::to_f32(T::from_f32(w)));
        if let Some(bad) = weights.chain(blueprint.bias.iter().copied()).find(|v| !v.is_finite()) {
            return wrong(format!("{bad} among its numbers; all must be finite, in {}", T::DTYPE));
        }
        Ok(())
    }
}
