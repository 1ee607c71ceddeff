//! What a product is made of.

use bytemuck::Pod;
use kasmina_types::Scaling;
use kasmina_types::linear::{SCALE_BLOCK_K, SCALE_BLOCK_N};

use super::element::{LinearElement, LinearResult};
use super::error::LinearError;
use super::shape::LinearShape;
use super::vector::as_f32;
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::error::Error;

const OP: &str = "linear";

/// The operands of D = act(α·op(A)·op(B) + bias + β·C) + R. Their lengths may be more than the shape asks for.
#[derive(Clone, Copy)]
pub struct Operands<'a, T: Pod, O: Pod> {
    /// A.
    pub a: &'a Buffer<T>,
    /// B.
    pub b: &'a Buffer<T>,
    /// A value for each column of D, `[n]`.
    pub bias: Option<&'a Buffer<O>>,
    /// C, `[m, n]`; there exactly where β is not 0.
    pub c: Option<&'a Buffer<O>>,
    /// R, `[m, n]`.
    pub residual: Option<&'a Buffer<O>>,
    /// What fp8 elements are multiplied by.
    pub scales: Scales<'a>,
}

/// Scales of fp8 operands.
#[derive(Clone, Copy, Default)]
pub enum Scales<'a> {
    /// None: 1.
    #[default]
    None,
    /// One for A and one for B, buffers of one element.
    Tensor {
        /// A's.
        a: &'a Buffer<f32>,
        /// B's.
        b: &'a Buffer<f32>,
    },
    /// One for each 128 neighbours along k in a row of op(A), `[batch, m, ⌈k/128⌉]`, and one for each 128 columns by 128
    /// along k of op(B), `[batch, ⌈n/128⌉, ⌈k/128⌉]`.
    Block {
        /// A's.
        a: &'a Buffer<f32>,
        /// B's.
        b: &'a Buffer<f32>,
    },
}

impl<'a> Scales<'a> {
    pub(crate) fn scaling(&self) -> Scaling {
        match self {
            Self::None => Scaling::None,
            Self::Tensor { .. } => Scaling::Tensor,
            Self::Block { .. } => Scaling::Block,
        }
    }

    /// A's and B's.
    pub(crate) fn buffers(&self) -> Option<(&'a Buffer<f32>, &'a Buffer<f32>)> {
        match *self {
            Self::None => None,
            Self::Tensor { a, b } | Self::Block { a, b } => Some((a, b)),
        }
    }

    /// How many there are of each.
    fn lengths(&self, shape: &LinearShape) -> (usize, usize) {
        let along = shape.k.div_ceil(SCALE_BLOCK_K);
        match self {
            Self::None => (0, 0),
            Self::Tensor { .. } => (1, 1),
            Self::Block { .. } => (
                shape.batch * shape.m * along,
                shape.batch * shape.n.div_ceil(SCALE_BLOCK_N) * along,
            ),
        }
    }
}

impl<'a, T: LinearElement, O: LinearResult> Operands<'a, T, O> {
    /// A·B alone.
    pub fn new(a: &'a Buffer<T>, b: &'a Buffer<T>) -> Self {
        Self { a, b, bias: None, c: None, residual: None, scales: Scales::None }
    }

    /// The same, if A and B are f32.
    pub(super) fn in_f32(&self) -> Option<Operands<'a, f32, O>> {
        let &Self { bias, c, residual, scales, .. } = self;
        Some(Operands { a: as_f32(self.a)?, b: as_f32(self.b)?, bias, c, residual, scales })
    }

    /// Refuses operands of other lengths or on another device.
    pub(crate) fn check(
        &self,
        shape: &LinearShape,
        beta: f64,
        device: &Device,
    ) -> Result<(), Error> {
        let batch = shape.batch;
        self.a.check_device(OP, "a", device)?;
        self.b.check_device(OP, "b", device)?;
        shape.a().check(batch, self.a.len())?;
        shape.b().check(batch, self.b.len())?;
        for (name, buffer, extent) in [
            ("bias", self.bias, shape.bias()),
            ("c", self.c, shape.c()),
            ("residual", self.residual, shape.residual()),
        ] {
            if let Some(buffer) = buffer {
                buffer.check_device(OP, name, device)?;
                extent.check(batch, buffer.len())?;
            }
        }
        if (beta != 0.0) != self.c.is_some() {
            let c = if self.c.is_some() { "a" } else { "no" };
            return Err(LinearError::Addition { beta, c }.into());
        }
        if let Some((a, b)) = self.scales.buffers() {
            if T::DTYPE != kasmina_types::DType::E4m3 {
                return Err(LinearError::Scales { dtype: T::DTYPE }.into());
            }
            let (of_a, of_b) = self.scales.lengths(shape);
            for (name, buffer, len) in [("scales.a", a, of_a), ("scales.b", b, of_b)] {
                buffer.check_device(OP, name, device)?;
                check_length(OP, name, len, buffer.len())?;
            }
        }
        Ok(())
    }
}
