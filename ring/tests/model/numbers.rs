//! Numbers of [`BITS`] bits, which wrap around soon, and needs that fit a byte.
//!
//! The functions of the protocol take 32 bits: they get the numbers as the upper ones, where wrapping is the same.

use kasmina_ring::protocol::place_of;
use kasmina_types::manifold::Need;

/// Places of a ring.
pub(crate) const CAPACITY: usize = 2;

/// Bits of a number.
const BITS: u32 = 3;

/// Half of all numbers: two that are compared are less than this apart.
pub(crate) const HALF: u8 = 1 << (BITS - 1);

/// The first number of each ring: it wraps around soon.
pub(crate) const FIRST: u8 = 6;

/// A number on the wire.
pub(crate) fn wide(number: u8) -> u32 {
    u32::from(number) << (32 - BITS)
}

pub(crate) fn plus(number: u8, more: u8) -> u8 {
    number.wrapping_add(more) & ((1 << BITS) - 1)
}

pub(crate) fn minus(number: u8, less: u8) -> u8 {
    behind(less, number)
}

/// How far `number` is behind `ahead`.
pub(crate) fn behind(number: u8, ahead: u8) -> u8 {
    ahead.wrapping_sub(number) & ((1 << BITS) - 1)
}

pub(crate) fn place(number: u8) -> usize {
    place_of(u64::from(number), CAPACITY as u64) as usize
}

/// Ring and number of an item that another needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Needed(u8);

impl Needed {
    pub(crate) fn new(ring: usize, number: u8) -> Self {
        Self((ring as u8) << BITS | number)
    }

    pub(crate) fn ring(self) -> usize {
        usize::from(self.0 >> BITS)
    }

    pub(crate) fn number(self) -> u8 {
        plus(self.0, 0)
    }

    /// As a descriptor has it.
    pub(crate) fn need(self) -> Need {
        Need { ring: self.ring() as u32, sequence: wide(self.number()) }
    }
}

/// What an item needs: an item of each other ring at most.
pub(crate) type Needs = [Option<Needed>; 2];
