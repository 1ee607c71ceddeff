//! The layer's activations and gradients as they stand in a file.

use bytemuck::Pod;
use safetensors::Dtype;

use super::{Extent, FileError, Shape, TensorFile, elements};
use crate::kasmina::SeedStates;

/// A matrix `[batch, num_seeds · chunk_size]` of F32, F16 or BF16, row-major.
#[derive(Debug, Clone, Copy)]
pub struct LayerMatrix<'a> {
    /// Its element type.
    pub dtype: Dtype,
    /// Rows and columns.
    pub shape: [usize; 2],
    bytes: &'a [u8],
}

impl<'a> LayerMatrix<'a> {
    /// Reads the tensor `name`, whose columns must be those of `states`.
    ///
    /// # Errors
    /// It is missing, of another type, of another shape, or without rows.
    pub fn read(
        file: &'a TensorFile,
        name: &'static str,
        states: &SeedStates,
    ) -> Result<Self, FileError> {
        let rows = Extent::AtLeastOne("B");
        let why = "B rows of S·C columns, S of `lifecycle` and C of `blueprint_weights`";
        Self::of_rows(file, name, states, rows, why)
    }

    /// Reads the tensor `name`, which must be of this matrix's type and shape.
    ///
    /// # Errors
    /// It is missing, of another type or of another shape.
    pub fn read_like(
        &self,
        file: &'a TensorFile,
        name: &'static str,
        states: &SeedStates,
    ) -> Result<Self, FileError> {
        let rows = Extent::Exactly(self.shape[0]);
        let other = Self::of_rows(file, name, states, rows, "the shape of `input`")?;
        if other.dtype != self.dtype {
            let expected = format!("{}, the type of `input`", self.dtype);
            return Err(file.wrong_dtype(name, &expected, other.dtype));
        }
        Ok(other)
    }

    fn of_rows(
        file: &'a TensorFile,
        name: &'static str,
        states: &SeedStates,
        rows: Extent,
        why: &'static str,
    ) -> Result<Self, FileError> {
        let (info, bytes) = file.tensor(name)?;
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(file.wrong_dtype(name, "F32, F16 or BF16", info.dtype));
        }
        let hidden = states.num_seeds().saturating_mul(states.chunk_size);
        let shape = Shape { extents: [rows, Extent::Exactly(hidden)], why };
        Ok(Self { dtype: info.dtype, shape: file.extents(name, info, shape)?, bytes })
    }

    /// Rows.
    pub fn batch(&self) -> usize {
        self.shape[0]
    }

    /// The elements, row by row.
    pub fn elements<T: Pod>(&self) -> Vec<T> {
        elements(self.bytes)
    }
}
