//! The tensor map of an array `[batch, hidden]`, whose box is a group of rows of a strip.

use kasmina_types::TensorMapHandle;
use kasmina_types::blend_forward::{BlendGeometry, TMA_ELEMENT_BYTES};
use kasmina_types::dtype::Element;

use crate::buffer::Buffer;
use crate::driver::{
    Interleave, L2Promotion, OutOfBoundsFill, Swizzle, TensorDataType, TensorMapCache,
    TensorMapSpec,
};
use crate::error::Error;

/// How arrays of one shape are cut into boxes.
#[derive(Clone, Copy)]
pub(super) struct Boxes {
    pub(super) geometry: BlendGeometry,
    pub(super) batch: u32,
    pub(super) hidden: usize,
    /// Elements of a vector, and rows that a thread takes together.
    pub(super) lanes: u32,
    pub(super) rows: u32,
}

impl Boxes {
    /// The map of `array`, from `maps`.
    pub(super) fn map<T: Element>(
        &self,
        maps: &mut TensorMapCache,
        array: &Buffer<T>,
    ) -> Result<TensorMapHandle, Error> {
        let row_bytes = (self.hidden * size_of::<T>()) as u64;
        let elements = row_bytes / u64::from(TMA_ELEMENT_BYTES);
        let vector_bytes = self.lanes * size_of::<T>() as u32;
        let columns = self.geometry.strip_vectors * vector_bytes / TMA_ELEMENT_BYTES;
        maps.get(&TensorMapSpec {
            data_type: TensorDataType::U64,
            address: array.device_address(),
            dimensions: &[elements, self.batch.into()],
            strides_bytes: &[row_bytes],
            box_dimensions: &[columns, self.rows * self.geometry.row_lanes],
            element_strides: &[1, 1],
            swizzle: Swizzle::None,
            interleave: Interleave::None,
            l2_promotion: L2Promotion::Bytes256,
            out_of_bounds_fill: OutOfBoundsFill::Zero,
        })
    }
}
