//! Every declared chain: fused against the reference, and against its stages with a kernel each.

use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::fusion::chains::{ErrorAccuracySum, ErrorGemvUpdate, KlSum};
use kasmina_types::fusion::{Extent, FusionShape, StageKind};

use super::tally::{Compared, Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::fusion::{Chain, Fused, Unfused};

/// How far fused and unfused may be apart.
const FUSED: f64 = 1e-4;

pub(super) fn checks() -> Vec<Check> {
    vec![check::<KlSum>(), check::<ErrorAccuracySum>(), check::<ErrorGemvUpdate>()]
}

fn check<F: Chain<Element = f64>>() -> Check {
    let declared = F::DECLARATION;
    Check::new(format!("fusion_{}", declared.name), declared.dtype, |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.0, Inputs::Digits(_));
        for size in units::sizes(device, source, [1, 64, 333, 500]) {
            let (batch, inner) = (1 + units.below(3), size.min(700));
            let outer = match F::DECLARATION.contracts() {
                Some(StageKind::Sum) => 1,
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

fn case<F: Chain<Element = f64>>(
    device: &Device,
    name: &str,
    shape: FusionShape,
    units: &mut Units,
    timed: bool,
    tally: &mut Tally,
) -> Result<(), Error> {
    let declared = F::DECLARATION;
    // Positive, for precisions and variances are among them.
    let operands: Vec<Vec<f64>> = declared
        .operands
        .iter()
        .map(|operand| {
            let len = shape.elements(operand.extent);
            (0..len).map(|_| f64::from(units.unit()) + 0.25).collect()
        })
        .collect();
    let buffers = operands
        .iter()
        .map(|values| Buffer::from_slice(device, values))
        .collect::<Result<Vec<_>, Error>>()?;
    let inputs = || F::inputs(&buffers).expect("an operand for each name");
    let output = || -> Result<Buffer<f64>, Error> {
        let mut output = Buffer::zeroed(device, shape.elements(Extent::Outer))?;
        output.fill_bytes(0xFF)?;
        Ok(output)
    };
    let fused = |device: &Device| {
        let mut output = output()?;
        Fused::<F>::new(device, shape)?.run(inputs(), &mut output)?;
        output.to_vec()
    };
    let (got, again) = (fused(device)?, fused(&reordered(device))?);
    units::same_bits::<u64>(
        name,
        "output",
        bytemuck::cast_slice(&got),
        bytemuck::cast_slice(&again),
        tally,
    );
    let mut by_stages = output()?;
    Unfused::<F>::new(device, shape)?.run(inputs(), &mut by_stages)?;

    let expected = F::reference(&shape, &operands);
    let tolerance = Tolerance::for_dtype(Dtype::F64, shape.inner).limit();
    for (what, other, tolerance) in [
        ("output", &expected, tolerance),
        ("output against the stages'", &by_stages.to_vec()?, FUSED),
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
        tally.timing(Timing { seconds, bytes: (elements * size_of::<f64>()) as u64 });
    }
    Ok(())
}
