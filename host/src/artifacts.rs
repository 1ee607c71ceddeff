//! The PTX that this build carries, and the choice among it.

use std::io::Read;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

pub use kasmina_kernel_builder::manifest::{ArtifactRecord, EntryRecord, Manifest};

use crate::driver::{ComputeCapability, PtxVersion};

/// A module of every kernel for one target.
#[derive(Debug)]
pub struct Artifact {
    /// What the manifest says of it.
    pub record: ArtifactRecord,
    /// The text, compressed as it is versioned: it is twenty times as long.
    packed: &'static [u8],
    text: OnceLock<Text>,
}

/// A module's text, and where its entries are in it, one after the other.
#[derive(Debug)]
struct Text {
    ptx: String,
    entries: Vec<Range<usize>>,
}

const MANIFEST_JSON: &str = include_str!("../../gpu-kernels/ptx/manifest.json");

macro_rules! carried {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_bytes!(concat!("../../gpu-kernels/ptx/", $file, ".gz")) as &[u8])),*]
    };
}

/// The files of this build.
const CARRIED: &[(&str, &[u8])] = carried![
    "kasmina_sm_70.ptx",
    "kasmina_sm_80.ptx",
    "kasmina_sm_90a.ptx",
    "kasmina_sm_100.ptx",
    "kasmina_sm_100_nvvm.ptx",
];

/// How the line begins that an entry begins with.
const BEGIN: &str = ".visible .entry ";

impl Text {
    fn new(ptx: String) -> Self {
        let mut entries = Vec::new();
        // Inline assembly may have a closing brace alone on its line as well.
        let (mut from, mut depth, mut at) = (None, 0, 0);
        for line in ptx.split_inclusive('\n') {
            if line.starts_with(BEGIN) {
                from = Some(at);
            }
            at += line.len();
            let braces = |brace| line.matches(brace).count();
            depth += braces('{');
            depth -= braces('}');
            if depth == 0
                && line.trim_end() == "}"
                && let Some(from) = from.take()
            {
                entries.push(from..at);
            }
        }
        Self { ptx, entries }
    }

    /// Which entry has the name.
    fn position(&self, entry: &str) -> Option<usize> {
        self.entries.iter().position(|range| {
            let rest = self.ptx[range.clone()].strip_prefix(BEGIN);
            rest.and_then(|rest| rest.split('(').next()) == Some(entry)
        })
    }
}

impl Artifact {
    /// The text, unpacked when it is first asked for.
    pub fn ptx(&self) -> &str {
        &self.text().ptx
    }

    fn text(&self) -> &Text {
        self.text.get_or_init(|| {
            let mut text = String::new();
            flate2::read::GzDecoder::new(self.packed)
                .read_to_string(&mut text)
                .expect("the carried files are tested to unpack");
            Text::new(text)
        })
    }

    /// A module of one kernel: the text without the other entries. The driver compiles what it loads,
    /// and compiling every kernel takes many seconds where one takes a fraction of one.
    pub fn module_of(&self, entry: &str) -> Option<String> {
        let text = self.text();
        let wanted = text.position(entry)?;
        let (mut module, mut at) = (String::new(), 0);
        for (number, range) in text.entries.iter().enumerate() {
            module.push_str(&text.ptx[at..range.start]);
            if number == wanted {
                module.push_str(&text.ptx[range.clone()]);
            }
            at = range.end;
        }
        module.push_str(&text.ptx[at..]);
        Some(module)
    }

    /// The text of an entry, from its linkage to its closing brace.
    pub fn entry_text(&self, entry: &str) -> Option<String> {
        let text = self.text();
        let range = text.entries[text.position(entry)?].clone();
        Some(text.ptx[range].trim_end().to_owned())
    }
}

static MANIFEST: LazyLock<Manifest> =
    LazyLock::new(|| serde_json::from_str(MANIFEST_JSON).expect("the manifest is tested to parse"));

static ARTIFACTS: LazyLock<Vec<Artifact>> = LazyLock::new(|| {
    let find = |record: &ArtifactRecord| {
        let &(_, packed) = CARRIED.iter().find(|(file, _)| *file == record.file)?;
        Some(Artifact { record: record.clone(), packed, text: OnceLock::new() })
    };
    MANIFEST.artifacts.iter().filter_map(find).collect()
});

/// The manifest.
pub fn manifest() -> &'static Manifest {
    &MANIFEST
}

/// Every artifact of this build.
pub fn all() -> &'static [Artifact] {
    &ARTIFACTS
}

/// The artifacts that a GPU and its driver accept, the best first: the newest target, and for one
/// target libNVVM's code before LLVM's.
pub fn candidates(capability: ComputeCapability, newest: PtxVersion) -> Vec<&'static Artifact> {
    let mut accepted: Vec<_> = all().iter().filter(|a| a.runs_on(capability, newest)).collect();
    accepted.sort_by_key(|a| (a.record.capability, a.record.generator == "libnvvm"));
    accepted.reverse();
    accepted
}

impl Artifact {
    /// Whether the GPU can run it and the driver can read it. A target ending in `a` is for its own
    /// capability alone.
    fn runs_on(&self, gpu: ComputeCapability, newest: PtxVersion) -> bool {
        let ArtifactRecord { target, capability, ptx_version, .. } = &self.record;
        let gpu = gpu.major * 10 + gpu.minor;
        let fits = if target.ends_with('a') { gpu == *capability } else { gpu >= *capability };
        let ptx = ptx_version.split_once('.').and_then(|(major, minor)| {
            Some(PtxVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        fits && ptx.is_some_and(|ptx| ptx <= newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasmina_types::tiles::{OLDEST_CAPABILITY, TILES, Tile};

    /// The kernels that an artifact has: all but those that its target is too old for.
    fn tiles_of(artifact: &Artifact) -> Vec<&'static Tile> {
        TILES.iter().filter(|tile| tile.runs_on(artifact.record.capability)).collect()
    }

    fn chosen(major: u32, minor: u32, ptx: (u32, u32)) -> Option<&'static str> {
        let newest = PtxVersion { major: ptx.0, minor: ptx.1 };
        let best = candidates(ComputeCapability { major, minor }, newest).first().copied()?;
        Some(&best.record.file)
    }

    #[test]
    fn every_file_is_in_the_manifest_with_every_kernel_that_its_target_can_run() {
        assert_eq!(all().len(), CARRIED.len());
        for artifact in all() {
            let expected = tiles_of(artifact);
            for tile in &expected {
                let entry = artifact.record.entries.iter().find(|entry| entry.name == tile.entry);
                let entry =
                    entry.unwrap_or_else(|| panic!("{}: {}", artifact.record.file, tile.entry));
                assert_eq!(entry.block, tile.block_threads);
                let declared = entry.arch.as_deref().map_or(OLDEST_CAPABILITY, |arch| {
                    arch.trim_end_matches('a').parse().expect("an architecture is a number")
                });
                assert_eq!(declared, tile.min_capability, "{}", tile.entry);
                assert!(artifact.ptx().contains(&format!(".entry {}(", tile.entry)));
            }
            assert_eq!(artifact.record.entries.len(), expected.len());
        }
    }

    #[test]
    fn a_module_of_one_kernel_has_that_kernel_alone_and_all_that_is_declared() {
        for artifact in all() {
            for tile in tiles_of(artifact) {
                let module = artifact.module_of(tile.entry).expect("an entry of the table");
                assert_eq!(module.matches(".visible .entry ").count(), 1);
                assert!(module.contains(&format!(".entry {}(", tile.entry)));
                for declaration in [".version ", ".target ", ".extern .shared "] {
                    assert!(
                        module.contains(declaration),
                        "{}: {declaration}",
                        artifact.record.file
                    );
                }
                let braces = |brace| module.matches(brace).count();
                assert_eq!(braces("{"), braces("}"));
                let text = artifact.entry_text(tile.entry).expect("an entry of the table");
                assert!(text.starts_with(".visible .entry ") && text.ends_with("\n}"));
            }
            assert_eq!(artifact.module_of("no_such_kernel"), None);
        }
    }

    #[test]
    fn the_best_that_gpu_and_driver_accept_is_taken() {
        assert_eq!(chosen(9, 0, (9, 0)), Some("kasmina_sm_90a.ptx"));
        assert_eq!(chosen(8, 6, (9, 0)), Some("kasmina_sm_80.ptx"));
        assert_eq!(chosen(7, 0, (8, 0)), Some("kasmina_sm_70.ptx"));
        assert_eq!(
            chosen(10, 0, (9, 0)),
            Some("kasmina_sm_100.ptx"),
            "the driver is too old for libNVVM's"
        );
        assert_eq!(chosen(10, 0, (9, 5)), Some("kasmina_sm_100_nvvm.ptx"));
        assert_eq!(chosen(12, 0, (9, 0)), Some("kasmina_sm_100.ptx"), "sm_90a is for 9.0 alone");
        assert_eq!(chosen(6, 1, (9, 0)), None);
        assert_eq!(chosen(9, 0, (5, 0)), None);
    }
}
