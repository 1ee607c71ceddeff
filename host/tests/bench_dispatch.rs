//! `kasmina bench dispatch` as a program: its document, its picture, what a machine without a GPU lacks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test takes a part of it")]
mod support;

use std::process::Output;

use serde_json::Value;
use support::{Folder, code, kasmina, stderr, stdout};

fn words(line: &str) -> Output {
    kasmina(line.split_whitespace())
}

fn rows(document: &Value) -> Vec<(String, String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = document["rows"].as_array().unwrap();
    rows.iter().map(|row| (text(row, "device"), text(row, "case"), text(row, "way"))).collect()
}

#[test]
fn the_cpu_times_what_it_has_and_says_what_it_lacks() {
    let output = words("bench dispatch --quick --device cpu --json -");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let header = &document["header"];
    assert_eq!((&header["kind"], &header["samples"]), (&"cpu".into(), &50.into()));
    assert!(header["date"].is_string() && header["processor"].is_string());
    let rows = rows(&document);
    let row = |device: &str, case: &str, way: &str| {
        rows.contains(&(device.to_owned(), case.to_owned(), way.to_owned()))
    };
    assert!(row("cpu", "sequence", "calls") && row("cpu", "belief step", "calls"), "{rows:?}");
    assert!(row("simt", "sequence", "launches"), "{rows:?}");
    for part in [
        "not run: sequence, graph: graphs need a GPU",
        "not run: empty item, item: the CPU has no kernels",
        "not run: bare round trip, mapped words: the CPU has no kernels",
        "not run: three domains, items: the CPU has no kernels",
    ] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
}

#[test]
fn the_executor_times_items_and_draws_them() {
    let folder = Folder::new(&[]);
    let line = "bench dispatch --quick --device simt --histogram @svg --json @json";
    let output = folder.run(line);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let document: Value =
        serde_json::from_slice(&std::fs::read(folder.path("json")).unwrap()).unwrap();
    assert_eq!(rows(&document).len(), 9);
    for row in document["rows"].as_array().unwrap() {
        let keys = ["min_us", "p10_us", "median_us", "p90_us", "p99_us", "max_us"];
        let times = keys.map(|key| row[key].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{row}");
        let buckets = row["histogram"].as_array().unwrap();
        let count: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
        assert_eq!(Some(count), row["samples"].as_u64());
        let ends = |key: &str| buckets.iter().map(|b| b[key].as_f64().unwrap()).collect::<Vec<_>>();
        let (from, to) = (ends("from_us"), ends("to_us"));
        assert!(from[0] <= times[0] && times[5] <= *to.last().unwrap(), "{row}");
        assert!(from.is_sorted() && from.iter().zip(&to).all(|(from, to)| from < to), "{row}");
    }
    for part in ["3 for all samples", "bare round trip", "not run: sequence, graph"] {
        assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
    }
    let svg = std::fs::read_to_string(folder.path("svg")).unwrap();
    for part in ["sequence: launches, simt", "three domains: items, simt", "empty item", "µs"] {
        assert!(svg.contains(part), "{part}");
    }
}

#[test]
fn the_other_bench_is_as_it_was() {
    let output = words("bench --quick --device cpu --only whole --json -");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["rows"].as_array().unwrap().iter().all(|row| row["kernel"].is_string()));
    for line in [
        "bench --quick dispatch",
        "bench --only reduce dispatch",
        "bench dispatch --only reduce",
        "bench dispatch --device tpu",
        "bench dispatch --device cpu --quick --histogram /no/such/folder/svg",
        "bench dispatch --device cpu --quick --histogram same --json same",
    ] {
        let output = words(line);
        assert_eq!(code(&output), 2, "{line}: {}", stderr(&output));
    }
}

#[test]
fn cuda_without_a_gpu_ends_with_3() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kasmina"))
        .args(["bench", "dispatch", "--device", "cuda"])
        // Where there is a driver after all, it is to see no GPU.
        .env("KASMINA_LIBCUDA", "/no/such/libcuda.so.1")
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .unwrap();
    assert_eq!(code(&output), 3, "{}", stderr(&output));
}
