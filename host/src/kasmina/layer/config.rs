//! What can be chosen about a layer, under the published names where there are any.

use kasmina_types::BlendSchedule;
use kasmina_types::schedule::DEFAULT_RAMP_EPOCHS;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::rules::TransitionRules;
use super::selection::ComparedKernel;
use crate::kasmina::geometry::{BLOCK, SEED_BLOCK};
use crate::linear::LinearOptions;

/// A layer's configuration. Its JSON and TOML forms have the same names; what is left out has its
/// default, and a name that is none is refused.
///
/// ```
/// use kasmina::kasmina::LayerConfig;
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let config = LayerConfig::from_toml(
///     "num_seeds = 4\nhidden_dim = 64\nnumerical_stability_mode = \"strict\"\n\
///      gradient_clip = { mode = \"global_norm\", limit = 1.0 }",
/// )?;
/// assert_eq!(config.chunk_size(), 16);
/// assert_eq!(LayerConfig::from_json(&config.to_json())?, config);
/// let why = LayerConfig::from_toml("num_seeds = 3\nhidden_dim = 64").unwrap_err();
/// assert!(why.to_string().contains("hidden_dim"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerConfig {
    /// The layer's number in its network.
    pub layer_id: u32,
    /// The layer's name, for reports and for the rollout of kernels.
    pub name: String,
    /// Seeds.
    pub num_seeds: usize,
    /// Columns of the input, a multiple of `num_seeds`.
    pub hidden_dim: usize,
    /// Blueprints that have an id, 'none' among them: 2 to 65536. Their arrays are made in advance.
    pub max_blueprints: usize,
    /// Blueprint types that may be loaded: those whose code is below this.
    pub max_blueprint_types: u8,
    /// Bytes of the arena that blueprints' weights lie in; none for room for every id. Loading past it
    /// evicts the blueprint that was used least recently, of those that no seed uses.
    pub blueprint_budget_bytes: Option<usize>,
    /// Bytes of the arena that the matrices of LINEAR blueprints lie in, `chunk_size²` elements of the inputs' type each;
    /// 0, the default, for none: no LINEAR blueprint can be loaded. Loading past it evicts the LINEAR blueprint that was
    /// used least recently, of those that no seed uses. Their gradients, made at the first backward pass, take as many
    /// f32. Refused with a `gradient_clip`, which does not see them.
    pub linear_budget_bytes: usize,
    /// The relative error, in the norm, that the products of LINEAR blueprints may bring in, above 0; 1e-5 unless told.
    /// Inputs of f32 are multiplied by [`Precision::Auto`](crate::linear::Precision::Auto)'s rule: on tensor cores, as
    /// tf32, from 1e-3 on where a product is large enough, and never as less. Inputs of f16 and bf16 are multiplied as they are, on tensor
    /// cores, whatever it is. [`LayerReport::linear_products`](super::LayerReport::linear_products) says what was chosen.
    pub linear_tolerance: f64,

    /// Whether each forward pass leaves its telemetry in the ring on the device.
    pub enable_telemetry: bool,
    /// Figures of a seed that reports and histories show, 1 to 8, in the order variance, mean, minimum,
    /// maximum, dead ratio, signal-to-noise, non-finite count, count.
    pub telemetry_metrics_per_seed: usize,
    /// Passes that the ring holds.
    pub telemetry_ring_capacity: usize,
    /// How the batch is reduced to a seed's telemetry.
    pub telemetry_reduction_strategy: TelemetryReduction,

    /// Whether a CRC-32 of the state is kept after each change by the layer, and checked on load, before each
    /// command changes anything, and by [`verify_integrity`](super::KasminaLayer::verify_integrity).
    pub enable_integrity_checks: bool,
    /// What is done about values that are NaN, infinite, denormal or huge.
    pub numerical_stability_mode: StabilityMode,
    /// Magnitudes below this are flushed to zero, outside `fast`. The kernels know 1e-8 alone.
    pub stability_epsilon: f32,
    /// The lower bound that values are clamped to, outside `fast`; none for the element type's lowest.
    pub stability_lower_bound: Option<f32>,
    /// The upper bound; none for the element type's highest.
    pub stability_upper_bound: Option<f32>,
    /// How parameter gradients are clipped after each backward pass.
    pub gradient_clip: GradientClipping,

    /// Whether kernels may load by tensor maps, where GPU and shape allow it.
    pub enable_tma: bool,
    /// Whether kernels may have a producer warp. The kernels that load by tensor maps all have one.
    pub enable_warp_specialization: bool,
    /// Whether a grid has no more blocks than the device holds at once, which then take tile after tile.
    /// Otherwise it has a block for each tile. Kernels of which a block takes a seed have a block for each seed.
    pub enable_persistent_kernels: bool,
    /// Threads of a block of the plain kernels of the passes; none for what is fastest. 256 threads take a strip of some
    /// seeds, 128 one seed, for which a chunk must be a power of two of 4 to 128 columns. A size that no kernel has is
    /// refused. Kernels that fetch through the copy engine, which [`KernelChoice::Auto`] may choose, have 288 threads; those
    /// that reduce telemetry, clip or change states have one size each, and do not look at it.
    pub preferred_block_size: Option<u32>,
    /// Which kernels are used.
    pub kernel: KernelChoice,
    /// The share of layers, in percent, that use the new kernels where `kernel` is `rollout`; which
    /// those are follows from name and number alone.
    pub rollout_percent: u8,
    /// Whether every pass, forward and backward, also runs by the kernels of `compare_with` on the same input, and what
    /// differs is kept; see [`comparison`](super::KasminaLayer::comparison),
    /// [`gradient_comparison`](super::KasminaLayer::gradient_comparison) and the layer's report. Slow: it runs both once
    /// more and reads their results back.
    pub compare_kernels: bool,
    /// What the layer's own kernels are compared with: `plain`, `tma`, `reference`, or `own`, which runs them twice.
    pub compare_with: ComparedKernel,

    /// Trades time for memory: plans and outputs of one batch size are kept instead of eight, and a
    /// [`LayerStack`](super::LayerStack) recomputes unless it is told otherwise.
    pub memory_efficient_mode: bool,
    /// Whether passes are timed; see [`performance`](super::KasminaLayer::performance).
    pub enable_kernel_profiling: bool,
    /// Whether the state on the device is read back and checked before every pass. Slow.
    pub enable_debug_assertions: bool,

    /// The schedule that a germinated seed has unless another is set.
    #[serde(with = "schedule_name")]
    pub schedule: BlendSchedule,
    /// The ramp length that it has, in epochs.
    pub ramp_epochs: u32,
    /// The α that its schedule stops at, in \[0, 1\].
    pub alpha_target: f32,
    /// When seeds pass to the next state by themselves.
    pub rules: TransitionRules,
}

/// How a batch is reduced to a seed's telemetry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TelemetryReduction {
    /// All values of the seed together, merged by Chan's form of Welford's update.
    #[default]
    Hierarchical,
    /// The mean over the rows of each row's figures.
    Mean,
    /// The largest over the rows of each row's figures.
    Max,
    /// The published atomic sums: refused, for their order is not fixed.
    Atomic,
    /// The published direct write of one row: refused, for the rows overwrite each other.
    Direct,
}

/// What is done about values that are NaN, infinite, denormal or huge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StabilityMode {
    /// Nothing.
    Fast,
    /// NaN and magnitudes below 1e-8 become 0, the rest is clamped to the bounds.
    Strict,
    /// As strict, for seeds whose telemetry last showed non-finite values or outliers.
    #[default]
    Adaptive,
}

/// How parameter gradients are clipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum GradientClipping {
    /// Not at all.
    #[default]
    None,
    /// Each element to [−limit, limit].
    Value {
        /// The largest magnitude, above 0.
        limit: f32,
    },
    /// All parameters of the layer by one factor, so that their norm is at most the limit.
    GlobalNorm {
        /// The largest norm, above 0.
        limit: f32,
    },
    /// Each blueprint's, with the α of the seeds that have it, by a factor of its own, so that its norm is at
    /// most a multiple of its running norm. A blueprint that is loaded or replaced has no running norm yet.
    Adaptive {
        /// The multiple.
        factor: f32,
        /// The share of the running norm that a step keeps, in \[0, 1).
        decay: f32,
    },
}

/// Which kernels a layer uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelChoice {
    /// The best for device and shape.
    #[default]
    Auto,
    /// The plain ones, which run everywhere.
    Plain,
    /// Those that load by tensor maps; where they cannot be had, that is an error.
    Tma,
    /// As `tma`, and the forward pass stores through shared memory and the copy engine too.
    TmaBulkStores,
    /// The new ones (by tensor maps, where they can be had) in `rollout_percent` of the layers, the
    /// plain ones in the others.
    Rollout,
    /// Those that are fastest for the batch size on this GPU, by a trial when the batch size is first seen: see
    /// [`Variant::Tuned`](crate::kasmina::Variant::Tuned).
    Tuned,
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            layer_id: 0,
            name: "kasmina".into(),
            num_seeds: 1,
            hidden_dim: 1,
            max_blueprints: 256,
            max_blueprint_types: 16,
            blueprint_budget_bytes: None,
            linear_budget_bytes: 0,
            linear_tolerance: LinearOptions::default().tolerance,
            enable_telemetry: true,
            telemetry_metrics_per_seed: 6,
            telemetry_ring_capacity: 10,
            telemetry_reduction_strategy: TelemetryReduction::default(),
            enable_integrity_checks: true,
            numerical_stability_mode: StabilityMode::default(),
            stability_epsilon: 1e-8,
            stability_lower_bound: None,
            stability_upper_bound: None,
            gradient_clip: GradientClipping::default(),
            enable_tma: true,
            enable_warp_specialization: true,
            enable_persistent_kernels: true,
            preferred_block_size: None,
            kernel: KernelChoice::default(),
            rollout_percent: 0,
            compare_kernels: false,
            compare_with: ComparedKernel::Reference,
            memory_efficient_mode: false,
            enable_kernel_profiling: false,
            enable_debug_assertions: false,
            schedule: BlendSchedule::FixedRamp,
            ramp_epochs: DEFAULT_RAMP_EPOCHS,
            alpha_target: 1.0,
            rules: TransitionRules::default(),
        }
    }
}

impl LayerConfig {
    /// The defaults for a layer of `num_seeds` seeds and `hidden_dim` columns.
    pub fn new(num_seeds: usize, hidden_dim: usize) -> Self {
        Self { num_seeds, hidden_dim, ..Self::default() }
    }

    /// A configuration from its JSON form, checked.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let parsed = serde_json::from_str(text);
        Self::parsed("JSON", parsed.map_err(|why| why.to_string()))
    }

    /// A configuration from its TOML form, checked.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::parsed("TOML", toml::from_str(text).map_err(|why| why.to_string()))
    }

    /// The JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("every field has a JSON form")
    }

    /// The TOML form.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every field has a TOML form")
    }

    /// Columns of a seed.
    pub fn chunk_size(&self) -> usize {
        self.hidden_dim.checked_div(self.num_seeds).unwrap_or(0)
    }

    /// Checks every option that can be checked without a device.
    ///
    /// # Errors
    /// [`ConfigError`] with the first option that cannot be honoured.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |option, got: String, expected: &str| {
            Err(ConfigError::Value { option, got, expected: expected.into() })
        };
        let (seeds, hidden) = (self.num_seeds, self.hidden_dim);
        if seeds == 0 {
            return value("num_seeds", seeds.to_string(), "a layer has at least one seed");
        }
        if hidden == 0 || !hidden.is_multiple_of(seeds) {
            let expected = format!("a multiple of `num_seeds`, {seeds}, that is not 0");
            return value("hidden_dim", hidden.to_string(), &expected);
        }
        // What every pass counts in 32 bits.
        if hidden > u32::MAX as usize {
            return value("hidden_dim", hidden.to_string(), "at most 4294967295 columns");
        }
        if !(2..=1 << 16).contains(&self.max_blueprints) {
            let got = self.max_blueprints.to_string();
            return value("max_blueprints", got, "2 to 65536: ids are 16 bits, and id 0 is none");
        }
        if self.max_blueprint_types == 0 {
            return value("max_blueprint_types", "0".into(), "at least 1");
        }
        let blueprint_bytes = self.chunk_size() * size_of::<f32>();
        if let Some(budget) = self.blueprint_budget_bytes
            && budget < blueprint_bytes
        {
            let expected = format!("at least {blueprint_bytes}, which one blueprint takes");
            return value("blueprint_budget_bytes", budget.to_string(), &expected);
        }
        if self.linear_budget_bytes > isize::MAX as usize {
            let got = self.linear_budget_bytes.to_string();
            return value("linear_budget_bytes", got, "no more than an address space has");
        }
        if !(self.linear_tolerance.is_finite() && self.linear_tolerance > 0.0) {
            let got = self.linear_tolerance.to_string();
            return value("linear_tolerance", got, "a finite number above 0");
        }
        if self.blueprint_budget_bytes.is_some_and(|budget| budget > isize::MAX as usize) {
            // Nor has TOML such a number.
            let got = format!("{:?}", self.blueprint_budget_bytes);
            return value("blueprint_budget_bytes", got, "no more than an address space has");
        }
        if !(1..=8).contains(&self.telemetry_metrics_per_seed) {
            let got = self.telemetry_metrics_per_seed.to_string();
            return value("telemetry_metrics_per_seed", got, "1 to 8");
        }
        if !(1..=1 << 20).contains(&self.telemetry_ring_capacity) {
            let got = self.telemetry_ring_capacity.to_string();
            return value("telemetry_ring_capacity", got, "1 to 2²⁰");
        }
        if self.rollout_percent > 100 {
            return value("rollout_percent", self.rollout_percent.to_string(), "0 to 100");
        }
        if self.ramp_epochs == 0 {
            return value("ramp_epochs", "0".into(), "at least 1");
        }
        if !(0.0..=1.0).contains(&self.alpha_target) {
            return value("alpha_target", self.alpha_target.to_string(), "0 to 1");
        }
        if let Some(threads) = self.preferred_block_size
            && ![BLOCK, SEED_BLOCK].contains(&threads)
        {
            let expected = format!(
                "the kernels of the passes have {SEED_BLOCK} or {BLOCK} threads, and no others"
            );
            return value("preferred_block_size", threads.to_string(), &expected);
        }
        let chunk = self.hidden_dim / self.num_seeds;
        if self.preferred_block_size == Some(SEED_BLOCK)
            && !(chunk.is_power_of_two() && (4..=128).contains(&chunk) && self.num_seeds < 1 << 16)
        {
            let expected = format!(
                "a block of {SEED_BLOCK} takes a seed of 4, 8, 16, 32, 64 or 128 columns, of fewer than 65536 seeds; here are \
                 {} of {chunk}",
                self.num_seeds
            );
            return value("preferred_block_size", SEED_BLOCK.to_string(), &expected);
        }
        self.check_stability()?;
        self.check_clip()?;
        self.check_combinations()?;
        self.rules.check()
    }

    fn check_stability(&self) -> Result<(), ConfigError> {
        if self.stability_epsilon.to_bits() != 1e-8_f32.to_bits() {
            let why = format!(
                "the kernels flush below 1e-8 and nothing else; {} cannot be honoured",
                self.stability_epsilon
            );
            return Err(ConfigError::Refused { option: "stability_epsilon", why });
        }
        for (option, bound) in [
            ("stability_lower_bound", self.stability_lower_bound),
            ("stability_upper_bound", self.stability_upper_bound),
        ] {
            if let Some(bound) = bound
                && !bound.is_finite()
            {
                let (got, expected) = (bound.to_string(), "a finite number".into());
                return Err(ConfigError::Value { option, got, expected });
            }
        }
        let low = self.stability_lower_bound.unwrap_or(f32::MIN);
        let high = self.stability_upper_bound.unwrap_or(f32::MAX);
        if low > high {
            let expected = format!("at least the lower bound, {low}");
            let option = "stability_upper_bound";
            return Err(ConfigError::Value { option, got: high.to_string(), expected });
        }
        Ok(())
    }

    fn check_clip(&self) -> Result<(), ConfigError> {
        let (option, got, good, expected) = match self.gradient_clip {
            GradientClipping::None => return Ok(()),
            GradientClipping::Value { limit } | GradientClipping::GlobalNorm { limit } => {
                let good = limit > 0.0 && limit.is_finite();
                ("gradient_clip.limit", limit, good, "a finite number above 0")
            }
            GradientClipping::Adaptive { factor, .. } if !(factor > 0.0 && factor.is_finite()) => {
                ("gradient_clip.factor", factor, false, "a finite number above 0")
            }
            GradientClipping::Adaptive { decay, .. } => {
                ("gradient_clip.decay", decay, (0.0..1.0).contains(&decay), "0 to below 1")
            }
        };
        if good {
            return Ok(());
        }
        Err(ConfigError::Value { option, got: got.to_string(), expected: expected.into() })
    }

    fn check_combinations(&self) -> Result<(), ConfigError> {
        let refuse = |option, why: &str| Err(ConfigError::Refused { option, why: why.into() });
        let strategy = "telemetry_reduction_strategy";
        match self.telemetry_reduction_strategy {
            TelemetryReduction::Atomic => {
                return refuse(
                    strategy,
                    "`atomic` sums in an order that is not fixed; use hierarchical",
                );
            }
            TelemetryReduction::Direct => {
                return refuse(
                    strategy,
                    "`direct` keeps whichever row is written last; use hierarchical, mean or max",
                );
            }
            TelemetryReduction::Mean | TelemetryReduction::Max if !self.enable_telemetry => {
                return refuse(strategy, "`enable_telemetry` is off");
            }
            _ => {}
        }
        if self.numerical_stability_mode == StabilityMode::Adaptive && !self.enable_telemetry {
            return refuse(
                "numerical_stability_mode",
                "`adaptive` looks at the telemetry, and `enable_telemetry` is off; use strict or fast",
            );
        }
        if self.linear_budget_bytes > 0 && self.gradient_clip != GradientClipping::None {
            return refuse(
                "gradient_clip",
                "clipping does not see the matrices of LINEAR blueprints, which `linear_budget_bytes` makes room for; \
                 clip the gradients of `linear_gradient` where they are used",
            );
        }
        let forced = match self.kernel {
            KernelChoice::Tma => Some("tma"),
            KernelChoice::TmaBulkStores => Some("tma_bulk_stores"),
            _ => None,
        };
        if let Some(forced) = forced {
            if !self.enable_tma {
                return refuse("kernel", &format!("`{forced}` is forced, and `enable_tma` is off"));
            }
            if !self.enable_warp_specialization {
                return refuse(
                    "kernel",
                    &format!(
                        "`{forced}` is forced, its kernels have a producer warp, and \
                         `enable_warp_specialization` is off"
                    ),
                );
            }
        }
        Ok(())
    }

    fn parsed(format: &'static str, parsed: Result<Self, String>) -> Result<Self, ConfigError> {
        let config = parsed.map_err(|why| ConfigError::Parse { format, why })?;
        config.check()?;
        Ok(config)
    }
}

/// A schedule by its name in lower case.
mod schedule_name {
    use kasmina_types::BlendSchedule;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        schedule: &BlendSchedule,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&schedule.name().to_lowercase())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BlendSchedule, D::Error> {
        let name = String::deserialize(deserializer)?;
        let named = |schedule: &BlendSchedule| schedule.name().eq_ignore_ascii_case(&name);
        BlendSchedule::ALL.into_iter().find(named).ok_or_else(|| {
            let known: Vec<String> =
                BlendSchedule::ALL.iter().map(|s| s.name().to_lowercase()).collect();
            D::Error::custom(format!("`{name}` is no schedule; there are {}", known.join(", ")))
        })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
