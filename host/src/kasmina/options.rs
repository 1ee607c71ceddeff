//! Options of the layer's passes.

use kasmina_types::Numerical;

use crate::error::Error;

/// What a pass does besides its formula.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlendOptions {
    /// Whether the forward pass gathers telemetry. Without it the telemetry's arrays, and the flags of
    /// [`NumericalMode::Adaptive`], stay as they are.
    pub telemetry: bool,
    /// What happens to the values that active seeds write.
    pub numerical: NumericalMode,
    /// Whether the grid has no more blocks than the device holds at once, which then take tile after tile;
    /// otherwise it has a block for each tile. The results are the same bits. Kernels of which a block takes a seed always
    /// have a block for each.
    pub persistent: bool,
    /// Threads of a block of [`Variant::Plain`]; none for what is fastest. 256 are the kernels of which a block takes a
    /// strip of some seeds, 128 those of which it takes one seed, where chunks are a power of two of vectors of four
    /// elements, at most 32; what no kernel has is [`Error::Setting`]. The other variants, and the CPU, do not look at it.
    pub block_threads: Option<u32>,
    /// Which kernels compute it.
    pub variant: Variant,
}

/// Which kernels compute a pass. They differ in speed, and in how sums are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Variant {
    /// The one that is fastest where it was measured.
    #[default]
    Auto,
    /// Threads load what they work on: runs everywhere.
    Plain,
    /// One warp of a block fetches through the copy engine what the others work on. Needs compute capability 9.0, or
    /// the executor, and chunks of a multiple of 16 bytes.
    Tma,
    /// As [`Self::Tma`], and the output goes through shared memory and the copy engine too. Only the forward pass has it.
    TmaBulkStores,
    /// The one that is fastest here: when a pass is planned, each variant that can run is timed on the GPU with
    /// scratch buffers of the pass' size, once for a shape, an element type, these options and a GPU in a process.
    /// Another process may choose another, and bits may differ between variants, though all are within the tolerance;
    /// so with this option bits repeat within a process (while there is memory for the trial), not from one to the next. Without a GPU it is
    /// [`Self::Plain`]. [`BlendForward::tuning`](super::BlendForward::tuning) and
    /// [`BlendBackward::tuning`](super::BlendBackward::tuning) say what was chosen; each pass has a choice of its own.
    Tuned,
}

impl Default for BlendOptions {
    /// Telemetry, and numbers as they come.
    fn default() -> Self {
        Self {
            telemetry: true,
            numerical: NumericalMode::Fast,
            persistent: true,
            block_threads: None,
            variant: Variant::Auto,
        }
    }
}

/// The kernel that a pass launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct KernelInfo {
    /// Its name in the PTX.
    pub entry: &'static str,
    /// Threads of a block.
    pub block_threads: u32,
    /// Elements of one memory access.
    pub lanes: u32,
    /// Blocks.
    pub grid: u32,
}

impl BlendOptions {
    /// Blocks of a grid over `tiles`, on a device that holds `resident` at once.
    pub(crate) fn grid(&self, tiles: u64, resident: u32) -> u32 {
        let most = if self.persistent { resident } else { i32::MAX as u32 };
        tiles.min(u64::from(most)) as u32
    }

    /// That no kernel has the block that is asked for.
    pub(crate) fn block_size_error(&self) -> Error {
        Error::Setting {
            op: "BlendOptions",
            setting: "block_threads",
            got: self.block_threads.unwrap_or_default().into(),
            expected: "256, or 128 where a chunk is 4, 8, 16, 32, 64 or 128 columns, of fewer than 65536 seeds",
        }
    }

    /// Whether a block of so many threads may be taken.
    pub(crate) fn fits(&self, block_threads: u32) -> bool {
        self.block_threads.is_none_or(|asked| asked == block_threads)
    }
}

/// What happens to the values that active seeds write, to the output forward and to the input's gradient
/// backward: a strict seed writes 0 in the place of NaN and of |v| < 1e-8, and clamps the rest to the
/// bounds. Inactive seeds are the identity in every mode.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum NumericalMode {
    /// Nothing.
    #[default]
    Fast,
    /// Every active seed is strict.
    Strict {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Those active seeds are strict whose telemetry last showed values that were not finite, or further
    /// than ten standard deviations from the mean.
    Adaptive {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
}

impl NumericalMode {
    /// The mode as the kernels take it.
    ///
    /// # Errors
    /// [`Error::Bounds`]: a bound that is NaN, or bounds that hold nothing.
    pub(crate) fn parameters(self, op: &'static str) -> Result<Numerical, Error> {
        let (mode, low, high) = match self {
            Self::Fast => return Ok(Numerical::new(Numerical::FAST, 0.0, 0.0)),
            Self::Strict { low, high } => (Numerical::STRICT, low, high),
            Self::Adaptive { low, high } => (Numerical::ADAPTIVE, low, high),
        };
        if low <= high {
            Ok(Numerical::new(mode, low, high))
        } else {
            Err(Error::Bounds { op, low, high })
        }
    }

    /// The mode as the reference takes it; `unstable` are the seeds' flags.
    pub(crate) fn of_reference(
        self,
        unstable: &[u8],
    ) -> kasmina_reference::kasmina::NumericalMode<'_> {
        use kasmina_reference::kasmina::NumericalMode as Reference;
        match self {
            Self::Fast => Reference::Fast,
            Self::Strict { low, high } => Reference::Strict { low: low.into(), high: high.into() },
            Self::Adaptive { low, high } => {
                Reference::Adaptive { low: low.into(), high: high.into(), unstable }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_hold_nothing_are_refused() {
        for (low, high) in [(1.0, -1.0), (f32::NAN, 1.0), (0.0, f32::NAN)] {
            for mode in [NumericalMode::Strict { low, high }, NumericalMode::Adaptive { low, high }]
            {
                assert!(matches!(mode.parameters("op"), Err(Error::Bounds { op: "op", .. })));
            }
        }
        let wide = NumericalMode::Strict { low: f32::NEG_INFINITY, high: f32::INFINITY };
        assert!(wide.parameters("op").is_ok());
    }
}
