//! What a build needs and what is there of it.

use crate::compiler::Compiler;
use crate::nvvm::Nvvm;
use crate::ptxas::Ptxas;
use crate::sources::cargo_program;
use crate::target::Target;
use crate::tools;

/// One thing that a build uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What was looked for.
    pub item: &'static str,
    /// What came of it.
    pub finding: Finding,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there: version and place.
    Found(String),
    /// It is missing: how to get it.
    Missing(String),
}

/// Looks for the compiler, cargo, Python, ptxas for new and for old targets, and libNVVM.
pub fn probe() -> Vec<Probe> {
    vec![
        Probe { item: "compiler", finding: compiler() },
        Probe { item: "cargo", finding: cargo() },
        Probe { item: "python3", finding: python() },
        Probe { item: "ptxas", finding: ptxas(Target::Sm100) },
        Probe { item: "ptxas (sm_70)", finding: ptxas(Target::Sm70) },
        Probe { item: "libNVVM", finding: nvvm() },
    ]
}

fn compiler() -> Finding {
    match Compiler::find() {
        Ok(found) => Finding::Found(format!(
            "rustc {} (LLVM {}) with the source of `core`: {}",
            found.version,
            found.llvm,
            found.rustc.display()
        )),
        Err(error) => Finding::Missing(error.to_string()),
    }
}

fn cargo() -> Finding {
    let program = cargo_program();
    match std::process::Command::new(&program).arg("--version").output() {
        Ok(answer) => Finding::Found(String::from_utf8_lossy(&answer.stdout).trim().to_owned()),
        Err(error) => Finding::Missing(format!("{}: {error}; install rustup", program.display())),
    }
}

fn python() -> Finding {
    match tools::python_version() {
        Some(version) => Finding::Found(version),
        None => Finding::Missing("only needed to find NVIDIA's wheels: install python3".into()),
    }
}

fn ptxas(target: Target) -> Finding {
    match Ptxas::find(target) {
        Ok(found) => {
            let (major, minor) = found.release;
            Finding::Found(format!("release {major}.{minor}: {}", found.program.display()))
        }
        Err(error) => Finding::Missing(error.to_string()),
    }
}

fn nvvm() -> Finding {
    let found = Nvvm::find().and_then(|nvvm| Ok((nvvm.llvm_version(Target::Sm100)?, nvvm)));
    match found {
        Ok((version, nvvm)) => {
            Finding::Found(format!("takes LLVM {version} IR: {}", nvvm.path().display()))
        }
        Err(error) => Finding::Missing(error.to_string()),
    }
}
