//! `kasmina list`: the kernels, the chains of stages that some compute, and the operations of resident kernels.

use kasmina_types::ReduceOp;
use kasmina_types::fusion::{Declaration, FUSIONS};
use kasmina_types::tiles::manifold::{MANIFOLD_OPERATIONS, ManifoldOperation, domain};
use kasmina_types::tiles::{TILES, Tile};
use serde::Serialize;

use super::output::Json;
use super::{Failure, Status};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    json: Json,
}

/// The result for programs.
#[derive(Serialize)]
struct List {
    kernels: Vec<Kernel>,
    fusions: Vec<Fusion>,
    operations: Vec<Operation>,
}

/// What a resident kernel carries out in the place of a launch.
#[derive(Serialize)]
struct Operation {
    /// The kernel that would be launched.
    kernel: &'static str,
    /// Its number.
    code: u32,
    /// The resident kernels that have it.
    resident: Vec<&'static str>,
}

/// A chain of stages in one kernel.
#[derive(Serialize)]
struct Fusion {
    name: &'static str,
    /// None where the kernel is that of a product of matrices.
    kernel: Option<&'static str>,
    dtype: &'static str,
    stages: Vec<&'static str>,
    launches_saved: usize,
    /// For each value of a segment before the stage that contracts them.
    bytes_saved_each_inner: usize,
    /// For each value after it.
    bytes_saved_each_outer: usize,
    computes: &'static str,
}

#[derive(Serialize)]
struct Kernel {
    name: &'static str,
    family: &'static str,
    dtype: &'static str,
    /// Elements of one memory access.
    lanes: u32,
    /// Threads of a block.
    block: u32,
    /// The least compute capability that it runs on.
    min_capability: String,
    computes: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let kernels: Vec<Kernel> = TILES.iter().map(Kernel::of).collect();
    let mut table =
        arguments.json.table(["family", "kernel", "dtype", "lanes", "block", "from", "computes"]);
    let mut family = "";
    for kernel in &kernels {
        let first = if kernel.family == family { "" } else { kernel.family };
        family = kernel.family;
        let (lanes, block) = (kernel.lanes.to_string(), kernel.block.to_string());
        let from = &kernel.min_capability;
        table.add_row([first, kernel.name, kernel.dtype, &lanes, &block, from, &kernel.computes]);
    }
    arguments.json.say(table)?;
    arguments.json.say(format!("{} kernels; `kasmina inspect KERNEL` shows one", kernels.len()))?;
    let fusions: Vec<Fusion> = FUSIONS.iter().map(Fusion::of).collect();
    let mut table = arguments.json.table([
        "fusion",
        "dtype",
        "stages",
        "launches saved",
        "bytes saved",
        "computes",
    ]);
    for fusion in &fusions {
        let (stages, launches) = (fusion.stages.join(" → "), fusion.launches_saved.to_string());
        let saved = fusion.bytes_saved();
        table.add_row([fusion.name, fusion.dtype, &stages, &launches, &saved, fusion.computes]);
    }
    arguments.json.say(table)?;
    arguments.json.say(
        "bytes saved: n values of a segment before the stage that contracts them, m after it",
    )?;
    let operations: Vec<Operation> = MANIFOLD_OPERATIONS.iter().map(Operation::of).collect();
    let mut table = arguments.json.table(["operation", "number", "resident kernels"]);
    for Operation { kernel, code, resident } in &operations {
        table.add_row([*kernel, &code.to_string(), &resident.join(", ")]);
    }
    arguments.json.say(table)?;
    arguments
        .json
        .say("operations: the launches that an item of a resident kernel takes the place of")?;
    arguments.json.write(&List { kernels, fusions, operations })?;
    Ok(Status::Pass)
}

impl Kernel {
    fn of(tile: &Tile) -> Self {
        Self {
            name: tile.entry,
            family: tile.family,
            dtype: tile.dtype.name(),
            lanes: tile.lanes,
            block: tile.block_threads,
            min_capability: capability(tile),
            computes: computes(tile).unwrap_or_default(),
        }
    }
}

impl Operation {
    fn of(operation: &ManifoldOperation) -> Self {
        let &ManifoldOperation { entry, code, domains } = operation;
        let mut resident = Vec::new();
        macro_rules! instance {
            ($entry:ident, $domains:ident, $threads:literal, $shared:literal) => {
                if domains == 0 || domains & domain::$domains != 0 {
                    resident.push(stringify!($entry));
                }
            };
        }
        kasmina_types::manifold_tiles!(instance);
        Self { kernel: entry, code, resident }
    }
}

impl Fusion {
    fn of(declared: &Declaration) -> Self {
        let [inner, outer] = declared.intermediates();
        let each = 2 * declared.dtype.size_bytes();
        Self {
            name: declared.name,
            kernel: declared.entry,
            dtype: declared.dtype.name(),
            stages: declared.stages.iter().map(|stage| stage.name).collect(),
            launches_saved: declared.launches_saved(),
            bytes_saved_each_inner: each * inner,
            bytes_saved_each_outer: each * outer,
            computes: declared.computes,
        }
    }

    /// Such as 16·n + 16·m.
    fn bytes_saved(&self) -> String {
        [(self.bytes_saved_each_inner, "n"), (self.bytes_saved_each_outer, "m")]
            .iter()
            .filter(|(bytes, _)| *bytes > 0)
            .map(|(bytes, values)| format!("{bytes}·{values}"))
            .collect::<Vec<_>>()
            .join(" + ")
    }
}

/// What a kernel of a chain computes.
fn of_chain(tile: &Tile) -> Option<String> {
    FUSIONS.iter().find_map(|declared| {
        if declared.entry == Some(tile.entry) {
            let computes = declared.computes.trim_end_matches('.');
            return Some(format!("{computes}: {} stages in one", declared.stages.len()));
        }
        let stage = declared.stages.iter().find(|stage| stage.entry == Some(tile.entry))?;
        Some(format!("`{}` of {} alone", stage.name, declared.name))
    })
}

/// The least compute capability that a kernel runs on, such as 9.0.
pub(super) fn capability(tile: &Tile) -> String {
    format!("{}.{}", tile.min_capability / 10, tile.min_capability % 10)
}

/// What a kernel computes, in a line.
pub(super) fn computes(tile: &Tile) -> Option<String> {
    match tile.family {
        "blend_forward" => Some(format!(
            "layer forward pass with telemetry, {} bytes an access",
            tile.lanes as usize * tile.dtype.size_bytes()
        )),
        "blend_backward" => Some(format!(
            "layer backward pass over the batch, {} bytes an access",
            tile.lanes as usize * tile.dtype.size_bytes()
        )),
        "blend_forward_seed" => {
            Some("layer forward pass with telemetry, a block a seed: few rows".into())
        }
        "blend_backward_seed" => Some(
            "layer backward pass over the batch, a block a seed: few rows, or many seeds".into(),
        ),
        "parameter_gradients" => {
            Some("gradients of blueprints and blend factors, from sums over the batch".into())
        }
        "activation_norm" => Some(format!(
            "activation and layer norm or RMS norm of each row, {} bytes an access",
            tile.lanes as usize * tile.dtype.size_bytes()
        )),
        "activation_norm_backward" if tile.entry.contains("_merge_") => {
            Some("gradients of scale and offset, added over the blocks' rows".into())
        }
        "activation_norm_backward" => Some(format!(
            "gradients of activation and norm of each row, {} bytes an access",
            tile.lanes as usize * tile.dtype.size_bytes()
        )),
        "blend_forward_tma" => Some(format!(
            "layer forward pass with telemetry, fetched by the copy engine{}",
            if tile.entry.ends_with("_bulk") { " and stored by it" } else { "" }
        )),
        "blend_backward_tma" => Some(
            "layer backward pass: input, blueprints, blend factors, fetched by the copy engine"
                .into(),
        ),
        "reduce" => {
            let (op, team) = tile.entry.strip_prefix("reduce_")?.split_once('_')?;
            let op = ReduceOp::ALL.into_iter().find(|known| known.name() == op)?;
            let team = if team.ends_with("_warp") { "warp" } else { "block" };
            Some(format!("{op} of each segment, a {team} for a segment"))
        }
        "telemetry_reduce" => Some(format!(
            "telemetry of the input alone, {}, {} bytes an access",
            if tile.entry.contains("_rows_") {
                "mean or largest of each row's figures"
            } else {
                "of all values together"
            },
            tile.lanes as usize * tile.dtype.size_bytes()
        )),
        "belief_step" | "infer_until_converged" | "curvature" => {
            let what = match tile.family {
                "belief_step" => "free energy and one belief step of Gaussian models",
                "curvature" => "λmax of Gaussian models by power iteration",
                _ => "belief steps of Gaussian models until they converge",
            };
            let (_, states) = tile.entry.rsplit_once('_')?;
            let states = match states.strip_prefix('c') {
                Some(most) => format!("up to {most} states"),
                None if states == "bulk" => "up to 4096 states, brought by bulk copies".into(),
                None => "any number of states".into(),
            };
            Some(format!("{what}, {states}"))
        }
        "fused_kl_complexity" => Some("complexity of a Gaussian belief".into()),
        "fused_accuracy_pipeline" => Some("residuals and accuracies of a Gaussian belief".into()),
        "fused_belief_update" => Some("one belief step from residuals".into()),
        "manifold" => Some("a resident kernel: carries out items from its rings".into()),
        "manifold_echo" => Some("a resident thread that answers a word".into()),
        "gemv" if tile.entry.contains("transposed") => Some("α·Aᵀ·x + β·y".into()),
        "gemv" => Some("α·A·x + β·y".into()),
        "fusion" => of_chain(tile),
        "axpby" => Some("α·x + β·y, and projections by tiling".into()),
        "velocity" => Some("(x − y)/dt".into()),
        "fused_distance_kth" => {
            Some("distances to the K nearest points, for transfer entropy".into())
        }
        "fused_te_reduction" => Some("counts of near points, and transfer entropy of them".into()),
        "surrogate_rows" => Some("rows of surrogates: permuted, rotated, in blocks".into()),
        "dense_blend" => Some("blend of what LINEAR seeds compute, or its gradient".into()),
        "dense_blend_backward" if tile.entry.contains("_merge_") => {
            Some("gradients of LINEAR blueprints' b, added over their seeds".into())
        }
        "dense_blend_backward" => {
            Some("gradients of LINEAR seeds before their products: z, b, blend factor".into())
        }
        "linear" => Some("act(α·A·B + bias + β·C) + R".into()),
        "linear_backward" => Some("gradients of activation and bias of a product".into()),
        "linear_sample" => {
            Some("some results of a product in f64, and of its terms as tf32".into())
        }
        "linear_repack" if tile.entry.starts_with("linear_repack_f32_") => {
            Some("f32 rounded to a narrower type, in rows along k".into())
        }
        "linear_repack" => Some("rows along k, for products that load them by bulk copies".into()),
        "linear_absmax" => Some("the scale that f32 is rounded to fp8 with".into()),
        "graft_schedule" => Some("one epoch of every seed: α by its schedule".into()),
        "state_update" => Some("checked updates of the seeds' state, a batch".into()),
        "gradient_clip" => {
            let what = match tile.entry {
                "gradient_clip_value_f32" => "clips the parameters' gradients by value",
                "gradient_clip_norm_f32" => "norm of the parameters' gradients, and their factor",
                "gradient_clip_scale_f32" => "scales the parameters' gradients by that factor",
                "gradient_clip_adaptive_f32" => {
                    "clips each blueprint's gradients by their running norm"
                }
                _ => return None,
            };
            Some(what.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_says_what_it_computes() {
        for tile in TILES {
            assert!(computes(tile).is_some(), "{}: add its family to `computes`", tile.entry);
        }
    }
}
