//! What a command writes replaces none of its inputs, and no result another.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test takes a part of it")]
mod support;

use std::fs;

use kasmina::kasmina::files::{Dtype, Tensor};
use support::{CHUNK, Folder, SEEDS, checkpoint, code, file, refused, stderr};

/// A checkpoint, what the passes and the product read, a configuration, a table of losses and rows of peers.
fn folder() -> Folder {
    let values = [0.5_f32; SEEDS * CHUNK];
    let matrix = |name| file(&[Tensor::of(name, Dtype::F32, &[1, SEEDS * CHUNK], &values)]);
    let square = |name| Tensor::of(name, Dtype::F32, &[2, 2], &values[..4]);
    let config = format!("num_seeds = {SEEDS}\nhidden_dim = {}\n", SEEDS * CHUNK);
    Folder::new(&[
        ("c", &checkpoint().to_bytes().unwrap()),
        ("conf", config.as_bytes()),
        ("g", &matrix("grad_output")),
        ("m.csv", b"epoch,loss\n0,1\n"),
        ("peers", b""),
        ("product", &file(&[square("a"), square("b")])),
        ("x", &matrix("input")),
    ])
}

const FORWARD: &str = "layer forward --device cpu --state @c --input @x --output";
const BACKWARD: &str =
    "layer backward --device cpu --state @c --input @x --grad-output @g --output";
const STEP: &str = "layer step --device cpu --state @c --config @conf --metrics @m.csv --output";

#[test]
fn no_input_is_replaced_and_no_result_by_another() {
    let folder = folder();
    let names = folder.names();
    let read = || names.iter().map(|name| fs::read(folder.path(name)).unwrap()).collect::<Vec<_>>();
    let before = read();
    let (input, other) = ("is the input, which it would replace", "is the file of --json, too");
    for (line, said) in [
        (format!("{FORWARD} @c"), input),
        (format!("{FORWARD} @x"), input),
        (format!("{FORWARD} @y --json @c"), input),
        (format!("{FORWARD} @y --json @y"), other),
        (format!("{BACKWARD} @c"), input),
        (format!("{BACKWARD} @x"), input),
        (format!("{BACKWARD} @g"), input),
        (format!("{BACKWARD} @y --json @g"), input),
        (format!("{BACKWARD} @y --json @y"), other),
        ("layer inspect @c --json @c".to_owned(), input),
        (format!("{STEP} @m.csv"), input),
        (format!("{STEP} @conf"), input),
        (format!("{STEP} @y --json @conf"), input),
        (format!("{STEP} @y --json @m.csv"), input),
        (format!("{STEP} @y --json @c"), input),
        (format!("{STEP} @c --json @c"), input),
        (format!("{STEP} @y --json @y"), other),
        ("linear --device cpu --input @product --output @product".to_owned(), input),
        ("linear --device cpu --input @product --output @y --json @product".to_owned(), input),
        ("linear --device cpu --input @product --output @y --json @y".to_owned(), other),
        ("trace --device cpu --steps 1 --output @y --json @y".to_owned(), other),
        ("bench --device cpu --quick --only axpby --peers @peers --json @peers".to_owned(), input),
    ] {
        let output = folder.run(&line);
        assert!(refused(&output).contains(said), "{line}: {}", stderr(&output));
        assert_eq!(folder.names(), names, "{line}");
        assert_eq!(read(), before, "{line}");
    }
}

#[test]
fn files_of_their_own_are_written() {
    let folder = folder();
    for line in [
        format!("{FORWARD} @y --json @j"),
        format!("{BACKWARD} @y --json @j"),
        "layer inspect @c --json @j".to_owned(),
        // The one input that may be replaced.
        format!("{STEP} @c --json @j"),
        "linear --device cpu --input @product --output @y --json @j".to_owned(),
        "trace --device cpu --steps 1 --batch 2 --seeds 2 --output @y --json @j".to_owned(),
    ] {
        let output = folder.run(&line);
        assert_eq!(code(&output), 0, "{line}: {}", stderr(&output));
        let written: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.path("j")).unwrap()).unwrap();
        assert!(written.is_object(), "{line}");
        fs::remove_file(folder.path("j")).unwrap();
    }
}
