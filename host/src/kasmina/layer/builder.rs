//! Makes a layer, option by option.

use std::marker::PhantomData;

use kasmina_types::BlendSchedule;

use super::config::{
    GradientClipping, KernelChoice, LayerConfig, StabilityMode, TelemetryReduction,
};
use super::rules::TransitionRules;
use super::selection::ComparedKernel;
use super::{KasminaLayer, LayerElement};
use crate::device::Device;
use crate::error::Error;
use crate::profile::Profiler;

/// Makes a [`KasminaLayer`]. Each option is described at the field of its name in [`LayerConfig`].
///
/// ```
/// use kasmina::Device;
/// use kasmina::kasmina::{KasminaLayer, StabilityMode};
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let layer = KasminaLayer::<f32>::builder(8, 128)
///     .name("block.3.mlp")
///     .max_blueprints(16)
///     .numerical_stability_mode(StabilityMode::Strict)
///     .stability_bounds(-100.0, 100.0)
///     .build(&Device::Cpu)?;
/// assert_eq!(layer.state().chunk_size(), 16);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct KasminaLayerBuilder<T> {
    config: LayerConfig,
    profiler: Profiler,
    _element: PhantomData<T>,
}

macro_rules! options {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($name), "`](LayerConfig::", stringify!($name), ").")]
            pub fn $name(mut self, $name: $type) -> Self {
                self.config.$name = $name;
                self
            }
        )*
    };
}

impl<T: LayerElement> KasminaLayerBuilder<T> {
    pub(crate) fn new(config: LayerConfig) -> Self {
        Self { config, profiler: Profiler::disabled(), _element: PhantomData }
    }

    options! {
        layer_id: u32,
        max_blueprints: usize,
        max_blueprint_types: u8,
        linear_budget_bytes: usize,
        linear_tolerance: f64,
        enable_telemetry: bool,
        telemetry_metrics_per_seed: usize,
        telemetry_ring_capacity: usize,
        telemetry_reduction_strategy: TelemetryReduction,
        enable_integrity_checks: bool,
        numerical_stability_mode: StabilityMode,
        stability_epsilon: f32,
        gradient_clip: GradientClipping,
        enable_tma: bool,
        enable_warp_specialization: bool,
        enable_persistent_kernels: bool,
        kernel: KernelChoice,
        rollout_percent: u8,
        compare_kernels: bool,
        compare_with: ComparedKernel,
        memory_efficient_mode: bool,
        enable_kernel_profiling: bool,
        enable_debug_assertions: bool,
        ramp_epochs: u32,
        alpha_target: f32,
        rules: TransitionRules,
    }

    /// Sets [`name`](LayerConfig::name).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Sets [`blueprint_budget_bytes`](LayerConfig::blueprint_budget_bytes).
    pub fn blueprint_budget_bytes(mut self, bytes: usize) -> Self {
        self.config.blueprint_budget_bytes = Some(bytes);
        self
    }

    /// Sets [`preferred_block_size`](LayerConfig::preferred_block_size). [`Self::build`] refuses a size that no kernel
    /// has.
    pub fn preferred_block_size(mut self, threads: u32) -> Self {
        self.config.preferred_block_size = Some(threads);
        self
    }

    /// Sets [`stability_lower_bound`](LayerConfig::stability_lower_bound) and
    /// [`stability_upper_bound`](LayerConfig::stability_upper_bound).
    pub fn stability_bounds(mut self, lower: f32, upper: f32) -> Self {
        self.config.stability_lower_bound = Some(lower);
        self.config.stability_upper_bound = Some(upper);
        self
    }

    /// Sets [`schedule`](LayerConfig::schedule).
    pub fn schedule(mut self, schedule: BlendSchedule) -> Self {
        self.config.schedule = schedule;
        self
    }

    /// A profiler that the layer has from the beginning, as by [`KasminaLayer::set_profiler`].
    pub fn profiler(mut self, profiler: Profiler) -> Self {
        self.profiler = profiler;
        self
    }

    /// The configuration so far.
    pub fn config(&self) -> &LayerConfig {
        &self.config
    }

    /// The layer, every seed DORMANT and no blueprint loaded.
    ///
    /// # Errors
    /// [`Error::Config`] with the first option that cannot be honoured; a profiler of another device; memory
    /// exhausted, or a failed call.
    pub fn build(self, device: &Device) -> Result<KasminaLayer<T>, Error> {
        let mut layer = KasminaLayer::new(device, self.config)?;
        layer.set_profiler(self.profiler)?;
        Ok(layer)
    }
}
