//! The matrices of LINEAR blueprints, as they stand in a checkpoint.

use kasmina_types::Activation;
use kasmina_types::blueprint::LINEAR;
use safetensors::Dtype;

use crate::kasmina::files::{Extent, FileError, Shape, Tensor, TensorFile};
use crate::kasmina::{SeedStates, StateError};

const ACTIVATIONS: &str = "linear_activations";
const ROWS: &str = "linear_rows";
const WEIGHTS: &str = "linear_weights";

/// W and activation of each LINEAR blueprint of a checkpoint's `states`, whose b is the blueprint's row of weights. L is
/// how many there are, C the columns of a seed.
///
/// In a file these are the tensors `linear_activations` U8 \[L\], `linear_rows` U16 \[L\] and `linear_weights`
/// F32 \[L, C, C\]; a file without LINEAR blueprints has none of them. Numbers of a layer in f16 or bf16 are the same in
/// f32.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinearStates {
    /// The rows of the blueprints that are LINEAR, ascending, `[L]`.
    pub rows: Vec<u16>,
    /// [`Activation`] codes, `[L]`.
    pub activations: Vec<u8>,
    /// W, `[L, C, C]`, outputs × inputs.
    pub weights: Vec<f32>,
}

impl LinearStates {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Checks lengths, rows, codes and numbers against the states that it belongs to: it has exactly the rows of type
    /// LINEAR.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, states: &SeedStates) -> Result<(), StateError> {
        let (count, chunk) = (self.rows.len(), states.chunk_size);
        let area = chunk.saturating_mul(chunk);
        for (array, expected, got, why) in [
            (ACTIVATIONS, count, self.activations.len(), "one for each of `linear_rows`"),
            (WEIGHTS, count.saturating_mul(area), self.weights.len(), "chunk_size² for each row"),
        ] {
            if expected != got {
                return Err(StateError::Length { array, expected, got, why });
            }
        }
        let wrong = |array, index, got: f64, expected| {
            Err(StateError::Range { array, index, got, expected })
        };
        for (index, &row) in self.rows.iter().enumerate() {
            let expected = "a row of `blueprint_type` that is LINEAR, above the row before it";
            let linear = states.blueprint_type.get(usize::from(row)) == Some(&LINEAR);
            if !linear || index > 0 && self.rows[index - 1] >= row {
                return wrong(ROWS, index, row.into(), expected);
            }
        }
        let listed = |row: usize| self.rows.iter().any(|&listed| usize::from(listed) == row);
        let mut kinds = states.blueprint_type.iter().enumerate();
        if let Some((blueprint, _)) = kinds.find(|&(row, kind)| *kind == LINEAR && !listed(row)) {
            return Err(StateError::Linear { blueprint });
        }
        if let Some(index) =
            self.activations.iter().position(|&code| usize::from(code) >= Activation::ALL.len())
        {
            return wrong(ACTIVATIONS, index, self.activations[index].into(), "0 to 6");
        }
        match self.weights.iter().position(|weight| !weight.is_finite()) {
            Some(index) => {
                Err(StateError::NotFinite { array: WEIGHTS, index, got: self.weights[index] })
            }
            None => Ok(()),
        }
    }

    pub(super) fn read(file: &TensorFile, states: &SeedStates) -> Result<Self, FileError> {
        let mut linear = Self::default();
        if [ACTIVATIONS, ROWS, WEIGHTS].iter().any(|name| file.raw(name).is_some()) {
            let of_rows =
                Shape { extents: [Extent::Any("L")], why: "one for each LINEAR blueprint" };
            let (rows, [count]) = file.array(ROWS, Dtype::U16, of_rows)?;
            let per_row =
                Shape { extents: [Extent::Exactly(count)], why: "one for each of `linear_rows`" };
            let chunk = Extent::Exactly(states.chunk_size);
            let square = Shape {
                extents: [Extent::Exactly(count), chunk, chunk],
                why: "a matrix of C × C for each of `linear_rows`",
            };
            linear.activations = file.array(ACTIVATIONS, Dtype::U8, per_row)?.0;
            linear.weights = file.array(WEIGHTS, Dtype::F32, square)?.0;
            linear.rows = rows;
        }
        let path = file.path().to_owned();
        linear.check(states).map_err(|source| FileError::State { path, source })?;
        Ok(linear)
    }

    /// Its arrays, in the order of their names; none where there is no LINEAR blueprint.
    pub(super) fn tensors(&self, chunk_size: usize) -> Vec<Tensor<'_>> {
        if self.is_empty() {
            return Vec::new();
        }
        let count = self.rows.len();
        vec![
            Tensor::of(ACTIVATIONS, Dtype::U8, &[count], &self.activations),
            Tensor::of(ROWS, Dtype::U16, &[count], &self.rows),
            Tensor::of(WEIGHTS, Dtype::F32, &[count, chunk_size, chunk_size], &self.weights),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_array_is_named() {
        let states = SeedStates {
            lifecycle: vec![0],
            blueprint_type: vec![0, LINEAR, 4, LINEAR],
            chunk_size: 2,
            ..SeedStates::default()
        };
        let good =
            LinearStates { rows: vec![1, 3], activations: vec![0, 6], weights: vec![1.0; 8] };
        assert_eq!(good.check(&states), Ok(()));
        type Break = fn(&mut LinearStates);
        let breaks: [(&str, Break); 8] = [
            ("linear_rows[0]", |l| l.rows[0] = 2),
            ("linear_rows[1]", |l| l.rows[1] = 1),
            ("linear_rows[1]", |l| l.rows[1] = 9),
            ("linear_activations[1]", |l| l.activations[1] = 7),
            ("`linear_activations` has 1", |l| l.activations.truncate(1)),
            ("`linear_weights` has 7", |l| l.weights.truncate(7)),
            ("linear_weights[3]", |l| l.weights[3] = f32::NAN),
            ("blueprint_type[3]", |l| {
                l.rows.pop();
                l.activations.pop();
                l.weights.truncate(4);
            }),
        ];
        for (said, spoil) in breaks {
            let mut bad = good.clone();
            spoil(&mut bad);
            let why = bad.check(&states).expect_err(said).to_string();
            assert!(why.contains(said), "{said:?} is not in {why}");
        }
        assert!(states.check().is_err() && states.without_linear().blueprint_type[1] == 0);
    }
}
