//! An operand's tiles on their way from global memory through shared memory to the registers that `mma.sync` takes.
//!
//! A tile has `R` rows (of op(A), or columns of op(B)) of 64 bytes along k, in chunks of 16 bytes. It lies in shared
//! memory as it lies in global memory: *k-major*, `[R, 64 bytes]`, or *row-major*, `[k, R]`. The chunks are permuted so
//! that the eight that a quarter of `ldmatrix` reads, or 32 lanes read singly, are in different banks.

use bytemuck::Pod;
use kasmina_device::global::Load;
use kasmina_device::mma::{self, Element};
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::Vector;
use kasmina_device::wgmma::Tf32;
use kasmina_device::{copy_async, thread, unroll};
use kasmina_types::tiles::{LINEAR_MMA_BLOCK_THREADS, LINEAR_MMA_K_BYTES};
use kasmina_types::{In, bf16, f16};

const THREADS: usize = LINEAR_MMA_BLOCK_THREADS as usize;
/// Bytes of a row along k, and of a chunk.
pub(crate) const K_BYTES: usize = LINEAR_MMA_K_BYTES as usize;
const CHUNK: usize = copy_async::BYTES;
const CHUNKS: usize = K_BYTES / CHUNK;
/// Bytes along k of one `mma.sync`: two chunks.
const STEP: usize = 2 * CHUNK;
/// Steps of a tile.
pub(crate) const STEPS: usize = K_BYTES / STEP;

/// An element of memory, and what it is in a product.
pub(crate) trait Input: Pod {
    /// The instruction's element.
    type Product: Element;

    /// A register of elements as the instruction wants it.
    fn prepare(word: u32) -> u32;
}

macro_rules! input {
    ($type:ty) => {
        impl Input for $type {
            type Product = Self;
            #[inline(always)]
            fn prepare(word: u32) -> u32 {
                word
            }
        }
    };
}
input!(bf16);
input!(f16);

/// The product looks at the upper 19 bits: rounded to nearest, where it would cut them off.
impl Input for f32 {
    type Product = Tf32;
    #[inline(always)]
    fn prepare(word: u32) -> u32 {
        // Of NaN the bits stay, which may be all ones.
        if word & 0x7f80_0000 == 0x7f80_0000 { word } else { word + 0x1000 }
    }
}

/// An operand of the block's output tile.
#[derive(Clone, Copy)]
pub(crate) struct Operand<T> {
    pub(crate) values: In<T>,
    /// Its first element, and the distance of its array's rows.
    pub(crate) base: usize,
    pub(crate) ld: usize,
    /// First row of the tile, and rows of the operand.
    pub(crate) first: usize,
    pub(crate) rows: usize,
    /// Whether all its chunks are aligned.
    aligned: bool,
}

impl<T: Input> Operand<T> {
    /// Elements of a chunk.
    const LANES: usize = CHUNK / size_of::<T>();
    /// k of a tile.
    pub(crate) const K: usize = K_BYTES / size_of::<T>();

    #[inline(always)]
    pub(crate) fn new(values: In<T>, base: usize, ld: usize, first: usize, rows: usize) -> Self {
        let aligned = (base | ld).is_multiple_of(Self::LANES);
        Self { values, base, ld, first, rows, aligned }
    }

    /// Where chunk `c` of line `line` of a tile is, in bytes: lines are rows if `K_MAJOR`, else those of one k.
    #[inline(always)]
    fn offset<const R: usize, const K_MAJOR: bool>(line: usize, c: usize) -> usize {
        if K_MAJOR {
            line * K_BYTES + ((c ^ (line >> 1 & 3)) * CHUNK)
        } else {
            // Lanes that read singly have four lines and two neighbouring chunks at once, `ldmatrix` eight lines.
            let swizzle = if size_of::<T>() == 4 { (line & 3) << 1 } else { line & 7 };
            line * R * size_of::<T>() + (c ^ swizzle) * CHUNK
        }
    }

    /// Brings the tile at `k` to `base` of `smem`; what lies outside is zero. On its way until the thread's group is
    /// waited for.
    ///
    /// # Safety
    /// The operand is as its problem says; the tile's place is inside, and nobody touches it until then.
    #[inline(always)]
    pub(crate) unsafe fn bring<const R: usize, const K_MAJOR: bool>(
        &self,
        smem: &DynamicShared<u8>,
        base: usize,
        k: usize,
        k_end: usize,
    ) {
        let thread = thread::thread_idx_x() as usize;
        unroll!(i in R * CHUNKS / THREADS, at most 2 => {
            let q = thread + i * THREADS;
            let of_line = if K_MAJOR { CHUNKS } else { R / Self::LANES };
            let (line, c) = (q / of_line, q % of_line);
            let (row, along) =
                if K_MAJOR { (line, c * Self::LANES) } else { (c * Self::LANES, line) };
            let (row, along) = (self.first + row, k + along);
            // Elements of the chunk that are inside.
            let inside = if K_MAJOR { k_end.saturating_sub(along) } else { self.rows.saturating_sub(row) };
            let crosses = if K_MAJOR { row < self.rows } else { along < k_end };
            let inside = if inside < Self::LANES { inside } else { Self::LANES };
            let inside = if crosses { inside } else { 0 };
            let offset = if K_MAJOR { row * self.ld + along } else { along * self.ld + row };
            let index = if inside > 0 { self.base + offset } else { 0 };
            let target = base + Self::offset::<R, K_MAJOR>(line, c);
            if self.aligned {
                // SAFETY: `inside` elements from `index` on are inside, and aligned as the operand's rows are.
                unsafe {
                    copy_async::copy_or_zero(
                        smem.place(target),
                        &self.values.cast(),
                        index * size_of::<T>(),
                        (inside * size_of::<T>()) as u32,
                    );
                }
            } else {
                // SAFETY: as above; the chunk is this thread's.
                unsafe { self.gather(smem, target, index, inside) };
            }
        });
    }

    /// A chunk that is not aligned, element by element.
    ///
    /// # Safety
    /// As [`Self::bring`], for `inside` elements from `index` on.
    #[inline(always)]
    unsafe fn gather(&self, smem: &DynamicShared<u8>, target: usize, index: usize, inside: usize) {
        let mut words = [0_u32; 4];
        unroll!(w in 4, at most 4 => {
            if size_of::<T>() == 4 {
                if w < inside {
                    // SAFETY: the caller's contract.
                    words[w] = bytemuck::cast(unsafe { self.values.cast::<u32>().load(index + w) });
                }
            } else {
                let halves: In<u16> = self.values.cast();
                if 2 * w < inside {
                    // SAFETY: the caller's contract.
                    words[w] = unsafe { halves.load(index + 2 * w) }.into();
                }
                if 2 * w + 1 < inside {
                    // SAFETY: the caller's contract.
                    words[w] |= u32::from(unsafe { halves.load(index + 2 * w + 1) }) << 16;
                }
            }
        });
        let bytes = bytemuck::cast::<[u32; 4], [u8; CHUNK]>(words);
        // SAFETY: the caller's contract; chunks are aligned.
        unsafe { smem.write_vector(target, Vector(bytes)) };
    }

    /// The registers of 16 rows from `row` on, for a step along k: A's.
    ///
    /// # Safety
    /// All lanes of the warp are here; the tile at `base` is written, and a barrier orders that before.
    #[inline(always)]
    pub(crate) unsafe fn sixteen_rows<const R: usize, const K_MAJOR: bool>(
        smem: &DynamicShared<u8>,
        base: usize,
        row: usize,
        step: usize,
    ) -> [u32; 4] {
        let lane = thread::lane_idx() as usize;
        // Of the four 8 × 8 matrices, the second and fourth have the lower rows, the last two the second chunk of k.
        let (lower, second) = (lane / 8 % 2, lane / 16);
        // SAFETY: the caller's contract; every chunk is inside the tile.
        let registers: [u32; 4] = unsafe {
            if K_MAJOR {
                let line = row + lower * 8 + lane % 8;
                let at = Self::offset::<R, true>(line, step * 2 + second);
                mma::load_matrices::<_, false>(smem.place(base + at))
            } else if size_of::<T>() == 2 {
                let line = (step * 2 + second) * Self::LANES + lane % 8;
                let at = Self::offset::<R, false>(line, row / 8 + lower);
                mma::load_matrices::<_, true>(smem.place(base + at))
            } else {
                let one =
                    |i: usize| single::<T, R>(smem, base, row + lane / 4 + i % 2 * 8, step, i / 2);
                [one(0), one(1), one(2), one(3)]
            }
        };
        registers.map(T::prepare)
    }

    /// The registers of 16 rows from `row` on, for a step along k, as two times 8: B's.
    ///
    /// # Safety
    /// As [`Self::sixteen_rows`].
    #[inline(always)]
    pub(crate) unsafe fn twice_eight_rows<const R: usize, const K_MAJOR: bool>(
        smem: &DynamicShared<u8>,
        base: usize,
        row: usize,
        step: usize,
    ) -> [[u32; 2]; 2] {
        let lane = thread::lane_idx() as usize;
        // Of the four 8 × 8 matrices, the second and fourth have the second chunk of k, the last two the lower rows.
        let (second, lower) = (lane / 8 % 2, lane / 16);
        // SAFETY: the caller's contract; every chunk is inside the tile.
        let registers: [u32; 4] = unsafe {
            if K_MAJOR {
                let line = row + lower * 8 + lane % 8;
                let at = Self::offset::<R, true>(line, step * 2 + second);
                mma::load_matrices::<_, false>(smem.place(base + at))
            } else if size_of::<T>() == 2 {
                let line = (step * 2 + second) * Self::LANES + lane % 8;
                let at = Self::offset::<R, false>(line, row / 8 + lower);
                mma::load_matrices::<_, true>(smem.place(base + at))
            } else {
                let one =
                    |i: usize| single::<T, R>(smem, base, row + lane / 4 + i / 2 * 8, step, i % 2);
                [one(0), one(1), one(2), one(3)]
            }
        };
        let [a, b, c, d] = registers.map(T::prepare);
        [[a, b], [c, d]]
    }
}

/// The lane's element of 32 bits in a row of a row-major tile, in a chunk's width along k.
///
/// # Safety
/// As [`Operand::sixteen_rows`].
#[inline(always)]
unsafe fn single<T: Input, const R: usize>(
    smem: &DynamicShared<u8>,
    base: usize,
    row: usize,
    step: usize,
    chunk: usize,
) -> u32 {
    let line = (step * 2 + chunk) * 4 + thread::lane_idx() as usize % 4;
    let at = base + Operand::<T>::offset::<R, false>(line, row / 4) + row % 4 * 4;
    // SAFETY: the caller's contract; the element is inside the tile, and aligned.
    bytemuck::cast(unsafe { smem.read_vector::<4>(at) }.0)
}
