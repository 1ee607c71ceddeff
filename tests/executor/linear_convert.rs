//! `linear_repack_f32_*` and `linear_absmax_f32` as they are, and products of f32 in narrower precisions.

use half::{bf16, f16};
use kasmina::linear::{Layout, LinearElement, Precision};
use kasmina::types::{DType, E4m3, In, LinearAbsmax, LinearConvert, LinearRepack, Out};
use kasmina::{Buffer, Device, Executor};
use kasmina_device::convert::Float;
use kasmina_kernels::instances;
use kasmina_reference::linear::absmax_scale;
use kasmina_tests::Numbers;
use kasmina_tests::linear::convert;
use kasmina_tests::linear::forward::Case;

use super::shuffled;

/// Matrices `[batch, rows, columns]` in f32, or their transposes, with gaps.
struct Matrices {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    batch: usize,
    ld: usize,
    stride: usize,
    transposed: bool,
}

impl Matrices {
    fn new([batch, rows, columns]: [usize; 3], transposed: bool, gap: usize) -> Self {
        let (outer, inner) = if transposed { (columns, rows) } else { (rows, columns) };
        let ld = inner + gap;
        let stride = outer * ld + gap;
        let numbers = &mut Numbers::new((rows * columns + gap) as u64);
        let magnitudes = [1e-42, 1e-20, 6e-8, 1e-2, 1.0, 500.0, 7e4, 3.4e38_f32];
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0];
        let mut value = || match numbers.below(40) {
            at if at < special.len() => special[at],
            _ => numbers.in_range(-1.0, 1.0) * magnitudes[numbers.below(magnitudes.len())],
        };
        let values = (0..batch * stride).map(|_| value()).collect();
        Self { values, rows, columns, batch, ld, stride, transposed }
    }

    fn at(&self, number: usize, row: usize, column: usize) -> f32 {
        let (outer, inner) = if self.transposed { (column, row) } else { (row, column) };
        self.values[number * self.stride + outer * self.ld + inner]
    }

    /// Every place of the matrices, and none between them.
    fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let &Self { rows, columns, batch, .. } = self;
        (0..batch).flat_map(move |number| {
            (0..rows).flat_map(move |row| (0..columns).map(move |column| (number, row, column)))
        })
    }

    fn on_host(&self) -> (Buffer<f32>, In<f32>) {
        let buffer = Buffer::from_slice(&Device::Cpu, &self.values).expect("memory");
        let view = In::new(buffer.device_address() as *const f32, self.values.len());
        (buffer, view)
    }

    /// What the kernel makes of them.
    fn converted<T: LinearElement>(&self, scale: Option<f32>, seed: u64) -> Vec<T> {
        let (kernel, shared) = instances::linear_convert(T::DTYPE).expect("a type to convert to");
        let to_ld = self.columns.next_multiple_of(4);
        let len = self.batch * self.rows * to_ld;
        let (_kept, from) = self.on_host();
        let mut to = Buffer::<T>::zeroed(&Device::Cpu, len).expect("memory");
        let scale: Vec<f32> = scale.into_iter().collect();
        let scale_on = Buffer::from_slice(&Device::Cpu, &scale).expect("memory");
        let params = LinearConvert {
            places: LinearRepack {
                from: from.cast(),
                to: Out::new(to.as_host_slice_mut().expect("the host's").as_mut_ptr(), len).cast(),
                from_stride: self.stride as u64,
                to_stride: (self.rows * to_ld) as u64,
                from_ld: self.ld as u32,
                to_ld: to_ld as u32,
                rows: self.rows as u32,
                columns: self.columns as u32,
                transposed: self.transposed.into(),
                batch: self.batch as u32,
                _padding: [0; 2],
            },
            scale: In::new(scale_on.device_address() as *const f32, scale.len()),
        };
        let grid = self.batch * self.rows.div_ceil(64) * self.columns.div_ceil(64);
        let executor = Executor::new().checks(true).shuffled(seed);
        // SAFETY: the views are of memory that lives until the call returns; a block for each tile.
        unsafe { kernel.run(&executor, grid as u32, shared, params) }.expect("a launch");
        let to = to.to_vec().expect("a result");
        let at = |(number, row, column)| to[(number * self.rows + row) * to_ld + column];
        self.places().map(at).collect()
    }

    /// The scale that the kernel finds, with so many blocks.
    fn scale(&self, blocks: u32, seed: u64) -> f32 {
        let (_kept, from) = self.on_host();
        let mut scale = Buffer::from_slice(&Device::Cpu, &[f32::NAN]).expect("memory");
        let mut state = Buffer::<u32>::zeroed(&Device::Cpu, 2).expect("memory");
        let (outer, inner) =
            if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) };
        let params = LinearAbsmax {
            from,
            scale: Out::new(scale.as_host_slice_mut().expect("the host's").as_mut_ptr(), 1),
            state: Out::new(state.as_host_slice_mut().expect("the host's").as_mut_ptr(), 2),
            stride: self.stride as u64,
            ld: self.ld as u32,
            rows: outer as u32,
            columns: inner as u32,
            batch: self.batch as u32,
            _padding: [0; 2],
        };
        let executor = Executor::new().checks(true).shuffled(seed);
        // SAFETY: the views are of memory that lives until the call returns; the state is zero.
        unsafe { instances::linear_absmax().run(&executor, blocks, 0, params) }.expect("a launch");
        assert_eq!(state.to_vec().expect("the state"), [0, 0], "the next launch finds zeros");
        scale.to_vec().expect("a result")[0]
    }
}

const SHAPES: [[usize; 3]; 6] =
    [[1, 1, 1], [1, 64, 64], [2, 65, 130], [3, 1, 67], [1, 129, 3], [2, 70, 61]];

/// Bits by `half`, values by arithmetic of the test's own.
fn check<T: LinearElement + Float>(of: fn(f32) -> T, bits: fn(T) -> u32) {
    for (seed, shape) in (0..).zip(SHAPES) {
        for (transposed, gap) in [(false, 0), (true, 0), (false, 3), (true, 5)] {
            let matrices = Matrices::new(shape, transposed, gap);
            let scale = (T::DTYPE == DType::E4m3).then_some(3.0);
            let got = matrices.converted::<T>(scale, seed);
            for (got, (number, row, column)) in got.into_iter().zip(matrices.places()) {
                let value = matrices.at(number, row, column);
                let value = scale.map_or(value, |scale| value / scale);
                let expected = convert::rounded(T::DTYPE, value);
                let what = (T::DTYPE, shape, transposed, gap, value);
                if expected.is_nan() {
                    assert!(LinearElement::to_f64(got).is_nan(), "{what:?}");
                    continue;
                }
                assert_eq!(LinearElement::to_f64(got), expected, "{what:?}");
                assert_eq!(bits(got), bits(of(value)), "{what:?}");
            }
        }
    }
}

#[test]
fn conversions_are_those_of_the_host() {
    check::<bf16>(bf16::from_f32, |value| value.to_bits().into());
    check::<f16>(f16::from_f32, |value| value.to_bits().into());
    check::<E4m3>(E4m3::from_f32, |value| value.0.into());
}

/// Every upper half of an f32, with lower halves around the middle.
#[test]
fn every_exponent_and_tie() {
    let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let values: Vec<f32> = (0..=u32::from(u16::MAX))
        .flat_map(|upper| lower.map(|lower| f32::from_bits(upper << 16 | lower)))
        .collect();
    let (rows, columns) = (384, 1024);
    assert_eq!(values.len(), rows * columns);
    let matrices =
        Matrices { values, rows, columns, batch: 1, ld: columns, stride: 0, transposed: false };
    fn compare<T: LinearElement>(matrices: &Matrices, scale: Option<f32>) {
        let got = matrices.converted::<T>(scale, 1);
        for (got, &value) in got.into_iter().zip(&matrices.values) {
            let (got, expected) = (got.to_f64(), convert::rounded(T::DTYPE, value));
            let same = got == expected || got.is_nan() && expected.is_nan();
            assert!(same, "{} of {value:e}: {got:e}, expected {expected:e}", T::DTYPE);
        }
    }
    compare::<bf16>(&matrices, None);
    compare::<f16>(&matrices, None);
    compare::<E4m3>(&matrices, Some(1.0));
}

/// The largest finite magnitude, wherever it is, whatever the number of blocks.
#[test]
fn scales() {
    for (seed, shape) in (0..).zip(SHAPES) {
        for (transposed, gap) in [(false, 0), (true, 4)] {
            let mut matrices = Matrices::new(shape, transposed, gap);
            let expect = |matrices: &Matrices| {
                let values = matrices.places().map(|(n, r, c)| f64::from(matrices.at(n, r, c)));
                let expected = absmax_scale(values) as f32;
                for blocks in [1, 3, 12] {
                    assert_eq!(matrices.scale(blocks, seed), expected, "{shape:?}, {blocks}");
                }
                expected
            };
            expect(&matrices);
            // One value above the rest, in each corner and in the middle; what is between rows and problems is larger yet.
            let [batch, rows, columns] = shape;
            for (number, row, column) in [
                (0, 0, 0),
                (batch - 1, rows - 1, columns - 1),
                (batch / 2, rows / 2, columns / 2),
                (batch - 1, 0, columns - 1),
                (0, rows - 1, 0),
            ] {
                matrices.values.fill(f32::MAX);
                let (ld, stride) = (matrices.ld, matrices.stride);
                for (number, row, column) in matrices.places() {
                    let (outer, inner) = if transposed { (column, row) } else { (row, column) };
                    matrices.values[number * stride + outer * ld + inner] = 0.5;
                }
                let (outer, inner) = if transposed { (column, row) } else { (row, column) };
                matrices.values[number * stride + outer * ld + inner] = -3.0;
                assert_eq!(expect(&matrices), 3.0 / 448.0);
            }
            for (value, scale) in [
                (0.0, 1.0),
                (f32::NAN, 1.0),
                (f32::NEG_INFINITY, 1.0),
                (1e-45, f32::MIN_POSITIVE),
                (-1e-36, f32::MIN_POSITIVE),
                (f32::MAX, f32::MAX / 448.0),
            ] {
                matrices.values.fill(value);
                assert_eq!(expect(&matrices), scale, "{value:e}");
            }
        }
    }
}

/// Operands of fp8 use its whole range.
#[test]
fn the_largest_becomes_448() {
    let mut matrices = Matrices::new([1, 40, 50], false, 0);
    matrices.values.retain(|value| value.is_finite());
    matrices.values.resize(2000, 1.0);
    let scale = matrices.scale(4, 2);
    let converted: Vec<f64> =
        matrices.converted::<E4m3>(Some(scale), 2).into_iter().map(|v| v.to_f64().abs()).collect();
    assert_eq!(converted.into_iter().fold(0.0, f64::max), 448.0);
}

/// Each precision by its own kernel on warpgroups, in every layout: all shapes fit once they are converted.
#[test]
fn products() {
    for (seed, layout) in (0..).zip(Layout::ALL) {
        let device = shuffled(seed);
        for (m, n, k, batch, gaps) in [
            (1, 1, 1, 1, false),
            (130, 70, 96, 1, false),
            (33, 129, 71, 2, true),
            (67, 21, 300, 3, false),
            (9, 1, 150, 1, true),
        ] {
            let case = Case {
                batch,
                gaps,
                seed: seed + m as u64,
                ..Case::new(layout, m, n, k, Precision::Auto)
            };
            let chosen = convert::check_kernels(&device, &case);
            let kernels = ["bf16_nt", "f16_nt", "e4m3_nt", "e4m3_nt"];
            for ((chosen, precision), kernel) in chosen.iter().zip(convert::PRECISIONS).zip(kernels)
            {
                assert_eq!(chosen.precision, precision, "{chosen:?}");
                let name = format!("linear_wgmma_{kernel}");
                assert!(chosen.kernel.starts_with(&name), "{chosen:?}");
                let is_scaled = precision == Precision::Fp8;
                assert_eq!(chosen.kernel.ends_with("_scaled"), is_scaled, "{chosen:?}");
            }
            let chosen = convert::check_kernels(&Device::Cpu, &case);
            assert!(chosen.iter().all(|chosen| chosen.kernel == "reference"), "{chosen:?}");
        }
        // Nothing to convert.
        for (m, n, k) in [(5, 7, 0), (0, 3, 4)] {
            let case = Case::new(layout, m, n, k, Precision::Auto);
            convert::check_kernels(&device, &case);
        }
    }
}

#[test]
fn roundings_and_special_values() {
    for device in [shuffled(5), Device::Cpu] {
        convert::check_rounding(&device);
        convert::check_special_values(&device);
        convert::check_kept_memory(&device);
        convert::check_groups(&device);
    }
}
