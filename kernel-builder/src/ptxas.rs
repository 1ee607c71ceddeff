//! ptxas: assembles an artifact as the driver will, and reports what each entry uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::PtxasError;
use crate::ptx::Module;
use crate::target::Target;
use crate::tools;

const VARIABLE: &str = "KASMINA_PTXAS";
/// ptxas 13 begins at sm_75, so sm_70 may need a second one.
const VARIABLE_SM70: &str = "KASMINA_PTXAS_SM70";

/// A ptxas that knows a target.
#[derive(Clone, Debug)]
pub struct Ptxas {
    /// The program.
    pub program: PathBuf,
    /// Its release, such as `(13, 5)`.
    pub release: (u32, u32),
}

/// What ptxas says of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PtxasReport {
    /// Usage by entry.
    pub entries: BTreeMap<String, EntryUsage>,
    /// Warnings, such as a serialised wgmma (C7510 and the like).
    pub warnings: Vec<String>,
}

/// What one entry uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryUsage {
    /// 32-bit registers of a thread.
    pub registers: u32,
    /// Bytes that a thread stores to spill registers.
    pub spill_store_bytes: u32,
    /// Bytes that a thread loads back.
    pub spill_load_bytes: u32,
    /// Bytes of a thread's stack frame.
    pub stack_bytes: u32,
    /// Bytes of static shared memory of a block.
    pub shared_bytes: u32,
    /// Hardware barriers of a block.
    pub barriers: u32,
}

impl Ptxas {
    /// The newest ptxas that knows `target`; a variable's choice comes first.
    ///
    /// # Errors
    /// [`PtxasError::NotFound`] lists the candidates and what to install.
    pub fn find(target: Target) -> Result<Ptxas, PtxasError> {
        let is_old = target == Target::Sm70;
        let named = is_old
            .then(|| tools::from_variable(VARIABLE_SM70))
            .flatten()
            .into_iter()
            .chain(tools::from_variable(VARIABLE));
        let in_wheels = tools::wheel_folders().iter().map(|folder| folder.join("bin/ptxas"));
        let searched =
            tools::programs("ptxas").into_iter().chain(in_wheels.filter(|f| f.is_file()));

        let mut tried = Vec::new();
        let mut usable = |program: PathBuf| {
            let release = tools::cuda_release(&program)?;
            tried.push(format!("{} {}.{}", program.display(), release.0, release.1));
            let (first, end) = target.ptxas_releases();
            let known = release >= first && end.is_none_or(|end| release < end);
            known.then_some(Ptxas { program, release })
        };
        let chosen = named.filter_map(&mut usable).next();
        let found =
            chosen.or_else(|| searched.filter_map(&mut usable).max_by_key(|ptxas| ptxas.release));
        found.ok_or_else(|| PtxasError::NotFound {
            target,
            tried: if tried.is_empty() { "none at all".into() } else { tried.join(", ") },
            wheel: if is_old { "nvidia-cuda-nvcc-cu12" } else { "nvidia-cuda-nvcc" },
            variable: if is_old { VARIABLE_SM70 } else { VARIABLE },
        })
    }

    /// Assembles a module and reads the report.
    ///
    /// # Errors
    /// If ptxas does not run, refuses the PTX, or leaves out an entry.
    pub fn assemble(&self, ptx: &str, target: Target) -> Result<PtxasReport, PtxasError> {
        let run = |source| PtxasError::Run { ptxas: self.program.clone(), source };
        let folder = tempfile::tempdir().map_err(run)?;
        let input = folder.path().join("module.ptx");
        fs::write(&input, ptx).map_err(run)?;
        let report = self.report(&input, target)?;
        let module = Module::parse(ptx)?;
        match module.entries().find(|entry| !report.entries.contains_key(entry.name)) {
            Some(entry) => Err(PtxasError::NoReport {
                ptxas: self.program.clone(),
                entry: entry.name.to_owned(),
            }),
            None => Ok(report),
        }
    }

    fn report(&self, input: &Path, target: Target) -> Result<PtxasReport, PtxasError> {
        let output = Command::new(&self.program)
            .args(["-v", "--gpu-name", target.name(), "-o"])
            .arg(input.with_extension("cubin"))
            .arg(input)
            .output()
            .map_err(|source| PtxasError::Run { ptxas: self.program.clone(), source })?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(PtxasError::Refused {
                ptxas: self.program.clone(),
                stderr: text.trim().to_owned(),
            });
        }
        Ok(parse(&text))
    }
}

impl EntryUsage {
    /// Spilled bytes, stored and loaded.
    pub fn spill_bytes(&self) -> u32 {
        self.spill_store_bytes + self.spill_load_bytes
    }
}

fn parse(text: &str) -> PtxasReport {
    let mut report = PtxasReport::default();
    let mut entry = None;
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            entry = rest.split('\'').next().map(str::to_owned);
        } else if line.starts_with("ptxas warning") || is_wgmma_advice(line) {
            report.warnings.push(line.trim().to_owned());
        } else if let Some(name) = &entry {
            let usage = report.entries.entry(name.clone()).or_default();
            for part in line.split("Used ").last().unwrap_or(line).split(',') {
                usage.read(part.trim());
            }
        }
    }
    report
}

/// ptxas tells of serialised wgmma, and of a setmaxnreg that it ignores, as information, with the numbers C7508 to C7519.
fn is_wgmma_advice(line: &str) -> bool {
    (7508..=7519).any(|number| line.contains(&format!("(C{number})")))
}

impl EntryUsage {
    /// Reads one part of a report line, such as `16 registers` or `used 1 barriers`.
    fn read(&mut self, part: &str) {
        let part = part.trim_start_matches("used ");
        let Some((number, what)) = part.split_once(' ') else { return };
        let Ok(number) = number.parse::<u32>() else { return };
        let field = match what.trim() {
            "registers" => &mut self.registers,
            "barriers" => &mut self.barriers,
            "bytes smem" => &mut self.shared_bytes,
            "bytes stack frame" => &mut self.stack_bytes,
            "bytes spill stores" => &mut self.spill_store_bytes,
            "bytes spill loads" => &mut self.spill_load_bytes,
            _ => return,
        };
        *field = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_two_entries() {
        let text = "\
ptxas info    : 0 bytes gmem
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas info    : (C7519) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas info    : Compiling entry function 'saxpy' for 'sm_80'
ptxas info    : Function properties for saxpy
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 380 bytes cmem[0]
ptxas info    : Compiling entry function 'row_sum' for 'sm_80'
ptxas info    : Function properties for row_sum
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 1 barriers, 4 bytes smem, 372 bytes cmem[0]
";
        let report = parse(text);
        assert_eq!(report.warnings.len(), 2);
        let saxpy = report.entries["saxpy"];
        assert_eq!((saxpy.registers, saxpy.stack_bytes, saxpy.spill_bytes()), (10, 16, 20));
        let row_sum = report.entries["row_sum"];
        assert_eq!((row_sum.registers, row_sum.barriers, row_sum.shared_bytes), (16, 1, 4));
    }
}
