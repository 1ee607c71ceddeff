//! The layer whole: configuration, passes, lifecycle, blueprints, telemetry.

mod config;
mod error;
mod integrity;
mod registry;
mod ring;
mod rules;

pub use config::{GradientClipping, KernelChoice, LayerConfig, StabilityMode, TelemetryReduction};
pub use error::{ConfigError, LayerError};
pub use integrity::state_checksum;
pub use registry::{Blueprint, LoadedBlueprint, RegistryStatistics};
pub use ring::TelemetryRecord;
pub use rules::{SeedEpoch, SeedProgress, TransitionRules};
