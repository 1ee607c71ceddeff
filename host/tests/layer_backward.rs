//! `kasmina layer backward` as a program: gradients, refusals, files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test takes a part of it")]
mod support;

use half::{bf16, f16};
use kasmina::kasmina::SeedStates;
use kasmina::kasmina::files::{Dtype, Tensor};
use kasmina_reference::kasmina as reference;
use kasmina_reference::numeric::{Dtype as Stored, Tolerance, compare};
use ndarray::{Array2, ArrayView2};
use safetensors::SafeTensors;
use support::{CHUNK, Folder, SEEDS, checkpoint, code, file, refused, state_file, states, stderr};

const BATCH: usize = 4;

const LINE: &str = "layer backward --state @state --input @input --grad-output @g --output @out";

fn values(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * step) % 97) as f32 / 16.0 - 3.0).collect()
}

fn matrix(name: &str, values: &[f32]) -> Vec<u8> {
    let columns = SEEDS * CHUNK;
    file(&[Tensor::of(name, Dtype::F32, &[values.len() / columns, columns], values)])
}

fn good() -> [Vec<u8>; 3] {
    let count = BATCH * SEEDS * CHUNK;
    let x = matrix("input", &values(count, 29));
    let g = matrix("grad_output", &values(count, 31));
    [state_file(&states(CHUNK)), x, g]
}

fn folder([state, input, g]: &[Vec<u8>; 3]) -> Folder {
    Folder::new(&[("state", state), ("input", input), ("g", g)])
}

/// The f64 reference's gradients by name.
fn expected(states: &SeedStates, x: &[f64], g: &[f64]) -> Vec<(&'static str, Vec<f64>)> {
    let weights: Vec<f32> = states.blueprint_weights.clone();
    let shape = (states.num_blueprints(), states.chunk_size);
    let weights = Array2::from_shape_vec(shape, weights).unwrap();
    let layer = reference::LayerState {
        lifecycle: &states.lifecycle,
        blueprint_id: &states.blueprint_id,
        alpha: &states.alpha,
        blueprint_type: &states.blueprint_type,
        blueprint_weights: weights.view(),
        blueprint_scales: &states.blueprint_scales,
    };
    let columns = states.num_seeds() * states.chunk_size;
    let view = |values| ArrayView2::from_shape((x.len() / columns, columns), values).unwrap();
    let mode = reference::NumericalMode::Fast;
    let all = reference::blend_backward(view(x), view(g), &layer, mode).unwrap();
    vec![
        ("grad_input", all.grad_input.into_raw_vec_and_offset().0),
        ("grad_weights", all.grad_weights.into_raw_vec_and_offset().0),
        ("grad_scales", all.grad_scales),
        ("grad_alpha", all.grad_alpha),
        ("gradient_norm", all.gradient_norm),
        ("gradient_variance", all.gradient_variance),
        ("gradient_max", all.gradient_max),
    ]
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks(4).map(|b| bytemuck::pod_read_unaligned::<f32>(b).into()).collect()
}

#[test]
fn the_gradients_are_the_references_in_every_dtype() {
    let states = states(CHUNK);
    let (shape, count) = ([BATCH, SEEDS * CHUNK], BATCH * SEEDS * CHUNK);
    let (x, g) = (values(count, 29), values(count, 31));
    for device in ["cpu", "simt"] {
        for (stored, dtype) in
            [(Stored::F32, Dtype::F32), (Stored::F16, Dtype::F16), (Stored::Bf16, Dtype::BF16)]
        {
            let narrow = |values: &[f32]| -> (Vec<u8>, Vec<f64>) {
                match stored {
                    Stored::F32 => {
                        let wide = values.iter().map(|&v| v.into()).collect();
                        (bytemuck::cast_slice(values).to_vec(), wide)
                    }
                    Stored::F16 => {
                        let halves: Vec<_> = values.iter().map(|&v| f16::from_f32(v)).collect();
                        let wide = halves.iter().map(|&v| v.into()).collect();
                        (bytemuck::cast_slice(&halves).to_vec(), wide)
                    }
                    _ => {
                        let brains: Vec<_> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                        let wide = brains.iter().map(|&v| v.into()).collect();
                        (bytemuck::cast_slice(&brains).to_vec(), wide)
                    }
                }
            };
            let ((x, wide_x), (g, wide_g)) = (narrow(&x), narrow(&g));
            let tensor = |name, bytes: &[u8]| {
                let (shape, bytes) = (shape.to_vec(), bytes.to_vec().into());
                file(&[Tensor { name, dtype, shape, bytes }])
            };
            let folder = folder(&[
                checkpoint().to_bytes().unwrap(),
                tensor("input", &x),
                tensor("grad_output", &g),
            ]);
            let output = folder.run(&format!("{LINE} --device {device}"));
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            let bytes = std::fs::read(folder.path("out")).unwrap();
            let results = SafeTensors::deserialize(&bytes).unwrap();
            let expected = expected(&states, &wide_x, &wide_g);
            assert_eq!(results.len(), expected.len());
            for (name, expected) in expected {
                let view = results.tensor(name).unwrap();
                let parameters = states.num_blueprints();
                let (got, stored, extents) = match name {
                    "grad_input" => {
                        assert_eq!(view.dtype(), dtype);
                        let data = view.data();
                        let got = match stored {
                            Stored::F32 => floats(data),
                            Stored::F16 => data
                                .chunks(2)
                                .map(|b| bytemuck::pod_read_unaligned::<f16>(b).into())
                                .collect(),
                            _ => data
                                .chunks(2)
                                .map(|b| bytemuck::pod_read_unaligned::<bf16>(b).into())
                                .collect(),
                        };
                        (got, stored, shape.to_vec())
                    }
                    "grad_weights" => (floats(view.data()), Stored::F32, vec![parameters, CHUNK]),
                    "grad_scales" => (floats(view.data()), Stored::F32, vec![parameters]),
                    _ => (floats(view.data()), Stored::F32, vec![SEEDS]),
                };
                assert_eq!(view.shape(), extents, "{name}");
                assert!(expected.iter().any(|&v| v != 0.0), "{name} shows nothing");
                let comparison = compare(&got, &expected).unwrap();
                let tolerance = Tolerance::for_dtype(stored, BATCH * CHUNK);
                assert!(tolerance.accepts(&comparison), "{device} {name}: {comparison:?}");
            }
        }
    }
}

/// The published case: values that are known, and those of the published kernel that are known to be wrong.
#[test]
fn known_values_of_each_type_come_out_of_the_kernels() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../reference/tests/cases/");
    let case = std::fs::read_to_string(format!("{cases}blueprint_grad_case.json")).unwrap();
    let case: serde_json::Value = serde_json::from_str(&case).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        let flat = |value: &serde_json::Value| match value.as_array() {
            Some(row) => row.iter().map(|v| v.as_f64().unwrap()).collect(),
            None => vec![value.as_f64().unwrap()],
        };
        value.as_array().map_or_else(|| flat(value), |rows| rows.iter().flat_map(flat).collect())
    };
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let (x, g) = (narrow(&numbers(&case["x"])), narrow(&numbers(&case["g"])));
    let mut wrong = 0;
    for (kind, name) in
        ["RESIDUAL_BLOCK", "ATTENTION_HEAD", "MLP_EXPANSION", "CONV_FILTER"].into_iter().enumerate()
    {
        let known = &case["types"][name];
        // What does not belong to the blueprint is something else.
        let mut weights = vec![7.5; 2 * CHUNK];
        let own = narrow(&numbers(&known["w"]));
        weights[CHUNK..CHUNK + own.len()].copy_from_slice(&own);
        let states = SeedStates {
            lifecycle: vec![3],
            blueprint_id: vec![1],
            alpha: vec![case["alpha"].as_f64().unwrap() as f32],
            blueprint_type: vec![4, kind as u8],
            blueprint_weights: weights,
            blueprint_scales: vec![7.5, case["scale"].as_f64().unwrap() as f32],
            chunk_size: CHUNK,
        };
        let matrix = |name, values: &[f32]| {
            file(&[Tensor::of(name, Dtype::F32, &[values.len() / CHUNK, CHUNK], values)])
        };
        let files = [state_file(&states), matrix("input", &x), matrix("grad_output", &g)];
        for device in ["cpu", "simt"] {
            let folder = folder(&files);
            let output = folder.run(&format!("{LINE} --device {device}"));
            assert_eq!(code(&output), 0, "{device}: {}", stderr(&output));
            let bytes = std::fs::read(folder.path("out")).unwrap();
            let results = SafeTensors::deserialize(&bytes).unwrap();
            let of_blueprint = |tensor: &str, from: usize, count: usize| {
                floats(results.tensor(tensor).unwrap().data())[from..from + count].to_vec()
            };
            for (part, got) in [
                ("d_input", of_blueprint("grad_input", 0, x.len())),
                ("d_weight", of_blueprint("grad_weights", CHUNK, own.len())),
                ("d_scale", of_blueprint("grad_scales", 1, 1)),
                ("d_alpha", of_blueprint("grad_alpha", 0, 1)),
            ] {
                let want = numbers(&known[part]);
                assert_eq!(got.len(), want.len(), "{name} {part}");
                let published = match &known[format!("triton_source_{part}")] {
                    serde_json::Value::Null => want.clone(),
                    published => numbers(published),
                };
                for ((got, want), published) in got.into_iter().zip(want).zip(published) {
                    let near = 1e-5 * want.abs().max(1e-2);
                    assert!(
                        (got - want).abs() <= near,
                        "{device} {name} {part}: {got}, not {want}"
                    );
                    if (published - want).abs() > 1e-3 {
                        wrong += 1;
                        assert!((got - published).abs() > 1e-3, "{name} {part}: as published");
                    }
                }
            }
        }
    }
    assert!(wrong >= 2 * 10, "{wrong}");
}

#[test]
fn the_result_for_programs_names_the_sizes() {
    let folder = folder(&good());
    let output = folder.run(&format!("{LINE} --device cpu --json -"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, value) in
        [("batch", BATCH), ("num_seeds", SEEDS), ("chunk_size", CHUNK), ("num_blueprints", 5)]
    {
        assert_eq!(result[key], value, "{key}");
    }
    assert_eq!((&result["device"], &result["dtype"]), (&"cpu".into(), &"f32".into()));
    assert!(stderr(&output).contains("gradients of 4 rows of 6 seeds × 5 (f32)"));
}

#[test]
fn nan_and_infinite_values_pass_inactive_seeds_bit_for_bit() {
    let count = BATCH * SEEDS * CHUNK;
    let (mut x, mut g) = (values(count, 29), values(count, 31));
    let broken = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::from_bits(0x7fc0_1234)];
    for (i, value) in broken.into_iter().enumerate() {
        x[i * SEEDS * CHUNK % count + i] = value;
        // A dormant and a culled seed.
        g[i] = value;
        g[4 * CHUNK + i] = value;
    }
    let files = [state_file(&states(CHUNK)), matrix("input", &x), matrix("grad_output", &g)];
    for device in ["cpu", "simt"] {
        let folder = folder(&files);
        let output = folder.run(&format!("{LINE} --device {device}"));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let bytes = std::fs::read(folder.path("out")).unwrap();
        let results = SafeTensors::deserialize(&bytes).unwrap();
        let view = results.tensor("grad_input").unwrap();
        for row in 0..BATCH {
            for seed in [0, 1, 2, 4] {
                let at = row * SEEDS * CHUNK + seed * CHUNK;
                let passed = &view.data()[4 * at..4 * (at + CHUNK)];
                assert_eq!(passed, bytemuck::cast_slice::<f32, u8>(&g[at..at + CHUNK]), "{seed}");
            }
        }
    }
}

#[test]
fn a_chunk_of_one_and_a_layer_without_blueprints_have_gradients() {
    let mut without = states(1);
    without.blueprint_id = vec![0; SEEDS];
    (without.blueprint_type, without.blueprint_scales) = (vec![], vec![]);
    without.blueprint_weights = vec![];
    let (x, g) = (values(3 * SEEDS, 29), values(3 * SEEDS, 31));
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    for states in [states(1), without] {
        for device in ["cpu", "simt"] {
            let matrix =
                |name, values: &[f32]| file(&[Tensor::of(name, Dtype::F32, &[3, SEEDS], values)]);
            let (input, grad_output) = (matrix("input", &x), matrix("grad_output", &g));
            let folder = folder(&[state_file(&states), input, grad_output]);
            let output = folder.run(&format!("{LINE} --device {device}"));
            assert_eq!(code(&output), 0, "{device}: {}", stderr(&output));
            let bytes = std::fs::read(folder.path("out")).unwrap();
            let results = SafeTensors::deserialize(&bytes).unwrap();
            for (name, expected) in expected(&states, &wide(&x), &wide(&g)) {
                let got = floats(results.tensor(name).unwrap().data());
                let comparison = compare(&got, &expected).unwrap();
                assert!(comparison.max_rel_error < 1e-5, "{device} {name}: {comparison:?}");
            }
        }
    }
}

#[test]
fn wrong_files_are_refused_by_file_and_tensor_and_nothing_is_written() {
    let [state, input, g] = good();
    let count = BATCH * SEEDS * CHUNK;
    let halves = vec![f16::ONE; count];
    let half = file(&[Tensor::of("grad_output", Dtype::F16, &[BATCH, SEEDS * CHUNK], &halves)]);
    let none = file(&[Tensor::of::<f32>("input", Dtype::F32, &[0, SEEDS * CHUNK], &[])]);
    let with = |change: &dyn Fn(&mut SeedStates)| {
        let mut states = states(CHUNK);
        change(&mut states);
        state_file(&states)
    };
    let nan = with(&|s| s.alpha[2] = f32::NAN);
    let infinite = with(&|s| s.blueprint_weights[3] = f32::INFINITY);
    let id = with(&|s| s.blueprint_id[1] = 5);
    let lifecycle = with(&|s| s.lifecycle[5] = 11);
    let short = matrix("grad_output", &values(count - SEEDS * CHUNK, 31));
    let mut damaged = checkpoint().to_bytes().unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let cut = &g[..g.len() - 1];
    let (s, x) = (&state[..], &input[..]);
    let cases: [([&[u8]; 3], &[&str]); 13] = [
        ([s, x, x], &["g: tensor `grad_output` is missing", "`input`"]),
        ([s, x, &half], &["`grad_output` is F16, expected F32, the type of `input`"]),
        ([s, x, &short], &["`grad_output` has shape [3, 30], expected [4, 30]"]),
        ([s, &none, &g], &["`input` has shape [0, 30], expected [B ≥ 1, 30]"]),
        ([s, x, cut], &["truncated", "`grad_output`"]),
        ([s, x, b""], &["not a whole safetensors file (0 bytes)"]),
        ([x, x, &g], &["state: tensor `lifecycle` is missing"]),
        ([&nan, x, &g], &["`alpha[2]` is NaN"]),
        ([&infinite, x, &g], &["`blueprint_weights[3]` is inf"]),
        ([&id, x, &g], &["`blueprint_id[1]` is 5", "less than 5"]),
        ([&lifecycle, x, &g], &["`lifecycle[5]` is 11"]),
        ([&damaged, x, &g], &["CRC-32 of the tensors", "damaged"]),
        ([&s[..s.len() / 2], x, &g], &["not a whole safetensors file"]),
    ];
    for (files, said) in cases {
        let folder = folder(&files.map(<[u8]>::to_vec));
        let output = folder.run(&format!("{LINE} --device cpu"));
        for part in said {
            assert!(refused(&output).contains(part), "{part:?} is not in {}", stderr(&output));
        }
        assert_eq!(folder.names(), ["g", "input", "state"]);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let folder = folder(&good());
    for (place, why) in [
        ("/dev/full", "cannot write /dev/full: No space left on device"),
        ("@no/such/folder/out", "the folder does not exist"),
        ("@state/out", "the folder does not exist"),
        ("@.", "is a folder"),
        ("/proc/out", "cannot write /proc/out"),
    ] {
        let line = LINE.replace("@out", place);
        let output = folder.run(&format!("{line} --device cpu"));
        assert!(refused(&output).contains(why), "{place}: {}", stderr(&output));
        assert_eq!(folder.names(), ["g", "input", "state"]);
    }
}
