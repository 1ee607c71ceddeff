//! `kasmina te` as a program: JSON, plots, refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn te(line: &str) -> Output {
    let binary = env!("CARGO_BIN_EXE_kasmina");
    Command::new(binary).arg("te").args(line.split_whitespace()).output().unwrap()
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn case() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("reference/tests/cases/te_case.csv").display().to_string()
}

#[test]
fn a_pair_has_the_value_of_the_case_and_its_surrogates() {
    let line = format!(
        "--input {} --source x --target y --surrogates 19 --surrogate-kind rotate --seed 3 --device cpu --json -",
        case()
    );
    let found = json(&te(&line));
    let keys = [
        "te_nats",
        "points",
        "k",
        "effective_te_nats",
        "p_value",
        "surrogate_mean",
        "surrogate_std",
        "ties",
        "device",
    ];
    assert_eq!(found.as_object().unwrap().len(), keys.len());
    assert!(keys.iter().all(|key| !found[key].is_null()), "{found}");
    let number = |key: &str| found[key].as_f64().unwrap();
    assert!((number("te_nats") - 0.114_127_595_982_737_07).abs() < 1e-12);
    assert_eq!((number("points"), number("k"), number("ties")), (1999.0, 4.0, 0.0));
    assert_eq!(number("p_value"), 0.05);
    let difference = number("te_nats") - number("surrogate_mean");
    assert!((number("effective_te_nats") - difference).abs() < 1e-12);
    assert_eq!(found, json(&te(&line)), "a seed gives the same surrogates");
}

#[test]
fn a_matrix_and_a_scan_draw_what_they_found() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("plot.svg");
    let (input, shown) = (case(), svg.display());
    let found = json(&te(&format!(
        "matrix --input {input} --columns x,y --device cpu --svg {shown} --json -"
    )));
    assert_eq!(found["series"], serde_json::json!(["x", "y"]));
    let to_y = found["te_nats"][0][1].as_f64().unwrap();
    assert!((to_y - 0.114_127_595_982_737_07).abs() < 1e-12);
    assert!((found["te_nats"][1][0].as_f64().unwrap() + 0.006_394_390_639_627_782).abs() < 1e-12);
    assert!(found["te_nats"][0][0].is_null() && found["p_values"].is_null());
    let drawn = std::fs::read_to_string(&svg).unwrap();
    // Background and a cell for each pair.
    assert!(drawn.starts_with("<svg") && drawn.matches("<rect").count() == 5, "{drawn}");

    let found = json(&te(&format!(
        "scan --input {input} --source x --target y --max-delay 3 --device cpu --svg {shown} --json -"
    )));
    let delays = found["delays"].as_array().unwrap();
    let expected = [0.114_127_595_982_737_07, 0.037_686_353_899_496_45, 0.009_343_602_233_439_578];
    assert_eq!(delays.len(), expected.len());
    for (i, (at, expected)) in delays.iter().zip(expected).enumerate() {
        assert_eq!(at["delay"], i + 1);
        assert!((at["te_nats"].as_f64().unwrap() - expected).abs() < 1e-12);
    }
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.contains("<polyline") && drawn.matches("<circle").count() == 3, "{drawn}");
}

#[test]
fn what_is_refused_says_what_was_expected() {
    let input = case();
    let refused = |line: &str, words: &str| {
        let output = te(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains(words), "{line}: {said}");
    };
    refused(&format!("--input {input} --source z --target y"), "no column `z`, but t, x, y");
    refused(&format!("--input {input}.gone --source x --target y"), "cannot read");
    refused(&format!("--input {input} --source x"), "--target");
    refused(&format!("--input {input} --source x --target y --k 0"), "`k`");
    refused(&format!("--input {input} --source x --target y --algorithm 3"), "1..=2");
    refused(
        &format!("--input {input} --source x --target y --conditions w"),
        "no column `w`, but t, x, y",
    );
    refused(
        &format!("scan --input {input} --source x --target y --min-delay 9 --max-delay 3"),
        "give the shorter one first",
    );
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.csv");
    std::fs::write(&text, "x,y\n1,2\n3,oops\n").unwrap();
    let line = format!("--input {} --source x --target y", text.display());
    refused(&line, "line 3, column `y`: expected a number, got `oops`");
    std::fs::write(&text, "x,y\n").unwrap();
    refused(&line, "expected lines of values below the header");
}

/// Values that repeat are warned of.
#[test]
fn ties_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ties.csv");
    let lines = (0..200_u32).map(|i| format!("{},{}\n", i * i % 7, (i * 5 + i * i) % 11));
    std::fs::write(&file, format!("x,y\n{}", lines.collect::<String>())).unwrap();
    let output = te(&format!("--input {} --source x --target y --device cpu", file.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("warning: at "), "{said}");
}
