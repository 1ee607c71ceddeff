//! Stores: files written whole or not at all, the last ones kept, damaged ones passed over.

use super::*;

#[test]
fn a_store_removes_what_a_killed_process_left() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (".kasmina-unfinished-x1y2z3", 2, false),
        (".kasmina-unfinished-nowabc", 0, true),
        (".tmpAbCdEf", 2, true),
        ("kasmina-unfinished-x1y2z3", 2, true),
    ];
    for (name, hours, _) in files {
        let file = fs::File::create(folder.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600 * hours + 60)).unwrap();
    }
    fs::create_dir(folder.path().join(".kasmina-unfinished-folder")).unwrap();
    let store = CheckpointStore::new(folder.path(), 2).unwrap();
    for (name, _, stays) in files {
        assert_eq!(folder.path().join(name).exists(), stays, "{name}");
    }
    assert!(folder.path().join(".kasmina-unfinished-folder").is_dir());
    assert!(store.checkpoints().unwrap().is_empty());
    // What a save is called before it is whole: a process that may write 512 bytes and is killed.
    let bytes = small().to_bytes().unwrap();
    fs::write(folder.path().join("c"), &bytes).unwrap();
    let killed = std::process::Command::new("sh")
        .args(["-c", "ulimit -c 0; ulimit -f 1; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kasmina")])
        .args(["layer", "step", "--device", "cpu", "--state"])
        .arg(folder.path().join("c"))
        .arg("--output")
        .arg(folder.path().join("out"))
        .output()
        .unwrap();
    assert_eq!(killed.status.code(), None, "{killed:?}");
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter_map(|name| name.into_string().ok()).collect();
    let unfinished = left.iter().filter(|name| name.starts_with(".kasmina-unfinished-"));
    // The folder, the file of now, and what the process left.
    assert_eq!(unfinished.count(), 3, "{left:?}");
    assert!(!left.contains(&"out".to_owned()), "{left:?}");
}

fn steps(store: &CheckpointStore) -> Vec<u64> {
    let files = store.checkpoints().unwrap();
    files.iter().map(|path| Checkpoint::load(path).unwrap().metadata.step).collect()
}

#[test]
fn a_store_keeps_the_last_and_leaves_other_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path().join("run/checkpoints"), 3).unwrap();
    assert!(store.recover().unwrap().is_none() && store.latest().unwrap().is_none());
    let inside = folder.path().join("run/checkpoints");
    for other in ["checkpoint-x-step-1.safetensors", "checkpoint-1.safetensors", "notes"] {
        fs::write(inside.join(other), "not ours").unwrap();
    }
    for step in [10, 20, 30, 40, 50] {
        store.save(step, &small()).unwrap();
    }
    assert_eq!(steps(&store), [30, 40, 50]);
    // After a return to step 30 the newest is the last one saved.
    store.save(35, &small()).unwrap();
    assert_eq!(steps(&store), [40, 50, 35]);
    let latest = store.latest().unwrap().unwrap();
    assert!(latest.to_str().unwrap().ends_with("-000006-step-35.safetensors"), "{latest:?}");
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 6);
    assert!(matches!(CheckpointStore::new(&inside, 0), Err(CheckpointError::KeepNone)));
    let file = inside.join("notes");
    assert!(matches!(CheckpointStore::new(file, 1), Err(CheckpointError::Folder { .. })));
}

#[test]
fn recovery_passes_over_damaged_files_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), 4).unwrap();
    let paths: Vec<_> = (1..=4).map(|step| store.save(step, &small()).unwrap()).collect();
    let whole = fs::read(&paths[3]).unwrap();
    fs::write(&paths[3], &whole[..whole.len() - 5]).unwrap();
    let mut flipped = fs::read(&paths[2]).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&paths[2], flipped).unwrap();
    let recovered = store.recover().unwrap().unwrap();
    assert_eq!((recovered.checkpoint.metadata.step, &recovered.path), (2, &paths[1]));
    let [cut, damaged] = &recovered.skipped[..] else { panic!("{:?}", recovered.skipped) };
    assert_eq!((&cut.path, &damaged.path), (&paths[3], &paths[2]));
    assert!(matches!(cut.why, CheckpointError::File(FileError::Truncated { .. })), "{cut}");
    assert!(matches!(damaged.why, CheckpointError::Crc { .. }), "{damaged}");
    for path in &paths[..2] {
        fs::write(path, "").unwrap();
    }
    let why = store.recover().expect_err("no checkpoint is whole");
    let CheckpointError::NoneWhole { skipped, .. } = &why else { panic!("{why}") };
    assert_eq!(skipped.len(), 4);
    assert!(why.to_string().contains("none of 4") && why.to_string().contains("step-1"), "{why}");
}

#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let checkpoint = small();
    let why = checkpoint.save(Path::new("/dev/full")).expect_err("no space");
    assert!(matches!(why, CheckpointError::Write { .. }), "{why}");
    assert!(why.to_string().contains("/dev/full"), "{why}");
    assert!(Path::new("/dev/full").metadata().is_ok_and(|found| !found.is_file()));
    let folder = tempfile::tempdir().unwrap();
    for nowhere in [folder.path().join("no/such/folder/x"), folder.path().to_owned()] {
        let why = checkpoint.save(&nowhere).expect_err("no place for a file");
        assert!(matches!(why, CheckpointError::Write { .. }), "{why}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
