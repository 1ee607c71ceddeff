//! `--device`.

use clap::ValueEnum;

use super::Failure;
use crate::device::Device;

/// What `--device` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// The GPU if there is one that can be used; else what runs without
    Auto,
    /// The CPU mathematics
    Cpu,
    /// The executor: the GPU's kernels, run and checked on the CPU
    Simt,
    /// The first GPU
    Cuda,
}

impl Choice {
    /// The devices to verify kernels on: the named one, or the GPU, or `without_gpu`.
    pub(crate) fn devices(self, without_gpu: &[Self]) -> Result<Vec<Device>, Failure> {
        if self != Self::Auto {
            return Ok(vec![self.device()?]);
        }
        match Device::cuda(0) {
            Ok(gpu) => Ok(vec![gpu]),
            Err(why) => {
                tracing::debug!(%why, "no GPU");
                without_gpu.iter().map(|choice| choice.device()).collect()
            }
        }
    }

    /// The device to compute on: of several, the fastest.
    pub(crate) fn device(self) -> Result<Device, Failure> {
        match self {
            Self::Auto => Ok(Device::auto()),
            Self::Cpu => Ok(Device::Cpu),
            Self::Simt => Ok(Device::simt()),
            Self::Cuda => Device::cuda(0).map_err(Failure::nothing),
        }
    }
}
