//! What the passes write beside the tensors.

use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::error::Error;

/// A forward pass's statistics, `[rows]` each: what the backward pass needs beside x.
#[derive(Debug)]
pub struct NormStatistics {
    /// Mean of what is normalised; 0 for RMS norm.
    pub mean: Buffer<f32>,
    /// 1/√(variance + ε), for RMS norm 1/√(mean square + ε).
    pub rstd: Buffer<f32>,
}

impl NormStatistics {
    /// Statistics for `rows` rows.
    ///
    /// # Errors
    /// Memory exhausted, or a failed call.
    pub fn new(device: &Device, rows: usize) -> Result<Self, Error> {
        Ok(Self { mean: Buffer::zeroed(device, rows)?, rstd: Buffer::zeroed(device, rows)? })
    }

    pub(super) fn check(
        &self,
        op: &'static str,
        rows: usize,
        device: &Device,
    ) -> Result<(), Error> {
        for (name, buffer) in [("statistics.mean", &self.mean), ("statistics.rstd", &self.rstd)] {
            check_length(op, name, rows, buffer.len())?;
            buffer.check_device(op, name, device)?;
        }
        Ok(())
    }
}

/// The parameters' gradients, `[cols]` each, overwritten by each backward pass. What is `None` is not
/// computed. A gradient may be asked for where the forward pass had no such parameter: it is that of a
/// γ of ones or a β of zeros.
#[derive(Debug)]
pub struct NormGradients {
    /// ∂L/∂γ.
    pub gamma: Option<Buffer<f32>>,
    /// ∂L/∂β; `None` for RMS norm.
    pub beta: Option<Buffer<f32>>,
}

impl NormGradients {
    /// Gradients of `cols` columns, of γ and of β where they are wanted.
    ///
    /// # Errors
    /// Memory exhausted, or a failed call.
    pub fn new(device: &Device, cols: usize, gamma: bool, beta: bool) -> Result<Self, Error> {
        let of = |wanted: bool| wanted.then(|| Buffer::zeroed(device, cols)).transpose();
        Ok(Self { gamma: of(gamma)?, beta: of(beta)? })
    }

    pub(super) fn check(
        &self,
        op: &'static str,
        cols: usize,
        device: &Device,
    ) -> Result<(), Error> {
        check_parameter(op, "gradients.gamma", cols, self.gamma.as_ref(), device)?;
        check_parameter(op, "gradients.beta", cols, self.beta.as_ref(), device)
    }
}

/// Refuses a parameter, or a gradient of one, that is not of `cols` on `device`.
pub(super) fn check_parameter(
    op: &'static str,
    name: &'static str,
    cols: usize,
    buffer: Option<&Buffer<f32>>,
    device: &Device,
) -> Result<(), Error> {
    let Some(buffer) = buffer else { return Ok(()) };
    check_length(op, name, cols, buffer.len())?;
    buffer.check_device(op, name, device)
}
