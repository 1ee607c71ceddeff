//! Matrix products of a warpgroup on the tensor cores: D = A·B + D with M = 64 rows, `wgmma.mma_async` (sm_90a).
//!
//! A is [64, K] and B is [K, N], K = 32 bytes' worth of elements. B is in shared memory, A there or, of 16-bit
//! elements, in registers; D is f32 in registers, [`Accumulator`]. All 128 threads of a warpgroup do everything
//! here together, from the same place and with the same descriptors. The order is
//!
//! 1. [`Accumulator::fence`] (or [`fence`]) after registers were written, which orders that before the products;
//! 2. [`Accumulator::multiply_add`] and its kin, as many as there are; they run beside the threads;
//! 3. [`commit_group`] closes a group of them;
//! 4. [`wait_group`] before operands in shared memory are overwritten, [`Accumulator::wait`] before results are read.
//!
//! Accumulators under way cannot be read: waiting for them gives a [`Fragment`], whose registers can.
//!
//! What ordinary stores put into shared memory needs a [`fence_proxy_async`](crate::tma::fence_proxy_async) in the
//! writing threads and a barrier before the products; what bulk copies bring needs a wait at their mbarrier.
//!
//! # Numbers
//! Products are exact; the order of the sums, and how they are rounded, is the hardware's own and not documented.
//! Of 8-bit elements it keeps few bits: others measured on compute capability 9.0 that an instruction shifts its 32
//! products and the accumulator to the largest exponent among them and cuts off what is below 13 fractional bits of that,
//! and that the accumulator keeps no more between instructions. So long sums of these want partial sums that are added
//! in f32 ([`Fragment::add_scaled`]). The executor adds the products of one instruction to the accumulator one by one
//! with k ascending, in f32, to nearest, whatever the elements: it does not show what the hardware cuts off. tf32 operands
//! are f32 whose 13 lowest bits are ignored.
//!
//! # Under the executor
//! A product is done when its group is waited for. Reported are a missing fence, accumulators that are read before
//! their group was waited for, threads of a warpgroup that come apart, operands that are overwritten between issue
//! and wait (a race: each warp knows that its own part is done and nothing of the other three's), operands that an
//! ordinary store wrote without a proxy fence, and products that outlive their block.
//!
//! # Code
//! Accumulators stay in registers as long as all their indices are constants: use [`unroll!`](crate::unroll) or
//! [`Fragment::for_each_pair`], never a loop over an index. ptxas must not warn of C7510 to C7519.
//! A call, such as that of a panic at a division by zero, keeps a warpgroup from more registers than the launch gave,
//! whatever `setmaxnreg` says: the kernel must have none.

mod descriptor;
mod shapes;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

use kasmina_types::{bf16, f16};

use crate::convert::{E4m3, E5m2};
use crate::{hint, math};
use shapes::for_each_shape;

pub use descriptor::{Descriptor, KMajor, Layout, Major, MnMajor};

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// f32 of which a tensor core reads the 19 highest bits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
pub struct Tf32(pub f32);

/// An element of A and B.
pub trait Element: imp::Decode {
    /// Elements along K of one product.
    const K: usize;
}

impl Element for bf16 {
    const K: usize = 16;
}
impl Element for f16 {
    const K: usize = 16;
}
impl Element for Tf32 {
    const K: usize = 8;
}
impl Element for E4m3 {
    const K: usize = 32;
}
impl Element for E5m2 {
    const K: usize = 32;
}

/// An element that an operand of this major order may have.
pub trait InOrder<M: Major>: Element {}
impl<M: Major> InOrder<M> for bf16 {}
impl<M: Major> InOrder<M> for f16 {}
impl InOrder<KMajor> for Tf32 {}
impl InOrder<KMajor> for E4m3 {}
impl InOrder<KMajor> for E5m2 {}

/// D of shape [64, 2 · `REGISTERS`] as one thread of the warpgroup holds it, while products may be under way.
pub struct Accumulator<const REGISTERS: usize> {
    state: imp::State<REGISTERS>,
}

/// D as one thread holds it, to be read: element [`row`](Self::row), [`column`](Self::column) in each register.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fragment<const REGISTERS: usize> {
    /// The thread's part of D.
    pub registers: [f32; REGISTERS],
}

/// The part of A, [64, 16], that one thread holds in registers, two elements in each.
pub struct OperandA {
    state: imp::OperandA,
}

macro_rules! names {
    ($($name:ident: $n:literal, $registers:literal, [$($i:literal)*];)*) => {$(
        #[doc = concat!("The accumulators of m64n", $n, ": ", $registers, " a thread.")]
        pub type $name = Accumulator<$registers>;
    )*};
}
for_each_shape!(names);

/// An accumulator whose shape the hardware has.
pub trait Shape: imp::Engine {}

macro_rules! shapes {
    ($($name:ident: $n:literal, $registers:literal, [$($i:literal)*];)*) => {
        $(impl Shape for imp::State<$registers> {})*
    };
}
for_each_shape!(shapes);

/// A shape and an element of which there is an instruction, operands in shared memory.
pub trait Multiply<E>: Shape + imp::Issue<E> {}
impl<E, S: Shape + imp::Issue<E>> Multiply<E> for S {}

/// The same with A in registers.
pub trait MultiplyFromRegisters<E>: Shape + imp::IssueFromRegisters<E> {}
impl<E, S: Shape + imp::IssueFromRegisters<E>> MultiplyFromRegisters<E> for S {}

/// The state of an accumulator, by which kernels that are generic bound its shape:
/// `where State<R>: Multiply<bf16>`.
pub type State<const REGISTERS: usize> = imp::State<REGISTERS>;

impl<const REGISTERS: usize> Accumulator<REGISTERS> {
    /// Columns of D.
    pub const N: usize = 2 * REGISTERS;

    /// All zero.
    #[inline(always)]
    pub fn zeroed() -> Self {
        Fragment::zeroed().into_accumulator()
    }
}

impl<const REGISTERS: usize> Accumulator<REGISTERS>
where
    State<REGISTERS>: Shape,
{
    /// Of no value that counts, at no cost: the first product does not accumulate. Zeros would be written, and old sums
    /// be kept until then.
    #[inline(always)]
    pub fn unset() -> Self {
        Self { state: imp::Engine::unset() }
    }

    /// Orders all that the thread did to these registers, and to others, before the products that follow:
    /// `wgmma.fence.sync.aligned`. Needed before the first product of the kernel, and after registers of the
    /// accumulators or of an operand were written; not between products on the same accumulators. In a loop it stands
    /// before the products of each turn: with one before the loop, ptxas inserts its own, and serialises (C7519).
    #[inline(always)]
    pub fn fence(&mut self) {
        imp::Engine::fence(&mut self.state);
    }

    /// Waits until, but for the last `PENDING` groups, all products are done, and gives the registers:
    /// `wgmma.wait_group.sync.aligned`. The products on this accumulator are among those waited for.
    #[inline(always)]
    #[track_caller]
    pub fn wait<const PENDING: u32>(mut self) -> Fragment<REGISTERS> {
        wait_group::<PENDING>();
        imp::Engine::settle(&mut self.state);
        Fragment { registers: imp::registers(self.state) }
    }

    /// D = A·B + D, or, where not `accumulate`, A·B: `wgmma.mma_async.sync.aligned` with both operands in shared
    /// memory.
    ///
    /// # Safety
    /// All threads of the warpgroup call it from the same place with the same arguments, after a fence. Both operands
    /// are inside the block's shared memory and written, are visible to the asynchronous proxy, and are not written
    /// until the product's group was waited for by all four warps. The kernel is for sm_90a.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn multiply_add<E, MA: Major, MB: Major>(
        &mut self,
        a: Descriptor<MA>,
        b: Descriptor<MB>,
        accumulate: bool,
    ) where
        E: InOrder<MA> + InOrder<MB>,
        State<REGISTERS>: Multiply<E>,
    {
        // SAFETY: the caller's contract.
        unsafe {
            imp::Issue::<E>::issue::<MA, MB, 1>(&mut self.state, a.operand, b.operand, accumulate)
        };
    }

    /// D = D − A·B, or, where not `accumulate`, −A·B: the same with A negated.
    ///
    /// # Safety
    /// As [`Self::multiply_add`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn multiply_subtract<E, MA: Major, MB: Major>(
        &mut self,
        a: Descriptor<MA>,
        b: Descriptor<MB>,
        accumulate: bool,
    ) where
        E: InOrder<MA> + InOrder<MB>,
        State<REGISTERS>: Multiply<E>,
    {
        // SAFETY: the caller's contract.
        unsafe {
            imp::Issue::<E>::issue::<MA, MB, -1>(&mut self.state, a.operand, b.operand, accumulate)
        };
    }

    /// [`Self::multiply_add`] with A in registers.
    ///
    /// # Safety
    /// As [`Self::multiply_add`]; the fence is after A was written.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn multiply_add_from_registers<E, MB: Major>(
        &mut self,
        a: &OperandA,
        b: Descriptor<MB>,
        accumulate: bool,
    ) where
        E: InOrder<MB>,
        State<REGISTERS>: MultiplyFromRegisters<E>,
    {
        // SAFETY: the caller's contract.
        unsafe {
            imp::IssueFromRegisters::<E>::issue::<MB, 1>(
                &mut self.state,
                &a.state,
                b.operand,
                accumulate,
            );
        }
    }

    /// [`Self::multiply_subtract`] with A in registers.
    ///
    /// # Safety
    /// As [`Self::multiply_add_from_registers`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn multiply_subtract_from_registers<E, MB: Major>(
        &mut self,
        a: &OperandA,
        b: Descriptor<MB>,
        accumulate: bool,
    ) where
        E: InOrder<MB>,
        State<REGISTERS>: MultiplyFromRegisters<E>,
    {
        // SAFETY: the caller's contract.
        unsafe {
            imp::IssueFromRegisters::<E>::issue::<MB, -1>(
                &mut self.state,
                &a.state,
                b.operand,
                accumulate,
            );
        }
    }
}

impl<const REGISTERS: usize> Fragment<REGISTERS> {
    /// All zero. `zeroed` and not an array's initialiser, which is a loop that keeps the array in local memory.
    #[inline(always)]
    pub fn zeroed() -> Self {
        // SAFETY: all zero bits are a number in each f32.
        Self { registers: unsafe { core::mem::zeroed() } }
    }

    /// As accumulators for further products. A fence comes first.
    #[inline(always)]
    pub fn into_accumulator(self) -> Accumulator<REGISTERS> {
        Accumulator { state: imp::begin(self.registers) }
    }

    /// Adds `other` times the factor of the row: the first for the thread's upper rows, the second for those 8 further. It
    /// happens here and no later, so that `other`'s registers are free for further products.
    #[inline(always)]
    pub fn add_scaled(&mut self, other: &Self, [upper, lower]: [f32; 2])
    where
        State<REGISTERS>: Shape,
    {
        macro_rules! fours {
            ($($i:literal)*) => {$(
                if 4 * $i < REGISTERS {
                    // The index is a constant, which is below the length here.
                    let first = if 4 * $i < REGISTERS { 4 * $i } else { 0 };
                    let (sums, terms) = (&mut self.registers, &other.registers);
                    sums[first] = math::fma(upper, terms[first], sums[first]);
                    sums[first + 1] = math::fma(upper, terms[first + 1], sums[first + 1]);
                    sums[first + 2] = math::fma(lower, terms[first + 2], sums[first + 2]);
                    sums[first + 3] = math::fma(lower, terms[first + 3], sums[first + 3]);
                }
            )*};
        }
        fours!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
        imp::settle_registers(&mut self.registers);
    }

    /// The row of D, 0 to 63, in register `i` of this thread of the warpgroup (its index in the block modulo 128):
    /// warp w holds rows 16·w to 16·w + 15, lane l of it ⌊l / 4⌋ and, in every second pair of registers, ⌊l / 4⌋ + 8.
    #[inline(always)]
    pub const fn row(thread: usize, i: usize) -> usize {
        thread / 32 % 4 * 16 + thread % 32 / 4 + i / 2 % 2 * 8
    }

    /// The column of D in register `i` of this thread: four registers, two of each row, stand for eight columns, and
    /// lane l has columns 2·(l mod 4) and the next of them.
    #[inline(always)]
    pub const fn column(thread: usize, i: usize) -> usize {
        i / 4 * 8 + thread % 4 * 2 + i % 2
    }

    /// Registers `i · L` to `i · L + L − 1`, the columns `i · 2L` to `i · 2L + 2L − 1`, i below 8; zeros past the last. A
    /// choice among copies, so that a loop over i keeps the registers what they are.
    #[inline(always)]
    pub fn window<const L: usize>(&self, i: usize) -> [f32; L] {
        // SAFETY: all zero bits are a number in each f32.
        let mut window: [f32; L] = unsafe { core::mem::zeroed() };
        macro_rules! choose {
            ($($i:literal)*) => {$(
                if ($i + 1) * L <= REGISTERS && i == $i {
                    // SAFETY: the registers are inside, as was seen.
                    window = unsafe { self.registers.as_ptr().add($i * L).cast::<[f32; L]>().read() };
                    hint::end_of_branch::<$i>();
                }
            )*};
        }
        choose!(0 1 2 3 4 5 6 7);
        window
    }

    /// Runs `f` with row, first column and the two neighbouring values of each pair of registers, written out.
    #[inline(always)]
    pub fn for_each_pair(&self, thread: usize, mut f: impl FnMut(usize, usize, [f32; 2]))
    where
        State<REGISTERS>: Shape,
    {
        macro_rules! pairs {
            ($($i:literal)*) => {$(
                if 2 * $i < REGISTERS {
                    // The index is a constant, which is below the length here.
                    let pair = [
                        self.registers[if 2 * $i < REGISTERS { 2 * $i } else { 0 }],
                        self.registers[if 2 * $i < REGISTERS { 2 * $i + 1 } else { 0 }],
                    ];
                    f(Self::row(thread, 2 * $i), Self::column(thread, 2 * $i), pair);
                }
            )*};
        }
        pairs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
    }
}

impl OperandA {
    /// From the thread's four registers, each with two 16-bit elements, the one of the lower column in the lower half.
    #[inline(always)]
    pub fn new(registers: [u32; 4]) -> Self {
        Self { state: imp::operand_a(registers) }
    }

    /// The row of A, 0 to 63, of both elements of register `i` of this thread of the warpgroup.
    #[inline(always)]
    pub const fn row(thread: usize, i: usize) -> usize {
        thread / 32 % 4 * 16 + thread % 32 / 4 + i % 2 * 8
    }

    /// The column of A, 0 to 15, of the lower element of register `i`; the upper one's is the next.
    #[inline(always)]
    pub const fn column(thread: usize, i: usize) -> usize {
        i / 2 * 8 + thread % 4 * 2
    }
}

/// Orders what the thread did to its registers before the products that follow: `wgmma.fence.sync.aligned`. Prefer
/// [`Accumulator::fence`], which says so to the compiler too.
#[inline(always)]
pub fn fence() {
    imp::fence();
}

/// Closes the group of the products since the last one: `wgmma.commit_group.sync.aligned`.
#[inline(always)]
pub fn commit_group() {
    imp::commit_group();
}

/// Waits until, but for the last `PENDING` groups (0 to 7), all products of the warp's share are done, so that it
/// reads their operands no more: `wgmma.wait_group.sync.aligned`.
#[inline(always)]
#[track_caller]
pub fn wait_group<const PENDING: u32>() {
    imp::wait_group::<PENDING>();
}
