//! Declared chains as cases: fused, and by stages.

use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::DType;
use kasmina_types::fusion::chains::{
    ErrorAccuracySum, ErrorGemvUpdate, KlSum, MatmulBiasActivation,
};
use kasmina_types::fusion::{Declaration, Extent, Fusion, FusionShape, StageKind};

use super::{BenchError, Prepared, data, spread, timer, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::fusion::{Chain, Fused, Unfused};
use crate::linear::{LinearElement, Precision};

/// A chain on a shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    chain: Declared,
    pub(super) shape: FusionShape,
    /// In one launch, and not one for each stage.
    fused: bool,
}

#[derive(Debug, Clone, Copy)]
enum Declared {
    KlSum,
    ErrorAccuracySum,
    ErrorGemvUpdate,
    MatmulBiasActivation,
}

/// Rows of a product of matrices that are compared.
const CHECKED_ROWS: usize = 32;

impl Work {
    /// Each chain, fused and by stages, on `values` values in all and on square matrices of `n`.
    pub(super) fn all(values: usize, n: usize) -> Vec<Self> {
        let sums = FusionShape { batch: 1, inner: values, outer: 1 };
        let square = FusionShape { batch: 1, inner: n, outer: n };
        [
            (Declared::KlSum, sums),
            (Declared::ErrorAccuracySum, sums),
            (Declared::ErrorGemvUpdate, square),
            (Declared::MatmulBiasActivation, FusionShape { batch: n, ..square }),
        ]
        .into_iter()
        .flat_map(|(chain, shape)| [true, false].map(|fused| Self { chain, shape, fused }))
        .collect()
    }

    pub(super) fn declaration(self) -> Declaration {
        match self.chain {
            Declared::KlSum => KlSum::DECLARATION,
            Declared::ErrorAccuracySum => ErrorAccuracySum::DECLARATION,
            Declared::ErrorGemvUpdate => ErrorGemvUpdate::DECLARATION,
            Declared::MatmulBiasActivation => MatmulBiasActivation::DECLARATION,
        }
    }

    pub(super) fn variant(self) -> &'static str {
        if self.fused { "fused" } else { "by_stages" }
    }

    /// Operands and results, each once: what the fused kernel moves.
    pub(super) fn bytes(self) -> u64 {
        let declared = self.declaration();
        let operands = declared.operands.iter().map(|operand| self.shape.elements(operand.extent));
        let elements = operands.sum::<usize>() + self.shape.elements(Extent::Outer);
        (elements * declared.dtype.size_bytes()) as u64
    }

    /// Makes the buffers and checks one result.
    pub(super) fn prepare(self, device: &Device) -> Result<Prepared, BenchError> {
        match self.chain {
            Declared::KlSum => of::<KlSum>(device, self),
            Declared::ErrorAccuracySum => of::<ErrorAccuracySum>(device, self),
            Declared::ErrorGemvUpdate => of::<ErrorGemvUpdate>(device, self),
            Declared::MatmulBiasActivation => of::<MatmulBiasActivation>(device, self),
        }
    }
}

fn of<F: Chain>(device: &Device, work: Work) -> Result<Prepared, BenchError> {
    let (declared, shape) = (F::DECLARATION, work.shape);
    let product = declared.contracts() == Some(StageKind::Matmul);
    let sets = timer::buffer_sets(device, work.bytes());
    let mut inputs = Vec::new();
    let mut first = Vec::new();
    for set in 0..sets as u64 {
        let mut buffers = Vec::new();
        for (number, operand) in (0_u64..).zip(F::DECLARATION.operands) {
            // Of [0.25, 1.25), for precisions and variances are among them; of a product of both signs alike.
            let drawn = data::try_draw::<f64>(8 * set + number, shape.elements(operand.extent))?;
            let placed = |value: f64| if product { value - 0.5 } else { 0.5 + 0.5 * value };
            let values: Vec<F::Element> =
                drawn.into_iter().map(|value| F::Element::nearest(placed(value))).collect();
            buffers.push(Buffer::from_slice(device, &values)?);
            if set == 0 {
                first.push(wide(&values));
            }
        }
        inputs.push(buffers);
    }
    let mut output = Buffer::zeroed(device, shape.elements(Extent::Outer))?;
    output.fill_bytes(0xFF)?;
    let mut fused = Fused::<F>::new(device, shape)?;
    let mut unfused = Unfused::<F>::new(device, shape)?;
    let mut call = move |set: usize, output: &mut Buffer<F::Element>| {
        let operands = F::inputs(&inputs[set % sets]).expect("an operand for each name");
        if work.fused {
            fused.run(operands, output)?
        } else {
            unfused.run(operands, output)?
        }
        Ok::<_, Error>(fused.chosen())
    };
    let chosen = call(0, &mut output)?;
    let got = wide(&output.to_vec()?);
    let (max_rel_error, tolerance) = if product {
        let (got, expected) = some_rows::<F>(&shape, &first, &got);
        let error = numeric::compare(&got, &expected).expect("as many in each").norm_rel_error;
        // By stages it is what the fused run of the same options is bound by.
        let precision = chosen.map_or(Precision::Tf32, |chosen| chosen.precision);
        let tolerance = precision.error_bound().max(Precision::F32.error_bound());
        if error.is_nan() || error > tolerance {
            return Err(BenchError::WrongResult { what: "output", error, tolerance });
        }
        (error, tolerance)
    } else {
        let dtype = if declared.dtype == DType::F64 { Dtype::F64 } else { Dtype::F32 };
        let tolerance = Tolerance::for_dtype(dtype, shape.inner);
        let expected = F::reference(&shape, &first);
        (within("output", &got, &expected, tolerance)?, tolerance.limit())
    };
    let call = move |set: usize| call(set, &mut output).map(drop);
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance })
}

/// Some segments of a result, and the reference of them.
fn some_rows<F: Chain>(
    shape: &FusionShape,
    operands: &[Vec<f64>],
    got: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let rows = spread(shape.batch, CHECKED_ROWS);
    let some = |values: &[f64], length: usize| -> Vec<f64> {
        rows.iter().flat_map(|row| &values[row * length..][..length]).copied().collect()
    };
    let one = FusionShape { batch: 1, ..*shape };
    let operands: Vec<Vec<f64>> = F::DECLARATION
        .operands
        .iter()
        .zip(operands)
        .map(|(operand, values)| match operand.extent {
            Extent::InnerColumn | Extent::OuterColumn | Extent::Weights => values.clone(),
            extent => some(values, one.elements(extent)),
        })
        .collect();
    let few = FusionShape { batch: rows.len(), ..*shape };
    (some(got, shape.outer), F::reference(&few, &operands))
}

fn wide<T: LinearElement>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}
