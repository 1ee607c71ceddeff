//! `cargo xtask ptx`: the artifacts of `gpu-kernels`, built for each target.

use std::fs;
use std::time::{Duration, Instant};

use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use kasmina_kernel_builder::manifest::{Built, Manifest};
use kasmina_kernel_builder::{
    CodeGenerator, KernelBuilder, PreparedBuild, Ptxas, PtxasReport, Target, Variant,
};

use crate::error::XtaskError;
use crate::packed;
use crate::pitfalls;
use crate::{conclude, ptx_folder, workspace_root};

/// What the project ships: the oldest GPU that is promised, and each generation with more to offer.
pub(crate) const VARIANTS: [Variant; 5] = [
    Variant { target: Target::Sm70, generator: CodeGenerator::LlvmNvptx },
    Variant { target: Target::Sm80, generator: CodeGenerator::LlvmNvptx },
    Variant { target: Target::Sm90a, generator: CodeGenerator::LlvmNvptx },
    Variant { target: Target::Sm100, generator: CodeGenerator::LlvmNvptx },
    Variant { target: Target::Sm100, generator: CodeGenerator::LibNvvm },
];

/// The name of the manifest in the folder of artifacts.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Builds everything and writes it to `gpu-kernels/ptx/`; every tool has to be there.
pub(crate) fn write() -> Result<(), XtaskError> {
    let started = Instant::now();
    let build = prepare()?;
    let progress = progress();
    let make = |variant: Variant| -> Result<Built, XtaskError> {
        let ptxas = Ptxas::find(variant.target)?;
        let artifact = build.build(variant)?;
        let report = Some(ptxas.assemble(&artifact.ptx, variant.target)?);
        progress.inc(1);
        progress.set_message(format!("{variant} done"));
        Ok(Built { file: file_name(variant), artifact, report })
    };
    let built = build.for_each(make).into_iter().collect::<Result<Vec<_>, _>>()?;
    progress.finish_and_clear();
    let problems: Vec<String> = built.iter().flat_map(problems).collect();
    conclude(&problems)?;

    let folder = ptx_folder();
    fs::create_dir_all(&folder).map_err(XtaskError::access(&folder))?;
    for one in &built {
        packed::write(&one.file, &one.artifact.ptx)?;
    }
    Manifest::new(&build, &built)?.write(&folder.join(MANIFEST))?;
    print_table(&built);
    println!("{} artifacts in {:.0} s", built.len(), started.elapsed().as_secs_f64());
    Ok(())
}

/// Reads `gpu-kernels` and finds the compiler.
pub(crate) fn prepare() -> Result<PreparedBuild, XtaskError> {
    let builder = KernelBuilder::new(workspace_root().join("gpu-kernels")).deny_warnings();
    Ok(VARIANTS.into_iter().fold(builder, KernelBuilder::variant).prepare()?)
}

/// The file of a variant.
pub(crate) fn file_name(variant: Variant) -> String {
    format!("kasmina_{}.ptx", variant.suffix())
}

/// A bar of one step a variant.
pub(crate) fn progress() -> ProgressBar {
    let bar = ProgressBar::new(VARIANTS.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// What is wrong with a built artifact; findings that may be right are printed.
pub(crate) fn problems(built: &Built) -> Vec<String> {
    for warning in &built.artifact.warnings {
        println!("warning: {}: {warning}", built.file);
    }
    let mut problems: Vec<String> = pitfalls::clamped_comparisons(&built.artifact.ptx)
        .into_iter()
        .map(|pair| {
            format!(
                "{}: {pair}: a driver takes it for the opposite: see xtask/src/pitfalls.rs",
                built.file
            )
        })
        .collect();
    if let Some(report) = &built.report {
        problems.extend(report_problems(built, report));
    }
    problems
}

fn report_problems(built: &Built, report: &PtxasReport) -> Vec<String> {
    let file = &built.file;
    let mut problems: Vec<String> =
        report.warnings.iter().map(|warning| format!("{file}: {warning}")).collect();
    for (name, usage) in &report.entries {
        let may_spill =
            built.artifact.entries.get(name).is_some_and(|entry| entry.bounds.may_spill);
        if !may_spill && (usage.spill_bytes() > 0 || usage.stack_bytes > 0) {
            problems.push(format!(
                "{file}: `{name}` spills {} bytes and keeps {} bytes of stack: use fewer registers, index \
                 arrays with constants, or declare `spills` in `#[kernel(…)]`",
                usage.spill_bytes(),
                usage.stack_bytes
            ));
        }
    }
    problems
}

fn print_table(built: &[Built]) {
    let mut table = Table::new();
    table.set_header(["file", "generator", "PTX", "entries", "bytes", "most registers", "spills"]);
    for Built { file, artifact, report } in built {
        let usages = || report.iter().flat_map(|report| report.entries.values());
        table.add_row([
            file.clone(),
            format!("{} {}", artifact.variant.generator.name(), artifact.generator_version),
            artifact.ptx_version.clone(),
            artifact.entries.len().to_string(),
            artifact.ptx.len().to_string(),
            usages().map(|usage| usage.registers).max().unwrap_or(0).to_string(),
            usages().map(|usage| usage.spill_bytes()).sum::<u32>().to_string(),
        ]);
    }
    println!("{table}");
}
