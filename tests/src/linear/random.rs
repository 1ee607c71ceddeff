//! Products of random shapes, in every element type, layout and epilogue.
//!
//! The error is ‖D − D₆₄‖ / ‖D₆₄‖ in Frobenius norms, and the same of Z, and nothing else: no size of terms stands in for
//! that of results. So the data are such that results do not cancel. Operands are of both signs and independent, and α makes
//! α·A·B about as large as what is added to it, where activations bend; where D has too few elements for its norm to be near
//! what is expected of it, all is positive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use half::{bf16, f16};
use kasmina::linear::{
    Activation, Layout, Linear, LinearElement, LinearOptions, LinearResult, LinearShape, Operands,
    Precision, Scales,
};
use kasmina::types::{DType, E4m3};
use kasmina::{Buffer, Device};
use kasmina_reference::linear as reference;
use ndarray::{Array1, Array2, s};

use super::forward::{Drawn, matrix, norm, results, size};
use crate::Numbers;

/// What is tested of each shape.
pub const PRECISIONS: [Precision; 7] = [
    Precision::F64,
    Precision::F32,
    Precision::Tf32,
    Precision::F16,
    Precision::Bf16,
    Precision::Fp8,
    Precision::Fp8Fast,
];

/// Cases after which every layout has met every activation, and either of them each operand that is fused.
pub const ROUND: usize = 2 * Layout::ALL.len() * Activation::ALL.len();

/// Elements of D below which all values are positive.
const FEW: usize = 256;

/// A shape and what is fused to the product.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    number: usize,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    batch: usize,
    gaps: bool,
    activation: Activation,
    bias: bool,
    c: bool,
    residual: bool,
    keeps_z: bool,
}

/// What multiplies matrices in f64.
pub type Product<'a> = dyn Fn(&Array2<f64>, &Array2<f64>) -> Array2<f64> + 'a;

/// What the relative error of sums of `k` stays below. Of f32 there is the rounding to fp8 besides.
fn bound(dtype: DType, precision: Precision, k: usize) -> f64 {
    let converted = if dtype == DType::F32 { Precision::FP8_CONVERSION } else { 0.0 };
    match precision {
        Precision::F64 => 1e-12,
        Precision::F32 => 1e-6,
        Precision::Tf32 => 1e-3,
        Precision::F16 => 6e-4,
        Precision::Bf16 => 4e-3,
        // Some cases have positive values alone.
        Precision::Fp8 | Precision::Fp8Fast => precision.error_bound_of(k) + converted,
        Precision::Auto => unreachable!("a precision is asked for by name"),
    }
}

/// `count` cases of 1 to `most` rows, columns and terms.
pub fn cases(count: usize, most: usize, seed: u64) -> Vec<Case> {
    let mut numbers = Numbers::new(seed);
    let layouts = Layout::ALL.len();
    (0..count)
        .map(|number| {
            let [m, n, k] = [(); 3].map(|()| 1 + numbers.below(most));
            let round = number / layouts / Activation::ALL.len();
            // In every round each activation has each operand in two layouts, and lacks it in the others; in the next round
            // layouts change with their complements.
            let fused = [5, 10, 3, 12][number % layouts] ^ [0, 15, 6, 9, 1, 14, 7, 8][round % 8];
            let has = |bit: u32| fused >> bit & 1 == 1;
            Case {
                number,
                layout: Layout::ALL[number % layouts],
                m,
                n,
                k,
                batch: if number % 16 == 7 { 2 } else { 1 },
                gaps: number % 3 == 1,
                activation: Activation::ALL[number / layouts % Activation::ALL.len()],
                bias: has(0),
                c: has(1),
                residual: has(2),
                keeps_z: has(3),
            }
        })
        .collect()
}

/// What has been compared.
#[derive(Debug, Default)]
pub struct Coverage(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    what: BTreeSet<String>,
    /// The largest error of each precision.
    worst: BTreeMap<&'static str, f64>,
}

impl Coverage {
    fn record(&self, case: &Case, precision: Precision, error: f64) {
        let Case { layout, activation, m, n, k, .. } = *case;
        let mut seen = self.0.lock().expect("no case has failed");
        let worst = seen.worst.entry(precision.name()).or_default();
        *worst = worst.max(error);
        let mut saw = |what: String| seen.what.insert(what);
        saw(format!("{precision} {layout} {activation}"));
        for (fused, is) in case.fused() {
            saw(format!("{precision} {fused} {is}"));
            saw(format!("{layout} {fused} {is}"));
            saw(format!("{activation} {fused} {is}"));
        }
        saw(format!("{precision} odd {}", m % 2 == 1 && n % 2 == 1 && k % 2 == 1));
        saw(format!("{precision} gaps {}", case.gaps));
        saw(format!("{precision} batch {}", case.batch > 1));
    }

    /// Fails where a type did not meet a layout with an activation, an operand of the epilogue, odd counts, gaps between
    /// rows, or a batch; or where they did not meet each other. Says how large errors were.
    pub fn assert_complete(&self) {
        let seen = self.0.lock().expect("no case has failed");
        for precision in PRECISIONS {
            let worst = seen.worst.get(precision.name()).copied().unwrap_or_default();
            println!(
                "{precision}: errors up to {worst:.2e}, bound {:.0e}",
                bound(DType::F32, precision, 1)
            );
        }
        let mut expected = BTreeSet::new();
        let fused = ["bias", "c", "residual", "z"];
        for is in [false, true] {
            for precision in PRECISIONS {
                for what in fused.into_iter().chain(["odd", "gaps", "batch"]) {
                    expected.insert(format!("{precision} {what} {is}"));
                }
            }
            for what in fused {
                expected.extend(Layout::ALL.map(|layout| format!("{layout} {what} {is}")));
                expected.extend(Activation::ALL.map(|act| format!("{act} {what} {is}")));
            }
        }
        for precision in PRECISIONS {
            for layout in Layout::ALL {
                let of = |act: Activation| format!("{precision} {layout} {act}");
                expected.extend(Activation::ALL.map(of));
            }
        }
        let missing: Vec<_> = expected.difference(&seen.what).collect();
        assert!(missing.is_empty(), "not compared: {missing:?}");
    }
}

impl Case {
    fn fused(&self) -> [(&'static str, bool); 4] {
        let Self { bias, c, residual, keeps_z, .. } = *self;
        [("bias", bias), ("c", c), ("residual", residual), ("z", keeps_z)]
    }

    /// Compares it in every type and precision with the results of `product`, which multiplies matrices in f64.
    #[track_caller]
    pub fn check(&self, device: &Device, product: &Product<'_>, coverage: &Coverage) {
        use Precision::{Bf16, F16, F32, F64, Fp8, Fp8Fast, Tf32};
        self.check_type::<f64, f64>(device, &[F64], product, coverage);
        self.check_type::<f32, f32>(device, &[F32, Tf32], product, coverage);
        if self.number.is_multiple_of(3) {
            self.check_type::<f32, f32>(device, &[F16, Fp8], product, coverage);
            self.check_type::<f32, bf16>(device, &[Bf16, Fp8Fast], product, coverage);
            self.check_type::<f16, f32>(device, &[F16], product, coverage);
            self.check_type::<bf16, f32>(device, &[Bf16], product, coverage);
            self.check_type::<E4m3, f16>(device, &[Fp8, Fp8Fast], product, coverage);
        } else {
            self.check_type::<f32, f16>(device, &[F16, Fp8], product, coverage);
            self.check_type::<f32, f32>(device, &[Bf16, Fp8Fast], product, coverage);
            self.check_type::<f16, f16>(device, &[F16], product, coverage);
            self.check_type::<bf16, bf16>(device, &[Bf16], product, coverage);
            self.check_type::<E4m3, bf16>(device, &[Fp8, Fp8Fast], product, coverage);
        }
    }

    #[track_caller]
    fn check_type<T: LinearElement, O: LinearResult>(
        &self,
        device: &Device,
        precisions: &[Precision],
        product: &Product<'_>,
        coverage: &Coverage,
    ) {
        let mut drawn = self.draw::<T, O>();
        let LinearShape { m, n, ldd, ldz, strides, .. } = drawn.shape;
        let expected: Vec<_> = (0..self.batch)
            .map(|problem| {
                let (a, b) = drawn.product(problem);
                drawn.finished(problem, &product(&standard(a), &standard(b)))
            })
            .collect();
        for &precision in precisions {
            drawn.options.precision = precision;
            let what = (self, precision, T::DTYPE, O::DTYPE);
            let (d, z, chosen) = results(device, &drawn, Scales::None, self.keeps_z, &what);
            let mut worst: f64 = 0.0;
            for (problem, [expected_z, expected_d]) in expected.iter().enumerate() {
                for (name, values, stride, ld, expected, is_kept) in [
                    ("d", &d, strides.d, ldd, expected_d, true),
                    ("z", &z, strides.z, ldz, expected_z, self.keeps_z),
                ] {
                    if !is_kept {
                        continue;
                    }
                    let whole = norm(expected);
                    let least = 0.1 * ((m * n) as f64).sqrt();
                    assert!(whole >= least, "{name} of {what:?} cancels: {whole} of {least}");
                    let got = matrix(values, problem, stride, (m, n), ld);
                    let (error, bound) =
                        (norm(&(got - expected)) / whole, bound(T::DTYPE, precision, self.k));
                    assert!(
                        error <= bound,
                        "{name} of {what:?} by {chosen:?}: relative error {error:e}, bound {bound:e}"
                    );
                    worst = worst.max(error);
                }
            }
            coverage.record(self, precision, worst);
        }
    }

    fn draw<T: LinearElement, O: LinearResult>(&self) -> Drawn<T, O> {
        let Self { layout, m, n, k, batch, .. } = *self;
        let numbers = &mut Numbers::new(self.number as u64);
        let mut shape = LinearShape::new(layout, m, n, k);
        if self.gaps {
            let LinearShape { lda, ldb, ldc, ldr, ldd, ldz, .. } = &mut shape;
            for ld in [lda, ldb, ldc, ldr, ldd, ldz] {
                *ld += 1 + numbers.below(6);
            }
        }
        shape = shape.batched(batch);
        let positive = m * n < FEW;
        // A power of two, so that α·A·B is about 2.
        let scale = if positive { 5.0 / k as f64 } else { 6.0 / (k as f64).sqrt() };
        let sign = if positive || self.number.is_multiple_of(2) { 1.0 } else { -1.0 };
        let options = LinearOptions {
            alpha: sign * scale.log2().round().exp2(),
            beta: if self.c { 0.5 } else { 0.0 },
            activation: self.activation,
            ..Default::default()
        };
        let low = if positive { 0.25 } else { -1.0 };
        let (ta, tb) = (layout.transposed_a(), layout.transposed_b());
        let rows = batch * m;
        Drawn {
            shape,
            options,
            a: values(if ta { batch * k } else { rows } * shape.lda, low, numbers),
            b: values(batch * if tb { n } else { k } * shape.ldb, low, numbers),
            bias: self.bias.then(|| values(batch * n, low, numbers)),
            c: self.c.then(|| values(rows * shape.ldc, low, numbers)),
            residual: self.residual.then(|| values(rows * shape.ldr, low, numbers)),
        }
    }
}

fn values<T: LinearElement>(len: usize, low: f32, numbers: &mut Numbers) -> Vec<T> {
    (0..len).map(|_| T::nearest(numbers.in_range(low, 1.0).into())).collect()
}

fn standard(matrix: Array2<f64>) -> Array2<f64> {
    if matrix.is_standard_layout() { matrix } else { matrix.as_standard_layout().into_owned() }
}

/// A·B by the reference.
pub fn product_of_reference(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    reference::linear(&reference::Linear::new(a.view(), b.view())).expect("shapes fit")
}

/// A·B by the library's product in f64 on the device, which is compared with the CPU's arithmetic: some rows with the
/// reference's, and all of it by its effect on a vector of random signs, as a wrong element changes.
#[track_caller]
pub fn product_on(device: &Device, a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    const ROWS: usize = 3;
    let ((m, k), n) = (a.dim(), b.ncols());
    let of = |values: &Array2<f64>| {
        Buffer::from_slice(device, values.as_slice().expect("row by row")).expect("memory")
    };
    let (on_a, on_b) = (of(a), of(b));
    let mut d = Buffer::<f64>::zeroed(device, m * n).expect("memory");
    d.fill_bytes(0xff).expect("memory");
    let linear = Linear::new(device, LinearOptions::default()).expect("options");
    let shape = LinearShape::new(Layout::NN, m, n, k);
    linear.forward(&shape, &Operands::new(&on_a, &on_b), &mut d, None).expect("a product");
    let product = Array2::from_shape_vec((m, n), d.to_vec().expect("a result")).expect("m by n");

    let limit = 1e-12 * size(a, b);
    let mut numbers = Numbers::new((m * n + k) as u64);
    let signs: Array1<f64> = (0..n).map(|_| [-1.0, 1.0][numbers.below(2)]).collect();
    let apart = product.dot(&signs) - a.dot(&b.dot(&signs));
    let apart = apart.iter().map(|v| v * v).sum::<f64>().sqrt();
    assert!(apart <= limit, "{m}×{n}×{k} in f64: {apart:e} of {limit:e} apart from A·(B·v)");
    for row in [0, m / 2, m - 1].into_iter().take(ROWS.min(m)) {
        let one = s![row..row + 1, ..];
        let expected = product_of_reference(&a.slice(one).to_owned(), b);
        let apart = norm(&(&product.slice(one) - &expected));
        assert!(apart <= limit, "row {row} of {m}×{n}×{k} in f64: {apart:e} of {limit:e} apart");
    }
    product
}
