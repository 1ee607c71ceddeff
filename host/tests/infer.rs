//! `kasmina infer` as a program: published values, JSON, the plot, refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn infer(model: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kasmina"));
    command.arg("infer").arg("--model").arg(model).args(arguments.split_whitespace());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn report(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn published() -> Vec<Value> {
    let path = "../reference/tests/cases/active_inference_case.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all["cases"].as_array().unwrap().clone()
}

fn write(folder: &Path, model: &Value) -> PathBuf {
    let path = folder.join("model.json");
    std::fs::write(&path, model.to_string()).unwrap();
    path
}

#[track_caller]
fn near(got: &Value, want: &Value, tolerance: f64) {
    let numbers = |value: &Value| -> Vec<f64> {
        match value.as_array() {
            Some(all) => all.iter().map(|v| v.as_f64().unwrap()).collect(),
            None => vec![value.as_f64().unwrap()],
        }
    };
    let (got, want) = (numbers(got), numbers(want));
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got} is not {want}");
    }
}

#[test]
fn published_cases_come_out() {
    let folder = tempfile::tempdir().unwrap();
    for case in published() {
        let model = write(folder.path(), &case);
        for point in case["trace"].as_array().unwrap() {
            let steps = point["iteration"].as_u64().unwrap();
            let found = report(&infer(&model, &format!("--device cpu --json - --steps {steps}")));
            let keys: Vec<&str> = found.as_object().unwrap().keys().map(String::as_str).collect();
            let mut expected = vec![
                "mu",
                "var",
                "complexity",
                "accuracy_plugin",
                "accuracy_expected",
                "free_energy_plugin",
                "free_energy_exact",
                "steps",
                "converged",
            ];
            expected.sort_unstable();
            let mut keys = keys;
            keys.sort_unstable();
            assert_eq!(keys, expected);
            assert_eq!(found["steps"], steps);
            assert_eq!(found["var"], case["init"]["var"]);
            for (ours, theirs) in [
                ("mu", "mu"),
                ("complexity", "complexity"),
                ("accuracy_plugin", "accuracy_plugin"),
                ("accuracy_expected", "accuracy_expected"),
                ("free_energy_plugin", "F_plugin"),
                ("free_energy_exact", "F_exact"),
            ] {
                near(&found[ours], &point[theirs], 1e-10);
            }
        }
        let found = report(&infer(&model, "--device cpu --json - --until-converged"));
        assert_eq!(found["converged"], true);
        near(&found["mu"], &case["fixed_point"]["mu"], 1e-8);
    }
}

#[test]
fn defaults_and_the_plot() {
    let folder = tempfile::tempdir().unwrap();
    let case = &published()[0];
    let model =
        write(folder.path(), &json!({ "J": case["J"], "observation": case["observation"] }));
    let plot = folder.path().join("plot.svg");
    let arguments = format!("--device simt --tolerance 1e-3 --json - --svg {}", plot.display());
    let output = infer(&model, &arguments);
    let found = report(&output);
    assert!(found["steps"].as_u64() > Some(0) && found["converged"] == true, "{found}");
    assert!(said(&output).contains("posterior mean"), "{}", said(&output));
    let text = std::fs::read_to_string(plot).unwrap();
    assert!(text.starts_with("<svg") && text.contains("Free energy") && text.contains("polyline"));
}

/// A picture that cannot be written, for its name is too long: the result is there all the same.
#[test]
fn no_result_is_lost_with_the_plot() {
    let folder = tempfile::tempdir().unwrap();
    let model = write(folder.path(), &published()[0]);
    let plot = folder.path().join("x".repeat(300));
    let output = infer(&model, &format!("--device cpu --json - --svg {}", plot.display()));
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("cannot write"), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["converged"], true);
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.json");
    std::fs::write(&path, format!("\u{feff}{}", published()[0])).unwrap();
    assert_eq!(report(&infer(&path, "--device cpu --json -"))["converged"], true);
}

#[test]
fn a_run_that_is_cut_off_fails() {
    let folder = tempfile::tempdir().unwrap();
    let model = write(folder.path(), &published()[2]);
    let output = infer(&model, "--device cpu --max-steps 3");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("not converged"), "{}", said(&output));
}

#[test]
fn wrong_files_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let case = &published()[0];
    let with = |key: &str, value: Value| {
        let mut changed = case.clone();
        changed[key] = value;
        changed.to_string()
    };
    for (text, why) in [
        ("{".to_owned(), "EOF"),
        ("[]".to_owned(), "J"),
        ("{\"J\": [[1]]}".to_owned(), "observation"),
        (with("J", json!([])), "0 × 0"),
        (with("J", json!([[1, 2], [3]])), "`J[1]` has 1"),
        (with("observation", json!([1, 2])), "`observation` has 2 elements, expected 4"),
        (with("prior_var", json!([1, 0, 1])), "`prior_var[1]` is 0"),
        (with("obs_precision", json!([1, 1, -2, 1])), "`obs_precision[2]` is -2"),
        (with("init", json!({ "var": [1, 1] })), "`var` has 2 elements, expected 3"),
        (with("kappa", json!(0.3)), "0.2820"),
        (with("kappa", json!(0)), "`kappa` is 0"),
        (with("offset", json!([1, null, 1, 1])), "null"),
        (with("offset", json!([1, 2, 3, 4])).replace("[1,2,3,4]", "[1,1e999,3,4]"), "out of range"),
    ] {
        let path = folder.path().join("model.json");
        std::fs::write(&path, &text).unwrap();
        let output = infer(&path, "--device cpu");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}: {said}");
        assert!(said.contains(why) && said.contains("model.json"), "{text}: {said}");
    }
    let missing = infer(&folder.path().join("none.json"), "--device cpu");
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    let model = write(folder.path(), case);
    for arguments in [
        "--tolerance 0",
        "--steps 3 --until-converged",
        "--steps 3 --max-steps 5",
        "--steps x",
        "--steps 4294967295",
        "--max-steps 4294967295",
    ] {
        let output = infer(&model, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", said(&output));
    }
}

#[test]
fn misspelt_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let case = &published()[0];
    let model = write(folder.path(), case);
    let output = infer(&model, "--device cpu");
    assert!(!said(&output).contains("warning"), "{}", said(&output));
    let mut misspelt = case.clone();
    misspelt["prior_variance"] = json!([1, 1, 1]);
    misspelt["init"]["mean"] = json!([0, 0, 0]);
    let model = write(folder.path(), &misspelt);
    let output = infer(&model, "--device cpu --json -");
    report(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["`prior_variance`", "`init.mean`", "prior_var", "model.json"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_null_and_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let model = write(folder.path(), &json!({ "J": [[1.0]], "observation": [1e200] }));
    for arguments in ["--device cpu --json - --steps 3", "--device simt --json - --steps 3"] {
        let output = infer(&model, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {}", said(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["free_energy_exact"].is_null() && report["converged"] == false, "{report}");
        assert!(said(&output).contains("null in JSON"), "{}", said(&output));
    }
}

#[test]
fn curvatures_that_leave_f64_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (jacobian, variance) in [(1e100, 1.0), (1.0, 1e-160), (1e-120, 1e200)] {
        let model = json!({ "J": [[jacobian]], "observation": [1], "prior_var": [variance] });
        let model = write(folder.path(), &model);
        let output = infer(&model, "--device cpu");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(
            said(&output).contains("λmax") && said(&output).contains("1e150"),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn a_plot_says_where_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    // Steps so small that none of them is the last.
    let model = json!({ "J": [[1.0]], "observation": [1.0], "kappa": 1e-9 });
    let model = write(folder.path(), &model);
    let plot = folder.path().join("plot.svg");
    let output = infer(&model, &format!("--device cpu --steps 100500 --svg {}", plot.display()));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = std::fs::read_to_string(plot).unwrap();
    for text in [&said(&output), &text] {
        assert!(text.contains("the first 99999 of 100500"), "{text}");
    }
}
