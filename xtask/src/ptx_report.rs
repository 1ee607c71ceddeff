//! `cargo xtask ptx-report`: what each entry of the committed artifacts uses.

use std::fs;

use comfy_table::Table;
use kasmina_kernel_builder::manifest::{ArtifactRecord, EntryRecord, Manifest};
use kasmina_kernel_builder::{EntryUsage, Ptxas, Target};

use crate::artifacts::MANIFEST;
use crate::error::XtaskError;
use crate::{conclude, ptx_folder};
use kasmina_kernel_builder::occupancy::occupancy;

/// Prints the manifest's table, assembles the committed PTX again where there is a ptxas, and fails on a
/// spill that the manifest does not know.
pub(crate) fn run() -> Result<(), XtaskError> {
    let manifest = Manifest::read(&ptx_folder().join(MANIFEST))?;
    println!("{}", table(&manifest));
    let mut problems = Vec::new();
    for artifact in &manifest.artifacts {
        match Target::from_name(&artifact.target).map(Ptxas::find) {
            Some(Ok(ptxas)) => problems.extend(new_spills(artifact, &ptxas)?),
            Some(Err(error)) => println!("not assembled again: {}: {error}", artifact.file),
            None => problems.push(format!("{}: unknown target {}", artifact.file, artifact.target)),
        }
    }
    conclude(&problems)
}

fn table(manifest: &Manifest) -> Table {
    let mut table = Table::new();
    table.set_header([
        "entry",
        "file",
        "block",
        "registers",
        "spill bytes",
        "stack",
        "static shared",
        "barriers",
        "occupancy",
    ]);
    let mut rows: Vec<(&EntryRecord, &ArtifactRecord)> = manifest
        .artifacts
        .iter()
        .flat_map(|artifact| artifact.entries.iter().map(move |entry| (entry, artifact)))
        .collect();
    rows.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    for (entry, artifact) in rows {
        let Some(usage) = &entry.usage else { continue };
        table.add_row([
            entry.name.clone(),
            artifact.file.clone(),
            format!("{} × {}", entry.block, entry.min_blocks),
            usage.registers.to_string(),
            usage.spill_bytes().to_string(),
            usage.stack_bytes.to_string(),
            usage.shared_bytes.to_string(),
            usage.barriers.to_string(),
            format!("{:.0} %", 100.0 * occupancy(artifact.capability, entry.block, usage).share()),
        ]);
    }
    table
}

fn new_spills(artifact: &ArtifactRecord, ptxas: &Ptxas) -> Result<Vec<String>, XtaskError> {
    let path = ptx_folder().join(&artifact.file);
    let ptx = fs::read_to_string(&path).map_err(XtaskError::access(&path))?;
    let Some(target) = Target::from_name(&artifact.target) else { return Ok(Vec::new()) };
    let report = ptxas.assemble(&ptx, target)?;
    Ok(artifact
        .entries
        .iter()
        .filter_map(|entry| {
            let now = report.entries.get(&entry.name)?.spill_bytes();
            let before = entry.usage.as_ref().map_or(0, EntryUsage::spill_bytes);
            (now > before).then(|| {
                format!(
                    "{}: `{}` spills {now} bytes, {before} in the manifest",
                    artifact.file, entry.name
                )
            })
        })
        .collect())
}
