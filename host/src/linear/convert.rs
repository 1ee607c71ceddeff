//! Products of f32 in narrower precisions: A and B are converted on the device, and what comes of it is multiplied.

use std::sync::PoisonError;

use half::{bf16, f16};
use kasmina_types::{E4m3, Layout, LinearStrides};

use super::element::{LinearElement, LinearResult};
use super::forward::{Chosen, How, Linear, grown};
use super::operands::{Operands, Scales};
use super::precision::Precision;
use super::shape::LinearShape;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::linear_repack::Conversion;
use crate::error::Error;

/// What operands were converted to, kept between calls.
#[derive(Default)]
pub(super) struct Converted {
    operands: Pairs,
    scales: Pair<f32>,
    /// Of the search for a scale.
    state: Option<Buffer<u32>>,
}

/// For A and for B.
type Pair<T> = [Option<Buffer<T>>; 2];

#[derive(Default)]
struct Pairs {
    bf16: Pair<bf16>,
    f16: Pair<f16>,
    e4m3: Pair<E4m3>,
}

/// A type that f32 is converted to.
trait Narrow: LinearElement {
    /// Whether it comes with a scale.
    const SCALED: bool = false;

    fn of(pairs: &mut Pairs) -> &mut Pair<Self>;
}

impl Narrow for bf16 {
    fn of(pairs: &mut Pairs) -> &mut Pair<Self> {
        &mut pairs.bf16
    }
}

impl Narrow for f16 {
    fn of(pairs: &mut Pairs) -> &mut Pair<Self> {
        &mut pairs.f16
    }
}

impl Narrow for E4m3 {
    const SCALED: bool = true;

    fn of(pairs: &mut Pairs) -> &mut Pair<Self> {
        &mut pairs.e4m3
    }
}

impl Converted {
    /// Queues the conversion of operand `which`, 0 for A and 1 for B, and its scale.
    fn make<T: Narrow>(
        &mut self,
        (device, kernels): (&Device, KernelDevice<'_>),
        which: usize,
        conversion: &Conversion,
        from: &Buffer<f32>,
    ) -> Result<(), Error> {
        let to = grown(device, &mut T::of(&mut self.operands)[which], conversion.elements())?;
        let mut scale = None;
        if T::SCALED {
            let found = grown(device, &mut self.scales[which], 1)?;
            let state = grown(device, &mut self.state, 2)?;
            if let Err(why) = conversion.find_scale(kernels, from, found, state) {
                // A launch that broke off leaves a state that is not zero.
                self.state = None;
                return Err(why);
            }
            scale = Some(&*found);
        }
        conversion.run(kernels, from, to, scale)
    }
}

impl Linear {
    /// D of operands that were checked, in a precision that is narrower than f32. No count of the shape is 0.
    pub(super) fn forward_converted<O: LinearResult>(
        &self,
        on: (KernelDevice<'_>, &LinearShape, How<'_>),
        operands: &Operands<'_, f32, O>,
        d: &mut Buffer<O>,
        z: Option<&mut Buffer<O>>,
    ) -> Result<Chosen, Error> {
        match on.2.precision {
            Precision::Bf16 => self.forward_as::<bf16, O>(on, operands, d, z),
            Precision::F16 => self.forward_as::<f16, O>(on, operands, d, z),
            _ => self.forward_as::<E4m3, O>(on, operands, d, z),
        }
    }

    fn forward_as<T: Narrow, O: LinearResult>(
        &self,
        (kernels, shape, how): (KernelDevice<'_>, &LinearShape, How<'_>),
        operands: &Operands<'_, f32, O>,
        d: &mut Buffer<O>,
        z: Option<&mut Buffer<O>>,
    ) -> Result<Chosen, Error> {
        let LinearShape { layout, batch, .. } = *shape;
        let of = |extent, transposed| Conversion::new(extent, transposed, batch, T::DTYPE);
        let conversions =
            [of(shape.a(), layout.transposed_a())?, of(shape.b(), !layout.transposed_b())?];
        // Held until the product is queued: the next call may convert to the same memory then.
        let mut converted = self.converted.lock().unwrap_or_else(PoisonError::into_inner);
        for (which, from) in [operands.a, operands.b].into_iter().enumerate() {
            converted.make::<T>((&self.device, kernels), which, &conversions[which], from)?;
        }
        let [a, b] = &conversions;
        let strides = LinearStrides { a: a.stride(), b: b.stride(), ..shape.strides };
        let (layout, lda, ldb) = (Layout::NT, a.ld(), b.ld());
        let shape = LinearShape { layout, lda, ldb, strides, ..*shape };
        let Converted { operands: pairs, scales, .. } = &mut *converted;
        let [Some(a), Some(b)] = T::of(pairs) else { unreachable!("both were made above") };
        let scales = match scales {
            [Some(a), Some(b)] if T::SCALED => Scales::Tensor { a, b },
            _ => Scales::None,
        };
        let &Operands { bias, c, residual, .. } = operands;
        let operands = Operands { a, b, bias, c, residual, scales };
        self.run(&shape, How { converts: false, ..how }, &operands, d, z)
    }
}
