//! Products of warpgroups under the executor against f64, with operands that emulated bulk copies bring.

use kasmina_device::convert::{E4m3, E5m2, Float};
use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::DynamicShared;
use kasmina_device::swizzle::Swizzle;
use kasmina_device::tma::{self, L2Hint};
use kasmina_device::wgmma::{
    self, Accumulator, Descriptor, Element, Fragment, InOrder, KMajor, Layout, Major, MnMajor,
    Multiply, MultiplyFromRegisters, OperandA, State, Tf32,
};
use kasmina_device::{shared_array, thread};
use kasmina_simt::{Executor, Geometry, LaunchError};
use kasmina_types::tensor_map::swizzle;
use kasmina_types::{Out, SimtTensorMap, TensorMapHandle, bf16, f16};

/// An element as tests write it: its bytes and the number that they stand for.
trait Sample: Element {
    const SIZE: usize;
    fn encode(value: f32) -> (Vec<u8>, f64);
}

impl Sample for bf16 {
    const SIZE: usize = 2;
    fn encode(value: f32) -> (Vec<u8>, f64) {
        let value = bf16::from_f32(value);
        (value.to_le_bytes().to_vec(), value.to_f64())
    }
}
impl Sample for f16 {
    const SIZE: usize = 2;
    fn encode(value: f32) -> (Vec<u8>, f64) {
        let value = f16::from_f32(value);
        (value.to_le_bytes().to_vec(), value.to_f64())
    }
}
/// The 13 lowest bits are set and must not count.
impl Sample for Tf32 {
    const SIZE: usize = 4;
    fn encode(value: f32) -> (Vec<u8>, f64) {
        let bits = value.to_bits() | 0x1fff;
        (bits.to_le_bytes().to_vec(), f64::from(f32::from_bits(bits & !0x1fff)))
    }
}
impl Sample for E4m3 {
    const SIZE: usize = 1;
    fn encode(value: f32) -> (Vec<u8>, f64) {
        let value = E4m3::from_f32(value);
        (vec![value.0], f64::from(value.to_f32()))
    }
}
impl Sample for E5m2 {
    const SIZE: usize = 1;
    fn encode(value: f32) -> (Vec<u8>, f64) {
        let value = E5m2::from_f32_saturating(value);
        (vec![value.0], f64::from(value.to_f32()))
    }
}

struct Random(u64);

impl Random {
    /// From −1 to 1.
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// An operand in global memory, a map of it, and how its boxes lie in shared memory.
struct Source {
    /// [count, k].
    numbers: Vec<f64>,
    _bytes: Vec<u8>,
    map: SimtTensorMap,
    layout: Layout,
    /// Boxes that make up the operand, and the bytes of each.
    boxes: u32,
    box_bytes: u32,
    elements_of_box: i32,
    /// Bytes from one product's operand to the next one's.
    step: u32,
}

impl Source {
    fn new<E: Sample, M: Major>(
        random: &mut Random,
        count: usize,
        k: usize,
        swizzle: Swizzle,
    ) -> Self {
        let (outer, inner) = if M::TRANSPOSED { (k, count) } else { (count, k) };
        let (mut numbers, mut bytes) = (vec![0.0; count * k], Vec::new());
        for i in 0..outer {
            for j in 0..inner {
                let (raw, number) = E::encode(random.next());
                bytes.extend(raw);
                let (index, depth) = if M::TRANSPOSED { (j, i) } else { (i, j) };
                numbers[index * k + depth] = number;
            }
        }
        let span = swizzle.span_bytes() as usize;
        let elements = span / E::SIZE;
        assert!(inner.is_multiple_of(elements), "whole boxes");
        let map = SimtTensorMap {
            magic: SimtTensorMap::MAGIC,
            address: bytes.as_ptr().expose_provenance() as u64,
            dimensions: [inner as u64, outer as u64, 1, 1, 1],
            strides_bytes: [(inner * E::SIZE) as u64, 0, 0, 0],
            box_dimensions: [elements as u16, outer as u16, 1, 1, 1],
            element_strides: [1; 5],
            element_bytes: E::SIZE as u8,
            rank: 2,
            swizzle: match swizzle {
                Swizzle::None => swizzle::NONE,
                Swizzle::Bytes32 => swizzle::BYTES_32,
                Swizzle::Bytes64 => swizzle::BYTES_64,
                Swizzle::Bytes128 => swizzle::BYTES_128,
            },
            _padding: [0; 22],
        };
        let box_bytes = (outer * span) as u32;
        let (layout, step) = match (M::TRANSPOSED, swizzle) {
            (false, Swizzle::None) => (Layout::new(swizzle, box_bytes, 128), 2 * box_bytes),
            (false, _) => (Layout::rows(swizzle), 32),
            (true, Swizzle::None) => (Layout::new(swizzle, 128, box_bytes), 256),
            (true, _) => (Layout::columns(swizzle, k as u32), 16 * span as u32),
        };
        let boxes = (inner / elements) as u32;
        let elements_of_box = elements as i32;
        Self { numbers, _bytes: bytes, map, layout, boxes, box_bytes, elements_of_box, step }
    }

    fn bytes(&self) -> u32 {
        self.boxes * self.box_bytes
    }

    unsafe fn load(&self, target: &DynamicShared<u8>, at: u32, barrier: Mbarrier) {
        let handle = TensorMapHandle::new(std::ptr::from_ref(&self.map).cast());
        for i in 0..self.boxes {
            let place = target.place((at + i * self.box_bytes) as usize);
            let x = i as i32 * self.elements_of_box;
            // SAFETY: the boxes are inside, and the barrier expects them.
            unsafe { tma::load_2d(place, handle, x, 0, barrier, L2Hint::Default) };
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    /// The first product overwrites, the others add.
    Overwrite,
    /// All add.
    Add,
    /// All subtract.
    Subtract,
    /// The first overwrites with the negated product.
    OverwriteSubtract,
}

fn launch(threads: u32, shared: u32, seed: u64, body: impl Fn() + Sync) -> Result<(), LaunchError> {
    let executor = Executor::new().checks(true).shuffled(seed);
    let geometry = Geometry {
        grid: [1, 1, 1],
        cluster: [1; 3],
        block: [threads, 1, 1],
        dynamic_shared_bytes: shared,
    };
    executor.launch("test", geometry, &body).map(drop)
}

/// D of `products` instructions against f64.
fn check<E, MA: Major, MB: Major, const R: usize>(products: usize, swizzles: [Swizzle; 2], how: How)
where
    E: Sample + InOrder<MA> + InOrder<MB>,
    State<R>: Multiply<E>,
{
    let (n, k) = (2 * R, products * E::K);
    let mut random = Random(R as u64 * 77 + products as u64);
    let a = Source::new::<E, MA>(&mut random, 64, k, swizzles[0]);
    let b = Source::new::<E, MB>(&mut random, n, k, swizzles[1]);
    let start: Vec<f32> = (0..64 * n).map(|_| 4.0 * random.next()).collect();
    let mut result = vec![f32::NAN; 64 * n];
    let output = Out::new(result.as_mut_ptr(), result.len());
    let at_b = a.bytes().next_multiple_of(1024);
    launch(128, at_b + b.bytes(), 11, || {
        let shared = DynamicShared::<u8>::whole();
        let words = shared_array![u64; 1];
        let barrier = Mbarrier::of(&words, 0);
        let me = thread::thread_idx_x() as usize;
        // SAFETY: one thread loads; all wait; each has its own elements of D.
        unsafe {
            if me == 0 {
                barrier.init(1);
                mbarrier::fence_init();
            }
            thread::sync_threads();
            if me == 0 {
                barrier.arrive_expect_tx(a.bytes() + b.bytes());
                a.load(&shared, 0, barrier);
                b.load(&shared, at_b, barrier);
            }
            barrier.wait(false);
            let mut before = Fragment::<R>::zeroed();
            for i in 0..R {
                let (row, column) = (Fragment::<R>::row(me, i), Fragment::<R>::column(me, i));
                before.registers[i] = start[row * n + column];
            }
            let mut d = before.into_accumulator();
            d.fence();
            let mut of_a = Descriptor::<MA>::new(shared.place(0), a.layout);
            let mut of_b = Descriptor::<MB>::new(shared.place(at_b as usize), b.layout);
            for product in 0..products {
                let add = product > 0 || !matches!(how, How::Overwrite | How::OverwriteSubtract);
                if matches!(how, How::Subtract | How::OverwriteSubtract) {
                    d.multiply_subtract::<E, MA, MB>(of_a, of_b, add);
                } else {
                    d.multiply_add::<E, MA, MB>(of_a, of_b, add);
                }
                of_a = of_a.plus(a.step);
                of_b = of_b.plus(b.step);
            }
            wgmma::commit_group();
            let d = d.wait::<0>();
            d.for_each_pair(me, |row, column, pair| {
                output.as_ptr().add(row * n + column).write(pair[0]);
                output.as_ptr().add(row * n + column + 1).write(pair[1]);
            });
        }
    })
    .expect("a launch that is right");
    let sign = if matches!(how, How::Subtract | How::OverwriteSubtract) { -1.0 } else { 1.0 };
    for row in 0..64 {
        for column in 0..n {
            let terms = (0..k).map(|i| a.numbers[row * k + i] * b.numbers[column * k + i]);
            let first = if matches!(how, How::Add | How::Subtract) {
                f64::from(start[row * n + column])
            } else {
                0.0
            };
            let expected = first + sign * terms.clone().sum::<f64>();
            let size = first.abs() + terms.map(f64::abs).sum::<f64>();
            // One rounding to f32 for each term, of a sum no larger than all terms' sizes.
            let tolerance = (k + 1) as f64 * size * f64::from(f32::EPSILON) / 2.0;
            let got = f64::from(result[row * n + column]);
            let error = (got - expected).abs();
            assert!(error <= tolerance, "n {n}, k {k}, ({row}, {column}): {got}, not {expected}");
        }
    }
}

macro_rules! every_shape {
    ($name:ident, $element:ty) => {
        #[test]
        fn $name() {
            every_shape!(@ $element, 4, 8, 16, 32, 48, 64, 96, 128);
        }
    };
    (@ $element:ty, $($registers:literal),*) => {$(
        check::<$element, KMajor, KMajor, $registers>(4, [Swizzle::Bytes128; 2], How::Overwrite);
    )*};
}

every_shape!(bf16_of_every_shape, bf16);
every_shape!(f16_of_every_shape, f16);
every_shape!(tf32_of_every_shape, Tf32);
every_shape!(e4m3_of_every_shape, E4m3);
every_shape!(e5m2_of_every_shape, E5m2);

const SWIZZLES: [(Swizzle, usize); 4] =
    [(Swizzle::None, 2), (Swizzle::Bytes32, 1), (Swizzle::Bytes64, 2), (Swizzle::Bytes128, 4)];

#[test]
fn every_swizzle_with_k_contiguous() {
    for (swizzle, products) in SWIZZLES {
        check::<bf16, KMajor, KMajor, 32>(products, [swizzle; 2], How::Overwrite);
        check::<Tf32, KMajor, KMajor, 4>(products, [swizzle; 2], How::Overwrite);
        check::<E4m3, KMajor, KMajor, 8>(products, [swizzle; 2], How::Overwrite);
    }
}

#[test]
fn every_swizzle_with_m_or_n_contiguous() {
    for (swizzle, _) in SWIZZLES {
        check::<bf16, MnMajor, MnMajor, 64>(2, [swizzle; 2], How::Overwrite);
        check::<f16, MnMajor, MnMajor, 96>(2, [swizzle; 2], How::Overwrite);
    }
}

#[test]
fn orders_and_swizzles_are_each_operand_s_own() {
    check::<bf16, KMajor, MnMajor, 32>(4, [Swizzle::Bytes128, Swizzle::Bytes64], How::Overwrite);
    check::<f16, MnMajor, KMajor, 16>(2, [Swizzle::Bytes32, Swizzle::None], How::Overwrite);
}

#[test]
fn products_add_and_subtract() {
    for how in [How::Add, How::Subtract, How::OverwriteSubtract] {
        check::<bf16, KMajor, KMajor, 8>(4, [Swizzle::Bytes128; 2], how);
        check::<Tf32, KMajor, KMajor, 8>(4, [Swizzle::Bytes128; 2], how);
    }
}

/// A in registers, minus and plus, B as N-major rows of 128 bytes.
fn check_registers<E, const R: usize>(subtract: bool)
where
    E: Sample + InOrder<MnMajor>,
    State<R>: MultiplyFromRegisters<E>,
{
    let n = 2 * R;
    let mut random = Random(5);
    let b = Source::new::<E, MnMajor>(&mut random, n, 16, Swizzle::Bytes128);
    let a: Vec<(u16, f64)> = (0..64 * 16)
        .map(|_| {
            let (bytes, number) = E::encode(random.next());
            (u16::from_le_bytes([bytes[0], bytes[1]]), number)
        })
        .collect();
    let mut result = vec![f32::NAN; 64 * n];
    let output = Out::new(result.as_mut_ptr(), result.len());
    launch(128, b.bytes(), 3, || {
        let shared = DynamicShared::<u8>::whole();
        let words = shared_array![u64; 1];
        let barrier = Mbarrier::of(&words, 0);
        let me = thread::thread_idx_x() as usize;
        // SAFETY: as in `check`.
        unsafe {
            if me == 0 {
                barrier.init(1);
                mbarrier::fence_init();
                barrier.arrive_expect_tx(b.bytes());
                b.load(&shared, 0, barrier);
            }
            thread::sync_threads();
            barrier.wait(false);
            let mut registers = [0; 4];
            for (i, register) in registers.iter_mut().enumerate() {
                let at = OperandA::row(me, i) * 16 + OperandA::column(me, i);
                *register = u32::from(a[at].0) | u32::from(a[at + 1].0) << 16;
            }
            let of_a = OperandA::new(registers);
            let of_b = Descriptor::<MnMajor>::new(shared.place(0), b.layout);
            let mut d = Accumulator::<R>::zeroed();
            d.fence();
            if subtract {
                d.multiply_subtract_from_registers::<E, MnMajor>(&of_a, of_b, true);
            } else {
                d.multiply_add_from_registers::<E, MnMajor>(&of_a, of_b, true);
            }
            wgmma::commit_group();
            d.wait::<0>().for_each_pair(me, |row, column, pair| {
                output.as_ptr().add(row * n + column).write(pair[0]);
                output.as_ptr().add(row * n + column + 1).write(pair[1]);
            });
        }
    })
    .expect("a launch that is right");
    for row in 0..64 {
        for column in 0..n {
            let sum: f64 = (0..16).map(|i| a[row * 16 + i].1 * b.numbers[column * 16 + i]).sum();
            let expected = if subtract { -sum } else { sum };
            let error = (f64::from(result[row * n + column]) - expected).abs();
            assert!(error < 16.0 * 16.0 * f64::from(f32::EPSILON), "({row}, {column}): {error}");
        }
    }
}

#[test]
fn a_comes_from_registers() {
    check_registers::<bf16, 32>(false);
    check_registers::<f16, 128>(true);
}

/// Registers and elements are one to one.
#[test]
fn coordinates_cover_d_once() {
    let mut seen = vec![0; 64 * 24];
    for thread in 0..128 {
        for i in 0..12 {
            seen[Fragment::<12>::row(thread, i) * 24 + Fragment::<12>::column(thread, i)] += 1;
        }
    }
    assert!(seen.iter().all(|&count| count == 1));
    let mut seen = vec![0; 64 * 16];
    for thread in 0..128 {
        for i in 0..4 {
            seen[OperandA::row(thread, i) * 16 + OperandA::column(thread, i)] += 1;
            seen[OperandA::row(thread, i) * 16 + OperandA::column(thread, i) + 1] += 1;
        }
    }
    assert!(seen.iter().all(|&count| count == 1));
}
