//! Builds the kernels of the example crate and looks at the PTX; assembles it where there is a ptxas.
//!
//! Where the machine lacks what a test needs, the test is reported as ignored, with the reason.

use std::path::{Path, PathBuf};

use kasmina_kernel_builder::{
    Artifact, CodeGenerator, Compiler, KernelBuilder, Nvvm, Ptxas, Target, Variant,
};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let compiler = Compiler::find().map(|_| ()).map_err(|error| error.to_string());
    let nvvm = Nvvm::find().map(|_| ()).map_err(|error| error.to_string());
    let ptxas = Ptxas::find(Target::Sm80).map(|_| ()).map_err(|error| error.to_string());
    let trials = vec![
        trial("llvm_builds_the_example", &[&compiler], llvm_builds_the_example),
        trial("a_build_is_the_same_twice", &[&compiler], a_build_is_the_same_twice),
        trial("ptxas_reports_every_entry", &[&compiler, &ptxas], ptxas_reports_every_entry),
        trial("libnvvm_builds_the_example", &[&compiler, &nvvm], libnvvm_builds_the_example),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trial(name: &str, needs: &[&Result<(), String>], test: fn() -> Result<(), Failed>) -> Trial {
    match needs.iter().find_map(|need| need.as_ref().err()) {
        None => Trial::test(name, test),
        Some(reason) => Trial::test(name, test).with_ignored_flag(true).with_kind(reason.as_str()),
    }
}

fn build(variant: Variant, folder: &str) -> Result<Artifact, Failed> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/user-crate/kernels");
    let target_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let builder =
        KernelBuilder::new(kernels).variant(variant).target_dir(target_dir).deny_warnings();
    builder.build()?.pop().ok_or_else(|| Failed::from("no artifact"))
}

const SM_80: Variant = Variant { target: Target::Sm80, generator: CodeGenerator::LlvmNvptx };

fn llvm_builds_the_example() -> Result<(), Failed> {
    let artifact = build(SM_80, "first")?;
    assert_eq!(artifact.ptx_version, "7.0");
    let names: Vec<&str> = artifact.entries.keys().map(String::as_str).collect();
    assert_eq!(names, ["row_scale", "saxpy"]);
    assert_eq!(artifact.entries["saxpy"].parameter_bytes, 28);
    for directive in [".maxntid 256, 1, 1", ".minnctapersm 4", ".maxntid 128, 1, 1"] {
        assert_eq!(artifact.ptx.matches(directive).count(), 1, "{directive}:\n{}", artifact.ptx);
    }
    // Two barriers in the source, and two in the code.
    assert_eq!(artifact.ptx.matches("bar.sync").count(), 2, "{}", artifact.ptx);
    assert!(artifact.warnings.is_empty(), "{:?}", artifact.warnings);
    Ok(())
}

fn a_build_is_the_same_twice() -> Result<(), Failed> {
    assert_eq!(build(SM_80, "first")?.ptx, build(SM_80, "second")?.ptx);
    Ok(())
}

fn ptxas_reports_every_entry() -> Result<(), Failed> {
    let artifact = build(SM_80, "first")?;
    let report = Ptxas::find(Target::Sm80)?.assemble(&artifact.ptx, Target::Sm80)?;
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let usage = report.entries["row_scale"];
    assert_eq!((usage.spill_bytes(), usage.barriers, usage.shared_bytes), (0, 1, 4));
    assert!((1..=64).contains(&report.entries["saxpy"].registers), "{:?}", report.entries["saxpy"]);
    Ok(())
}

fn libnvvm_builds_the_example() -> Result<(), Failed> {
    let variant = Variant { target: Target::Sm100, generator: CodeGenerator::LibNvvm };
    let artifact = build(variant, "first")?;
    assert_eq!(artifact.entries.len(), 2);
    assert!(artifact.ptx.contains(".target sm_100"), "{}", artifact.ptx);
    Ok(())
}
