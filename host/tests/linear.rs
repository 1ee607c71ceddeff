//! `kasmina linear` as a program: products, what was chosen, refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test takes a part of it")]
mod support;

use half::bf16;
use kasmina::kasmina::files::{Dtype, Tensor, TensorFile};
use kasmina_reference::linear as reference;
use kasmina_reference::normalization::Activation;
use ndarray::{Array2, ArrayView2};
use support::{Folder, code, file, refused, stderr};

const M: usize = 5;
const N: usize = 7;
const K: usize = 9;

fn values(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * step) % 97) as f32 / 48.0 - 1.0).collect()
}

fn tensors() -> [(&'static str, [usize; 2], Vec<f32>); 3] {
    [
        ("a", [M, K], values(M * K, 29)),
        ("b", [N, K], values(N * K, 31)),
        ("c", [M, N], values(M * N, 37)),
    ]
}

fn input() -> Vec<u8> {
    let [a, b, c] = tensors();
    let bias = values(N, 41);
    file(&[
        Tensor::of("a", Dtype::F32, &a.1, &a.2),
        Tensor::of("b", Dtype::F32, &b.1, &b.2),
        Tensor::of("c", Dtype::F32, &c.1, &c.2),
        Tensor::of("bias", Dtype::F32, &[N], &bias),
    ])
}

fn expected(activation: Activation) -> Array2<f64> {
    let wide = |(_, shape, values): &(&str, [usize; 2], Vec<f32>)| {
        ArrayView2::from_shape(*shape, values).unwrap().mapv(f64::from)
    };
    let [a, b, c] = tensors().each_ref().map(wide);
    let bias: Vec<f64> = values(N, 41).into_iter().map(f64::from).collect();
    let mut product = reference::Linear::new(a.view(), b.t());
    product.bias = Some(&bias);
    product.addition = Some((1.0, c.view()));
    product.activation = activation;
    reference::linear(&product).unwrap()
}

/// ‖d − expected‖ / ‖expected‖ of a file.
fn error(folder: &Folder, expected: &Array2<f64>) -> f64 {
    let written = TensorFile::read(&folder.path("out")).unwrap();
    assert_eq!(written.names(), ["d"]);
    let bytes = std::fs::read(folder.path("out")).unwrap();
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let d = parsed.tensor("d").unwrap();
    assert_eq!((d.dtype(), d.shape()), (Dtype::F32, &[M, N][..]));
    let got = d.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let (mut errors, mut sizes) = (0.0, 0.0);
    for (got, expected) in got.zip(expected) {
        errors += (f64::from(got) - expected).powi(2);
        sizes += expected.powi(2);
    }
    (errors / sizes).sqrt()
}

#[test]
fn products_are_right_in_every_precision() {
    let folder = Folder::new(&[("in", &input())]);
    for (name, activation) in [
        ("none", Activation::None),
        ("relu", Activation::Relu),
        ("gelu", Activation::GeluErf),
        ("gelu-tanh", Activation::GeluTanh),
        ("silu", Activation::Silu),
    ] {
        for device in ["cpu", "simt"] {
            for (precision, bound) in [
                ("auto", 1e-6),
                ("f64", 1e-6),
                ("f32", 1e-6),
                ("tf32", 1e-3),
                ("f16", 2e-3),
                ("bf16", 1e-2),
                ("fp8", 1e-1),
                ("fp8-fast", 1e-1),
            ] {
                let line = format!(
                    "linear --input @in --output @out --activation {name} --precision {precision} --device {device}"
                );
                let output = folder.run(&line);
                assert_eq!(code(&output), 0, "{line}: {}", stderr(&output));
                // 16-bit and 8-bit operands are rounded first: more than the bound of what they are then.
                let error = error(&folder, &expected(activation));
                assert!(error <= bound, "{line}: {error:e}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let [a, b, _] = tensors();
    let halves: Vec<bf16> = b.2.iter().map(|&v| bf16::from_f32(v)).collect();
    let of_a = || Tensor::of("a", Dtype::F32, &a.1, &a.2);
    let alone = file(&[of_a()]);
    let narrow = file(&[of_a(), Tensor::of("b", Dtype::F32, &[K, N], &b.2)]);
    let mixed = file(&[of_a(), Tensor::of("b", Dtype::BF16, &b.1, &halves)]);
    let folder =
        Folder::new(&[("alone", &alone), ("narrow", &narrow), ("mixed", &mixed), ("in", &input())]);
    for (arguments, word) in [
        ("--input @alone", "`b`"),
        ("--input @narrow", "`b`"),
        ("--input @mixed", "BF16"),
        ("--input @nothing", "nothing"),
        ("--input @in --tolerance 0", "tolerance"),
    ] {
        let output = folder.run(&format!("linear {arguments} --output @out --device cpu"));
        assert!(refused(&output).contains(word), "{arguments}: {}", stderr(&output));
    }
}
