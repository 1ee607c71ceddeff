//! Every declared chain: fused against the reference, and against its stages with a kernel each.

use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::DType;
use kasmina_types::fusion::chains::{
    ErrorAccuracySum, ErrorGemvUpdate, KlSum, MatmulBiasActivation,
};
use kasmina_types::fusion::{Extent, FusionShape, StageKind};

use super::tally::{Compared, Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::fusion::{Chain, Fused, Unfused};
use crate::linear::LinearElement;

/// How far fused and unfused may be apart.
const FUSED: f64 = 1e-4;

pub(super) fn checks() -> Vec<Check> {
    vec![
        check::<KlSum>(),
        check::<ErrorAccuracySum>(),
        check::<ErrorGemvUpdate>(),
        check::<MatmulBiasActivation>(),
    ]
}

fn check<F: Chain>() -> Check {
    let declared = F::DECLARATION;
    Check::new(format!("fusion_{}", declared.name), declared.dtype, |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for size in units::sizes(device, source, [1, 64, 333, 500]) {
            // The segments are the rows of a product of matrices.
            let product = F::DECLARATION.contracts() == Some(StageKind::Matmul);
            let batch = 1 + units.below(if product { size.min(64) } else { 3 });
            let inner = size.min(700);
            let outer = match F::DECLARATION.contracts() {
                Some(kind) if kind.reduces() => 1,
                None => inner,
                Some(_) => 1 + units.below(700.min(size) + 1),
            };
            let shape = FusionShape { batch, inner, outer };
            tally.case();
            let name = format!("{batch} × {inner} to {outer}");
            case::<F>(device, &name, shape, &mut units, timed, tally)
                .map_err(|source| Mismatch::Run { case: name, source })?;
        }
        Ok(())
    })
}

fn case<F: Chain>(
    device: &Device,
    name: &str,
    shape: FusionShape,
    units: &mut Units,
    timed: bool,
    tally: &mut Tally,
) -> Result<(), Error> {
    let declared = F::DECLARATION;
    // Positive, for precisions and variances are among them; of a product of both signs.
    let product = declared.contracts() == Some(StageKind::Matmul);
    let operands: Vec<Vec<F::Element>> = declared
        .operands
        .iter()
        .map(|operand| {
            let mut value = || f64::from(units.unit());
            let mut drawn = || if product { 2.0 * value() - 1.0 } else { value() + 0.25 };
            (0..shape.elements(operand.extent)).map(|_| F::Element::nearest(drawn())).collect()
        })
        .collect();
    let buffers = operands
        .iter()
        .map(|values| Buffer::from_slice(device, values))
        .collect::<Result<Vec<_>, Error>>()?;
    let operands: Vec<Vec<f64>> = operands.iter().map(|values| wide(values)).collect();
    let inputs = || F::inputs(&buffers).expect("an operand for each name");
    let output = || -> Result<Buffer<F::Element>, Error> {
        let mut output = Buffer::zeroed(device, shape.elements(Extent::Outer))?;
        output.fill_bytes(0xFF)?;
        Ok(output)
    };
    let fused = |device: &Device| {
        let (mut output, mut chain) = (output()?, Fused::<F>::new(device, shape)?);
        chain.run(inputs(), &mut output)?;
        Ok::<_, Error>((output.to_vec()?, chain.chosen()))
    };
    let ((got, chosen), (again, _)) = (fused(device)?, fused(&reordered(device))?);
    let [first, second] = [&got, &again].map(|values| bytemuck::cast_slice::<_, u8>(values));
    units::same_bits::<u8>(name, "output", first, second, tally);
    let mut by_stages = output()?;
    Unfused::<F>::new(device, shape)?.run(inputs(), &mut by_stages)?;

    let expected = F::reference(&shape, &operands);
    let dtype = if declared.dtype == DType::F64 { Dtype::F64 } else { Dtype::F32 };
    let rounding = Tolerance::for_dtype(dtype, shape.inner).limit();
    let tolerance = chosen.map_or(rounding, |chosen| rounding.max(chosen.precision.error_bound()));
    let got = wide(&got);
    for (what, other, tolerance) in [
        ("output", &expected, tolerance),
        ("output against the stages'", &wide(&by_stages.to_vec()?), FUSED),
    ] {
        // Terms are of the order of 1, and cancel where a result is smaller.
        let scale = other.iter().fold(1.0_f64, |scale, value| scale.max(value.abs()));
        let comparison = numeric::compare_to_scale(&got, other, scale).expect("as many in each");
        let index = comparison.first_mismatch.or(comparison.worst_index).unwrap_or(0);
        let (Some(&got), Some(&expected)) = (got.get(index), other.get(index)) else { continue };
        let error = comparison.max_rel_error;
        let compared = Compared { got, expected, error, tolerance };
        tally.judge(name, &compared, || format!("{what}[{index}]"));
    }
    if timed {
        let mut chain = Fused::<F>::new(device, shape)?;
        let mut output = output()?;
        let seconds = time::median_seconds(device, || chain.run(inputs(), &mut output))?;
        let elements: usize = operands.iter().map(Vec::len).sum::<usize>() + output.len();
        tally.timing(Timing { seconds, bytes: (elements * size_of::<F::Element>()) as u64 });
    }
    Ok(())
}

fn wide<T: LinearElement>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}
