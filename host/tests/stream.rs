//! `kasmina stream` as a program: outputs, figures, lines on standard input, refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test takes a part of it")]
mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use half::f16;
use kasmina::kasmina::files::{Dtype, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;
use support::{CHUNK, Folder, SEEDS, code, file, refused, state_file, states, stderr, stdout};

const ROWS: usize = 11;
const COLUMNS: usize = SEEDS * CHUNK;

fn values() -> Vec<f32> {
    (0..ROWS * COLUMNS).map(|i| ((i * 29) % 97) as f32 / 16.0 - 3.0).collect()
}

fn rows_as(name: &str) -> Vec<u8> {
    file(&[Tensor::of(name, Dtype::F32, &[ROWS, COLUMNS], &values())])
}

/// A state, the rows as `x`, and both in one file.
fn folder() -> Folder {
    let states = states(CHUNK);
    let (seeds, blueprints) = ([SEEDS], [states.num_blueprints()]);
    let both = file(&[
        Tensor::of("x", Dtype::F32, &[ROWS, COLUMNS], &values()),
        Tensor::of("lifecycle", Dtype::U8, &seeds, &states.lifecycle),
        Tensor::of("blueprint_id", Dtype::U16, &seeds, &states.blueprint_id),
        Tensor::of("alpha", Dtype::F32, &seeds, &states.alpha),
        Tensor::of("blueprint_type", Dtype::U8, &blueprints, &states.blueprint_type),
        Tensor::of("blueprint_weights", Dtype::F32, &[5, CHUNK], &states.blueprint_weights),
        Tensor::of("blueprint_scales", Dtype::F32, &blueprints, &states.blueprint_scales),
    ]);
    let (state, x, input) = (state_file(&states), rows_as("x"), rows_as("input"));
    Folder::new(&[("state", &state), ("x", &x), ("input", &input), ("both", &both)])
}

fn tensor(folder: &Folder, path: &str, name: &str) -> (Vec<usize>, Vec<u8>) {
    let bytes = std::fs::read(folder.path(path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    (tensor.shape().to_vec(), tensor.data().to_vec())
}

fn report(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {}", stdout(output)))
}

/// Runs the command with `text` on its standard input.
fn with_input(folder: &Folder, line: &str, text: &[u8]) -> Output {
    let words = line.split_whitespace().map(|word| match word.strip_prefix('@') {
        Some(name) => folder.path(name).into_os_string(),
        None => word.into(),
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_kasmina"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that has its answer reads no more.
    let _ = child.stdin.take().unwrap().write_all(text);
    child.wait_with_output().unwrap()
}

fn csv(values: &[f32]) -> String {
    let row = |row: &[f32]| row.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    values.chunks(COLUMNS).map(|r| row(r) + "\n").collect()
}

#[test]
fn a_stream_gives_what_the_layer_gives() {
    let folder = folder();
    for device in ["cpu", "simt"] {
        let line = format!(
            "layer forward --state @state --input @input --output @forward --device {device}"
        );
        assert_eq!(code(&folder.run(&line)), 0);
        let expected = tensor(&folder, "forward", "output");
        for (input, dispatch) in [
            ("--input @both", "auto"),
            ("--input @x --state @state", "launches"),
            ("--input @x --state @state --seeds 6 --chunk 5", "auto"),
        ] {
            let line = format!(
                "stream {input} --batch 4 --output @y --device {device} --dispatch {dispatch} --json -"
            );
            let report = report(&folder.run(&line));
            let y = tensor(&folder, "y", "y");
            assert_eq!(y.0, [ROWS, COLUMNS]);
            assert_eq!(y, expected, "{line}");
            assert_eq!((&report["batches"], &report["rows"]), (&3.into(), &ROWS.into()));
            assert_eq!(
                (&report["device"], &report["dispatch"]["way"]),
                (&device.into(), &"launches".into())
            );
        }
    }
}

#[test]
fn items_of_a_resident_kernel_give_the_same() {
    // Chunks of 16 bytes, which its operation needs.
    let states = states(8);
    let values: Vec<f32> =
        (0..ROWS * SEEDS * 8).map(|i| ((i * 31) % 89) as f32 / 16.0 - 2.0).collect();
    let rows = |name| file(&[Tensor::of(name, Dtype::F32, &[ROWS, SEEDS * 8], &values)]);
    let (state, x, input) = (state_file(&states), rows("x"), rows("input"));
    let folder = Folder::new(&[("state", &state), ("x", &x), ("input", &input)]);
    let line = "layer forward --state @state --input @input --output @forward --device simt";
    assert_eq!(code(&folder.run(line)), 0);
    let line = "stream --input @x --state @state --batch 3 --dispatch persistent --device simt \
                --output @y --json -";
    let report = report(&folder.run(line));
    assert_eq!(tensor(&folder, "y", "y"), tensor(&folder, "forward", "output"));
    let choice = &report["dispatch"];
    assert_eq!((&choice["way"], &choice["operations"]), (&"persistent".into(), &1.into()));
    assert_eq!(choice["reason"], "asked for");
}

#[test]
fn figures_are_of_every_batch() {
    let folder = folder();
    let line = "stream --input @both --batch 2 --batches 40 --repeat --rate 2000 --device cpu \
                --histogram @svg --output @y --json @json";
    let output = folder.run(line);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report: Value =
        serde_json::from_slice(&std::fs::read(folder.path("json")).unwrap()).unwrap();
    assert_eq!((&report["batches"], &report["rows"]), (&40.into(), &80.into()));
    assert_eq!(report["rate_hz"], 2000.0);
    let latency = |name: &str| report["latency_us"][name].as_f64().unwrap();
    let all = ["p50", "p90", "p99", "p99.9", "max"].map(latency);
    assert!(all[0] > 0.0 && all.is_sorted(), "{all:?}");
    let buckets = report["histogram"].as_array().unwrap();
    let counted: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 40);
    let last = buckets.last().unwrap();
    let (from, to) = (last["from_us"].as_f64().unwrap(), last["to_us"].as_f64().unwrap());
    assert!(from <= all[4] && all[4] <= to, "{from} {to} {all:?}");
    // The last batch is not due before 39 of 2000 parts of a second have passed.
    assert!(report["seconds"].as_f64().unwrap() >= 39.0 / 2000.0);
    assert!(report["rows_per_s"].as_f64().unwrap() <= 80.0 * 2000.0 / 39.0);
    assert!(report["misses"].as_u64().unwrap() < 40);
    assert_eq!(report["dispatch"]["way"], "launches");
    let svg = std::fs::read_to_string(folder.path("svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("µs") && svg.contains("<polyline"));
    for part in [
        "p99.9",
        "80 rows in 40 batches of 2",
        "latency from when a batch was due",
        "dispatch: launches",
    ] {
        assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
    }
    // Every batch is a full one: the rows go round.
    let (shape, y) = tensor(&folder, "y", "y");
    assert_eq!(shape, [80, COLUMNS]);
    let row = |row: usize| &y[row * COLUMNS * 4..][..COLUMNS * 4];
    assert!((0..80).all(|i| row(i) == row(i % ROWS)));
}

#[test]
fn a_rate_that_is_too_high_is_seen() {
    let folder = folder();
    let line =
        "stream --input @both --batch 11 --batches 20 --repeat --rate 1e9 --device cpu --json -";
    let report = report(&folder.run(line));
    // All are due at once: every one but the first waits, the longer the later it is.
    assert_eq!(report["misses"], 19);
    let max = &report["latency_us"]["max"];
    let whole = report["seconds"].as_f64().unwrap() * 1e6;
    assert!(max.as_f64().unwrap() >= 0.9 * whole, "{max} of {whole}");
}

#[test]
fn lines_of_standard_input_are_rows() {
    let folder = folder();
    let files = folder.run("stream --input @both --output @expected --device cpu");
    assert_eq!(code(&files), 0, "{}", stderr(&files));
    let line = "stream --input - --state @state --batch 4 --output @y --device cpu --json -";
    let report = report(&with_input(&folder, line, csv(&values()).as_bytes()));
    assert_eq!((&report["batches"], &report["rows"]), (&3.into(), &ROWS.into()));
    assert_eq!((&report["input"], &report["dtype"]), (&"-".into(), &"f32".into()));
    assert_eq!(tensor(&folder, "y", "y"), tensor(&folder, "expected", "y"));
}

#[test]
fn without_a_state_every_seed_is_active() {
    let folder = folder();
    let line = "stream --input - --seeds 6 --chunk 5 --output @y --device cpu --batches 2 --batch 3 --json -";
    let report = report(&with_input(&folder, line, csv(&values()).as_bytes()));
    // No more than was asked for.
    assert_eq!((&report["batches"], &report["rows"]), (&2.into(), &6.into()));
    let (shape, y) = tensor(&folder, "y", "y");
    assert_eq!(shape, [6, COLUMNS]);
    let y: &[f32] =
        &y.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>();
    for (i, (y, x)) in y.iter().zip(values()).enumerate() {
        // y = (1 − α)·x + α·(x + w)
        let (alpha, weight) = (1 + (i % COLUMNS) / CHUNK % 7, (CHUNK + i % CHUNK) % 3);
        let weight = if weight == 0 { -0.25 } else { 0.5 };
        let expected = x + alpha as f32 / 8.0 * weight;
        assert!((y - expected).abs() < 1e-5, "{i}: {y} {expected}");
    }
    // The chunk follows from a file's columns.
    let line = "stream --input @x --seeds 6 --output @of_file --device cpu --batches 2 --batch 3";
    assert_eq!(code(&folder.run(line)), 0);
    assert_eq!(tensor(&folder, "of_file", "y"), tensor(&folder, "y", "y"));
}

#[test]
fn an_input_without_rows_is_no_failure() {
    let folder = folder();
    let line =
        "stream --input - --seeds 2 --chunk 3 --device cpu --output @y --histogram @svg --json -";
    for text in [&b""[..], b"\n\n"] {
        let output = with_input(&folder, line, text);
        let report = report(&output);
        assert_eq!((&report["batches"], &report["rows"]), (&0.into(), &0.into()));
        assert_eq!((&report["latency_us"], &report["rows_per_s"]), (&Value::Null, &Value::Null));
        assert_eq!(tensor(&folder, "y", "y").0, [0, 6]);
        assert!(stderr(&output).contains("no rows came"), "{}", stderr(&output));
    }
    // One that is closed has none either.
    let closed = "exec \"$0\" stream --input - --seeds 2 --chunk 3 --device cpu --json - <&-";
    let output =
        Command::new("sh").args(["-c", closed, env!("CARGO_BIN_EXE_kasmina")]).output().unwrap();
    assert_eq!(report(&output)["rows"], 0);
}

#[test]
fn halves_are_streamed_as_they_are() {
    let halves: Vec<f16> = values().iter().map(|&v| f16::from_f32(v)).collect();
    let x = file(&[Tensor::of("x", Dtype::F16, &[ROWS, COLUMNS], &halves)]);
    let input = file(&[Tensor::of("input", Dtype::F16, &[ROWS, COLUMNS], &halves)]);
    let state = state_file(&states(CHUNK));
    let folder = Folder::new(&[("state", &state), ("x", &x), ("input", &input)]);
    let line = "layer forward --state @state --input @input --output @forward --device cpu";
    assert_eq!(code(&folder.run(line)), 0);
    let report = report(
        &folder.run("stream --state @state --input @x --batch 5 --output @y --device cpu --json -"),
    );
    assert_eq!(report["dtype"], "f16");
    assert_eq!(tensor(&folder, "y", "y"), tensor(&folder, "forward", "output"));
}

#[test]
fn bad_lines_are_refused_with_their_number_and_leave_nothing() {
    let folder = folder();
    let before = folder.names();
    let good = csv(&values());
    let line = "stream --input - --state @state --batch 2 --output @y --histogram @svg --json @json --device cpu";
    for (bad, said) in [
        ("1,2,3\n", "line 12: 3 numbers, expected 30"),
        ("x\n", "line 12: 1 numbers, expected 30"),
        (&csv(&values()[..COLUMNS]).replacen("-3,", "none,", 1), "line 12, column 1: `none`"),
    ] {
        let output = with_input(&folder, line, format!("{good}{bad}").as_bytes());
        assert!(refused(&output).contains(said), "{}", stderr(&output));
        assert_eq!(folder.names(), before);
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = folder();
    let before = folder.names();
    for (line, said) in [
        ("--input @x", "has no state of a layer; give --state FILE, or --seeds N"),
        ("--input @x --seeds 7", "30 columns are no multiple of --seeds 7"),
        ("--input @x --seeds 6 --chunk 4", "`x`"),
        ("--input @input --seeds 6", "`x` is missing"),
        ("--input @both --seeds 5", "its state has 6, not --seeds 5"),
        ("--input @both --state @x", "`lifecycle` is missing"),
        ("--input @nowhere", "cannot read"),
        ("--input -", "standard input needs --state FILE, or --seeds N and --chunk N"),
        ("--input - --seeds 3", "standard input needs"),
        ("--input - --seeds 3 --chunk 2 --repeat --batches 3", "standard input comes once"),
        ("--input - --seeds 4294967296 --chunk 4294967296", "more than"),
        ("--input @both --batch 2147483648", "take fewer"),
        ("--input @both --rate -1", "--rate -1"),
        ("--input @both --rate=-1", "--rate -1"),
        ("--input @both --rate nan", "--rate NaN"),
        ("--input @both --rate 1e-9", "--rate"),
        ("--input @both --repeat", "--batches"),
        ("--input @both --batch 0", "--batch"),
        ("--input @both --dispatch graph --device cpu", "--dispatch graph needs a GPU"),
        ("--input @both --dispatch graph --device simt", "--dispatch graph needs a GPU"),
        ("--input @both --dispatch persistent --device cpu", "needs a GPU or the executor"),
        ("--input @both --dispatch persistent --device simt", "is not among the operations"),
        ("--input @both --output @both", "is the input"),
        ("--input @x --state @state --output @state", "is the input"),
        ("--input @both --output @y --histogram @y", "is the file of --output, too"),
        ("--input @both --output @y --json @y", "is the file of --json, too"),
        ("--input @both --output /no/such/folder/y", "the folder does not exist"),
    ] {
        let output = folder.run(
            &format!("stream --device cpu {line}")
                .replace("--device cpu --input @both --dispatch", "--input @both --dispatch"),
        );
        assert_eq!(code(&output), 2, "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{line}: {}", stderr(&output));
        assert_eq!(folder.names(), before, "{line}");
    }
}
