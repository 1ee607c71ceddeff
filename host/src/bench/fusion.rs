//! Declared chains as cases: fused, and by stages.

use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::fusion::chains::{ErrorAccuracySum, ErrorGemvUpdate, KlSum};
use kasmina_types::fusion::{Declaration, Extent, Fusion, FusionShape};

use super::{BenchError, Prepared, data, timer, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::fusion::{Chain, Fused, Unfused};

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
}

impl Work {
    /// Each chain, fused and by stages, on `values` values in all and on a square matrix of `n`.
    pub(super) fn all(values: usize, n: usize) -> Vec<Self> {
        let sums = FusionShape { batch: 1, inner: values, outer: 1 };
        let square = FusionShape { batch: 1, inner: n, outer: n };
        [
            (Declared::KlSum, sums),
            (Declared::ErrorAccuracySum, sums),
            (Declared::ErrorGemvUpdate, square),
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
        }
    }
}

fn of<F: Chain<Element = f64>>(device: &Device, work: Work) -> Result<Prepared, BenchError> {
    let shape = work.shape;
    let sets = timer::buffer_sets(device, work.bytes());
    let mut inputs = Vec::new();
    let mut first = Vec::new();
    for set in 0..sets as u64 {
        let mut buffers = Vec::new();
        for (number, operand) in (0_u64..).zip(F::DECLARATION.operands) {
            // Of [0.25, 1.25): precisions and variances are among them.
            let mut values =
                data::try_draw::<f64>(8 * set + number, shape.elements(operand.extent))?;
            values.iter_mut().for_each(|value| *value = 0.5 + 0.5 * *value);
            buffers.push(Buffer::from_slice(device, &values)?);
            if set == 0 {
                first.push(values);
            }
        }
        inputs.push(buffers);
    }
    let mut output = Buffer::zeroed(device, shape.elements(Extent::Outer))?;
    output.fill_bytes(0xFF)?;
    let mut fused = Fused::<F>::new(device, shape)?;
    let mut unfused = Unfused::<F>::new(device, shape)?;
    let mut call = move |set: usize, output: &mut Buffer<f64>| -> Result<(), Error> {
        let operands = F::inputs(&inputs[set % sets]).expect("an operand for each name");
        if work.fused { fused.run(operands, output) } else { unfused.run(operands, output) }
    };
    call(0, &mut output)?;
    let tolerance = Tolerance::for_dtype(Dtype::F64, shape.inner);
    let expected = F::reference(&shape, &first);
    let max_rel_error = within("output", &output.to_vec()?, &expected, tolerance)?;
    let call = move |set: usize| call(set, &mut output);
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}
