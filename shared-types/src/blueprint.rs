//! What a seed can grow.

use core::fmt;

/// The transformation T(x) of a blueprint, as one byte in the blueprint arrays. The formulas stand
/// in [`crate::blend_forward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BlueprintType {
    /// x + s·w
    ResidualBlock = 0,
    /// x·softmax(w), the softmax over the chunk
    AttentionHead = 1,
    /// s·relu(x·w)
    MlpExpansion = 2,
    /// s·(w₀·xᵢ + w₁·xᵢ₋₁ + w₂·xᵢ₋₂)
    ConvFilter = 3,
    /// s·x·w
    Scale = 4,
}

/// The byte of a LINEAR blueprint, `T(x) = act(W·x + b)`, in the place of a [`BlueprintType`]: one that is none, for T is
/// not made of an element and its neighbours. The kernels of the passes take such a seed for the identity; what it
/// computes is added by products of matrices.
pub const LINEAR: u8 = 5;

/// What a blueprint is, as one byte in the blueprint arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlueprintKind {
    /// The passes' kernels compute it, element by element.
    Elementwise(BlueprintType),
    /// act(W·x + b), [`LINEAR`].
    Linear,
}

impl BlueprintKind {
    /// The kind of a byte, if it is one.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match BlueprintType::from_u8(byte) {
            Some(kind) => Some(Self::Elementwise(kind)),
            None if byte == LINEAR => Some(Self::Linear),
            None => None,
        }
    }

    /// The name in the field's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elementwise(kind) => kind.name(),
            Self::Linear => "LINEAR",
        }
    }
}

impl fmt::Display for BlueprintKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The blueprint id that means 'none': such a seed is the identity.
pub const BLUEPRINT_NONE: u16 = 0;

/// Taps of a CONV_FILTER.
pub const CONV_TAPS: usize = 3;

impl BlueprintType {
    /// Every type, in the order of its byte.
    pub const ALL: [Self; 5] = [
        Self::ResidualBlock,
        Self::AttentionHead,
        Self::MlpExpansion,
        Self::ConvFilter,
        Self::Scale,
    ];

    /// The type of a byte, if it is one.
    #[inline]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::ResidualBlock,
            1 => Self::AttentionHead,
            2 => Self::MlpExpansion,
            3 => Self::ConvFilter,
            4 => Self::Scale,
            _ => return None,
        })
    }

    /// The name in the field's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResidualBlock => "RESIDUAL_BLOCK",
            Self::AttentionHead => "ATTENTION_HEAD",
            Self::MlpExpansion => "MLP_EXPANSION",
            Self::ConvFilter => "CONV_FILTER",
            Self::Scale => "SCALE",
        }
    }
}

impl fmt::Display for BlueprintType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_published_ones() {
        for (byte, kind) in BlueprintType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, byte);
            assert_eq!(BlueprintType::from_u8(byte as u8), Some(kind));
        }
        // What lets the passes take a LINEAR seed for the identity.
        assert_eq!(BlueprintType::from_u8(LINEAR), None);
        assert_eq!(BlueprintKind::from_u8(LINEAR), Some(BlueprintKind::Linear));
        assert_eq!(BlueprintKind::from_u8(4).map(BlueprintKind::name), Some("SCALE"));
        assert_eq!(BlueprintKind::from_u8(6), None);
    }
}
