//! The state of a layer as plain arrays, and the checks that it must pass.

use ndarray::ArrayView2;

use super::{LayerError, NumericalMode};
use crate::Real;

/// Highest lifecycle code (ROLLED_BACK).
const LAST_LIFECYCLE: u8 = 10;

/// Whether a seed with this lifecycle code transforms its chunk: GRAFTING (3) to FOSSILIZED (7).
pub fn is_active(lifecycle: u8) -> bool {
    (3..=7).contains(&lifecycle)
}

/// Lifecycle code of a seed whose blueprint learns on detached input.
pub(super) const TRAINING: u8 = 2;

/// Whether a seed with this lifecycle code passes gradients to its blueprint: TRAINING (2), GRAFTING (3)
/// and FINE_TUNING (6).
pub fn trains_blueprint(lifecycle: u8) -> bool {
    matches!(lifecycle, TRAINING | 3 | 6)
}

/// The transformation T of a blueprint, by its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlueprintType {
    /// 0: x + s·w.
    ResidualBlock,
    /// 1: x·p, p = softmax(w) over the chunk.
    AttentionHead,
    /// 2: s·relu(x·w).
    MlpExpansion,
    /// 3: s·(w0·x_i + w1·x_{i−1} + w2·x_{i−2}).
    ConvFilter,
    /// 4: s·x·w.
    Scale,
}

impl BlueprintType {
    /// The type with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::ResidualBlock),
            1 => Some(Self::AttentionHead),
            2 => Some(Self::MlpExpansion),
            3 => Some(Self::ConvFilter),
            4 => Some(Self::Scale),
            _ => None,
        }
    }
}

/// The arrays that describe S seeds of C columns and P blueprints.
///
/// `W` is the type of the parameters; it need not be that of the input, so the f32 state of a layer serves
/// the f64 oracle as it is.
#[derive(Debug, Clone, Copy)]
pub struct LayerState<'a, W> {
    /// `[S]`, lifecycle codes 0 to 10.
    pub lifecycle: &'a [u8],
    /// `[S]`, index into the blueprints; 0 means none and needs no blueprint.
    pub blueprint_id: &'a [u16],
    /// `[S]`, blend factors, clipped to 0…1 where they are used.
    pub alpha: &'a [W],
    /// `[P]`, type codes 0 to 4; the first entry is reserved and not read.
    pub blueprint_type: &'a [u8],
    /// `[P, C]`; the first row is reserved and not read.
    pub blueprint_weights: ArrayView2<'a, W>,
    /// `[P]`; the first entry is reserved and not read.
    pub blueprint_scales: &'a [W],
}

impl<W: Real> LayerState<'_, W> {
    /// Number of seeds, S.
    pub fn num_seeds(&self) -> usize {
        self.lifecycle.len()
    }

    /// Columns of a seed, C.
    pub fn chunk_size(&self) -> usize {
        self.blueprint_weights.ncols()
    }

    /// Checks lengths, codes and ids, of inactive seeds too.
    pub(super) fn validate(&self) -> Result<(), LayerError> {
        let seeds = self.num_seeds();
        let blueprints = self.blueprint_weights.nrows();
        non_zero("seeds", seeds)?;
        non_zero("chunk_size", self.chunk_size())?;
        length("blueprint_id", "seed", seeds, self.blueprint_id.len())?;
        length("alpha", "seed", seeds, self.alpha.len())?;
        length("blueprint_type", "blueprint", blueprints, self.blueprint_type.len())?;
        length("blueprint_scales", "blueprint", blueprints, self.blueprint_scales.len())?;

        for (blueprint, &got) in self.blueprint_type.iter().enumerate().skip(1) {
            if BlueprintType::from_code(got).is_none() {
                return Err(LayerError::BlueprintType { blueprint, got });
            }
        }
        for (seed, &got) in self.lifecycle.iter().enumerate() {
            if got > LAST_LIFECYCLE {
                return Err(LayerError::Lifecycle { seed, got });
            }
        }
        for (seed, &got) in self.blueprint_id.iter().enumerate() {
            if got != 0 && usize::from(got) >= blueprints {
                return Err(LayerError::BlueprintId { seed, got, blueprints });
            }
        }
        match self.alpha.iter().position(|alpha| alpha.is_nan()) {
            Some(seed) => Err(LayerError::Alpha { seed }),
            None => Ok(()),
        }
    }

    /// Checks that an adaptive mode has a flag for each seed.
    pub(super) fn validate_mode(&self, mode: NumericalMode<'_>) -> Result<(), LayerError> {
        match mode {
            NumericalMode::Adaptive { unstable, .. } => {
                length("unstable", "seed", self.num_seeds(), unstable.len())
            }
            NumericalMode::Fast | NumericalMode::Strict { .. } => Ok(()),
        }
    }
}

pub(super) fn non_zero(what: &'static str, got: usize) -> Result<(), LayerError> {
    if got == 0 { Err(LayerError::Empty { what }) } else { Ok(()) }
}

pub(super) fn length(
    tensor: &'static str,
    per: &'static str,
    expected: usize,
    got: usize,
) -> Result<(), LayerError> {
    if expected == got { Ok(()) } else { Err(LayerError::Length { tensor, per, expected, got }) }
}
