//! The library's errors.

use kasmina_simt::LaunchError;
use kasmina_types::DType;

use crate::driver::{ComputeCapability, DriverError};
use crate::information::{InferenceError, TransferEntropyError};
use crate::kasmina::{ConfigError, LayerError, StateError, Variant};
use crate::linear::LinearError;
use crate::normalization::NormalizationError;
use crate::persistent::PersistentError;

/// What an operation can answer instead of a result. The operands are unchanged, outputs unspecified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The CUDA driver, or the GPU behind it.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The executor found a mistake in a kernel.
    #[error(transparent)]
    Executor(#[from] LaunchError),
    /// A layer's state that means nothing.
    #[error(transparent)]
    State(#[from] StateError),
    /// Options or operands of a normalisation that mean nothing.
    #[error(transparent)]
    Normalization(#[from] NormalizationError),
    /// Shapes, operands or options of a product of matrices that mean nothing.
    #[error(transparent)]
    Linear(#[from] LinearError),
    /// Models, beliefs or options of active inference that mean nothing.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// Series or options of which no transfer entropy can be estimated.
    #[error(transparent)]
    TransferEntropy(#[from] TransferEntropyError),
    /// A command or an input that a layer refuses.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A layer's configuration that cannot be honoured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A buffer of the wrong length.
    #[error("{op}: `{buffer}` has {got} elements, expected {expected}")]
    Length {
        /// The operation.
        op: &'static str,
        /// The operand.
        buffer: &'static str,
        /// Elements expected, and why.
        expected: String,
        /// Elements found.
        got: usize,
    },
    /// A buffer that lives on another device than the operation.
    #[error("{op}: `{buffer}` is on {got}, but the operation runs on {expected}; copy it over")]
    OtherDevice {
        /// The operation.
        op: &'static str,
        /// The operand.
        buffer: &'static str,
        /// Where the operation runs.
        expected: String,
        /// Where the buffer is.
        got: String,
    },
    /// A buffer that programs of a resident kernel use, where the CPU is to work on it in place.
    #[error("{op}: `{buffer}` is used by a recorded program; drop the program, or copy the buffer")]
    InUse {
        /// The operation.
        op: &'static str,
        /// The operand.
        buffer: &'static str,
    },
    /// What a program of a resident kernel cannot have.
    #[error("while a program is recorded, {what} is refused; do it before, or outside")]
    Recording {
        /// What was asked for.
        what: &'static str,
    },
    /// A kernel that no resident kernel has as an operation.
    #[error(
        "`{kernel}` is not among the operations of the resident kernels; launch it, or capture a graph"
    )]
    NotResident {
        /// The kernel.
        kernel: &'static str,
    },
    /// A thread that the operating system refused.
    #[error("no thread could be started: {source}; end some")]
    Thread {
        /// What it says.
        source: std::io::Error,
    },
    /// An item or an executor of persistent execution that came to nothing.
    #[error(transparent)]
    Persistent(Box<PersistentError>),
    /// Bounds of a numerical mode that hold no value.
    #[error("{op}: no value is between the bounds {low} and {high}; give the lower one first")]
    Bounds {
        /// The operation.
        op: &'static str,
        /// The lower bound.
        low: f32,
        /// The upper bound.
        high: f32,
    },
    /// Nothing to reduce, where nothing has no answer.
    #[error("{op} of no elements (segment {segment}) has no value; leave the segment out")]
    EmptySegment {
        /// The operation.
        op: &'static str,
        /// The first such segment.
        segment: usize,
    },
    /// Offsets that do not cut an array into segments.
    #[error("segment offsets: {why} at position {position}: {got}; expected {expected}")]
    Offsets {
        /// What is wrong.
        why: &'static str,
        /// Where.
        position: usize,
        /// What is there.
        got: u64,
        /// What should be.
        expected: String,
    },
    /// Scratch memory that would be made inside a graph, and so not be zero before its first replay.
    #[error(
        "{op}: its scratch memory cannot be made while a graph is captured; run it once before"
    )]
    Capturing {
        /// The operation.
        op: &'static str,
    },
    /// More than the kernels' 32-bit counts can hold.
    #[error("{op}: {what} is {got}, at most {limit} is supported; split the call")]
    TooLarge {
        /// The operation.
        op: &'static str,
        /// What is too large.
        what: &'static str,
        /// How large.
        got: u64,
        /// The most.
        limit: u64,
    },
    /// The host's memory exhausted, or the limit on buffers reached.
    #[error(
        "{requested_bytes} bytes were asked for, and the host's memory or `BufferStatistics::limit_in_use` has no \
         room for them; lower the batch or free buffers"
    )]
    OutOfMemory {
        /// What was asked for.
        requested_bytes: usize,
    },
    /// A setting that means nothing.
    #[error("{op}: `{setting}` is {got}, expected {expected}")]
    Setting {
        /// The operation.
        op: &'static str,
        /// The setting.
        setting: &'static str,
        /// Its value.
        got: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// An element type that the operation does not take.
    #[error("{op}: the elements are {got}, expected {expected}; convert them")]
    Dtype {
        /// The operation.
        op: &'static str,
        /// The type of the elements.
        got: DType,
        /// What it may be.
        expected: &'static str,
    },
    /// A kernel that the GPU is too old for.
    #[error(
        "`{kernel}` needs compute capability {needs}, but {device} has {got}; ask `Gpu::supports`, or take a plain \
         variant"
    )]
    Capability {
        /// The kernel.
        kernel: String,
        /// The least it runs on.
        needs: ComputeCapability,
        /// The GPU's name.
        device: String,
        /// The GPU's own.
        got: ComputeCapability,
    },
    /// A chain whose stages are the epilogue of a product of matrices.
    #[error(
        "{op}: stage `{stage}` has a kernel of its own, with the stages after it as its epilogue; call `linear` for it"
    )]
    NoKernel {
        /// The chain.
        op: &'static str,
        /// The stage.
        stage: &'static str,
    },
    /// A variant of a kernel that was asked for where it cannot run.
    #[error("{op}: the variant {variant:?} needs {needs}, got {got}; take `Variant::Auto`")]
    Variant {
        /// The operation.
        op: &'static str,
        /// What was asked for.
        variant: Variant,
        /// What it needs.
        needs: &'static str,
        /// What there is.
        got: String,
    },
    /// No room for another descriptor: all belong to graphs.
    #[error(
        "the cache of tensor maps holds {capacity}, all of them of captured graphs; plan another pass for other buffers"
    )]
    TensorMaps {
        /// Descriptors that the cache holds.
        capacity: usize,
    },
    /// No artifact that the GPU and its driver accept.
    #[error(
        "no PTX for {gpu} (compute capability {capability}) under a driver that takes PTX {ptx}; \
         this build carries {carried}. Update the driver, or use --device cpu"
    )]
    NoArtifact {
        /// The GPU.
        gpu: String,
        /// Its compute capability.
        capability: String,
        /// The newest PTX version that the driver takes.
        ptx: String,
        /// Targets and PTX versions of this build.
        carried: String,
    },
}
