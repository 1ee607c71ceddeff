//! What a layer says of itself.

use std::fmt;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{LineStyle, Table};
use kasmina_types::{BlendSchedule, BlueprintKind, SeedLifecycle};
use serde::{Serialize, Serializer};

use super::comparison::{GradientComparison, KernelComparison};
use super::registry::RegistryStatistics;
use super::{KasminaLayer, LayerElement};
use crate::error::Error;
use crate::kasmina::{KernelInfo, TelemetryValues, Tuning};
use crate::linear::Precision;

/// A layer at one moment. Its [`Display`](fmt::Display) is a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerReport {
    /// The layer's name.
    pub name: String,
    /// Its number.
    pub layer_id: u32,
    /// Where it lives.
    pub device: String,
    /// Element type of its inputs.
    pub dtype: &'static str,
    /// Columns of a seed.
    pub chunk_size: usize,
    /// Epochs that have ended.
    pub epochs: u64,
    /// The forward kernel of the last batch size; none before the first pass, and on the CPU.
    pub forward_kernel: Option<KernelInfo>,
    /// The backward kernel.
    pub backward_kernel: Option<KernelInfo>,
    /// Why the layer runs the plain kernels although it is in the rollout of the new ones.
    pub rollout_fallback: Option<String>,
    /// How the forward kernel of the last batch size was chosen, where `kernel` is `tuned`.
    pub tuning: Option<Tuning>,
    /// How its backward kernel was chosen.
    pub backward_tuning: Option<Tuning>,
    /// What `compare_kernels` has found in forward passes.
    pub comparison: Option<KernelComparison>,
    /// What it has found in backward passes.
    pub gradient_comparison: Option<GradientComparison>,
    /// The block size that was asked for.
    pub preferred_block_size: Option<u32>,
    /// How the groups of products of the seeds that hold a LINEAR blueprint are computed, for the last batch size: those
    /// of the forward pass before those of the backward pass. None before the first pass, where no such seed computes,
    /// and on the CPU.
    pub linear_products: Vec<LinearProduct>,
    /// Batch sizes that have a plan, the one used last at the end.
    pub planned_batches: Vec<usize>,
    /// Forward passes that left telemetry.
    pub telemetry_passes: u64,
    /// Passes that the ring holds.
    pub telemetry_ring_capacity: usize,
    /// Passes whose telemetry was overwritten unread.
    pub telemetry_overruns: u64,
    /// The blueprints.
    pub registry: RegistryStatistics,
    /// The seeds.
    pub seeds: Vec<SeedReport>,
}

/// How a group of products was planned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LinearProduct {
    /// What they give: `forward z`, `backward z`, `grad_weights` or `grad_input`.
    pub product: &'static str,
    /// The precision that was chosen.
    #[serde(serialize_with = "precision_name")]
    pub precision: Precision,
    /// The kernel's name in the PTX.
    pub kernel: &'static str,
    /// Blocks that share the k of an output tile.
    pub parts: u32,
}

/// A seed at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeedReport {
    /// Its number.
    pub seed: usize,
    /// Its state.
    #[serde(serialize_with = "lifecycle_name")]
    pub lifecycle: SeedLifecycle,
    /// α.
    pub alpha: f32,
    /// Where its schedule stops.
    pub alpha_target: f32,
    /// Its schedule.
    #[serde(serialize_with = "schedule_name")]
    pub schedule: BlendSchedule,
    /// Ramp length in epochs.
    pub ramp_epochs: u32,
    /// Its blueprint, 0 for none.
    pub blueprint_id: u16,
    /// What that computes.
    #[serde(serialize_with = "blueprint_name")]
    pub blueprint_type: Option<BlueprintKind>,
    /// Epochs since its last transition.
    pub epochs_in_state: u32,
    /// Epochs of its embargo that are left.
    pub embargo_epochs: u32,
    /// Norm of its gradient in the last backward pass.
    pub gradient_norm: Option<f32>,
    /// The telemetry of the last forward pass, as many figures as are configured.
    pub telemetry: Vec<Figure>,
}

/// One figure of a seed's telemetry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
}

impl<T: LayerElement> KasminaLayer<T> {
    /// The layer at this moment, once everything queued before is done. With `enable_telemetry` the telemetry of the
    /// last forward pass counts as read from then on: overwritten later, it is no overrun.
    ///
    /// # Errors
    /// What the queued work ran into, codes of the state that something else changed to what are none, or a failed
    /// call.
    pub fn report(&self) -> Result<LayerReport, Error> {
        let (forward_kernel, backward_kernel) = self.plans.kernels().unwrap_or_default();
        let config = &self.config;
        Ok(LayerReport {
            name: config.name.clone(),
            layer_id: config.layer_id,
            device: self.device.to_string(),
            dtype: T::DTYPE.name(),
            chunk_size: self.state.chunk_size(),
            epochs: self.epochs,
            forward_kernel,
            backward_kernel,
            rollout_fallback: self.rollout_fallback.clone(),
            tuning: self.plans.tuning().cloned(),
            backward_tuning: self.plans.backward_tuning().cloned(),
            comparison: self.comparison.clone(),
            gradient_comparison: self.gradient_comparison.clone(),
            preferred_block_size: config.preferred_block_size,
            linear_products: self.plans.linear_products(),
            planned_batches: self.plans.batches(),
            telemetry_passes: if config.enable_telemetry { self.ring.passes() } else { 0 },
            telemetry_ring_capacity: self.ring.capacity(),
            telemetry_overruns: if config.enable_telemetry { self.ring.overruns() } else { 0 },
            registry: self.registry(),
            seeds: self.seed_reports()?,
        })
    }

    /// One seed at this moment. As [`Self::report`] it reads the telemetry of the last forward pass, of all seeds.
    ///
    /// # Errors
    /// No such seed; and those of [`Self::report`].
    pub fn seed(&self, seed: usize) -> Result<SeedReport, Error> {
        self.check_seed(seed)?;
        Ok(self.seed_reports()?.swap_remove(seed))
    }

    fn seed_reports(&self) -> Result<Vec<SeedReport>, Error> {
        let state = &self.state;
        let lifecycle = state.lifecycle.to_vec()?;
        let blueprint_id = state.blueprint_id.to_vec()?;
        let alpha = state.alpha.to_vec()?;
        let types = state.blueprint_type.to_vec()?;
        let graft = state.read_graft()?;
        let norms = match &self.training {
            Some(training) => Some(training.gradients.gradient_norm.to_vec()?),
            None => None,
        };
        let telemetry = match config_shows(self) {
            true => self.ring.latest()?,
            false => None,
        };
        let report = |seed: usize| {
            let (id, life, plan) = (blueprint_id[seed], lifecycle[seed], graft.schedule[seed]);
            let blueprint_type = match id {
                0 => None,
                _ => {
                    let at = usize::from(id);
                    let kind = self.code("blueprint_id", seed, id, types.get(at).copied())?;
                    let known = BlueprintKind::from_u8(kind);
                    Some(self.code("blueprint_type", at, kind, known)?)
                }
            };
            Ok(SeedReport {
                seed,
                lifecycle: self.code("lifecycle", seed, life, SeedLifecycle::from_u8(life))?,
                alpha: alpha[seed],
                alpha_target: graft.alpha_target[seed],
                schedule: self.code("schedule", seed, plan, BlendSchedule::from_u8(plan))?,
                ramp_epochs: graft.ramp_epochs[seed],
                blueprint_id: id,
                blueprint_type,
                epochs_in_state: graft.epochs_in_state[seed],
                embargo_epochs: graft.embargo_epochs[seed],
                gradient_norm: norms.as_ref().map(|norms| norms[seed]),
                telemetry: telemetry
                    .as_ref()
                    .map_or_else(Vec::new, |values| figures(values, seed, self.metrics())),
            })
        };
        (0..self.config.num_seeds).map(report).collect()
    }

    fn metrics(&self) -> usize {
        self.config.telemetry_metrics_per_seed
    }
}

fn config_shows<T: LayerElement>(layer: &KasminaLayer<T>) -> bool {
    layer.config.enable_telemetry
}

/// A seed's figures in the published order, the first `metrics` of them.
fn figures(values: &TelemetryValues, seed: usize, metrics: usize) -> Vec<Figure> {
    let all = [
        ("chunk_variance", f64::from(values.variance[seed])),
        ("mean", values.mean[seed].into()),
        ("min_val", values.min[seed].into()),
        ("max_val", values.max[seed].into()),
        ("dead_node_ratio", values.dead_ratio[seed].into()),
        ("signal_to_noise_ratio", values.snr[seed].into()),
        ("nonfinite", values.nonfinite[seed].into()),
        ("count", values.count[seed].into()),
    ];
    all.into_iter().take(metrics).map(|(name, value)| Figure { name, value }).collect()
}

impl LayerReport {
    /// How the kernels were chosen, and how they compare.
    fn write_choices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.rollout_fallback {
            writeln!(f, "in the rollout, but plain: {why}")?;
        }
        for (said, tuning) in [("tuned", &self.tuning), ("backward tuned", &self.backward_tuning)] {
            let Some(Tuning { chosen, times, .. }) = tuning else { continue };
            write!(f, "{said}: {chosen:?}")?;
            for time in times {
                write!(f, ", {:?} {:.2} µs", time.variant, time.time_us)?;
            }
            writeln!(f)?;
        }
        if let Some(found) = &self.comparison {
            let KernelComparison { first, second, runs, elements, differing, .. } = found;
            writeln!(
                f,
                "{first} against {second}, {runs} passes: {differing} of {elements} values differ, by {:.1e} at most",
                found.max_relative
            )?;
        }
        if let Some(GradientComparison { first, second, runs, arrays }) = &self.gradient_comparison
        {
            write!(f, "{first} against {second}, {runs} passes:")?;
            for array in arrays.iter().filter(|array| array.differing > 0) {
                let (name, differing, elements) = (array.array, array.differing, array.elements);
                write!(f, " {name} {differing} of {elements} by {:.1e},", array.max_relative)?;
            }
            let same = arrays.iter().filter(|array| array.differing == 0).count();
            writeln!(f, " {same} arrays the same bits")?;
        }
        Ok(())
    }
}

impl fmt::Display for LayerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} #{}: {} seeds of {} {} columns on {}, epoch {}",
            self.name,
            self.layer_id,
            self.seeds.len(),
            self.chunk_size,
            self.dtype,
            self.device,
            self.epochs
        )?;
        for (pass, kernel) in
            [("forward", &self.forward_kernel), ("backward", &self.backward_kernel)]
        {
            if let Some(kernel) = kernel {
                let KernelInfo { entry, grid, block_threads, .. } = kernel;
                writeln!(f, "{pass}: {entry}, {grid} blocks of {block_threads}")?;
            }
        }
        for LinearProduct { product, precision, kernel, parts } in &self.linear_products {
            writeln!(f, "LINEAR {product}: {precision} by {kernel}, {parts} blocks a tile")?;
        }
        self.write_choices(f)?;
        let registry = &self.registry;
        writeln!(
            f,
            "blueprints: {} of {} loaded, {} bytes, {} evicted; {} of {} matrices, {} bytes; telemetry: {} passes, {} overwritten unread",
            registry.loaded,
            registry.slots,
            registry.used_bytes,
            registry.evictions,
            registry.linear,
            registry.linear_slots,
            registry.linear_bytes,
            self.telemetry_passes,
            self.telemetry_overruns
        )?;
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none())).force_no_tty();
        let figures = self.seeds.first().map_or(&[][..], |seed| &seed.telemetry);
        let mut header = vec!["seed", "state", "α", "target", "blueprint", "epochs", "|g|"];
        header.extend(figures.iter().map(|figure| figure.name));
        table.set_header(header);
        for seed in &self.seeds {
            let blueprint = match seed.blueprint_type {
                Some(kind) => format!("{} {kind}", seed.blueprint_id),
                None => "none".into(),
            };
            let mut row = vec![
                seed.seed.to_string(),
                seed.lifecycle.to_string(),
                format!("{:.3}", seed.alpha),
                format!("{:.3}", seed.alpha_target),
                blueprint,
                seed.epochs_in_state.to_string(),
                seed.gradient_norm.map_or_else(String::new, |norm| format!("{norm:.3e}")),
            ];
            row.extend(seed.telemetry.iter().map(|figure| format!("{:.4}", figure.value)));
            table.add_row(row);
        }
        write!(f, "{table}")
    }
}

pub(crate) fn lifecycle_name<S: Serializer>(
    lifecycle: &SeedLifecycle,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(lifecycle.name())
}

fn schedule_name<S: Serializer>(schedule: &BlendSchedule, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(schedule.name())
}

fn precision_name<S: Serializer>(precision: &Precision, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(precision.name())
}

fn blueprint_name<S: Serializer>(kind: &Option<BlueprintKind>, s: S) -> Result<S::Ok, S::Error> {
    match kind {
        Some(kind) => s.serialize_some(kind.name()),
        None => s.serialize_none(),
    }
}
