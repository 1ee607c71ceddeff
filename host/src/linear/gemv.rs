//! Matrix times vector.

use kasmina_kernels::instances::GemvInstance;
use kasmina_reference::linear as reference;
use kasmina_types::dtype::Element;
use ndarray::ArrayView2;
use num_traits::{AsPrimitive, FromPrimitive};

use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::gemv::{self as launcher, Arguments, Scratch, Work};
use crate::error::Error;

const OP: &str = "gemv";

/// Matrices, row-major and one after the other, that are multiplied with a vector each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemvShape {
    /// Matrices, vectors and results.
    pub batch: usize,
    /// Rows of A.
    pub rows: usize,
    /// Columns of A.
    pub columns: usize,
    /// Aᵀ·x, and not A·x.
    pub transposed: bool,
}

impl GemvShape {
    /// One A·x.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self { batch: 1, rows, columns, transposed: false }
    }

    /// Aᵀ·x of the same matrices.
    pub fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    /// Elements of one x.
    pub fn terms(&self) -> usize {
        if self.transposed { self.rows } else { self.columns }
    }

    /// Elements of one y.
    pub fn outputs(&self) -> usize {
        if self.transposed { self.columns } else { self.rows }
    }

    /// Refuses what the kernels' counts do not hold.
    pub(crate) fn check(&self, op: &'static str) -> Result<(), Error> {
        let limit = u64::from(u32::MAX / 2);
        for (what, got) in [("batch", self.batch), ("rows", self.rows), ("columns", self.columns)] {
            if got as u64 > limit {
                return Err(Error::TooLarge { op, what, got: got as u64, limit });
            }
        }
        let elements = [self.batch, self.rows, self.columns];
        if elements.iter().try_fold(1_usize, |all, &count| all.checked_mul(count)).is_none() {
            let (what, got, limit) = ("batch · rows · columns", u64::MAX, usize::MAX as u64);
            return Err(Error::TooLarge { op, what, got, limit });
        }
        Ok(())
    }
}

/// An element type of matrices and vectors: f32, f64 or bf16.
pub trait GemvElement: Element + AsPrimitive<f64> + FromPrimitive {
    #[doc(hidden)]
    const SUM_BYTES: usize;
}

impl GemvElement for f32 {
    const SUM_BYTES: usize = 8;
}
impl GemvElement for f64 {
    const SUM_BYTES: usize = 8;
}
impl GemvElement for half::bf16 {
    const SUM_BYTES: usize = 4;
}

/// y ← α·op(A)·x + β·y for matrices of one shape on one device: f32 and f64 summed in f64, bf16 in f32.
///
/// Made once for a shape; a run allocates nothing, and can be captured in a CUDA graph.
///
/// ```
/// use kasmina::{Buffer, Device, linear::{Gemv, GemvShape}};
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let device = Device::auto();
/// let a = Buffer::from_slice(&device, &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let x = Buffer::from_slice(&device, &[1.0, 0.0, -1.0])?;
/// let mut y = Buffer::from_slice(&device, &[1.0, 2.0])?;
/// Gemv::new(&device, GemvShape::new(2, 3))?.run(2.0, &a, &x, 1.0, &mut y)?;
/// assert_eq!(y.to_vec()?, [-3.0, -2.0]);
/// # Ok(())
/// # }
/// ```
pub struct Gemv<T> {
    device: Device,
    shape: GemvShape,
    instance: GemvInstance,
    scratch: Scratch,
    element: std::marker::PhantomData<T>,
}

impl<T: GemvElement> Gemv<T> {
    /// Products of a shape.
    ///
    /// # Errors
    /// A shape of more than 2³¹ − 1 products, rows or columns, memory exhausted, or a failed call.
    pub fn new(device: &Device, shape: GemvShape) -> Result<Self, Error> {
        shape.check(OP)?;
        let instance = launcher::instance(shape.transposed, T::DTYPE, shape.columns)?;
        let work = Work::Products(shape, instance.lanes as usize);
        let scratch = Scratch::new(device, instance.kernel, work, T::SUM_BYTES)?;
        let element = std::marker::PhantomData;
        Ok(Self { device: device.clone(), shape, instance, scratch, element })
    }

    /// Queues y ← α·op(A)·x + β·y: A is `[batch, rows, columns]`, x and y are `[batch, terms]` and `[batch, outputs]`.
    /// Where β is 0, y is not read.
    ///
    /// # Errors
    /// A buffer of another length or on another device, or a failed call.
    pub fn run(
        &mut self,
        alpha: f64,
        matrix: &Buffer<T>,
        x: &Buffer<T>,
        beta: f64,
        y: &mut Buffer<T>,
    ) -> Result<(), Error> {
        matrix.check_device(OP, "matrix", &self.device)?;
        x.check_device(OP, "x", &self.device)?;
        y.check_device(OP, "y", &self.device)?;
        let GemvShape { batch, rows, columns, transposed } = self.shape;
        let (terms, outputs) = (self.shape.terms(), self.shape.outputs());
        check_length(OP, "matrix", batch * rows * columns, matrix.len())?;
        check_length(OP, "x", batch * terms, x.len())?;
        check_length(OP, "y", batch * outputs, y.len())?;
        if let Some(kernels) = KernelDevice::of(&self.device) {
            let arguments = Arguments { kernel: self.instance.kernel, alpha, matrix, x, beta, y };
            return launcher::launch(kernels, &mut self.scratch, arguments);
        }
        let (matrix, x) = (matrix.to_f64()?, x.to_f64()?);
        let before = if beta == 0.0 { vec![0.0; y.len()] } else { y.to_f64()? };
        let product = if transposed { reference::gemv_transposed } else { reference::gemv };
        let mut results = Vec::with_capacity(y.len());
        for number in 0..batch {
            let of = |values: &[f64], len: usize| values[number * len..][..len].to_vec();
            let matrix = &matrix[number * rows * columns..][..rows * columns];
            let a = ArrayView2::from_shape((rows, columns), matrix).expect("the length is checked");
            results.extend(product(alpha, a, &of(&x, terms), beta, &of(&before, outputs)));
        }
        y.copy_from_f64(OP, &results)
    }
}
