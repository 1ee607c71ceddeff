//! `kasmina list`: the kernels.

use kasmina_types::ReduceOp;
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
    arguments.json.write(&List { kernels })?;
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
            "layer backward pass: input, blueprints, blend factors, {} bytes an access",
            tile.lanes as usize * tile.dtype.size_bytes()
        )),
        "blend_forward_tma" => Some(format!(
            "layer forward pass with telemetry, fetched by the copy engine{}",
            if tile.entry.ends_with("_bulk") { " and stored by it" } else { "" }
        )),
        "reduce" => {
            let (op, team) = tile.entry.strip_prefix("reduce_")?.split_once('_')?;
            let op = ReduceOp::ALL.into_iter().find(|known| known.name() == op)?;
            let team = if team.ends_with("_warp") { "warp" } else { "block" };
            Some(format!("{op} of each segment, a {team} for a segment"))
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
