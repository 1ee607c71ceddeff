//! Turns the comments that `#[kernel(…)]` leaves in the PTX into performance directives.
//!
//! rustc has no attribute for `.maxntid` and its like, but comments of a `global_asm!` reach the PTX. The
//! form is exact: `// kasmina.kernel <entry> maxntid=<n> minnctapersm=<n> [cluster=<x>,<y>,<z>]
//! [arch=<architecture>] [spills]`.

use std::collections::BTreeMap;

use crate::error::PtxError;
use crate::ptx::Module;
use crate::target::Target;

const PREFIX: &str = "// kasmina.kernel ";

/// What one kernel declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchBounds {
    /// Threads of a block: its exact width, which `.maxntid` promises not to exceed.
    pub block: u32,
    /// Blocks that an SM shall hold at least; ptxas limits registers for it.
    pub min_blocks: u32,
    /// Blocks of a cluster, where the target has clusters.
    pub cluster: Option<[u32; 3]>,
    /// The architecture that the kernel needs: `90` for compute capability 9.0 and newer, `90a` for that one
    /// alone; `None` for any.
    pub arch: Option<String>,
    /// The kernel declares that it may spill registers or use local memory.
    pub may_spill: bool,
}

impl LaunchBounds {
    /// Whether `target` has the architecture that the kernel needs.
    pub fn runs_on(&self, target: Target) -> bool {
        match &self.arch {
            None => true,
            Some(arch) if arch.ends_with('a') => target.name() == format!("sm_{arch}"),
            Some(arch) => arch.parse().is_ok_and(|least: u32| target.capability() >= least),
        }
    }

    fn directives(&self, target: Target) -> String {
        let mut text =
            format!(".maxntid {}, 1, 1\n.minnctapersm {}\n", self.block, self.min_blocks);
        if let (Some([x, y, z]), 90..) = (self.cluster, target.capability()) {
            text.push_str(&format!(".reqnctapercluster {x}, {y}, {z}\n"));
        }
        text
    }
}

/// Inserts each entry's directives after its parameter list and removes the markers.
///
/// # Errors
/// If a marker does not parse, or if markers and entries do not correspond one to one.
pub fn apply(
    ptx: &str,
    target: Target,
) -> Result<(String, BTreeMap<String, LaunchBounds>), PtxError> {
    let mut bounds = BTreeMap::new();
    for (index, line) in ptx.lines().enumerate() {
        let Some(marker) = line.trim().strip_prefix(PREFIX) else { continue };
        let (entry, declared) = parse(marker)
            .ok_or_else(|| PtxError::BadMarker { line: index + 1, text: line.trim().to_owned() })?;
        if !declared.runs_on(target) {
            let arch = declared.arch.unwrap_or_default();
            return Err(PtxError::Architecture { entry, arch, target });
        }
        if bounds.insert(entry.clone(), declared).is_some() {
            return Err(PtxError::DuplicateMarker { entry });
        }
    }
    let module = Module::parse(ptx)?;
    let mut at_line = BTreeMap::new();
    for entry in module.entries() {
        let declared = bounds
            .get(entry.name)
            .ok_or_else(|| PtxError::EntryWithoutMarker { entry: entry.name.to_owned() })?;
        at_line.insert(entry.body_start, declared);
    }
    if at_line.is_empty() {
        return Err(PtxError::NoEntry);
    }
    if let Some(entry) = bounds.keys().find(|name| !module.entries().any(|e| e.name == **name)) {
        return Err(PtxError::MarkerWithoutEntry { entry: entry.clone() });
    }
    let mut text = String::with_capacity(ptx.len());
    for (index, line) in ptx.lines().enumerate() {
        if line.trim().starts_with(PREFIX) {
            continue;
        }
        if let Some(declared) = at_line.get(&index) {
            text.push_str(&declared.directives(target));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok((text, bounds))
}

fn parse(marker: &str) -> Option<(String, LaunchBounds)> {
    let mut words = marker.split_whitespace();
    let entry = words.next()?.to_owned();
    let block = words.next()?.strip_prefix("maxntid=")?.parse().ok()?;
    let min_blocks = words.next()?.strip_prefix("minnctapersm=")?.parse().ok()?;
    let mut bounds =
        LaunchBounds { block, min_blocks, cluster: None, arch: None, may_spill: false };
    for word in words {
        if let Some(list) = word.strip_prefix("cluster=") {
            let blocks: Vec<u32> =
                list.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
            bounds.cluster = Some(blocks.try_into().ok()?);
        } else if let Some(arch) = word.strip_prefix("arch=") {
            bounds.arch = Some(arch.to_owned());
        } else if word == "spills" {
            bounds.may_spill = true;
        } else {
            return None;
        }
    }
    Some((entry, bounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = ".version 8.0\n.target sm_90a\n// kasmina.kernel k maxntid=256 minnctapersm=4 \
                        cluster=2,1,1 spills\n.visible .entry k(\n\t.param .u32 k_param_0\n)\n{\n\tret;\n}\n";

    #[test]
    fn directives_stand_between_the_parameters_and_the_body() {
        let (text, bounds) = apply(BODY, Target::Sm90a).unwrap();
        assert_eq!(
            text,
            ".version 8.0\n.target sm_90a\n.visible .entry k(\n\t.param .u32 k_param_0\n)\n.maxntid 256, 1, \
             1\n.minnctapersm 4\n.reqnctapercluster 2, 1, 1\n{\n\tret;\n}\n"
        );
        assert!(bounds["k"].may_spill);
    }

    #[test]
    fn clusters_are_left_out_where_the_target_has_none() {
        let (text, _) = apply(BODY, Target::Sm80).unwrap();
        assert!(text.contains(".maxntid") && !text.contains("cluster"), "{text}");
    }

    #[test]
    fn markers_and_entries_correspond() {
        let without = BODY.replace("// kasmina.kernel k", "// kasmina.kernel other");
        let missing = PtxError::EntryWithoutMarker { entry: "k".into() };
        assert_eq!(apply(&without, Target::Sm80).unwrap_err(), missing);

        let twice = format!("{BODY}// kasmina.kernel k maxntid=1 minnctapersm=1\n");
        let duplicate = PtxError::DuplicateMarker { entry: "k".into() };
        assert_eq!(apply(&twice, Target::Sm80).unwrap_err(), duplicate);

        let extra = format!("{BODY}// kasmina.kernel gone maxntid=1 minnctapersm=1\n");
        let orphan = PtxError::MarkerWithoutEntry { entry: "gone".into() };
        assert_eq!(apply(&extra, Target::Sm80).unwrap_err(), orphan);
    }

    #[test]
    fn a_kernel_is_refused_where_its_architecture_is_missing() {
        for (arch, runs_on) in [
            ("90", vec![Target::Sm90a, Target::Sm100, Target::Sm120]),
            ("90a", vec![Target::Sm90a]),
            ("100", vec![Target::Sm100, Target::Sm120]),
        ] {
            let text = BODY.replace(" spills", &format!(" arch={arch} spills"));
            for target in Target::ALL {
                let applied = apply(&text, target);
                if runs_on.contains(&target) {
                    assert_eq!(applied.unwrap().1["k"].arch.as_deref(), Some(arch));
                } else {
                    let entry = "k".into();
                    let expected = PtxError::Architecture { entry, arch: arch.into(), target };
                    assert_eq!(applied.unwrap_err(), expected);
                }
            }
        }
    }

    #[test]
    fn a_marker_of_another_form_is_refused() {
        for bad in
            ["maxntid=x minnctapersm=1", "maxntid=1", "maxntid=1 minnctapersm=1 cluster=1,2", "a b"]
        {
            let text = format!("// kasmina.kernel k {bad}\n");
            let error = apply(&text, Target::Sm80).unwrap_err();
            assert!(matches!(error, PtxError::BadMarker { line: 1, .. }), "{bad}: {error}");
        }
    }
}
