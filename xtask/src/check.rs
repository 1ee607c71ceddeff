//! `cargo xtask check`: are the committed artifacts what the sources give?

use std::env;

use kasmina_kernel_builder::manifest::{ArtifactRecord, Built, Manifest};
use kasmina_kernel_builder::{
    BuildError, CodeGenerator, Nvvm, PreparedBuild, Ptxas, Variant, sha256,
};

use crate::artifacts::{MANIFEST, file_name, prepare, problems, progress};
use crate::error::XtaskError;
use crate::{conclude, packed, ptx_folder};

/// Rebuilds every variant, lints it, and compares the bytes where the same compiler made both. What a
/// missing tool prevents is said, and is a problem where `CI=true`.
pub(crate) fn run() -> Result<(), XtaskError> {
    let manifest = Manifest::read(&ptx_folder().join(MANIFEST))?;
    let build = prepare()?;
    let mut report = Report::default();
    if build.kernels.hash().map_err(BuildError::from)? != manifest.source_sha256 {
        report.problems.push(
            "the sources changed since the artifacts were built: run `cargo xtask ptx` and commit gpu-kernels/ptx"
                .into(),
        );
    }
    let progress = progress();
    let checked = build.for_each(|variant| {
        let mut part = Report::default();
        let result = check_variant(&build, variant, &manifest, &mut part);
        progress.inc(1);
        progress.set_message(format!("{variant} done"));
        result.map(|()| part)
    });
    progress.finish_and_clear();
    for part in checked {
        report.append(part?);
    }
    for line in &report.done {
        println!("{line}");
    }
    for line in &report.not_run {
        println!("not run: {line}");
    }
    if env::var("CI").is_ok_and(|value| value == "true") {
        report
            .problems
            .extend(report.not_run.into_iter().map(|line| format!("not run in CI: {line}")));
    }
    conclude(&report.problems)
}

#[derive(Default)]
struct Report {
    done: Vec<String>,
    not_run: Vec<String>,
    problems: Vec<String>,
}

impl Report {
    fn append(&mut self, other: Report) {
        self.done.extend(other.done);
        self.not_run.extend(other.not_run);
        self.problems.extend(other.problems);
    }
}

fn check_variant(
    build: &PreparedBuild,
    variant: Variant,
    manifest: &Manifest,
    report: &mut Report,
) -> Result<(), XtaskError> {
    let file = file_name(variant);
    let record = manifest.artifacts.iter().find(|record| record.file == file);
    let committed = read_committed(&file, record, report)?;
    if variant.generator == CodeGenerator::LibNvvm
        && let Err(error) = Nvvm::find()
    {
        report.not_run.push(format!("{file}: {error}"));
        return Ok(());
    }
    let artifact = match build.build(variant) {
        Ok(artifact) => artifact,
        Err(error @ (BuildError::Lint { .. } | BuildError::Ptx { .. })) => {
            report.problems.push(error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let ptxas_report = match Ptxas::find(variant.target) {
        Ok(ptxas) => Some(ptxas.assemble(&artifact.ptx, variant.target)?),
        Err(error) => {
            report.not_run.push(format!("{file}: {error}"));
            None
        }
    };
    let built = Built { file, artifact, report: ptxas_report };
    report.problems.extend(problems(&built));
    if let (Some(record), Some(committed)) = (record, committed) {
        compare(build, manifest, record, &committed, &built, report);
    }
    Ok(())
}

/// The committed file, if it is there and is what the manifest says.
fn read_committed(
    file: &str,
    record: Option<&ArtifactRecord>,
    report: &mut Report,
) -> Result<Option<String>, XtaskError> {
    let Some(record) = record else {
        report.problems.push(format!("{file} is not in the manifest: run `cargo xtask ptx`"));
        return Ok(None);
    };
    let text = packed::read(file)?;
    if sha256(text.as_bytes()) != record.sha256 {
        report.problems.push(format!(
            "{file} is not the file that the manifest describes: run `cargo xtask ptx`, never edit an artifact"
        ));
        return Ok(None);
    }
    Ok(Some(text))
}

fn compare(
    build: &PreparedBuild,
    manifest: &Manifest,
    record: &ArtifactRecord,
    committed: &str,
    built: &Built,
    report: &mut Report,
) {
    let file = &built.file;
    let theirs = &manifest.compiler;
    let ours = &build.compiler;
    if (&ours.commit, &ours.llvm) != (&theirs.commit, &theirs.llvm) {
        report.done.push(format!(
            "{file}: built and linted; not compared, as the manifest's compiler is {} (LLVM {}) and this one {} \
             (LLVM {})",
            theirs.version, theirs.llvm, ours.version, ours.llvm
        ));
    } else if built.artifact.generator_version != record.generator_version {
        report.done.push(format!(
            "{file}: built and linted; not compared, as the manifest's {} is {} and this one {}",
            record.generator, record.generator_version, built.artifact.generator_version
        ));
    } else if built.artifact.ptx == committed {
        report.done.push(format!("{file}: identical to a fresh build"));
    } else {
        let line =
            built.artifact.ptx.lines().zip(committed.lines()).take_while(|(a, b)| a == b).count()
                + 1;
        report.problems.push(format!(
            "{file} differs from a fresh build, first at line {line}: run `cargo xtask ptx` and commit gpu-kernels/ptx"
        ));
    }
}
