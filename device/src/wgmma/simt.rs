//! Products under the executor: operands are taken apart into their chunks as the descriptors say, and the executor
//! reads them and multiplies when it is time.

use kasmina_simt::rt::{self, Access, Accumulators, CHUNK_BYTES, Product, Share, Space, within};
use kasmina_types::{bf16, f16};

use super::shapes::for_each_shape;
use super::{Element, Fragment, Layout, Major, OperandA as Words, Tf32};
use crate::convert::{E4m3, E5m2, Float};
use crate::shared::Place;
use crate::swizzle::Swizzle;

const ROWS: usize = 64;
const THREADS: usize = 128;

/// A thread's accumulators: its own, or with the executor.
pub struct State<const REGISTERS: usize> {
    registers: [f32; REGISTERS],
    /// Fences that the thread had passed when it wrote them.
    written: u64,
    in_flight: Option<u64>,
}

#[derive(Clone, Copy)]
pub struct Operand {
    place: Place,
    bytes: u32,
    layout: Layout,
}

pub struct OperandA {
    words: [u32; 4],
    written: u64,
}

/// An element as a number.
pub trait Decode: 'static {
    #[doc(hidden)]
    const BYTES: usize;
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> f32;
}

macro_rules! decode {
    ($($element:ty, $bytes:literal, |$raw:ident| $value:expr;)*) => {$(
        impl Decode for $element {
            const BYTES: usize = $bytes;
            fn decode(bytes: &[u8]) -> f32 {
                let mut $raw = [0; $bytes];
                $raw.copy_from_slice(bytes);
                $value
            }
        }
    )*};
}
decode! {
    bf16, 2, |raw| bf16::from_le_bytes(raw).to_f32();
    f16, 2, |raw| Float::to_f32(f16::from_le_bytes(raw));
    Tf32, 4, |raw| f32::from_bits(u32::from_le_bytes(raw) & !0x1fff);
    E4m3, 1, |raw| E4m3(raw[0]).to_f32();
    E5m2, 1, |raw| E5m2(raw[0]).to_f32();
}

pub(super) fn operand(place: Place, layout: Layout) -> Operand {
    Operand { place, bytes: 0, layout }
}

pub(super) fn plus(operand: Operand, bytes: u32) -> Operand {
    Operand { bytes: operand.bytes + bytes, ..operand }
}

pub(super) fn begin<const REGISTERS: usize>(registers: [f32; REGISTERS]) -> State<REGISTERS> {
    State { registers, written: rt::wgmma_fences(), in_flight: None }
}

#[track_caller]
pub(super) fn registers<const REGISTERS: usize>(mut state: State<REGISTERS>) -> [f32; REGISTERS] {
    if let Some(number) = state.in_flight {
        rt::wgmma_take(number, &mut state.registers);
    }
    state.registers
}

pub(super) fn settle_registers<const REGISTERS: usize>(_registers: &mut [f32; REGISTERS]) {}

pub(super) fn operand_a(words: [u32; 4]) -> OperandA {
    OperandA { words, written: rt::wgmma_fences() }
}

pub(super) fn fence() {
    rt::wgmma_fence();
}

pub(super) fn commit_group() {
    rt::wgmma_commit();
}

#[track_caller]
pub(super) fn wait_group<const PENDING: u32>() {
    const { assert!(PENDING < 8, "at most seven groups may be pending") };
    rt::wgmma_wait(PENDING);
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
        a: Operand,
        b: Operand,
        accumulate: bool,
    );
}

/// A product with A in registers.
pub trait IssueFromRegisters<E> {
    #[doc(hidden)]
    unsafe fn issue<MB: Major, const SIGN: i32>(
        &mut self,
        a: &OperandA,
        b: Operand,
        accumulate: bool,
    );
}

macro_rules! engine {
    ($($name:ident: $n:literal, $registers:literal, $list:tt;)*) => {$(
        impl Engine for State<$registers> {
            fn fence(&mut self) {
                fence();
            }

            fn settle(&mut self) {}

            fn unset() -> Self {
                begin([f32::NAN; $registers])
            }
        }

        engine!(@shared $registers, bf16, f16, Tf32, E4m3, E5m2);
        engine!(@registers $registers, bf16, f16);
    )*};
    (@shared $registers:literal, $($element:ty),*) => {$(
        impl Issue<$element> for State<$registers> {
            #[track_caller]
            unsafe fn issue<MA: Major, MB: Major, const SIGN: i32>(
                &mut self, a: Operand, b: Operand, accumulate: bool,
            ) {
                let modes = (SIGN, accumulate);
                // SAFETY: the caller's contract.
                unsafe { self.product::<$element, MA, MB>(Ok(a), b, modes) };
            }
        }
    )*};
    (@registers $registers:literal, $($element:ty),*) => {$(
        impl IssueFromRegisters<$element> for State<$registers> {
            #[track_caller]
            unsafe fn issue<MB: Major, const SIGN: i32>(
                &mut self, a: &OperandA, b: Operand, accumulate: bool,
            ) {
                let modes = (SIGN, accumulate);
                // SAFETY: the caller's contract.
                unsafe { self.product::<$element, super::KMajor, MB>(Err(a), b, modes) };
            }
        }
    )*};
}
for_each_shape!(engine);

impl<const REGISTERS: usize> State<REGISTERS> {
    #[track_caller]
    unsafe fn product<E: Element, MA: Major, MB: Major>(
        &mut self,
        a: Result<Operand, &OperandA>,
        b: Operand,
        (sign, accumulate): (i32, bool),
    ) {
        let modes = (sign == 1) as u64
            | (accumulate as u64) << 1
            | (MA::TRANSPOSED as u64) << 2
            | (MB::TRANSPOSED as u64) << 3
            | (E::K as u64) << 8
            | (REGISTERS as u64) << 16;
        let [a0, a1, a2] = a.as_ref().map_or([0; 3], |a| a.key());
        let [b0, b1, b2] = b.key();
        let accumulators = match self.in_flight {
            Some(number) => Accumulators::InFlight(number),
            None => Accumulators::Registers(&self.registers, self.written),
        };
        let words = a.as_ref().err().map(|a| (a.words.as_slice(), a.written));
        let key = [modes, a0, a1, a2, b0, b1, b2, 0];
        let share = Share { key, accumulators, operand: words };
        let columns = 2 * REGISTERS;
        let from_shared = a.is_ok();
        let describe = || {
            let mut chunks = Vec::new();
            if let Ok(a) = a {
                a.chunks::<MA>(ROWS, &mut chunks);
            }
            b.chunks::<MB>(columns, &mut chunks);
            let multiply = Box::new(move |bytes: &[u8], words: &[u32], d: &mut [f32]| {
                let (of_a, of_b) = bytes.split_at(if from_shared { ROWS * 32 } else { 0 });
                let mut a = if from_shared {
                    decoded::<E, MA>(of_a, ROWS)
                } else {
                    from_registers::<E>(words)
                };
                a.iter_mut().for_each(|a| *a *= sign as f32);
                let b = decoded::<E, MB>(of_b, columns);
                multiply::<REGISTERS>(&a, &b, E::K, accumulate, d);
            });
            Product { chunks, multiply }
        };
        // SAFETY: `Operand::chunks` checks that each chunk is inside its array.
        self.in_flight = Some(unsafe { rt::wgmma(share, &describe) });
    }
}

impl Operand {
    fn key(&self) -> [u64; 3] {
        let Layout { swizzle, leading_bytes, stride_bytes, base_offset } = self.layout;
        let strides = u64::from(leading_bytes) << 32 | u64::from(stride_bytes);
        let modes = u64::from(swizzle.span_bytes()) << 32 | u64::from(base_offset);
        let (base, _, first) = self.place.parts();
        [(base.addr() + first) as u64 + u64::from(self.bytes), strides, modes]
    }

    /// The operand's chunks, `count` rows or columns of it: by rows of what is contiguous.
    #[track_caller]
    fn chunks<M: Major>(&self, count: usize, chunks: &mut Vec<*const u8>) {
        let Layout { swizzle, leading_bytes, stride_bytes, .. } = self.layout;
        let (span, leading, stride) =
            (swizzle.span_bytes() as usize, leading_bytes as usize, stride_bytes as usize);
        let plain = swizzle == Swizzle::None;
        if M::TRANSPOSED {
            // K = 16 rows of 16-bit elements, eight to a chunk.
            for k in 0..16 {
                for chunk in 0..count / 8 {
                    let byte = chunk * CHUNK_BYTES;
                    chunks.push(self.chunk(if plain {
                        k % 8 * CHUNK_BYTES + k / 8 * leading + chunk * stride
                    } else {
                        k % 8 * span + k / 8 * stride + byte % span + byte / span * leading
                    }));
                }
            }
        } else {
            for row in 0..count {
                for chunk in 0..2 {
                    let along = if plain { leading } else { CHUNK_BYTES };
                    chunks.push(self.chunk(row % 8 * span + row / 8 * stride + chunk * along));
                }
            }
        }
    }

    /// The chunk at `offset` from the operand's beginning.
    #[track_caller]
    fn chunk(&self, offset: usize) -> *const u8 {
        let Layout { swizzle, base_offset, .. } = self.layout;
        let (base, length, first) = self.place.parts();
        // The low bits of the address are those of the hardware's: the executor's shared memory begins at a multiple
        // of every pattern.
        let plain = base.addr() + first + self.bytes as usize + offset;
        let low = plain as u32 & 0x3_ffff;
        let swizzled = plain - low as usize + swizzle.apply_from(low, base_offset) as usize;
        let at = swizzled.wrapping_sub(base.addr());
        within(Space::Shared, base, length, at, CHUNK_BYTES, CHUNK_BYTES, Access::WgmmaRead);
        base.wrapping_add(at)
    }
}

/// An operand as f32, its K rows one after the other: [K, count].
fn decoded<E: Element, M: Major>(bytes: &[u8], count: usize) -> Vec<f32> {
    let mut values = vec![0.0; E::K * count];
    for (at, element) in bytes.chunks_exact(E::BYTES).enumerate() {
        let (index, k) =
            if M::TRANSPOSED { (at % count, at / count) } else { (at / E::K, at % E::K) };
        values[k * count + index] = E::decode(element);
    }
    values
}

/// A as f32, [16, 64], from the words of 128 threads.
fn from_registers<E: Element>(words: &[u32]) -> Vec<f32> {
    let mut values = vec![0.0; E::K * ROWS];
    for (at, word) in words.iter().enumerate() {
        let (thread, i) = (at / 4, at % 4);
        let (row, column) = (Words::row(thread, i), Words::column(thread, i));
        for (half, bytes) in word.to_le_bytes().chunks_exact(2).enumerate() {
            values[(column + half) * ROWS + row] = E::decode(bytes);
        }
    }
    values
}

/// Adds products one by one, k ascending, in f32.
fn multiply<const REGISTERS: usize>(
    a: &[f32],
    b: &[f32],
    depth: usize,
    accumulate: bool,
    d: &mut [f32],
) {
    let columns = 2 * REGISTERS;
    let mut sums = vec![0.0_f32; ROWS * columns];
    let place = |at: usize| {
        let (thread, i) = (at / REGISTERS, at % REGISTERS);
        Fragment::<REGISTERS>::row(thread, i) * columns + Fragment::<REGISTERS>::column(thread, i)
    };
    debug_assert_eq!(d.len(), THREADS * REGISTERS);
    if accumulate {
        d.iter().enumerate().for_each(|(at, &value)| sums[place(at)] = value);
    }
    for (row, sums) in sums.chunks_exact_mut(columns).enumerate() {
        for k in 0..depth {
            let a = a[k * ROWS + row];
            for (sum, b) in sums.iter_mut().zip(&b[k * columns..]) {
                *sum += a * b;
            }
        }
    }
    d.iter_mut().enumerate().for_each(|(at, value)| *value = sums[place(at)]);
}
