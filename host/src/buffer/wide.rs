//! Numbers in and out as f64: what the CPU's mathematics takes and gives.

use kasmina_types::dtype::Element;
use num_traits::{AsPrimitive, FromPrimitive};

use super::Buffer;
use crate::error::Error;

impl<T: Element + AsPrimitive<f64>> Buffer<T> {
    /// The values in f64.
    pub(crate) fn to_f64(&self) -> Result<Vec<f64>, Error> {
        Ok(self.to_vec()?.into_iter().map(AsPrimitive::as_).collect())
    }
}

impl<T: Element + FromPrimitive> Buffer<T> {
    /// Replaces the values, each rounded to the element type; `op` may have no integers.
    pub(crate) fn copy_from_f64(&mut self, op: &'static str, values: &[f64]) -> Result<(), Error> {
        let error = || Error::Dtype { op, got: T::DTYPE, expected: "floating-point numbers" };
        let narrow = |&value: &f64| T::from_f64(value).ok_or_else(error);
        let values = values.iter().map(narrow).collect::<Result<Vec<T>, Error>>()?;
        self.copy_from_slice(&values)
    }
}
