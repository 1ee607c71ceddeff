//! Which row of x⁻ each point has in a surrogate: random numbers by counter, so that surrogate s of a seed is
//! the same on every device, alone or in a batch.

/// How a surrogate breaks the tie between source and target while (y_t, y⁻) stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SurrogateKind {
    /// The rows are permuted.
    Permute,
    /// The rows are rotated by 1 to n − 1 places.
    Rotate,
    /// Blocks of so many neighbouring rows are permuted; the last may be shorter.
    Block(u32),
}

/// √n, rounded down, at most a third of n and at least 1: blocks that keep much of the source's own order, and are
/// many.
pub fn default_block_length(points: usize) -> u32 {
    (points.isqrt().min(points / 3) as u32).max(1)
}

/// Rounds of the permutation's network.
const ROUNDS: u32 = 8;

/// Philox-4x32-10: four words for each counter and key.
///
/// Source: J. K. Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product = |m: u32, word: u32| u64::from(m) * u64::from(word);
        let (a, b) = (product(0xD251_1F53, counter[0]), product(0xCD9E_8D57, counter[2]));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// A bijection of 0 … n − 1: a balanced Feistel network of Philox rounds over the next power of four, walked
/// until it is below n.
struct Permutation {
    n: u32,
    half_bits: u32,
    key: [u32; 2],
    surrogate: u32,
    stream: u32,
}

impl Permutation {
    fn new(n: u32, seed: u64, stream: u32, surrogate: u32) -> Self {
        let bits = u32::BITS - n.saturating_sub(1).leading_zeros();
        let key = [seed as u32, (seed >> 32) as u32];
        Self { n, half_bits: bits.div_ceil(2).max(1), key, surrogate, stream }
    }

    fn mix(&self, word: u32, round: u32) -> u32 {
        let mask = (1 << self.half_bits) - 1;
        philox4x32([word, round, self.surrogate, self.stream], self.key)[0] & mask
    }

    fn split(&self, value: u32) -> (u32, u32) {
        (value >> self.half_bits, value & ((1 << self.half_bits) - 1))
    }

    fn forward(&self, value: u32) -> u32 {
        let mut value = value;
        loop {
            let (mut left, mut right) = self.split(value);
            for round in 0..ROUNDS {
                (left, right) = (right, left ^ self.mix(right, round));
            }
            value = left << self.half_bits | right;
            if value < self.n {
                return value;
            }
        }
    }

    fn backward(&self, value: u32) -> u32 {
        let mut value = value;
        loop {
            let (mut left, mut right) = self.split(value);
            for round in (0..ROUNDS).rev() {
                (left, right) = (right ^ self.mix(left, round), left);
            }
            value = left << self.half_bits | right;
            if value < self.n {
                return value;
            }
        }
    }
}

/// The rows of surrogate `surrogate` (from 0) of `points` points: point i has the x⁻ of point `rows[i]`. `stream`
/// tells apart the pairs of series that share a seed.
pub fn surrogate_rows(
    kind: SurrogateKind,
    points: usize,
    seed: u64,
    stream: u32,
    surrogate: u32,
) -> Vec<u32> {
    let n = points as u32;
    match kind {
        SurrogateKind::Permute => {
            let permutation = Permutation::new(n, seed, stream, surrogate);
            (0..n).map(|i| permutation.forward(i)).collect()
        }
        SurrogateKind::Rotate => {
            let key = [seed as u32, (seed >> 32) as u32];
            let word = philox4x32([0, ROUNDS, surrogate, stream], key)[0];
            let shift =
                if n > 1 { 1 + ((u64::from(word) * u64::from(n - 1)) >> 32) as u32 } else { 0 };
            (0..n).map(|i| ((u64::from(i) + u64::from(shift)) % u64::from(n)) as u32).collect()
        }
        SurrogateKind::Block(length) => {
            let length = length.clamp(1, n.max(1));
            let blocks = n.div_ceil(length);
            let permutation = Permutation::new(blocks, seed, stream, surrogate);
            // Where the last block, which may be shorter, comes to stand: what follows moves up.
            let short = length * blocks - n;
            let end_of_short = (permutation.backward(blocks - 1) + 1) * length - short;
            let row = |i: u32| {
                let place = if i >= end_of_short { i + short } else { i };
                permutation.forward(place / length) * length + place % length
            };
            (0..n).map(row).collect()
        }
    }
}
