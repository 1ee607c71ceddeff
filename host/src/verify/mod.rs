//! Every kernel family, run on a device and compared with the f64 reference.
//!
//! A family is one file here: it says which rows it has, makes its cases from a [`Source`], runs each
//! twice with outputs that were filled with 0xFF bytes, and compares. A result that is too far from the
//! reference, an identity that is not one bit for bit, a second run with other bits, or an error of the
//! device: each fails the row, and the other rows go on.
//!
//! ```
//! use kasmina::{Device, verify};
//!
//! let source = verify::Source::random(1);
//! let checks = verify::checks();
//! let sum = checks.iter().find(|check| check.name() == "reduce_max i32").unwrap();
//! let row = sum.run(&Device::Cpu, &source);
//! assert_eq!(row.status, verify::Status::Pass);
//! ```

mod activation_norm;
pub(crate) mod active_inference;
mod blend_backward;
mod blend_forward;
mod dense_blend;
mod fusion;
mod gradient_clip;
mod graft_schedule;
mod linear;
mod linear_grouped;
mod random;
mod reduction;
mod state_update;
mod tally;
mod telemetry_reduce;
mod time;
mod transfer_entropy;
mod units;
mod vectors;

use std::sync::Arc;

use kasmina_types::DType;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::device::Device;
use crate::digits::Digits;
pub use crate::digits::DigitsError;
use tally::Tally;

/// Where a check's inputs come from.
#[derive(Debug, Clone)]
pub struct Source {
    inputs: Inputs,
    /// Whether random cases are as small as under the executor.
    small: bool,
}

#[derive(Debug, Clone)]
enum Inputs {
    Digits(Arc<Digits>),
    Random(u64),
}

/// The rows of every family, in the order of a report.
pub fn checks() -> Vec<Check> {
    [
        blend_forward::checks(),
        blend_backward::checks(),
        dense_blend::checks(),
        telemetry_reduce::checks(),
        graft_schedule::checks(),
        state_update::checks(),
        gradient_clip::checks(),
        activation_norm::checks(),
        reduction::checks(),
        active_inference::checks(),
        vectors::checks(),
        linear::checks(),
        linear_grouped::checks(),
        fusion::checks(),
        transfer_entropy::checks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A row that can be had: one kernel for one element type.
pub struct Check {
    kernel: String,
    dtype: DType,
    body: Box<Body>,
}

type Body = dyn Fn(&Device, &Source, &mut Tally) -> Result<(), tally::Mismatch>;

/// What a check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The kernel, such as `blend_forward` or `reduce_sum`.
    pub kernel: String,
    /// Element type of its input.
    pub dtype: DType,
    /// [`Device::name`] of where it ran.
    pub device: &'static str,
    /// Shapes that were run.
    pub cases: usize,
    /// |out − ref| / max(|ref|, scale) of the value that came closest to its tolerance, or passed it
    /// furthest; NaN if nothing could be compared, infinite where a NaN or an infinity is not matched.
    pub max_rel_error: f64,
    /// The tolerance of that value.
    pub tolerance: f64,
    /// How long the largest case took, if it was timed.
    pub timing: Option<Timing>,
    /// The verdict.
    pub status: Status,
}

/// The median time of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Seconds for one run: device time on a GPU, wall clock elsewhere.
    pub seconds: f64,
    /// Bytes that the operation has to read and write.
    pub bytes: u64,
}

/// A row's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Every case is right.
    Pass,
    /// One is not.
    Fail {
        /// The first thing that is wrong.
        reason: String,
    },
    /// The device cannot run it.
    Skipped {
        /// What it lacks.
        reason: String,
    },
}

/// How large random cases are: what is worked through in seconds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// By the executor, or by a GPU under a sanitizer.
    Small,
    /// By the CPU's mathematics.
    Medium,
    /// By a GPU.
    Large,
}

impl Source {
    /// The 1797 handwritten digits that ship with the project: a fixed set of cases, the largest of
    /// which is timed.
    ///
    /// # Errors
    /// A data file that was changed before the build.
    pub fn digits() -> Result<Self, DigitsError> {
        Ok(Self { inputs: Inputs::Digits(Arc::new(Digits::load()?)), small: false })
    }

    /// Random values of random ragged shapes; one seed, one set of cases on a device. They are small
    /// under the executor and large on a GPU, and none is timed.
    pub fn random(seed: u64) -> Self {
        Self { inputs: Inputs::Random(seed), small: false }
    }

    /// As [`Self::random`], as small everywhere as under the executor.
    pub fn small(seed: u64) -> Self {
        Self { small: true, ..Self::random(seed) }
    }

    fn scale(&self, device: &Device) -> Scale {
        match device {
            _ if self.small => Scale::Small,
            Device::Simt(_) => Scale::Small,
            Device::Cpu => Scale::Medium,
            Device::Cuda(_) => Scale::Large,
        }
    }
}

impl Check {
    fn new(
        kernel: impl Into<String>,
        dtype: DType,
        body: impl Fn(&Device, &Source, &mut Tally) -> Result<(), tally::Mismatch> + 'static,
    ) -> Self {
        Self { kernel: kernel.into(), dtype, body: Box::new(body) }
    }

    /// The kernel and its element type, such as `reduce_sum f32`.
    pub fn name(&self) -> String {
        format!("{} {}", self.kernel, self.dtype)
    }

    /// The row of a check that `device` cannot run, with what it lacks.
    pub fn skipped(&self, device: &'static str, reason: &str) -> Row {
        let status = Status::Skipped { reason: reason.to_owned() };
        Row { status, ..Tally::default().into_row(self.kernel.clone(), self.dtype, device) }
    }

    /// Runs every case on the device.
    pub fn run(&self, device: &Device, source: &Source) -> Row {
        let mut tally = Tally::default();
        if let Err(mismatch) = (self.body)(device, source, &mut tally) {
            tally.fail(mismatch);
        }
        tally.into_row(self.kernel.clone(), self.dtype, device.name())
    }
}

impl Timing {
    /// 10⁹ bytes a second.
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e9
    }
}

impl Row {
    /// Whether the row has failed.
    pub fn failed(&self) -> bool {
        matches!(self.status, Status::Fail { .. })
    }
}

/// `max_rel_error` is null where it is not a finite number; `reason` is there unless the row passed, and
/// `time_us` and `gb_per_s` where it was timed.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, reason) = match &self.status {
            Status::Pass => ("pass", None),
            Status::Fail { reason } => ("fail", Some(reason)),
            Status::Skipped { reason } => ("skipped", Some(reason)),
        };
        let fields = 7 + usize::from(reason.is_some()) + 2 * usize::from(self.timing.is_some());
        let mut row = serializer.serialize_struct("Row", fields)?;
        row.serialize_field("kernel", &self.kernel)?;
        row.serialize_field("dtype", self.dtype.name())?;
        row.serialize_field("device", self.device)?;
        row.serialize_field("cases", &self.cases)?;
        row.serialize_field("max_rel_error", &self.max_rel_error)?;
        row.serialize_field("tolerance", &self.tolerance)?;
        row.serialize_field("status", status)?;
        if let Some(reason) = reason {
            row.serialize_field("reason", reason)?;
        }
        if let Some(timing) = self.timing {
            row.serialize_field("time_us", &(timing.seconds * 1e6))?;
            row.serialize_field("gb_per_s", &timing.gb_per_s())?;
        }
        row.end()
    }
}

/// The device for a second run of the same work: under the executor blocks and threads come in another
/// order, which must not change a bit.
fn reordered(device: &Device) -> Device {
    match device {
        Device::Simt(executor) => Device::Simt(executor.clone().shuffled(0x5eed)),
        other => other.clone(),
    }
}
