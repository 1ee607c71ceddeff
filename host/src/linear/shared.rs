//! Gradients of operands that the problems of a batch share: sums over the batch.

use kasmina_types::{Activation, LinearStrides};

use super::LinearError;
use super::element::LinearResult;
use super::forward::{How, Linear};
use super::operands::Operands;
use super::shape::{Extent, LinearShape};
use crate::buffer::Buffer;
use crate::driver::launchers::linear::Factors;
use crate::error::Error;

const OP: &str = "linear_backward";

/// The batch as one problem of as many rows, where all share B, and the rows of A and of the results follow each other: the
/// same products and sums, but ∂B in one product with a sum over all rows.
pub(super) fn folded(shape: &LinearShape) -> Option<LinearShape> {
    let LinearShape { m, batch, strides, .. } = *shape;
    let follows = |extent: Extent| extent.stride == (m as u64).saturating_mul(extent.ld as u64);
    let follow = follows(shape.a()) && follows(shape.d()) && follows(shape.z());
    if batch < 2 || shape.layout.transposed_a() || strides.b != 0 || strides.bias != 0 || !follow {
        return None;
    }
    let m = m.checked_mul(batch).filter(|&m| m <= i32::MAX as usize)?;
    Some(LinearShape { m, batch: 1, ..*shape })
}

/// Refuses an operand that the problems share in part: its gradient is neither theirs nor one sum.
pub(super) fn check_shared(batch: usize, extent: &Extent) -> Result<(), Error> {
    if batch > 1 && extent.stride != 0 && extent.stride < extent.elements() as u64 {
        let what = "the problems of the batch share parts of an operand whose gradient is wanted";
        let advice = "make its stride 0, or its matrices disjoint";
        return Err(LinearError::Gradient { what, advice }.into());
    }
    if batch != 1 && extent.stride == 0 && extent.rows > 1 && extent.ld != extent.columns {
        let what = "a gradient that the batch is summed over would have gaps between its rows";
        let advice = "make lda or ldb the length of a row";
        return Err(LinearError::Gradient { what, advice }.into());
    }
    Ok(())
}

impl Linear {
    /// The gradient of the operand at `extent`, which is `product` for each problem. Where all share the operand it is the sum
    /// over the batch: each problem's is rounded to the type, and the sum once more.
    pub(super) fn operand_gradient<T: LinearResult>(
        &self,
        product: &LinearShape,
        extent: &Extent,
        operands: &Operands<'_, T, T>,
        gradient: &mut Buffer<T>,
    ) -> Result<(), Error> {
        let factors =
            Factors { alpha: self.options.alpha, beta: 0.0, activation: Activation::None };
        let how = How { precision: self.options.precision, factors: &factors, converts: false };
        let batch = product.batch;
        if batch == 1 || extent.stride != 0 {
            return self.run(product, how, operands, gradient, None).map(drop);
        }
        gradient.check_device(OP, "gradients", &self.device)?;
        extent.check(1, gradient.len())?;
        let (elements, limit) = (extent.elements(), i32::MAX as u64);
        if elements as u64 > limit {
            let what = "elements of a gradient that the batch is summed over";
            return Err(Error::TooLarge { op: OP, what, got: elements as u64, limit });
        }
        self.device.refuse_capture(OP)?;
        let mut parts = Buffer::<T>::zeroed(&self.device, batch.saturating_mul(elements))?;
        let stride = elements as u64;
        let strides = LinearStrides { d: stride, z: stride, ..product.strides };
        self.run(&LinearShape { strides, ..*product }, how, operands, &mut parts, None)?;
        self.column_sums(batch, elements, &parts, gradient)
    }
}

#[cfg(test)]
mod tests {
    use kasmina_types::Layout;

    use super::*;

    #[test]
    fn a_batch_with_one_b_is_one_tall_problem() {
        let batch = LinearShape::new(Layout::NT, 3, 4, 5).batched(6);
        let shared = LinearShape { strides: LinearStrides { b: 0, ..batch.strides }, ..batch };
        let one = folded(&shared).unwrap();
        assert_eq!((one.m, one.batch, one.lda, one.ldd), (18, 1, 5, 4));
        for other in [
            batch,
            LinearShape { batch: 1, ..shared },
            LinearShape { layout: Layout::TN, ..shared },
            LinearShape { strides: LinearStrides { a: 16, ..shared.strides }, ..shared },
            LinearShape { strides: LinearStrides { bias: 4, ..shared.strides }, ..shared },
            LinearShape { batch: 1 << 30, ..shared },
        ] {
            assert_eq!(folded(&other), None, "{other:?}");
        }
    }
}
