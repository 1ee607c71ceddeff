//! `kasmina inspect`: a kernel's PTX, and what it needs of a GPU.

use kasmina_types::tiles::TILES;
use serde::Serialize;

use super::output::Json;
use super::{Failure, Status, list};
use kasmina_kernel_builder::EntryUsage;
use kasmina_kernel_builder::occupancy::occupancy;

use crate::artifacts::{self, Artifact, ArtifactRecord, EntryRecord};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A kernel of `kasmina list`
    kernel: String,
    /// The artifact's target, such as sm_90a [default: the newest that LLVM made]
    #[arg(long)]
    target: Option<String>,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, thiserror::Error)]
enum InspectError {
    #[error("no kernel `{kernel}`; did you mean `{closest}`? `kasmina list` has them all")]
    Kernel { kernel: String, closest: &'static str },
    #[error("no artifact for target `{target}`; this build carries {carried}")]
    Target { target: String, carried: String },
    #[error(
        "`{kernel}` needs compute capability {needs}, so that {artifact} has it not; take a newer --target"
    )]
    TooOld { kernel: String, needs: String, artifact: String },
    #[error("{artifact} has no kernel `{kernel}`; rebuild the artifacts with `cargo xtask ptx`")]
    Absent { kernel: String, artifact: String },
    #[error("this build carries no PTX; make it with `cargo xtask ptx` and build again")]
    NoArtifacts,
}

/// The result for programs.
#[derive(Serialize)]
struct Inspection<'a> {
    kernel: &'a str,
    target: &'a str,
    generator: &'a str,
    ptx_version: &'a str,
    block: u32,
    /// The architecture that the kernel declares to need, null where any will do.
    arch: Option<&'a str>,
    registers: Option<u32>,
    spill_store_bytes: Option<u32>,
    spill_load_bytes: Option<u32>,
    stack_bytes: Option<u32>,
    shared_bytes: Option<u32>,
    barriers: Option<u32>,
    /// Warps that fit on a multiprocessor, as a share of the most, from 0 to 1.
    occupancy: Option<f64>,
    ptx: &'a str,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let kernel = arguments.kernel.as_str();
    let Some(tile) = TILES.iter().find(|tile| tile.entry == kernel) else {
        let kernel = kernel.to_owned();
        let closest = closest(&kernel);
        return Err(Failure::usage(InspectError::Kernel { kernel, closest }));
    };
    if artifacts::all().is_empty() {
        return Err(Failure::nothing(InspectError::NoArtifacts));
    }
    let artifact = choose(arguments.target.as_deref()).map_err(Failure::usage)?;
    if tile.min_capability > artifact.record.capability {
        let needs = list::capability(tile);
        let (kernel, artifact) = (kernel.to_owned(), artifact.record.to_string());
        return Err(Failure::usage(InspectError::TooOld { kernel, needs, artifact }));
    }
    let found = artifact.record.entries.iter().find(|entry| entry.name == kernel);
    let Some((entry, ptx)) = found.zip(artifact.entry_text(kernel)) else {
        let (kernel, artifact) = (kernel.to_owned(), artifact.record.to_string());
        return Err(InspectError::Absent { kernel, artifact }.into());
    };

    let inspection = Inspection::of(&artifact.record, entry, &ptx);
    let say = |line: String| arguments.json.say(line);
    say(format!("{kernel}: {}", list::computes(tile).unwrap_or_default()))?;
    say(format!("{}, blocks of {} threads", artifact.record, entry.block))?;
    match &entry.usage {
        Some(usage) => say(usage_line(artifact.record.capability, entry.block, usage))?,
        None => say("no resource figures: there was no ptxas when the artifacts were made".into())?,
    }
    say(format!("\n{ptx}"))?;
    arguments.json.write(&inspection)?;
    Ok(Status::Pass)
}

impl<'a> Inspection<'a> {
    fn of(artifact: &'a ArtifactRecord, entry: &'a EntryRecord, ptx: &'a str) -> Self {
        let usage = entry.usage;
        Self {
            kernel: &entry.name,
            target: &artifact.target,
            generator: &artifact.generator,
            ptx_version: &artifact.ptx_version,
            block: entry.block,
            arch: entry.arch.as_deref(),
            registers: usage.map(|u| u.registers),
            spill_store_bytes: usage.map(|u| u.spill_store_bytes),
            spill_load_bytes: usage.map(|u| u.spill_load_bytes),
            stack_bytes: usage.map(|u| u.stack_bytes),
            shared_bytes: usage.map(|u| u.shared_bytes),
            barriers: usage.map(|u| u.barriers),
            occupancy: usage.map(|u| occupancy(artifact.capability, entry.block, &u).share()),
            ptx,
        }
    }
}

fn usage_line(capability: u32, block: u32, usage: &EntryUsage) -> String {
    let occupancy = occupancy(capability, block, usage);
    format!(
        "{} registers, {} bytes spilled, {} loaded back, {} bytes of stack, {} bytes of shared memory, \
         {} barriers\n{} of {} warps on a multiprocessor: {:.0} % theoretical occupancy",
        usage.registers,
        usage.spill_store_bytes,
        usage.spill_load_bytes,
        usage.stack_bytes,
        usage.shared_bytes,
        usage.barriers,
        occupancy.warps,
        occupancy.most_warps,
        100.0 * occupancy.share()
    )
}

/// The kernel whose name takes the fewest edits.
fn closest(kernel: &str) -> &'static str {
    let distance = |name: &&str| strsim::damerau_levenshtein(name, kernel);
    TILES.iter().map(|tile| tile.entry).min_by_key(distance).expect("there are kernels")
}

/// The artifact for a target, else the newest; LLVM's before libNVVM's.
fn choose(target: Option<&str>) -> Result<&'static Artifact, InspectError> {
    let asked = |artifact: &&Artifact| target.is_none_or(|target| artifact.record.target == target);
    let rank =
        |artifact: &&Artifact| (artifact.record.generator != "libnvvm", artifact.record.capability);
    artifacts::all().iter().filter(asked).max_by_key(rank).ok_or_else(|| {
        let targets: Vec<_> = artifacts::all().iter().map(|a| a.record.target.as_str()).collect();
        let target = target.unwrap_or_default().to_owned();
        InspectError::Target { target, carried: targets.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_suggested() {
        assert_eq!(closest("blend_forward_f32_v61"), "blend_forward_f32_v16");
        assert_eq!(closest("reduce_sum_f32"), "reduce_sum_f32_warp");
    }
}
