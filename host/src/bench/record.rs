//! The records of a measurement, as they stand in its JSON document.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::timer::{Cache, Mode};

/// One run: what it ran on and what it measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// What the times hold for.
    pub header: Header,
    /// One row for each case and way of timing it.
    pub rows: Vec<Row>,
    /// Cases that were not timed because their result was wrong.
    pub refused: Vec<Refused>,
}

/// What the times of a run hold for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the device.
    pub device: String,
    /// `cuda`, `cpu` or `simt`.
    pub kind: String,
    /// The processor and the threads that work on it; absent for a GPU, and in older documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// The GPU; absent on other devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuHeader>,
    /// Commit of this library's sources, where known.
    pub commit: Option<String>,
    /// Whether the sources had changes that are not in that commit, where known.
    pub dirty: Option<bool>,
    /// When the run began, UTC, as `2026-01-31T12:00:00Z`.
    pub date: String,
    /// Calls before the first sample.
    pub warm_up: usize,
    /// Samples of each row.
    pub samples: usize,
    /// What the peers ran on, where some were merged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeerVersions>,
}

/// A GPU and what ran on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuHeader {
    /// Compute capability.
    pub capability: String,
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Level-two cache, in bytes.
    pub l2_bytes: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// What the memory can move by its clock and width, in GB/s, where the driver tells.
    pub peak_gb_per_s: Option<f64>,
    /// CUDA version of the driver.
    pub cuda: String,
    /// The driver's own version, where `nvidia-smi` tells.
    pub driver: Option<String>,
    /// The PTX that was loaded.
    pub artifact: ArtifactHeader,
    /// Median rate of the device's own copy over the run, in GB/s read and written.
    pub copy_gb_per_s: Option<f64>,
    /// Clocks before the run, where `nvidia-smi` tells.
    pub clocks_before: Option<Clocks>,
    /// Clocks after it.
    pub clocks_after: Option<Clocks>,
}

/// The PTX that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactHeader {
    /// Target, such as `sm_90a`.
    pub target: String,
    /// PTX version.
    pub ptx_version: String,
    /// Code generator.
    pub generator: String,
    /// SHA-256 of the PTX, as in the manifest; documents before 2026-11-26 lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A GPU's clocks at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clocks {
    /// Of the SMs, in MHz.
    pub sm_mhz: f64,
    /// Of the memory, in MHz.
    pub memory_mhz: f64,
    /// Performance state, such as `P0`.
    pub power_state: String,
    /// Temperature, in °C.
    pub temperature_c: f64,
    /// Power drawn, in W.
    pub power_w: f64,
}

/// Versions that the peers' times hold for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerVersions {
    /// Their device.
    pub device: String,
    /// CUDA, as PyTorch was built for.
    pub cuda: Option<String>,
    /// PyTorch.
    pub torch: Option<String>,
    /// Triton.
    pub triton: Option<String>,
    /// CuPy.
    pub cupy: Option<String>,
    /// JIDT, which runs on the CPU.
    pub jidt: Option<String>,
}

/// One case, timed in one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Kernel, such as `blend_forward`.
    pub kernel: String,
    /// What is special about the case: the layer's state, or how the array is cut.
    pub variant: String,
    /// Element type.
    pub dtype: String,
    /// batch × seeds × chunk, or the array's, or segments × elements.
    pub shape: Vec<usize>,
    /// What a sample is the time of.
    pub mode: Mode,
    /// Where the operands are.
    pub cache: Cache,
    /// Calls in one sample.
    pub launches: usize,
    /// Sets of buffers that took turns.
    pub buffer_sets: usize,
    /// Samples.
    pub samples: usize,
    /// Median of one call.
    pub median_us: f64,
    /// Shortest.
    pub min_us: f64,
    /// Longest.
    pub max_us: f64,
    /// Bytes of the inputs and outputs, each counted once.
    pub bytes: u64,
    /// `bytes` over the median.
    pub gb_per_s: f64,
    /// `gb_per_s` as a share of the copy rate, which was sampled in turn with this row.
    pub percent_of_copy: Option<f64>,
    /// `bytes` at the memory's peak rate: no kernel is faster from memory. Of products and of `transfer_entropy` the
    /// arithmetic's time at the highest clock, where it is more; of a pruned one there is none.
    pub floor_us: Option<f64>,
    /// The floor as a share of the median.
    pub percent_of_floor: Option<f64>,
    /// Largest relative error of the result, against f64.
    pub max_rel_error: f64,
    /// Largest that was accepted.
    pub tolerance: f64,
    /// At which clocks the samples ran; absent where NVML does not tell, and in documents before 2026-11-30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<RowClocks>,
    /// What others took for the same operation and shape, timed in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerTime>,
}

/// A GPU while a row was sampled: readings from some samples, each taken while the sample's work was on the device, or,
/// where that is shorter than a reading, just behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowClocks {
    /// Readings.
    pub readings: usize,
    /// Clock of the SMs, in MHz: the median.
    pub sm_mhz: u32,
    /// The lowest.
    pub sm_min_mhz: u32,
    /// The highest.
    pub sm_max_mhz: u32,
    /// Power drawn, in W: the median.
    pub power_w: f64,
    /// Performance state: the slowest, such as `P0`.
    pub power_state: String,
    /// What held the clock in any reading, such as `power cap`.
    pub limits: Vec<String>,
}

/// A peer's time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerTime {
    /// Its name, such as `torch`.
    pub peer: String,
    /// Median of one call.
    pub median_us: f64,
    /// Its median over the row's: above 1 the kernel is faster.
    pub ratio: f64,
    /// At which clocks its samples ran, where its program tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<RowClocks>,
}

/// A case with a wrong result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The case.
    pub case: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for RowClocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sm_mhz, sm_min_mhz, sm_max_mhz, power_w, power_state, .. } = self;
        write!(f, "{sm_mhz} MHz ({sm_min_mhz}–{sm_max_mhz}), {power_w:.0} W, {power_state}")?;
        self.limits.iter().try_for_each(|limit| write!(f, ", {limit}"))
    }
}

impl fmt::Display for PeerTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, median_us, ratio, clocks } = self;
        write!(f, "{peer} {median_us:.1} µs ({ratio:.2}×")?;
        if let Some(RowClocks { sm_mhz, power_w, .. }) = clocks {
            write!(f, "; {sm_mhz} MHz, {power_w:.0} W")?;
        }
        f.write_str(")")
    }
}

impl Row {
    /// The case in words, such as `blend_forward f32 4096x1000x64 v1`.
    pub fn case(&self) -> String {
        case_name(&self.kernel, &self.dtype, &self.shape, &self.variant)
    }
}

/// A case in words.
pub(crate) fn case_name(kernel: &str, dtype: &str, shape: &[usize], variant: &str) -> String {
    format!("{kernel} {dtype} {} {variant}", shape_name(shape))
}

/// A shape as `4096x1000x64`.
pub(crate) fn shape_name(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}
