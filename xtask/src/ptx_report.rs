//! `cargo xtask ptx-report`: what each entry of the committed artifacts uses.

use std::fs;

use comfy_table::Table;
use kasmina_kernel_builder::manifest::{ArtifactRecord, Built, EntryRecord, Manifest};
use kasmina_kernel_builder::{EntryUsage, Ptxas, Target};

use crate::artifacts::{MANIFEST, VARIANTS, file_name, prepare, problems};
use crate::error::XtaskError;
use crate::{conclude, packed, ptx_folder, workspace_root};
use kasmina_kernel_builder::occupancy::occupancy;

/// Prints the manifest's table, assembles the committed PTX again where there is a ptxas, and fails on a
/// spill that the manifest does not know.
pub(crate) fn run(only: &str) -> Result<(), XtaskError> {
    let manifest = Manifest::read(&ptx_folder().join(MANIFEST))?;
    println!("{}", table(&manifest, only));
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

/// Builds one target afresh, leaves the PTX where it can be read, and prints what ptxas says of it.
pub(crate) fn fresh(target: &str, only: &str) -> Result<(), XtaskError> {
    let Some(variant) = VARIANTS.into_iter().find(|variant| variant.suffix() == target) else {
        let known = VARIANTS.map(|variant| variant.suffix()).join(", ");
        return conclude(&[format!("no target {target}; there are {known}")]);
    };
    let artifact = prepare()?.build(variant)?;
    let path = workspace_root().join("target").join(file_name(variant));
    fs::write(&path, &artifact.ptx).map_err(XtaskError::access(&path))?;
    let report = Ptxas::find(variant.target)?.assemble(&artifact.ptx, variant.target)?;
    let mut table = empty_table();
    for (name, usage) in report.entries.iter().filter(|(name, _)| name.contains(only)) {
        let bounds = artifact.entries.get(name).map(|entry| &entry.bounds);
        let (block, min_blocks) = bounds.map_or((0, 0), |b| (b.block, b.min_blocks));
        let capability = variant.target.capability();
        table.add_row(row(name, &file_name(variant), block, min_blocks, capability, usage));
    }
    println!("{table}\n{}", path.display());
    let built = Built { file: file_name(variant), artifact, report: Some(report) };
    conclude(&problems(&built))
}

fn table(manifest: &Manifest, only: &str) -> Table {
    let mut table = empty_table();
    let mut rows: Vec<(&EntryRecord, &ArtifactRecord)> = manifest
        .artifacts
        .iter()
        .flat_map(|artifact| artifact.entries.iter().map(move |entry| (entry, artifact)))
        .filter(|(entry, _)| entry.name.contains(only))
        .collect();
    rows.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    for (entry, artifact) in rows {
        let Some(usage) = &entry.usage else { continue };
        let (name, file) = (&entry.name, &artifact.file);
        table.add_row(row(name, file, entry.block, entry.min_blocks, artifact.capability, usage));
    }
    table
}

fn empty_table() -> Table {
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
    table
}

fn row(
    name: &str,
    file: &str,
    block: u32,
    min_blocks: u32,
    capability: u32,
    usage: &EntryUsage,
) -> [String; 9] {
    [
        name.to_owned(),
        file.to_owned(),
        format!("{block} × {min_blocks}"),
        usage.registers.to_string(),
        usage.spill_bytes().to_string(),
        usage.stack_bytes.to_string(),
        usage.shared_bytes.to_string(),
        usage.barriers.to_string(),
        format!("{:.0} %", 100.0 * occupancy(capability, block, usage).share()),
    ]
}

fn new_spills(artifact: &ArtifactRecord, ptxas: &Ptxas) -> Result<Vec<String>, XtaskError> {
    let ptx = packed::read(&artifact.file)?;
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
