//! `wgmma.*`. Fence, commit and wait go through intrinsics, which are convergent; the product itself has none.

use core::arch::asm;

use kasmina_types::{bf16, f16};

use super::shapes::for_each_shape;
use super::{Layout, Major, Tf32};
use crate::convert::{E4m3, E5m2};
use crate::shared::Place;

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.wgmma.fence.sync.aligned"]
    fn wgmma_fence();
    #[link_name = "llvm.nvvm.wgmma.commit_group.sync.aligned"]
    fn wgmma_commit_group();
    #[link_name = "llvm.nvvm.wgmma.wait_group.sync.aligned"]
    fn wgmma_wait_group(pending: u64);
}

pub(super) type State<const REGISTERS: usize> = [f32; REGISTERS];
pub(super) type Operand = u64;
pub(super) type OperandA = [u32; 4];

/// The hardware decodes operands itself.
pub trait Decode {}
impl<T> Decode for T {}

#[inline(always)]
pub(super) fn operand(place: Place, layout: Layout) -> Operand {
    u64::from((place.address() & 0x3_ffff) >> 4) | layout.bits()
}

/// The address is the lowest field; it does not run over inside of shared memory.
#[inline(always)]
pub(super) fn plus(operand: Operand, bytes: u32) -> Operand {
    operand + u64::from(bytes >> 4)
}

#[inline(always)]
pub(super) fn begin<const REGISTERS: usize>(registers: [f32; REGISTERS]) -> State<REGISTERS> {
    registers
}

#[inline(always)]
pub(super) fn registers<const REGISTERS: usize>(state: State<REGISTERS>) -> [f32; REGISTERS] {
    state
}

/// As [`Engine::settle`], of registers that are no accumulators.
#[inline(always)]
pub(super) fn settle_registers<const REGISTERS: usize>(registers: &mut [f32; REGISTERS])
where
    [f32; REGISTERS]: Engine,
{
    registers.settle();
}

#[inline(always)]
pub(super) fn operand_a(registers: [u32; 4]) -> OperandA {
    registers
}

#[inline(always)]
pub(super) fn fence() {
    // SAFETY: the caller's contract: the warps of the warpgroup come together.
    unsafe { wgmma_fence() };
}

#[inline(always)]
pub(super) fn commit_group() {
    // SAFETY: as above.
    unsafe { wgmma_commit_group() };
}

#[inline(always)]
pub(super) fn wait_group<const PENDING: u32>() {
    const { assert!(PENDING < 8, "at most seven groups may be pending") };
    // SAFETY: as above.
    unsafe { wgmma_wait_group(const { PENDING as u64 }) };
}

/// What all products of a shape share.
pub trait Engine: Sized {
    #[doc(hidden)]
    fn fence(&mut self);
    #[doc(hidden)]
    fn settle(&mut self);
    #[doc(hidden)]
    fn unset() -> Self;
}

/// A product with both operands in shared memory.
pub trait Issue<E> {
    #[doc(hidden)]
    unsafe fn issue<MA: Major, MB: Major, const SIGN: i32>(
        &mut self,
        a: u64,
        b: u64,
        accumulate: bool,
    );
}

/// A product with A in registers.
pub trait IssueFromRegisters<E> {
    #[doc(hidden)]
    unsafe fn issue<MB: Major, const SIGN: i32>(&mut self, a: &[u32; 4], b: u64, accumulate: bool);
}

/// The head of the instruction and its accumulators.
macro_rules! head {
    ($n:literal, $types:literal, [$($i:literal)*]) => {
        concat!(
            "{{ .reg .pred add; setp.ne.b32 add, {accumulate}, 0; wgmma.mma_async.sync.aligned.m64n", $n, $types,
            " {{{0}", $(", {", $i, "}",)* "}}, "
        )
    };
}

/// Both operands in shared memory; no transposition.
macro_rules! shared {
    ($n:literal, $registers:literal, $element:ty, $types:literal, $list:tt, [$($i:literal)*]) => {
        impl Issue<$element> for [f32; $registers] {
            #[inline(always)]
            unsafe fn issue<MA: Major, MB: Major, const SIGN: i32>(
                &mut self, a: u64, b: u64, accumulate: bool,
            ) {
                // SAFETY: the caller's contract.
                unsafe {
                    asm!(
                        concat!(head!($n, $types, $list), "{a}, {b}, add, {sign}, 1; }}"),
                        inout(reg32) self[0], $(inout(reg32) self[$i],)*
                        a = in(reg64) a, b = in(reg64) b, accumulate = in(reg32) u32::from(accumulate),
                        sign = const SIGN, options(nostack)
                    );
                }
            }
        }
    };
}

/// 16-bit elements: operands of either order, and A from registers.
macro_rules! transposable {
    ($n:literal, $registers:literal, $element:ty, $types:literal, $list:tt, [$($i:literal)*]) => {
        impl Issue<$element> for [f32; $registers] {
            #[inline(always)]
            unsafe fn issue<MA: Major, MB: Major, const SIGN: i32>(
                &mut self, a: u64, b: u64, accumulate: bool,
            ) {
                // SAFETY: the caller's contract.
                unsafe {
                    asm!(
                        concat!(head!($n, $types, $list), "{a}, {b}, add, {sign}, 1, {ta}, {tb}; }}"),
                        inout(reg32) self[0], $(inout(reg32) self[$i],)*
                        a = in(reg64) a, b = in(reg64) b, accumulate = in(reg32) u32::from(accumulate),
                        sign = const SIGN, ta = const MA::TRANSPOSED as u32,
                        tb = const MB::TRANSPOSED as u32, options(nostack)
                    );
                }
            }
        }

        impl IssueFromRegisters<$element> for [f32; $registers] {
            #[inline(always)]
            unsafe fn issue<MB: Major, const SIGN: i32>(
                &mut self, a: &[u32; 4], b: u64, accumulate: bool,
            ) {
                // SAFETY: the caller's contract.
                unsafe {
                    asm!(
                        concat!(
                            head!($n, $types, $list),
                            "{{{a0}, {a1}, {a2}, {a3}}}, {b}, add, {sign}, 1, {tb}; }}"
                        ),
                        inout(reg32) self[0], $(inout(reg32) self[$i],)*
                        a0 = in(reg32) a[0], a1 = in(reg32) a[1], a2 = in(reg32) a[2], a3 = in(reg32) a[3],
                        b = in(reg64) b, accumulate = in(reg32) u32::from(accumulate),
                        sign = const SIGN, tb = const MB::TRANSPOSED as u32, options(nostack)
                    );
                }
            }
        }
    };
}

macro_rules! engine {
    ($($name:ident: $n:literal, $registers:literal, $list:tt;)*) => {$(
        engine!(@tie $registers, $list);
        transposable!($n, $registers, bf16, "k16.f32.bf16.bf16", $list, $list);
        transposable!($n, $registers, f16, "k16.f32.f16.f16", $list, $list);
        shared!($n, $registers, Tf32, "k8.f32.tf32.tf32", $list, $list);
        shared!($n, $registers, E4m3, "k32.f32.e4m3.e4m3", $list, $list);
        shared!($n, $registers, E5m2, "k32.f32.e5m2.e5m2", $list, $list);
    )*};
    (@tie $registers:literal, [$($i:literal)*]) => {
        impl Engine for [f32; $registers] {
            #[inline(always)]
            fn fence(&mut self) {
                engine!(@pass self, $($i)*);
                fence();
            }

            /// The registers pass through an empty piece of assembly after the wait, so that nothing that is computed
            /// from them moves before it.
            #[inline(always)]
            fn settle(&mut self) {
                engine!(@pass self, $($i)*);
            }

            /// An empty piece of assembly that is said to write the registers: they are what they were.
            #[inline(always)]
            fn unset() -> Self {
                // SAFETY: all zero bits are a number in each f32.
                let mut state: Self = unsafe { core::mem::zeroed() };
                // SAFETY: it does nothing, and any bits are an f32.
                unsafe {
                    asm!(concat!("// {0}", $(" {", $i, "}",)*), out(reg32) state[0],
                        $(out(reg32) state[$i],)* options(nomem, nostack, preserves_flags));
                }
                state
            }
        }
    };
    (@pass $self:ident, $($i:literal)*) => {
        // SAFETY: it does nothing.
        unsafe {
            asm!(concat!("// {0}", $(" {", $i, "}",)*), inout(reg32) $self[0],
                $(inout(reg32) $self[$i],)* options(nostack, preserves_flags))
        }
    };
}

for_each_shape!(engine);
