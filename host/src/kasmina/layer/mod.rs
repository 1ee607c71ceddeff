//! The layer whole: configuration, passes, lifecycle, blueprints, telemetry.

mod blueprints;
mod builder;
mod commands;
mod comparison;
mod config;
mod epoch;
mod epoch_table;
mod error;
mod guard;
mod linear;
mod load;
mod passes;
mod performance;
mod plans;
mod registry;
mod report;
mod ring;
mod rules;
mod selection;
mod stack;

pub use blueprints::ParameterAddresses;
pub use builder::KasminaLayerBuilder;
pub use comparison::{ArrayDifference, GradientComparison, KernelComparison, TelemetryDifference};
pub use config::{GradientClipping, KernelChoice, LayerConfig, StabilityMode, TelemetryReduction};
pub use epoch::{EpochOutcome, EpochReport, Transition};
pub use epoch_table::{EpochTable, EpochTableError};
pub use error::{ConfigError, LayerError};
pub use performance::PerformanceReport;
pub use registry::{Blueprint, LoadedBlueprint, RegistryStatistics};
pub use report::{Figure, LayerReport, LinearProduct, SeedReport};
pub use ring::TelemetryRecord;
pub use rules::{SeedEpoch, SeedProgress, TransitionRules};
pub use selection::{ComparedKernel, in_rollout};
pub use stack::{Checkpointing, LayerStack};

use super::dense::DenseStore;
use super::{
    BlendOptions, EpochBuffers, GradientBuffers, GradientClip, GraftSchedule, LayerElement,
    LayerState, StateUpdates,
};
use crate::device::Device;
use crate::error::Error;
use guard::Guard;
use load::Carried;
use performance::Performance;
use plans::Plans;
use registry::Registry;
use ring::TelemetryRing;

/// A morphogenetic layer on a device: `num_seeds` seeds, each the owner of `chunk_size` columns, which
/// germinate with a blueprint, train, graft themselves into the network, and stay or go.
///
/// The arrays on the device are the truth; a step (forward and backward) moves nothing between host and
/// device and allocates nothing once a batch size has been seen. Commands and the end of an epoch read
/// small arrays back.
///
/// Passes can be captured into a graph, once one of the same kind and batch size has been made. The layer does not see a
/// replay: it is not timed, and its telemetry goes to a place outside the ring, over that of the replay before, so that
/// [`telemetry_history`](Self::telemetry_history) has each pass under its own number. Say
/// [`replayed`](Self::replayed) after replays: the telemetry of the last then joins the ring, and all of them count as
/// passes.
///
/// ```
/// use kasmina::kasmina::{Blueprint, KasminaLayer};
/// use kasmina::types::{BlueprintType, SeedLifecycle};
/// use kasmina::{Buffer, Device};
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let device = Device::Cpu;
/// let mut layer = KasminaLayer::<f32>::builder(2, 8).build(&device)?;
/// let doubling = Blueprint { kind: BlueprintType::Scale, weights: vec![2.0; 4], scale: 1.0 };
/// let id = layer.load_blueprint(&doubling)?.id;
///
/// layer.germinate(0, id)?;
/// layer.advance(0)?;
/// assert_eq!(layer.advance(0)?, SeedLifecycle::Grafting);
/// layer.set_alpha(0, 0.5)?;
///
/// let x = Buffer::from_slice(&device, &[1.0_f32; 8])?;
/// let y = layer.forward(&x)?.to_vec()?;
/// assert_eq!(y, [1.5, 1.5, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0]);
///
/// // Seed 1 is DORMANT: it can be germinated, and nothing else.
/// let why = layer.rollback(1).unwrap_err().to_string();
/// assert!(why.contains("DORMANT") && why.contains("ROLLED_BACK"));
/// # Ok(())
/// # }
/// ```
pub struct KasminaLayer<T: LayerElement> {
    pub(crate) device: Device,
    pub(crate) config: LayerConfig,
    pub(crate) state: LayerState,
    registry: Registry,
    /// The matrices of LINEAR blueprints.
    dense: DenseStore<T>,
    updates: StateUpdates,
    schedule: GraftSchedule,
    epoch: EpochBuffers,
    epochs: u64,
    /// Made at the first backward pass: a layer that only infers needs none.
    training: Option<Training>,
    carried: Carried,
    ring: TelemetryRing,
    options: BlendOptions,
    /// Why a layer that is in the rollout runs the plain kernels.
    rollout_fallback: Option<String>,
    plans: Plans<T>,
    /// CRC-32 of what only commands change, as the last command left it.
    guard: Guard,
    performance: Performance,
    comparison: Option<KernelComparison>,
    gradient_comparison: Option<GradientComparison>,
}

/// What only a backward pass needs.
struct Training {
    gradients: GradientBuffers,
    clip: GradientClip,
}

impl<T: LayerElement> KasminaLayer<T> {
    /// Begins a layer of `num_seeds` seeds and `hidden_dim` columns, a multiple of it.
    pub fn builder(num_seeds: usize, hidden_dim: usize) -> KasminaLayerBuilder<T> {
        Self::builder_from(LayerConfig::new(num_seeds, hidden_dim))
    }

    /// Begins a layer from a configuration.
    pub fn builder_from(config: LayerConfig) -> KasminaLayerBuilder<T> {
        KasminaLayerBuilder::new(config)
    }

    /// A layer, every seed DORMANT and no blueprint loaded.
    ///
    /// # Errors
    /// [`Error::Config`] with the first option that cannot be honoured; memory exhausted, or a failed call.
    pub fn new(device: &Device, config: LayerConfig) -> Result<Self, Error> {
        config.check()?;
        let matrix_bytes = DenseStore::<T>::matrix_bytes(config.chunk_size());
        if (1..matrix_bytes).contains(&config.linear_budget_bytes) {
            let (option, got) = ("linear_budget_bytes", config.linear_budget_bytes.to_string());
            let expected = format!("0, or at least {matrix_bytes}, which one matrix takes");
            return Err(ConfigError::Value { option, got, expected }.into());
        }
        let registry = Registry::new(
            config.max_blueprints,
            config.chunk_size(),
            config.blueprint_budget_bytes,
        );
        let state = load::empty_state(device, &config, &registry)?;
        let (options, rollout_fallback) = selection::options::<T>(device, &config)?;
        let num_seeds = config.num_seeds;
        let budget = config.linear_budget_bytes;
        let dense = DenseStore::new(device, config.chunk_size(), config.max_blueprints, budget)?;
        let kept = if config.enable_telemetry { config.telemetry_ring_capacity } else { 1 };
        let mut layer = Self {
            device: device.clone(),
            registry,
            dense,
            updates: StateUpdates::new(device, num_seeds)?,
            schedule: GraftSchedule::new(device, num_seeds)?,
            epoch: EpochBuffers::new(device, num_seeds)?,
            epochs: 0,
            training: None,
            carried: Carried::default(),
            ring: TelemetryRing::new(device, num_seeds, kept)?,
            options,
            rollout_fallback,
            plans: Plans::new(if config.memory_efficient_mode { 1 } else { 8 }),
            guard: Guard::Off,
            performance: Performance::new(device, config.enable_kernel_profiling)?,
            comparison: None,
            gradient_comparison: None,
            state,
            config,
        };
        layer.guard = layer.guard_of(&layer.state)?;
        Ok(layer)
    }

    /// The configuration.
    pub fn config(&self) -> &LayerConfig {
        &self.config
    }

    /// Where the layer lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The state on the device.
    pub fn state(&self) -> &LayerState {
        &self.state
    }

    /// Epochs that have ended.
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    /// The parameters' gradients of the last backward pass, after clipping; none before the first. Those of
    /// a blueprint that was loaded or replaced since are 0.
    pub fn gradients(&self) -> Option<&GradientBuffers> {
        self.training.as_ref().map(|training| &training.gradients)
    }
}
