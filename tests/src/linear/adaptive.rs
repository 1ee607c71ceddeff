//! Precision that follows the data.

use kasmina::linear::{
    Adaptive, Chosen, Layout, Linear, LinearOptions, LinearShape, Operands, Precision,
};
use kasmina::{Buffer, Device};
use kasmina_reference::linear as reference;
use ndarray::ArrayView2;

use super::forward::norm;
use crate::Numbers;

/// Enough for tensor cores.
const EDGE: usize = 128;

/// A and B `[128, 128]`, and how much of each result cancels.
struct Data {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Data {
    /// Of both signs: results are as large as their terms let one expect.
    fn random(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut values = || (0..EDGE * EDGE).map(|_| numbers.in_range(-1.0, 1.0)).collect();
        Self { a: values(), b: values() }
    }

    /// The second half of each sum takes back the first, up to a share of `left`.
    fn cancelling(seed: u64, left: f32) -> Self {
        let Self { mut a, mut b } = Self::random(seed);
        for row in a.chunks_exact_mut(EDGE) {
            let (first, second) = row.split_at_mut(EDGE / 2);
            second.iter_mut().zip(first).for_each(|(to, from)| *to = -*from * (1.0 - left));
        }
        let (first, second) = b.split_at_mut(EDGE * EDGE / 2);
        second.copy_from_slice(first);
        // An operand rounded to tf32 is no longer what it takes back.
        Self { a, b }
    }

    fn error(&self, got: &[f32]) -> f64 {
        let view = |values| ArrayView2::from_shape((EDGE, EDGE), values).expect("a square");
        let product = reference::Linear::new(view(&self.a), view(&self.b));
        let expected = reference::linear(&product).expect("shapes fit");
        let got = view(got).mapv(f64::from);
        norm(&(got - &expected)) / norm(&expected)
    }
}

/// Calls of one object, whose options adapt with every call.
struct Calls<'a> {
    device: &'a Device,
    linear: Linear,
}

impl<'a> Calls<'a> {
    fn new(device: &'a Device, tolerance: f64, adaptive: Adaptive) -> Self {
        let options = LinearOptions { tolerance, adaptive: Some(adaptive), ..Default::default() };
        Self { device, linear: Linear::new(device, options).expect("options") }
    }

    /// How it was computed, and the error.
    #[track_caller]
    fn call(&self, data: &Data) -> (Chosen, f64) {
        let shape = LinearShape::new(Layout::NN, EDGE, EDGE, EDGE);
        let of = |values: &[f32]| Buffer::from_slice(self.device, values).expect("memory");
        let (a, b, mut d) = (of(&data.a), of(&data.b), of(&[f32::NAN; EDGE * EDGE]));
        let operands = Operands::new(&a, &b);
        let chosen = self.linear.forward(&shape, &operands, &mut d, None).expect("a product");
        (chosen, data.error(&d.to_vec().expect("a result")))
    }
}

/// Data that cancels raises the precision until the error is within the tolerance; other data lowers it again; in
/// between it stays. The same calls give the same.
pub fn check(device: &Device) {
    let every = Adaptive { every: 1, ..Default::default() };
    let tolerance = 2e-3;
    let (random, cancelling) = (Data::random(3), Data::cancelling(5, 1e-3));
    let run = || {
        let calls = Calls::new(device, tolerance, every);
        let mut seen = Vec::new();
        for data in [&random, &random, &cancelling, &cancelling, &cancelling, &random, &random] {
            let (chosen, error) = calls.call(data);
            seen.push((chosen, error));
        }
        seen
    };
    let seen = run();
    use Precision::{F32, Tf32};
    // A GPU without tensor cores computes in f32 where tf32 would do.
    let tensor_cores = seen[0].0.precision == Tf32;
    let levels = [Tf32, Tf32, Tf32, F32, F32, F32, Tf32];
    for (number, ((chosen, error), level)) in seen.iter().zip(levels).enumerate() {
        let adapted = chosen.adapted.expect("it adapts");
        assert_eq!((adapted.checks, adapted.level), (number as u64, level), "{seen:?}");
        assert_eq!(chosen.precision, if tensor_cores { level } else { F32 });
        let within = number != 2 || !tensor_cores;
        assert_eq!(*error <= tolerance, within, "{chosen:?}: error {error:e}");
    }
    // The check of a call is read by the next: what it estimated is near what the call's error was.
    let estimate = |call: usize, precision: usize| {
        seen[call + 1].0.adapted.and_then(|adapted| adapted.estimates).expect("samples")[precision]
    };
    for (call, precision) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)] {
        if precision == 0 && !tensor_cores {
            continue;
        }
        let (estimate, error) = (estimate(call, precision), seen[call].1);
        let ratio = estimate / error;
        assert!((0.3..4.0).contains(&ratio), "call {call}: {estimate:e}, error {error:e}");
    }
    assert_eq!(seen, run(), "the same calls, other choices");

    // Within the tolerance, but not by the margin: what is computed with stays, from above and from below.
    let close = Calls::new(device, tolerance, Adaptive { margin: 20.0, ..every });
    let levels = [&random, &cancelling, &random, &random, &random]
        .map(|data| close.call(data).0.adapted.expect("it adapts").level);
    assert_eq!(levels, [Tf32, Tf32, F32, F32, F32]);
}

/// Where f32 is not enough, sums are taken in f64; what is not finite says nothing; a check is read with the next one.
pub fn check_steps(device: &Device) {
    let hard = Data::cancelling(7, 1e-5);
    let calls = Calls::new(device, 1e-4, Adaptive { every: 2, ..Default::default() });
    let seen: Vec<_> = (0..5).map(|_| calls.call(&hard)).collect();
    let levels: Vec<_> = seen.iter().map(|(chosen, _)| chosen.precision).collect();
    use Precision::{F32, F64};
    assert_eq!(levels, [F32, F32, F64, F64, F64], "{seen:?}");
    assert!(seen[0].1 > 1e-4 && seen[2].1 <= 1e-4, "{seen:?}");
    let checks: Vec<_> = seen.iter().map(|(c, _)| c.adapted.map_or(9, |a| a.checks)).collect();
    assert_eq!(checks, [0, 0, 1, 1, 2]);

    // A row of results is the product of a matrix and a vector, whatever tf32 would do.
    let row = LinearShape::new(Layout::NT, 1, 1500, 1500);
    let of = |len| Buffer::from_slice(device, &vec![0.5_f32; len]).expect("memory");
    let (a, b, mut d) = (of(1500), of(1500 * 1500), of(1500));
    let calls = Calls::new(device, 1e-2, Adaptive { every: 1, ..Default::default() });
    for _ in 0..2 {
        let operands = Operands::new(&a, &b);
        let chosen = calls.linear.forward(&row, &operands, &mut d, None).expect("a product");
        assert_eq!(chosen.adapted.expect("it adapts").level, Precision::Tf32);
        assert!(chosen.kernel.starts_with("gemv"), "{chosen:?}");
        assert_eq!(d.to_vec().expect("a result"), [375.0; 1500]);
    }

    let mut broken = Data::random(1);
    broken.a.fill(f32::NAN);
    let calls = Calls::new(device, 1e-4, Adaptive { every: 1, ..Default::default() });
    for _ in 0..3 {
        let (chosen, _) = calls.call(&broken);
        let adapted = chosen.adapted.expect("it adapts");
        assert_eq!((chosen.precision, adapted.estimates), (F32, None));
    }
}
