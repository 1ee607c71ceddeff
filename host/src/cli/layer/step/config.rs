//! The configuration of the layer that `kasmina layer step` runs.

use std::path::Path;

use anyhow::Context;

use crate::cli::Failure;
use crate::kasmina::checkpoint::{Checkpoint, LayerMemory};
use crate::kasmina::{KernelChoice, LayerConfig};

/// That of the file, or one that the checkpoint's blueprints just fit.
pub(super) fn of(path: Option<&Path>, checkpoint: &Checkpoint) -> Result<LayerConfig, Failure> {
    let config = match path {
        Some(path) => read(path).map_err(Failure::usage)?,
        None => fitting(checkpoint),
    };
    // No pass runs here, so a device that lacks the kernels will do.
    Ok(LayerConfig { kernel: KernelChoice::Auto, compare_kernels: false, ..config })
}

/// A file whose name does not end in `.toml` is JSON if it begins with a brace.
fn read(path: &Path) -> anyhow::Result<LayerConfig> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let toml = path.extension().is_some_and(|ending| ending == "toml");
    let parsed = if !toml && text.trim_start().starts_with('{') {
        LayerConfig::from_json(&text)
    } else {
        LayerConfig::from_toml(&text)
    };
    parsed.with_context(|| path.display().to_string())
}

fn fitting(checkpoint: &Checkpoint) -> LayerConfig {
    let Checkpoint { states, layer, linear, .. } = checkpoint;
    let (seeds, chunk_size) = (states.num_seeds(), states.chunk_size);
    let rows = states.num_blueprints();
    let most = match layer {
        Some(LayerMemory { blueprint_ids, retired_ids, .. }) => {
            blueprint_ids.iter().chain(retired_ids).map(|&id| usize::from(id) + 1).max()
        }
        None => Some(rows),
    };
    let room = rows.saturating_sub(1).max(1);
    LayerConfig {
        max_blueprints: most.unwrap_or(0).max(2),
        blueprint_budget_bytes: Some(room * chunk_size * size_of::<f32>()),
        // The layer is in f32.
        linear_budget_bytes: linear.weights.len() * size_of::<f32>(),
        telemetry_ring_capacity: 1,
        ..LayerConfig::new(seeds, seeds * chunk_size)
    }
}

/// Lets every row of a checkpoint that is no layer's be a blueprint under its number: what a file lists is
/// there, if only as zeros. Where the configuration has no room for all, the layer takes those that are
/// something.
pub(super) fn name_rows(checkpoint: &mut Checkpoint, config: &LayerConfig) {
    let Checkpoint { states, layer, .. } = checkpoint;
    let rows = states.num_blueprints();
    let bytes = rows.saturating_sub(1) * states.chunk_size * size_of::<f32>();
    let room = config.blueprint_budget_bytes.is_none_or(|budget| bytes <= budget);
    let ids = (0..rows).map(u16::try_from);
    if let (None, true, Ok(ids)) = (&layer, room, ids.collect()) {
        *layer = Some(LayerMemory::new(states.num_seeds(), ids));
    }
}
