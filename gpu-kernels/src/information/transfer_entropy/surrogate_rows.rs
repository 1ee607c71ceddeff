//! Which row of x⁻ each point has in a surrogate, for many surrogates.
//!
//! # Math
//! Philox-4x32-10 by counter `(value, round, surrogate, stream)` and the seed as key. Permutation of n rows: a balanced
//! Feistel network of 8 rounds, `(l, r) ← (r, l ^ philox(r, round))`, over the next power of four, walked until
//! the value is below n. Rotation: by `1 + ⌊w·(n − 1) / 2³²⌋`, w the word of round 8 at 0. Blocks of B rows: the
//! blocks are permuted, and what follows the last one, which may be shorter, moves up.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `maps` | `[maps]` | [`RowMap`](kasmina_types::transfer_entropy::RowMap) | in |
//! | `rows` | `[maps, stride]` | u32 | out, those below a map's points |
//!
//! # Traffic
//! Writes 4 · maps · points bytes. A permuted row costs 8 Philox, about 500 operations, and up to 4 walks: for 200 maps
//! of 2000 points some 10 µs. Bound by arithmetic.
//!
//! # Launch
//! A grid of 128-thread blocks, any size, that strides over the rows of all maps. Every thread may leave when it likes.
//!
//! # Determinism
//! Bitwise: integers.
//!
//! # Source
//! J. K. Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011; cycle walking: J. Black, P. Rogaway,
//! "Ciphers with arbitrary finite domains", 2002. Reference:
//! `kasmina_reference::information::transfer_entropy::surrogate_rows`.

use kasmina_device::global::{Load, Store};
use kasmina_device::{kernel, thread};
use kasmina_types::SurrogateRows;
use kasmina_types::transfer_entropy::{ROWS_BLOCK, ROWS_ROTATE, RowMap, TE_BLOCK_THREADS};

/// Rounds of the network.
const ROUNDS: u32 = 8;

/// The first word of Philox-4x32-10.
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> u32 {
    let mut round = 0;
    while round < 10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        round += 1;
    }
    counter[0]
}

/// A bijection of 0 … n − 1.
struct Permutation {
    n: u32,
    half_bits: u32,
    map: RowMap,
    key: [u32; 2],
}

impl Permutation {
    #[inline(always)]
    fn new(n: u32, map: RowMap, key: [u32; 2]) -> Self {
        let bits = 32 - n.saturating_sub(1).leading_zeros();
        let half_bits = if bits < 2 { 1 } else { bits.div_ceil(2) };
        Self { n, half_bits, map, key }
    }

    #[inline(always)]
    fn mix(&self, word: u32, round: u32) -> u32 {
        let mask = (1 << self.half_bits) - 1;
        philox([word, round, self.map.surrogate, self.map.stream], self.key) & mask
    }

    #[inline(always)]
    fn forward(&self, value: u32) -> u32 {
        self.walk(value, |mut left, mut right| {
            let mut round = 0;
            while round < ROUNDS {
                (left, right) = (right, left ^ self.mix(right, round));
                round += 1;
            }
            (left, right)
        })
    }

    #[inline(always)]
    fn backward(&self, value: u32) -> u32 {
        self.walk(value, |mut left, mut right| {
            let mut round = ROUNDS;
            while round > 0 {
                round -= 1;
                (left, right) = (right ^ self.mix(left, round), left);
            }
            (left, right)
        })
    }

    #[inline(always)]
    fn walk(&self, value: u32, network: impl Fn(u32, u32) -> (u32, u32)) -> u32 {
        let mut value = value;
        loop {
            let (left, right) =
                network(value >> self.half_bits, value & ((1 << self.half_bits) - 1));
            value = left << self.half_bits | right;
            if value < self.n {
                return value;
            }
        }
    }
}

/// The row of point `i`.
#[inline(always)]
fn row(p: &SurrogateRows, map: RowMap, i: u32) -> u32 {
    let n = map.points;
    if p.kind == ROWS_ROTATE {
        let word = philox([0, ROUNDS, map.surrogate, map.stream], p.seed);
        let shift = if n > 1 { 1 + ((u64::from(word) * u64::from(n - 1)) >> 32) as u32 } else { 0 };
        let left = n - i;
        return if shift < left { i + shift } else { shift - left };
    }
    if p.kind != ROWS_BLOCK {
        return Permutation::new(n, map, p.seed).forward(i);
    }
    let length = p.block_length.min(n).max(1);
    let blocks = n.div_ceil(length);
    let permutation = Permutation::new(blocks, map, p.seed);
    let short = blocks * length - n;
    let end_of_short = (permutation.backward(blocks - 1) + 1) * length - short;
    let place = if i >= end_of_short { i + short } else { i };
    permutation.forward(place / length) * length + place % length
}

/// The rows of all maps.
///
/// # Safety
/// As [`SurrogateRows`] says.
#[kernel(block = TE_BLOCK_THREADS)]
pub unsafe fn surrogate_rows_i32(p: SurrogateRows) {
    // At least one, as the launcher knows and the compiler does not.
    let stride = (p.stride as usize).max(1);
    let total = p.num_maps as usize * stride;
    let mut at = thread::index_1d() as usize;
    while at < total {
        let (number, i) = (at / stride, (at % stride) as u32);
        // SAFETY: the map is one of them.
        let map = unsafe { p.maps.load(number) };
        if i < map.points {
            // SAFETY: the place is inside the rows, and one thread's alone.
            unsafe { p.rows.store(at, row(&p, map, i)) };
        }
        at += (thread::grid_dim_x() * TE_BLOCK_THREADS) as usize;
    }
}
