//! Tensor maps as kernels receive them: the address of a 128-byte descriptor in device memory.
//!
//! On a GPU the descriptor is the driver's, opaque. Under the executor the same address leads to a
//! [`SimtTensorMap`], which says the same in the open.

/// Room for one descriptor.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct TensorMapBytes {
    /// Its words.
    pub words: [u64; 16],
}

crate::assert_layout!(TensorMapBytes, size = 128, align = 64, { words: 0 });

/// The address of a descriptor, in the memory of the device that the launch runs on, aligned to 64 bytes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct TensorMapHandle(*const TensorMapBytes);

crate::assert_layout!(TensorMapHandle, size = 8, align = 8, {});

impl TensorMapHandle {
    /// The descriptor at `address`.
    #[inline(always)]
    pub const fn new(address: *const TensorMapBytes) -> Self {
        Self(address)
    }

    /// No descriptor, where a kernel's variant needs none.
    pub const fn none() -> Self {
        Self(core::ptr::null())
    }

    /// Where the descriptor is.
    #[inline(always)]
    pub const fn as_ptr(self) -> *const TensorMapBytes {
        self.0
    }
}

// SAFETY: a handle is an address; only a kernel's `unsafe` copies follow it, under the contract of the launch.
unsafe impl Send for TensorMapHandle {}
// SAFETY: as above.
unsafe impl Sync for TensorMapHandle {}

/// How 16-byte chunks of a box are permuted in shared memory; the numbers are the driver's.
pub mod swizzle {
    /// Not at all.
    pub const NONE: u8 = 0;
    /// Within 32 bytes.
    pub const BYTES_32: u8 = 1;
    /// Within 64 bytes.
    pub const BYTES_64: u8 = 2;
    /// Within 128 bytes.
    pub const BYTES_128: u8 = 3;
}

/// What stands in a descriptor's place under the executor. Dimensions are listed innermost first; those past
/// `rank` are 1.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SimtTensorMap {
    /// [`SimtTensorMap::MAGIC`].
    pub magic: u64,
    /// Address of the first element.
    pub address: u64,
    /// Elements along each dimension.
    pub dimensions: [u64; 5],
    /// Bytes from one index to the next, for each dimension but the innermost.
    pub strides_bytes: [u64; 4],
    /// Elements that a box spans along each dimension.
    pub box_dimensions: [u16; 5],
    /// Step between the elements of a box that are copied.
    pub element_strides: [u8; 5],
    /// Bytes of an element.
    pub element_bytes: u8,
    /// Dimensions.
    pub rank: u8,
    /// One of [`swizzle`].
    pub swizzle: u8,
    /// Keeps the struct at 128 bytes.
    pub _padding: [u8; 22],
}

crate::assert_layout!(SimtTensorMap, size = 128, align = 64, {
    magic: 0, address: 8, dimensions: 16, strides_bytes: 56, box_dimensions: 88, element_strides: 98,
    element_bytes: 103, rank: 104, swizzle: 105, _padding: 106,
});

impl SimtTensorMap {
    /// Tells a map from other bytes: "KASMTMAP".
    pub const MAGIC: u64 = u64::from_le_bytes(*b"KASMTMAP");

    /// Elements that one copy moves along a dimension.
    pub const fn copied(&self, axis: usize) -> u32 {
        let (span, step) = (self.box_dimensions[axis] as u32, self.element_strides[axis] as u32);
        span.div_ceil(if step == 0 { 1 } else { step })
    }

    /// Bytes that one copy moves, those past the tensor's end too: what its mbarrier is told to expect.
    pub const fn box_bytes(&self) -> u32 {
        let mut bytes = self.element_bytes as u32;
        let mut axis = 0;
        while axis < self.rank as usize && axis < 5 {
            bytes *= self.copied(axis);
            axis += 1;
        }
        bytes
    }
}
