//! The kernels of products of a matrix and a vector.

use kasmina_device::Kernel;
use kasmina_types::{DType, Gemv};

use crate::linear::gemv as kernels;

/// An instance of `gemv`.
#[derive(Clone, Copy)]
pub struct GemvInstance {
    /// The kernel.
    pub kernel: &'static Kernel<Gemv>,
    /// Elements of one memory access; the columns are a multiple of it.
    pub lanes: u32,
}

/// The instance of A·x, or of Aᵀ·x, with the widest access that `columns` are a multiple of, in `dtype`: f32, f64 or bf16.
pub fn gemv(transposed: bool, dtype: DType, columns: usize) -> Option<GemvInstance> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($gemv:ident, $transposed:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal) => {
            if dtype == DType::$dtype && columns.is_multiple_of($lanes) {
                let kernel = if transposed {
                    kernels::$transposed::handle()
                } else {
                    kernels::$gemv::handle()
                };
                instances.push(GemvInstance { kernel, lanes: $lanes });
            }
        };
    }
    kasmina_types::gemv_tiles!(instance);
    instances.into_iter().max_by_key(|instance| instance.lanes)
}
