//! Elements of eight bits.

use bytemuck::{Pod, Zeroable};

/// An 8-bit float with 4 bits of exponent and 3 of mantissa: no infinities, largest value 448.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct E4m3(pub u8);
