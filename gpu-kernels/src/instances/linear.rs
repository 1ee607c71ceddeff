//! The kernels of products of matrices.

use kasmina_device::Kernel;
use kasmina_types::tiles::LINEAR_SIMT_TILE;
use kasmina_types::{DType, Layout, LinearBackward, LinearParams};

use crate::linear::{forward, forward_mma, gradients};

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
        ($entry:ident, $element:ty, $dtype:ident, $sums:ty, $lanes:literal, $groups:literal) => {
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
