//! What tests of the command share: running it, and a small layer's files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kasmina::kasmina::checkpoint::Checkpoint;
use kasmina::kasmina::files::{Dtype, Tensor, encode};
use kasmina::kasmina::{GraftStates, SeedStates};

pub(crate) fn kasmina<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kasmina")).args(arguments).output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The error of a command that must have been refused.
#[track_caller]
pub(crate) fn refused(output: &Output) -> &str {
    assert_eq!(code(output), 2, "{}", stderr(output));
    let said = stderr(output);
    assert!(said.starts_with("error: "), "{said}");
    said
}

pub(crate) const SEEDS: usize = 6;
pub(crate) const CHUNK: usize = 5;

/// A seed of each kind: dormant, germinated, training, grafting, culled and fossilized.
pub(crate) fn states(chunk_size: usize) -> SeedStates {
    SeedStates {
        lifecycle: vec![0, 1, 2, 3, 8, 7],
        blueprint_id: vec![0, 1, 2, 3, 4, 2],
        alpha: vec![0.0, 0.0, 0.5, 0.25, 0.5, 1.0],
        blueprint_type: vec![0, 1, 4, 3, 2],
        blueprint_weights: (0..5 * chunk_size).map(|i| ((i * 7) % 11) as f32 / 4.0 - 1.0).collect(),
        blueprint_scales: vec![1.0, 0.5, 2.0, -1.5, 0.75],
        chunk_size,
    }
}

/// A checkpoint of [`states`]: the culled seed has an embargo of 3 epochs.
pub(crate) fn checkpoint() -> Checkpoint {
    let mut graft = GraftStates::new(SEEDS);
    graft.embargo_epochs[4] = 3;
    graft.epochs_in_state = vec![9; SEEDS];
    let mut checkpoint = Checkpoint::new(states(CHUNK), graft, 700, 12);
    checkpoint.metadata.extra.insert("run".into(), "seven".into());
    checkpoint
}

/// The tensors of a plain state file.
pub(crate) fn state_file(states: &SeedStates) -> Vec<u8> {
    let (seeds, blueprints) = ([states.num_seeds()], [states.num_blueprints()]);
    let weights = [states.num_blueprints(), states.chunk_size];
    file(&[
        Tensor::of("lifecycle", Dtype::U8, &seeds, &states.lifecycle),
        Tensor::of("blueprint_id", Dtype::U16, &seeds, &states.blueprint_id),
        Tensor::of("alpha", Dtype::F32, &seeds, &states.alpha),
        Tensor::of("blueprint_type", Dtype::U8, &blueprints, &states.blueprint_type),
        Tensor::of("blueprint_weights", Dtype::F32, &weights, &states.blueprint_weights),
        Tensor::of("blueprint_scales", Dtype::F32, &blueprints, &states.blueprint_scales),
    ])
}

pub(crate) fn file(tensors: &[Tensor<'_>]) -> Vec<u8> {
    encode(tensors, &BTreeMap::new()).unwrap()
}

/// A folder of files.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names of what is in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// Runs the command with the words of `line`; one that begins with `@` is a file of the folder.
    pub(crate) fn run(&self, line: &str) -> Output {
        kasmina(line.split_whitespace().map(|word| match word.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => word.into(),
        }))
    }
}
