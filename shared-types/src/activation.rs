//! Activation functions that kernels fuse.

use core::fmt;

/// A function that is applied to each element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Activation {
    /// x.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// x·Φ(x), Φ the distribution function of the standard normal: ½·(1 + erf(x/√2)).
    GeluErf,
    /// x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    GeluTanh,
    /// x·σ(x).
    Silu,
    /// σ(x) = 1/(1 + e⁻ˣ).
    Sigmoid,
    /// tanh x.
    Tanh,
}

impl Activation {
    /// Every function, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Relu,
        Self::GeluErf,
        Self::GeluTanh,
        Self::Silu,
        Self::Sigmoid,
        Self::Tanh,
    ];

    /// The name as it stands in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::GeluErf => "gelu_erf",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_positions() {
        for (code, activation) in Activation::ALL.into_iter().enumerate() {
            assert_eq!(activation as usize, code);
        }
    }
}
