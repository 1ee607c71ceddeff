//! Tensor maps: what a bulk tensor copy needs to know of a tensor in device memory.

use std::ffi::c_uint;
use std::ptr;

use super::device::CudaDevice;
use super::error::{DriverError, check};
use super::raw;

/// Most dimensions of a tensor map.
pub const MAX_RANK: usize = 5;
/// Most elements of a box along one dimension.
pub const MAX_BOX: u32 = 256;

/// The 128-byte descriptor, opaque: copied to device memory and named by address in a bulk tensor copy.
///
/// The hardware wants it aligned to 64 bytes; `cuda.h` of CUDA 13 declares 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(128))]
pub struct TensorMap {
    words: [u64; 16],
}

const _: () = assert!(size_of::<TensorMap>() == 128 && align_of::<TensorMap>() == 128);

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum TensorDataType {
    U8 = 0,
    U16 = 1,
    U32 = 2,
    I32 = 3,
    U64 = 4,
    I64 = 5,
    F16 = 6,
    F32 = 7,
    F64 = 8,
    Bf16 = 9,
}

impl TensorDataType {
    /// Bytes of an element.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64 | Self::Bf16)
    }
}

/// How 16-byte chunks of a box are permuted in shared memory, against bank conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u32)]
pub enum Swizzle {
    /// Not at all.
    #[default]
    None = 0,
    /// Within 32 bytes.
    Bytes32 = 1,
    /// Within 64 bytes.
    Bytes64 = 2,
    /// Within 128 bytes.
    Bytes128 = 3,
}

impl Swizzle {
    /// Bytes that the inner dimension of a box may have at most.
    const fn span_bytes(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Bytes32 => Some(32),
            Self::Bytes64 => Some(64),
            Self::Bytes128 => Some(128),
        }
    }
}

/// Whether the tensor is stored in slices of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u32)]
pub enum Interleave {
    /// Plain strides.
    #[default]
    None = 0,
    /// Slices of 16 bytes.
    Bytes16 = 1,
    /// Slices of 32 bytes.
    Bytes32 = 2,
}

/// How much the L2 cache reads ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u32)]
pub enum L2Promotion {
    /// What the copy asks for.
    None = 0,
    /// 64 bytes.
    Bytes64 = 1,
    /// 128 bytes.
    #[default]
    Bytes128 = 2,
    /// 256 bytes.
    Bytes256 = 3,
}

/// What a copy puts where the box passes the tensor's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u32)]
pub enum OutOfBoundsFill {
    /// Zeros.
    #[default]
    Zero = 0,
    /// A NaN that a following fused multiply-add takes as zero; for floats only.
    NanRequestZeroFma = 1,
}

/// A tensor in device memory and the box that one copy moves. Dimensions are listed innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMapSpec<'a> {
    /// Type of the elements.
    pub data_type: TensorDataType,
    /// Device address of the first element.
    pub address: u64,
    /// Elements of each dimension; there are 1 to 5.
    pub dimensions: &'a [u64],
    /// Bytes from one index to the next, for each dimension but the innermost.
    pub strides_bytes: &'a [u64],
    /// Elements of the box along each dimension.
    pub box_dimensions: &'a [u32],
    /// Step between the elements copied along each dimension; 1 for all of them.
    pub element_strides: &'a [u32],
    /// Permutation in shared memory.
    pub swizzle: Swizzle,
    /// Storage in slices.
    pub interleave: Interleave,
    /// Read-ahead.
    pub l2_promotion: L2Promotion,
    /// What stands past the end.
    pub out_of_bounds_fill: OutOfBoundsFill,
}

/// A rule of the hardware that a tensor map would break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorMapError {
    /// A number out of its range.
    #[error("tensor map: {what} of dimension {axis} is {got}, but it must be {least} to {most}")]
    Range {
        /// The quantity.
        what: &'static str,
        /// The dimension, innermost 0.
        axis: usize,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
        /// What was given.
        got: u64,
    },
    /// A number that is not a multiple of what it has to be.
    #[error("tensor map: {what} is {got}, but it must be a multiple of {multiple}; pad the tensor")]
    Multiple {
        /// The quantity, in bytes.
        what: &'static str,
        /// The unit.
        multiple: u64,
        /// What was given.
        got: u64,
    },
    /// A list of another length than the rank asks for.
    #[error("tensor map: {what} has {got} entries, but it must have {expected}")]
    Count {
        /// The list.
        what: &'static str,
        /// Entries expected.
        expected: usize,
        /// Entries given.
        got: usize,
    },
    /// More or fewer dimensions than the hardware has.
    #[error(
        "tensor map: {got} dimensions, but {least} to {MAX_RANK} are possible with this interleave"
    )]
    Rank {
        /// The least possible.
        least: usize,
        /// What was given.
        got: usize,
    },
    /// A stride that lets one index overlap the next.
    #[error(
        "tensor map: stride {axis} is {got} bytes, but the dimension inside it takes {inner_bytes}"
    )]
    Overlap {
        /// Which stride, from 0.
        axis: usize,
        /// Bytes of the dimension inside.
        inner_bytes: u64,
        /// The stride.
        got: u64,
    },
    /// Two options that exclude each other.
    #[error("tensor map: {rule}")]
    Combination {
        /// What the options have to obey.
        rule: &'static str,
    },
}

impl TensorMap {
    /// The descriptor's bytes.
    pub(super) fn words(&self) -> [u64; 16] {
        self.words
    }

    /// Checks `spec` and encodes it.
    ///
    /// # Errors
    /// [`DriverError::TensorMap`] for a rule that `spec` breaks, [`DriverError::Unsupported`] before compute
    /// capability 9.0, a driver before CUDA 12.0, or a failed call.
    pub fn encode(device: &CudaDevice, spec: &TensorMapSpec<'_>) -> Result<Self, DriverError> {
        spec.check()?;
        if !device.info().tensor_maps {
            let device = device.info().name.clone();
            return Err(DriverError::Unsupported { device, feature: "tensor maps" });
        }
        let (name, entry) = raw::newer()?.tensor_map_encode_tiled.get()?;
        device.bind()?;
        let mut map = Self { words: [0; 16] };
        // SAFETY: `check` saw that each list has an entry for each of the `rank` dimensions, strides one less; the map
        // is writable and aligned. The driver does not read the tensor.
        let code = unsafe {
            entry(
                ptr::from_mut(&mut map).cast(),
                spec.data_type as c_uint,
                spec.dimensions.len() as u32,
                ptr::without_provenance_mut(spec.address as usize),
                spec.dimensions.as_ptr(),
                spec.strides_bytes.as_ptr(),
                spec.box_dimensions.as_ptr(),
                spec.element_strides.as_ptr(),
                spec.interleave as c_uint,
                spec.swizzle as c_uint,
                spec.l2_promotion as c_uint,
                spec.out_of_bounds_fill as c_uint,
            )
        };
        check(name, code)?;
        Ok(map)
    }
}

impl TensorMapSpec<'_> {
    /// Checks the rules that `cuTensorMapEncodeTiled` documents, so that an error names what is wrong.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), TensorMapError> {
        self.check_shape()?;
        self.check_alignment()?;
        self.check_options()
    }

    fn check_shape(&self) -> Result<(), TensorMapError> {
        let rank = self.dimensions.len();
        let least = if self.interleave == Interleave::None { 1 } else { 3 };
        if !(least..=MAX_RANK).contains(&rank) {
            return Err(TensorMapError::Rank { least, got: rank });
        }
        let count = |what, expected, got| match expected == got {
            true => Ok(()),
            false => Err(TensorMapError::Count { what, expected, got }),
        };
        count("strides_bytes", rank - 1, self.strides_bytes.len())?;
        count("box_dimensions", rank, self.box_dimensions.len())?;
        count("element_strides", rank, self.element_strides.len())?;

        let range = |what, axis, got: u64, most| match (1..=most).contains(&got) {
            true => Ok(()),
            false => Err(TensorMapError::Range { what, axis, least: 1, most, got }),
        };
        for axis in 0..rank {
            range("size", axis, self.dimensions[axis], 1 << 32)?;
            range("box", axis, self.box_dimensions[axis].into(), MAX_BOX.into())?;
            range("element stride", axis, self.element_strides[axis].into(), 8)?;
        }
        let mut inner_bytes = self.dimensions[0] * u64::from(self.data_type.bytes());
        for (axis, &stride) in self.strides_bytes.iter().enumerate() {
            range("stride in bytes", axis + 1, stride, (1 << 40) - 1)?;
            if stride < inner_bytes && self.interleave == Interleave::None {
                return Err(TensorMapError::Overlap { axis, inner_bytes, got: stride });
            }
            inner_bytes = stride.saturating_mul(self.dimensions[axis + 1]);
        }
        Ok(())
    }

    fn check_alignment(&self) -> Result<(), TensorMapError> {
        let unit = if self.interleave == Interleave::Bytes32 { 32 } else { 16 };
        let multiple = |what, got: u64, multiple| match got.is_multiple_of(multiple) {
            true => Ok(()),
            false => Err(TensorMapError::Multiple { what, multiple, got }),
        };
        multiple("the address", self.address, unit)?;
        for &stride in self.strides_bytes {
            multiple("a stride", stride, unit)?;
        }
        if self.interleave == Interleave::None {
            multiple("the box's inner dimension", self.inner_box_bytes(), 16)?;
        }
        Ok(())
    }

    fn check_options(&self) -> Result<(), TensorMapError> {
        let rule = |rule| Err(TensorMapError::Combination { rule });
        if self.interleave == Interleave::Bytes32 && self.swizzle != Swizzle::Bytes32 {
            return rule("an interleave of 32 bytes needs the swizzle of 32 bytes");
        }
        if self.out_of_bounds_fill == OutOfBoundsFill::NanRequestZeroFma
            && !self.data_type.is_float()
        {
            return rule("a fill of NaN needs a float type");
        }
        match self.swizzle.span_bytes() {
            Some(span)
                if self.interleave == Interleave::None && self.inner_box_bytes() > span.into() =>
            {
                let (what, most) = ("box in bytes", span.into());
                Err(TensorMapError::Range {
                    what,
                    axis: 0,
                    least: 16,
                    most,
                    got: self.inner_box_bytes(),
                })
            }
            _ => Ok(()),
        }
    }

    fn inner_box_bytes(&self) -> u64 {
        u64::from(self.box_dimensions[0]) * u64::from(self.data_type.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bf16 matrix of 1000 × 4096 and a box of 128 × 64.
    const GOOD: TensorMapSpec<'_> = TensorMapSpec {
        data_type: TensorDataType::Bf16,
        address: 0x7f00_0000_0000,
        dimensions: &[4096, 1000],
        strides_bytes: &[8192],
        box_dimensions: &[64, 128],
        element_strides: &[1, 1],
        swizzle: Swizzle::Bytes128,
        interleave: Interleave::None,
        l2_promotion: L2Promotion::Bytes128,
        out_of_bounds_fill: OutOfBoundsFill::Zero,
    };

    #[track_caller]
    fn refused(spec: TensorMapSpec<'_>) -> TensorMapError {
        assert_eq!(GOOD.check(), Ok(()));
        spec.check().unwrap_err()
    }

    #[test]
    fn ranks_and_counts() {
        let spec = TensorMapSpec { dimensions: &[], ..GOOD };
        assert_eq!(refused(spec), TensorMapError::Rank { least: 1, got: 0 });
        let spec = TensorMapSpec { dimensions: &[16; 6], ..GOOD };
        assert_eq!(refused(spec), TensorMapError::Rank { least: 1, got: 6 });
        let spec = TensorMapSpec { interleave: Interleave::Bytes16, ..GOOD };
        assert_eq!(refused(spec), TensorMapError::Rank { least: 3, got: 2 });
        let spec = TensorMapSpec { strides_bytes: &[8192, 8192], ..GOOD };
        assert_eq!(
            refused(spec),
            TensorMapError::Count { what: "strides_bytes", expected: 1, got: 2 }
        );
    }

    #[test]
    fn ranges() {
        let spec = TensorMapSpec { box_dimensions: &[64, 257], ..GOOD };
        let expected =
            TensorMapError::Range { what: "box", axis: 1, least: 1, most: 256, got: 257 };
        assert_eq!(refused(spec), expected);
        let spec = TensorMapSpec { dimensions: &[4096, 0], ..GOOD };
        assert!(matches!(refused(spec), TensorMapError::Range { what: "size", axis: 1, .. }));
        let spec = TensorMapSpec { element_strides: &[1, 9], ..GOOD };
        assert!(matches!(refused(spec), TensorMapError::Range { what: "element stride", .. }));
        let spec = TensorMapSpec { strides_bytes: &[1 << 40], ..GOOD };
        assert!(matches!(refused(spec), TensorMapError::Range { what: "stride in bytes", .. }));
    }

    #[test]
    fn alignment() {
        let spec = TensorMapSpec { address: GOOD.address + 8, ..GOOD };
        assert!(matches!(
            refused(spec),
            TensorMapError::Multiple { what: "the address", multiple: 16, .. }
        ));
        let spec = TensorMapSpec { strides_bytes: &[8200], ..GOOD };
        assert!(matches!(
            refused(spec),
            TensorMapError::Multiple { what: "a stride", got: 8200, .. }
        ));
        let spec = TensorMapSpec { box_dimensions: &[60, 128], ..GOOD };
        assert!(matches!(refused(spec), TensorMapError::Multiple { got: 120, .. }));
    }

    #[test]
    fn a_stride_must_span_what_is_inside() {
        let spec = TensorMapSpec { strides_bytes: &[4096], ..GOOD };
        assert_eq!(
            refused(spec),
            TensorMapError::Overlap { axis: 0, inner_bytes: 8192, got: 4096 }
        );
    }

    #[test]
    fn the_box_fits_the_swizzle() {
        let spec = TensorMapSpec { swizzle: Swizzle::Bytes64, ..GOOD };
        assert!(matches!(refused(spec), TensorMapError::Range { most: 64, got: 128, .. }));
        let spec = TensorMapSpec { swizzle: Swizzle::None, box_dimensions: &[256, 1], ..GOOD };
        assert_eq!(spec.check(), Ok(()));
    }

    #[test]
    fn options_that_exclude_each_other() {
        let fill = OutOfBoundsFill::NanRequestZeroFma;
        let spec =
            TensorMapSpec { data_type: TensorDataType::U16, out_of_bounds_fill: fill, ..GOOD };
        assert!(matches!(refused(spec), TensorMapError::Combination { .. }));
        let spec = TensorMapSpec {
            interleave: Interleave::Bytes32,
            dimensions: &[16, 16, 16],
            strides_bytes: &[32, 512],
            box_dimensions: &[16, 16, 16],
            element_strides: &[1, 1, 1],
            ..GOOD
        };
        assert!(matches!(refused(spec), TensorMapError::Combination { .. }));
    }
}
