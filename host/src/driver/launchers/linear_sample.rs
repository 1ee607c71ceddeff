//! Launcher of `linear_sample_f32`, whose sums the host reads later.

use kasmina_kernels::instances;
use kasmina_types::dtype::Element;
use kasmina_types::{DType, LINEAR_SAMPLE_SUMS, Layout, LinearSample, Out};

use super::{KernelDevice, with_buffers};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::{Event, MappedBuffer};
use crate::error::Error;
use crate::linear::LinearShape;

const OP: &str = "linear";

/// Room for the sums of samples, which a kernel may be writing.
pub(crate) struct Sums {
    place: Place,
}

enum Place {
    /// The kernel writes to the host's memory; the event says when it has.
    Mapped { sums: MappedBuffer<f64>, written: Event },
    /// The executor has written when its launch returns.
    Own(Buffer<f64>),
}

impl Sums {
    pub(crate) fn new(device: &Device, samples: u32) -> Result<Self, Error> {
        let len = samples as usize * LINEAR_SAMPLE_SUMS;
        let place = match device {
            Device::Cuda(gpu) => Place::Mapped {
                sums: MappedBuffer::zeroed(gpu.device(), len)?,
                written: Event::without_timing(gpu.device())?,
            },
            _ => Place::Own(Buffer::zeroed(device, len)?),
        };
        Ok(Self { place })
    }

    fn len(&self) -> usize {
        match &self.place {
            Place::Mapped { sums, .. } => sums.len(),
            Place::Own(sums) => sums.len(),
        }
    }

    /// The sums of the last launch, once they are there.
    pub(crate) fn wait(&self) -> Result<Vec<[f64; LINEAR_SAMPLE_SUMS]>, Error> {
        let values = match &self.place {
            Place::Mapped { sums, written } => {
                written.synchronize()?;
                (0..sums.len()).map(|index| sums.read(index)).collect()
            }
            Place::Own(sums) => sums.to_vec()?,
        };
        Ok(values
            .chunks_exact(LINEAR_SAMPLE_SUMS)
            .map(|sums| [sums[0], sums[1], sums[2]])
            .collect())
    }
}

impl Drop for Sums {
    fn drop(&mut self) {
        if let Place::Mapped { written, .. } = &self.place {
            // The memory outlives the kernel that writes it. After an error the context runs no more kernels.
            let _ = written.synchronize();
        }
    }
}

/// Whether tensor cores of the device ignore the bits that tf32 lacks, and do not round to it.
pub(crate) fn truncates(device: KernelDevice<'_>) -> bool {
    instances::linear_wgmma(DType::F32, Layout::NT).any(|instance| device.supports(instance.kernel))
}

/// Queues the samples of a product, of which A and B were checked and which has results; the sums have been read.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    shape: &LinearShape,
    (a, b): (&Buffer<T>, &Buffer<T>),
    seed: u64,
    to: &mut Sums,
) -> Result<(), Error> {
    assert_eq!(T::DTYPE, DType::F32, "the caller asks for others' checks nowhere");
    let batch = shape.batch;
    shape.a().check(batch, a.len())?;
    shape.b().check(batch, b.len())?;
    if shape.m == 0 || shape.n == 0 || batch == 0 {
        let expected = "a product with results";
        return Err(Error::Setting { op: OP, setting: "samples", got: 0.0, expected });
    }
    let samples = to.len() / LINEAR_SAMPLE_SUMS;
    let sums = match &mut to.place {
        Place::Mapped { sums, .. } => Out::new(sums.device_address() as *mut f64, sums.len()),
        Place::Own(sums) => sums.view_mut(),
    };
    let params = LinearSample {
        a: a.view().cast(),
        b: b.view().cast(),
        sums,
        a_stride: shape.strides.a,
        b_stride: shape.strides.b,
        seed,
        m: shape.m as u32,
        n: shape.n as u32,
        k: shape.k as u32,
        batch: batch as u32,
        lda: shape.lda as u32,
        ldb: shape.ldb as u32,
        layout: shape.layout as u32,
        half: if truncates(device) { 0 } else { 0x1000 },
        _padding: 0,
    };
    // SAFETY: both operands are inside their buffers for every problem; the shape's counts are 31-bit (`LinearShape`) and
    // above 0; there is a block and room for each sample; `to` is borrowed mutably, and lives until the kernel has written,
    // as its `Drop` waits for the event that follows.
    let queue = || unsafe { device.launch(instances::linear_sample(), samples as u32, params) };
    let launched = with_buffers!(device, [a, b], queue());
    if let (KernelDevice::Cuda(gpu), Place::Mapped { written, .. }) = (device, &to.place) {
        written.record(gpu.stream())?;
    }
    launched
}
