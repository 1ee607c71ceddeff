//! The `kasmina` command as a program: exit codes, JSON, files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use half::{bf16, f16};
use kasmina_reference::kasmina as reference;
use kasmina_reference::numeric::{Dtype as Stored, Tolerance, compare};
use ndarray::{Array2, ArrayView2};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn kasmina<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kasmina")).args(arguments).output().unwrap()
}

fn words(line: &str) -> Output {
    kasmina(line.split_whitespace())
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| {
        panic!("{why}: {}\n{}", stdout(output), stderr(output));
    })
}

#[test]
fn the_main_job_passes_every_row() {
    let output = words("--device cpu --json -");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report = json(&output);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(report["device"], "cpu");
    // The copy engine's kernels are nothing that the CPU has, nor does it sample what it computes in f64 at once.
    let (lacking, rows): (Vec<_>, Vec<_>) = rows.iter().partition(|row| {
        let kernel = row["kernel"].as_str().unwrap();
        kernel.contains("_tma") || kernel == "linear_sample"
    });
    assert!(lacking.len() == 10 && lacking.iter().all(|row| row["status"] == "skipped"));
    assert!(rows.len() >= 48, "{}", rows.len());
    for row in &rows {
        assert_eq!(row["status"], "pass", "{row}");
        assert_eq!(row["cases"], 4, "{row}");
        assert!(row["max_rel_error"].as_f64() <= row["tolerance"].as_f64(), "{row}");
        assert!(row["time_us"].as_f64() > Some(0.0) && row["gb_per_s"].as_f64() > Some(0.0));
    }
    let summary = format!("{} passed, 0 failed, 10 skipped", rows.len());
    assert!(stderr(&output).contains(&summary), "{}", stderr(&output));
}

#[test]
fn a_check_has_the_documented_shape_and_repeats() {
    let run = || words("check --device simt --only reduce_variance --seed 7 --json -");
    let output = run();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("--seed 7"));
    let report = json(&output);
    assert_eq!(report, json(&run()));
    assert_eq!(report["device"], "simt");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        let mut keys: Vec<_> = row.as_object().unwrap().keys().collect();
        keys.sort_unstable();
        let expected =
            ["cases", "device", "dtype", "kernel", "max_rel_error", "status", "tolerance"];
        assert_eq!(keys, expected);
        assert_eq!(row["kernel"], "reduce_variance");
    }
    let other = words("check --device simt --only reduce_variance --seed 8 --json -");
    assert_ne!(report, json(&other));
}

#[test]
fn json_goes_to_a_file_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let output = kasmina([
        "check",
        "--device",
        "cpu",
        "--only",
        "sum_i32",
        "--json",
        path.to_str().unwrap(),
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(report["rows"][0]["tolerance"], 0.0);
    assert!(stdout(&output).contains("reduce_sum"));
}

/// A pattern by itself is the same as an option, beside other options and before `dispatch`.
#[test]
fn a_bench_takes_the_names_of_cases() {
    let names = |line: &str| -> Vec<String> {
        let output = words(line);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let rows = json(&output)["rows"].as_array().unwrap().clone();
        let field = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows.iter().map(|row| field(row, "kernel") + " " + &field(row, "variant")).collect()
    };
    let linear = names("bench linear --quick --device cpu --json -");
    assert_eq!(linear, names("bench --only linear --device cpu --quick --json -"));
    assert!(linear.contains(&"linear fp8".into()), "{linear:?}");
    let both = names("bench linear reduce_max --device cpu --quick --json -");
    assert_eq!(both.len(), linear.len() + 1, "{both:?}");
    let none = words("bench products --device cpu --quick");
    assert_eq!(code(&none), 2);
    assert!(stderr(&none).contains("no case has `products`"), "{}", stderr(&none));
}

#[test]
fn wrong_usage_ends_with_2_and_says_why() {
    for (line, why) in [
        ("check --only no_such_kernel", "blend_forward f32"),
        ("check --device tpu", "possible values"),
        ("check --seed minus", "--seed"),
        ("inspect blend_forward_f32_v61", "`blend_forward_f32_v16`"),
        ("frobnicate", "unrecognized"),
        ("check --device cpu --only sum_i32 --json /no/such/folder/report.json", "/no/such/folder"),
        (
            "layer forward --state /no/such --input /no/such --output no_such",
            "cannot read /no/such",
        ),
    ] {
        let output = words(line);
        assert_eq!(code(&output), 2, "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains("error: "), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{line}: {}", stderr(&output));
    }
}

#[test]
fn cuda_without_a_gpu_ends_with_3_and_says_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_kasmina"))
        .args(["check", "--device", "cuda"])
        // Where there is a driver after all, it is to see no GPU.
        .env("KASMINA_LIBCUDA", "/no/such/libcuda.so.1")
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .unwrap();
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let said = stderr(&output);
    let no_driver = said.contains("no CUDA driver") && said.contains("/no/such/libcuda.so.1");
    let no_gpu = said.contains("the CUDA driver finds no GPU");
    assert!(said.starts_with("error: ") && (no_driver || no_gpu), "{said}");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kasmina"))
        .arg("list")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, ""));
}

#[test]
fn list_names_every_kernel() {
    let output = words("list --json -");
    let list = json(&output);
    let kernels = list["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), kasmina::types::tiles::TILES.len());
    let wide = kernels.iter().find(|kernel| kernel["name"] == "blend_forward_f16_v16").unwrap();
    assert_eq!((&wide["lanes"], &wide["block"]), (&8.into(), &256.into()));
}

#[test]
fn list_names_the_operations_of_resident_kernels() {
    use kasmina::types::tiles::manifold::MANIFOLD_OPERATIONS;
    let output = words("list --json -");
    let list = json(&output);
    let operations = list["operations"].as_array().unwrap();
    assert_eq!(operations.len(), MANIFOLD_OPERATIONS.len());
    let resident = |kernel: &str| {
        let found = operations.iter().find(|operation| operation["kernel"] == kernel).unwrap();
        found["resident"].as_array().unwrap().clone()
    };
    assert_eq!(resident("gemv_f32"), ["manifold_linear", "manifold_all"]);
    assert_eq!(resident("axpby_f32").len(), 4);
    assert!(stderr(&output).contains("resident kernels"), "{}", stderr(&output));
}

#[test]
fn inspect_shows_ptx_and_resources() {
    let output = words("inspect blend_forward_f32_v16 --target sm_90a --json -");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let kernel = json(&output);
    assert!(kernel["ptx"].as_str().unwrap().contains(".entry blend_forward_f32_v16"));
    assert_eq!(kernel["target"], "sm_90a");
    assert!(kernel["registers"].as_u64() > Some(0) && kernel["occupancy"].as_f64() > Some(0.0));
    let output = words("inspect blend_forward_f32_v16 --target sm_12");
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("sm_90a"), "{}", stderr(&output));
}

/// A tensor to be.
#[derive(Clone)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn tensor<T: bytemuck::Pod>(dtype: Dtype, shape: &[usize], values: &[T]) -> Tensor {
    Tensor { dtype, shape: shape.to_vec(), bytes: bytemuck::cast_slice(values).to_vec() }
}

type Tensors = HashMap<&'static str, Tensor>;

const SEEDS: usize = 5;
const CHUNK: usize = 6;
const BATCH: usize = 7;
const LIFECYCLE: [u8; SEEDS] = [3, 7, 2, 5, 4];
const BLUEPRINT_ID: [u16; SEEDS] = [1, 2, 1, 0, 3];
const ALPHA: [f32; SEEDS] = [0.25, 1.0, 0.5, 0.5, 0.75];
const TYPES: [u8; 4] = [0, 0, 1, 3];
const SCALES: [f32; 4] = [1.0, 0.5, 2.0, 1.5];

fn weights() -> Vec<f32> {
    (0..TYPES.len() * CHUNK).map(|i| ((i * 7) % 11) as f32 / 4.0 - 1.0).collect()
}

fn state() -> Tensors {
    HashMap::from([
        ("lifecycle", tensor(Dtype::U8, &[SEEDS], &LIFECYCLE)),
        ("blueprint_id", tensor(Dtype::U16, &[SEEDS], &BLUEPRINT_ID)),
        ("alpha", tensor(Dtype::F32, &[SEEDS], &ALPHA)),
        ("blueprint_type", tensor(Dtype::U8, &[TYPES.len()], &TYPES)),
        ("blueprint_weights", tensor(Dtype::F32, &[TYPES.len(), CHUNK], &weights())),
        ("blueprint_scales", tensor(Dtype::F32, &[TYPES.len()], &SCALES)),
    ])
}

fn values() -> Vec<f32> {
    (0..BATCH * SEEDS * CHUNK).map(|i| ((i * 29) % 97) as f32 / 16.0 - 3.0).collect()
}

fn input() -> Tensors {
    HashMap::from([("input", tensor(Dtype::F32, &[BATCH, SEEDS * CHUNK], &values()))])
}

fn bytes(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(&name, t)| (name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(state: &[u8], input: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state"), state).unwrap();
        std::fs::write(folder.path().join("input"), input).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn forward(&self, device: &str, to: &Path) -> Output {
        let (state, input) = (self.path("state"), self.path("input"));
        let arguments: [&std::ffi::OsStr; 10] = [
            "layer".as_ref(),
            "forward".as_ref(),
            "--state".as_ref(),
            state.as_ref(),
            "--input".as_ref(),
            input.as_ref(),
            "--output".as_ref(),
            to.as_ref(),
            "--device".as_ref(),
            device.as_ref(),
        ];
        kasmina(arguments)
    }

    /// Nothing but the two files may be in the folder.
    fn assert_no_output(&self) {
        let found = std::fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!(found, 2, "files beside state and input");
    }
}

#[test]
fn a_forward_pass_is_the_references_in_every_dtype() {
    let values = values();
    let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    let brains: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let shape = [BATCH, SEEDS * CHUNK];
    let widened = |to: &dyn Fn(usize) -> f64| (0..values.len()).map(to).collect::<Vec<f64>>();
    for (stored, tensor, x) in [
        (Stored::F32, tensor(Dtype::F32, &shape, &values), widened(&|i| f64::from(values[i]))),
        (Stored::F16, tensor(Dtype::F16, &shape, &halves), widened(&|i| f64::from(halves[i]))),
        (Stored::Bf16, tensor(Dtype::BF16, &shape, &brains), widened(&|i| f64::from(brains[i]))),
    ] {
        for device in ["cpu", "simt"] {
            let files =
                Files::new(&bytes(&state()), &bytes(&HashMap::from([("input", tensor.clone())])));
            let path = files.path("output");
            let output = files.forward(device, &path);
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            let file = std::fs::read(&path).unwrap();
            let results = SafeTensors::deserialize(&file).unwrap();
            assert_eq!(results.len(), 9);
            assert_output(&results, stored, &tensor, &x);
            assert_telemetry(&results, &x);
        }
    }
}

fn assert_output(results: &SafeTensors<'_>, stored: Stored, input: &Tensor, x: &[f64]) {
    let y = results.tensor("output").unwrap();
    assert_eq!((y.dtype(), y.shape()), (input.dtype, &input.shape[..]));
    let got: Vec<f64> = match stored {
        Stored::F32 => {
            y.data().chunks(4).map(|b| bytemuck::pod_read_unaligned::<f32>(b).into()).collect()
        }
        Stored::F16 => {
            y.data().chunks(2).map(|b| bytemuck::pod_read_unaligned::<f16>(b).into()).collect()
        }
        _ => y.data().chunks(2).map(|b| bytemuck::pod_read_unaligned::<bf16>(b).into()).collect(),
    };
    let weights = Array2::from_shape_vec((TYPES.len(), CHUNK), weights()).unwrap();
    let layer = reference::LayerState {
        lifecycle: &LIFECYCLE,
        blueprint_id: &BLUEPRINT_ID,
        alpha: &ALPHA,
        blueprint_type: &TYPES,
        blueprint_weights: weights.view(),
        blueprint_scales: &SCALES,
    };
    let x = ArrayView2::from_shape((BATCH, SEEDS * CHUNK), x).unwrap();
    let expected = reference::blend_forward(x, &layer).unwrap();
    let comparison = compare(&got, expected.as_slice().unwrap()).unwrap();
    assert!(Tolerance::for_dtype(stored, 1).accepts(&comparison), "{stored:?}: {comparison:?}");
}

fn assert_telemetry(results: &SafeTensors<'_>, x: &[f64]) {
    let x = ArrayView2::from_shape((BATCH, SEEDS * CHUNK), x).unwrap();
    let expected = reference::telemetry(x, SEEDS).unwrap();
    let figure = |name: &str, dtype| {
        let view = results.tensor(&format!("telemetry_{name}")).unwrap();
        assert_eq!((view.dtype(), view.shape()), (dtype, &[SEEDS][..]), "{name}");
        view.data().to_vec()
    };
    for (name, expected) in [("count", &expected.count), ("nonfinite", &expected.nonfinite)] {
        let got: Vec<i64> =
            figure(name, Dtype::I64).chunks(8).map(bytemuck::pod_read_unaligned).collect();
        assert!(got.iter().zip(expected).all(|(&got, &want)| got as u64 == want), "{name}");
    }
    for (name, expected) in [
        ("mean", &expected.mean),
        ("variance", &expected.variance),
        ("min", &expected.min),
        ("max", &expected.max),
        ("dead_ratio", &expected.dead_ratio),
        ("snr", &expected.snr),
    ] {
        let got: Vec<f64> = figure(name, Dtype::F32)
            .chunks(4)
            .map(|b| bytemuck::pod_read_unaligned::<f32>(b).into())
            .collect();
        let comparison = compare(&got, expected).unwrap();
        assert!(comparison.max_rel_error < 1e-5, "{name}: {comparison:?}");
    }
}

/// Runs on files that something is wrong with; `said` must be in the error.
#[track_caller]
fn refused(state: &[u8], input: &[u8], said: &[&str]) {
    let files = Files::new(state, input);
    let output = files.forward("cpu", &files.path("output"));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    for part in said {
        assert!(stderr(&output).contains(part), "{part:?} is not in {}", stderr(&output));
    }
    files.assert_no_output();
}

fn with(mut tensors: Tensors, name: &'static str, changed: Tensor) -> Vec<u8> {
    tensors.insert(name, changed);
    bytes(&tensors)
}

#[test]
fn wrong_tensors_are_refused_by_name() {
    let (state_bytes, input_bytes) = (bytes(&state()), bytes(&input()));
    for name in [
        "lifecycle",
        "blueprint_id",
        "alpha",
        "blueprint_type",
        "blueprint_weights",
        "blueprint_scales",
    ] {
        let mut missing = state();
        missing.remove(name);
        refused(&bytes(&missing), &input_bytes, &[&format!("`{name}` is missing")]);
        let wrong = with(state(), name, tensor(Dtype::I32, &[1], &[1]));
        refused(&wrong, &input_bytes, &[&format!("`{name}` is I32, expected ")]);
    }
    let alpha = tensor(Dtype::F32, &[4], &ALPHA[..4]);
    refused(&with(state(), "alpha", alpha), &input_bytes, &["`alpha`", "[4]", "expected [5]"]);
    let flat = tensor(Dtype::F32, &[TYPES.len() * CHUNK], &weights());
    let flat = with(state(), "blueprint_weights", flat);
    refused(&flat, &input_bytes, &["`blueprint_weights`", "[24]", "[4, C ≥ 1]"]);
    let narrow = tensor(Dtype::F32, &[BATCH, 29], &values()[..BATCH * 29]);
    refused(&state_bytes, &with(input(), "input", narrow), &["`input`", "[7, 29]", "[B ≥ 1, 30]"]);
    let none = tensor::<f32>(Dtype::F32, &[0, 30], &[]);
    refused(&state_bytes, &with(input(), "input", none), &["`input`", "[0, 30]", "[B ≥ 1, 30]"]);
    let double = tensor(Dtype::F64, &[1, 30], &[1.0_f64; 30]);
    refused(
        &state_bytes,
        &with(input(), "input", double),
        &["`input` is F64, expected F32, F16 or BF16"],
    );
}

#[test]
fn states_that_mean_nothing_are_refused() {
    let input = bytes(&input());
    let ids = tensor(Dtype::U16, &[SEEDS], &[1_u16, 2, 4, 0, 3]);
    refused(
        &with(state(), "blueprint_id", ids),
        &input,
        &["`blueprint_id[2]` is 4", "less than 4"],
    );
    let alpha = tensor(Dtype::F32, &[SEEDS], &[0.0, 0.5, f32::NAN, 1.0, 1.0]);
    refused(&with(state(), "alpha", alpha), &input, &["`alpha[2]` is NaN"]);
    let lifecycle = tensor(Dtype::U8, &[SEEDS], &[0_u8, 1, 2, 3, 11]);
    refused(&with(state(), "lifecycle", lifecycle), &input, &["`lifecycle[4]` is 11", "0 to 10"]);
}

#[test]
fn files_that_are_not_whole_are_refused() {
    let (state, input) = (bytes(&state()), bytes(&input()));
    refused(&state, &input[..input.len() - 1], &["truncated", "`input`"]);
    refused(&state[..state.len() - 3], &input, &["truncated"]);
    for length in [0, 7, 20] {
        refused(&state, &input[..length], &["not a whole safetensors file"]);
    }
    refused(b"this is no file of tensors at all", &input, &["not a whole safetensors file"]);
    let mut longer = input.clone();
    longer.push(0);
    refused(&state, &longer, &["not a whole safetensors file"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let files = Files::new(&bytes(&state()), &bytes(&input()));
    let nowhere = files.path("no/such/folder/output");
    let output = files.forward("cpu", &nowhere);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("no/such/folder/output"), "{}", stderr(&output));
    files.assert_no_output();
    // Nor does a folder give way to a file.
    let output = files.forward("cpu", files.folder.path());
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    files.assert_no_output();
}

#[test]
fn unknown_tensors_are_left_alone_and_blueprints_may_be_none() {
    let mut none = state();
    none.insert("epochs", tensor(Dtype::U8, &[1], &[1_u8]));
    none.insert("blueprint_id", tensor(Dtype::U16, &[SEEDS], &[0_u16; SEEDS]));
    none.insert("blueprint_type", tensor::<u8>(Dtype::U8, &[0], &[]));
    none.insert("blueprint_weights", tensor::<f32>(Dtype::F32, &[0, CHUNK], &[]));
    none.insert("blueprint_scales", tensor::<f32>(Dtype::F32, &[0], &[]));
    for device in ["cpu", "simt"] {
        let files = Files::new(&bytes(&none), &bytes(&input()));
        let path = files.path("output");
        let output = files.forward(device, &path);
        assert_eq!(code(&output), 0, "{device}: {}", stderr(&output));
        let file = std::fs::read(&path).unwrap();
        let results = SafeTensors::deserialize(&file).unwrap();
        // Without blueprints the layer is the identity.
        assert_eq!(results.tensor("output").unwrap().data(), input()["input"].bytes, "{device}");
    }
}
