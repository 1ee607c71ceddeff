//! The list of trampolines against the declarations of `cust_raw`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_symbol_of_cust_raw_is_defined() {
    let declared = declared(&fs::read_to_string(cust_raw_source()).unwrap());
    let listed =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/symbols.rs")).unwrap();
    let listed = listed.split_once("\ntrampolines! {").unwrap().1;
    // `cuInit` is the one that is written out, as it loads the driver.
    let listed: BTreeSet<&str> =
        listed.split_whitespace().filter(|word| word.starts_with("cu")).chain(["cuInit"]).collect();
    assert!(declared.len() > 300, "the bindings were not understood: {} functions", declared.len());
    let listed: BTreeSet<String> = listed.into_iter().map(str::to_owned).collect();
    assert_eq!(listed, declared);
}

fn declared(bindings: &str) -> BTreeSet<String> {
    let after = bindings.split("pub fn ").skip(1);
    after
        .map(|text| text.split('(').next().unwrap_or(text).to_owned())
        .filter(|name| name.starts_with("cu"))
        .collect()
}

/// The bindings that this test was built with: cargo leaves the list of a crate's sources beside what it compiled.
fn cust_raw_source() -> PathBuf {
    let executable = std::env::current_exe().expect("Linux names it");
    let folder = executable.parent().expect("an executable lies in a folder");
    let lists = fs::read_dir(folder)
        .expect("the folder of this test")
        .filter_map(|entry| Some(entry.ok()?.path()));
    let sources = lists
        .filter(|path| path.extension().is_some_and(|extension| extension == "d"))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cust_raw-"))
        })
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect::<String>();
    // Each source has a line of its own, with a colon after it and its spaces escaped.
    let source = sources.lines().find_map(|line| line.strip_suffix("cuda.rs:"));
    let source =
        source.unwrap_or_else(|| panic!("no list in {} names the bindings", folder.display()));
    PathBuf::from(source.replace("\\ ", " ")).join("cuda.rs")
}
