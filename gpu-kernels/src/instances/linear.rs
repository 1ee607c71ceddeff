//! The kernels of products of matrices.

use kasmina_device::Kernel;
use kasmina_types::tiles::LINEAR_SIMT_TILE;
use kasmina_types::{
    DType, Layout, LinearAbsmax, LinearBackward, LinearConvert, LinearGroupedWgmma, LinearParams,
    LinearRepack, LinearSample, LinearWgmmaParams,
};

use crate::linear::{
    absmax, forward, forward_mma, forward_wgmma, forward_wgmma_grouped, gradients, repack, sample,
};

/// An instance of `linear`.
#[derive(Clone, Copy)]
pub struct LinearInstance {
    /// The kernel.
    pub kernel: &'static Kernel<LinearParams>,
    /// Element type of A and B.
    pub dtype: DType,
    /// What the sums are taken in, f32 or f64.
    pub sums: DType,
    /// The layout that it is for; `None`: any.
    pub layout: Option<Layout>,
    /// Rows of an output tile.
    pub rows: u32,
    /// Columns of an output tile.
    pub columns: u32,
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
}

impl LinearInstance {
    /// Bytes of an output tile's sums: a part that waits for others.
    pub fn tile_bytes(&self) -> usize {
        self.rows as usize * self.columns as usize * self.sums.size_bytes()
    }
}

/// The instances without tensor cores for elements of `dtype` with sums in `sums`, the largest tile first.
pub fn linear_simt(dtype: DType, sums: DType) -> impl Iterator<Item = LinearInstance> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $sums:ty, $lanes:literal, $groups:literal,
         $min_blocks:literal) => {
            let size = size_of::<$sums>();
            instances.push(LinearInstance {
                kernel: forward::$entry::handle(),
                dtype: DType::$dtype,
                sums: <$sums as kasmina_types::dtype::Element>::DTYPE,
                layout: None,
                rows: $groups * LINEAR_SIMT_TILE,
                columns: $groups * LINEAR_SIMT_TILE,
                dynamic_shared_bytes: forward::shared_bytes($groups, size) as u32,
            });
        };
    }
    kasmina_types::linear_simt_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype && instance.sums == sums)
}

/// The instances on `mma.sync` for elements of `dtype` in a layout, the largest tile first. A GPU may be too old for
/// them.
pub fn linear_mma(dtype: DType, layout: Layout) -> impl Iterator<Item = LinearInstance> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $layout:ident, $rows:literal, $columns:literal) => {
            instances.push(LinearInstance {
                kernel: forward_mma::$entry::handle(),
                dtype: DType::$dtype,
                sums: DType::F32,
                layout: Some(Layout::$layout),
                rows: $rows,
                columns: $columns,
                dynamic_shared_bytes: forward_mma::shared_bytes($rows, $columns) as u32,
            });
        };
    }
    kasmina_types::linear_mma_tiles!(instance);
    let wanted = (dtype, Some(layout));
    instances.into_iter().filter(move |instance| (instance.dtype, instance.layout) == wanted)
}

/// What the blocks of an instance on warpgroups do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WgmmaKind {
    /// Persistent blocks take tile after tile.
    Whole,
    /// The same, or a cluster shares the k of a tile.
    Shared,
    /// A cluster shares the k of a tile of Dᵀ.
    Swapped,
    /// As `Whole`, with sums of 128 k that are added in f32, times scales of blocks where there are any.
    Scaled,
}

impl WgmmaKind {
    /// Whether blocks share the k of a tile through memory, and those of a cluster load for each other; else those of a
    /// cluster share the k of a tile.
    pub const fn takes_whole_tiles(self) -> bool {
        matches!(self, Self::Whole | Self::Scaled)
    }
}

/// An instance of `linear` on the tensor cores of warpgroups, with its parameters' type.
#[derive(Clone, Copy)]
pub struct LinearWgmmaInstance<P: 'static = LinearWgmmaParams> {
    /// The kernel.
    pub kernel: &'static Kernel<P>,
    /// Element type of A and B.
    pub dtype: DType,
    /// The layout that it is for.
    pub layout: Layout,
    /// What its blocks do.
    pub kind: WgmmaKind,
    /// Rows of a tile as the tensor cores see it: columns of D where it is swapped.
    pub rows: u32,
    /// Columns of it.
    pub columns: u32,
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
}

/// The instances on warpgroups for elements of `dtype` in a layout. A GPU may be without them.
pub fn linear_wgmma(dtype: DType, layout: Layout) -> impl Iterator<Item = LinearWgmmaInstance> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ident, $dtype:ident, $layout:ident, $kind:ident, $groups:literal,
         $registers:literal, $window:literal, $stages:literal, $threads:literal) => {
            let shared = forward_wgmma::shared_bytes($groups, $registers, $stages);
            instances.push(LinearWgmmaInstance {
                kernel: forward_wgmma::$entry::handle(),
                dtype: DType::$dtype,
                layout: Layout::$layout,
                kind: WgmmaKind::$kind,
                rows: 64 * $groups,
                columns: 2 * $registers,
                dynamic_shared_bytes: shared as u32,
            });
        };
    }
    kasmina_types::linear_wgmma_tiles!(instance);
    let wanted = (dtype, layout);
    instances.into_iter().filter(move |instance| (instance.dtype, instance.layout) == wanted)
}

/// As [`linear_wgmma`], for groups of problems: the kinds that take whole tiles.
pub fn linear_grouped_wgmma(
    dtype: DType,
    layout: Layout,
) -> impl Iterator<Item = LinearWgmmaInstance<LinearGroupedWgmma>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ident, $dtype:ident, $layout:ident, $kind:ident, $groups:literal,
         $registers:literal, $window:literal, $stages:literal, $threads:literal) => {
            let shared = forward_wgmma::shared_bytes($groups, $registers, $stages);
            instances.push(LinearWgmmaInstance {
                kernel: forward_wgmma_grouped::$entry::handle(),
                dtype: DType::$dtype,
                layout: Layout::$layout,
                kind: WgmmaKind::$kind,
                rows: 64 * $groups,
                columns: 2 * $registers,
                dynamic_shared_bytes: shared as u32,
            });
        };
    }
    kasmina_types::linear_grouped_wgmma_tiles!(instance);
    let wanted = (dtype, layout);
    instances.into_iter().filter(move |instance| (instance.dtype, instance.layout) == wanted)
}

/// The kernel that moves elements of so many bytes to rows that bulk copies can load, and a block's dynamic shared
/// memory.
pub fn linear_repack(size_bytes: usize) -> Option<(&'static Kernel<LinearRepack>, u32)> {
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident) => {
            if size_bytes == size_of::<$element>() {
                let shared = repack::shared_bytes(size_bytes) as u32;
                return Some((repack::$entry::handle(), shared));
            }
        };
    }
    kasmina_types::linear_repack_tiles!(instance);
    None
}

/// The kernel that converts f32 to `dtype`, bf16, f16 or fp8, in rows that bulk copies can load, and a block's dynamic
/// shared memory. A GPU may be too old for it.
pub fn linear_convert(dtype: DType) -> Option<(&'static Kernel<LinearConvert>, u32)> {
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $arch:literal) => {
            if dtype == DType::$dtype {
                let shared = repack::shared_bytes(dtype.size_bytes()) as u32;
                return Some((repack::$entry::handle(), shared));
            }
        };
    }
    kasmina_types::linear_convert_tiles!(instance);
    None
}

/// The kernel that finds the scale of fp8 for an operand of f32. A GPU may be without it.
pub fn linear_absmax() -> &'static Kernel<LinearAbsmax> {
    absmax::linear_absmax_f32::handle()
}

/// The kernel that recomputes some results of a product of f32.
pub fn linear_sample() -> &'static Kernel<LinearSample> {
    sample::linear_sample_f32::handle()
}

/// The kernel of the gradient through an activation, for elements of `dtype`.
pub fn linear_backward(dtype: DType) -> Option<&'static Kernel<LinearBackward>> {
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $sums:ty) => {
            if dtype == DType::$dtype {
                return Some(gradients::$entry::handle());
            }
        };
    }
    kasmina_types::linear_backward_tiles!(instance);
    None
}
