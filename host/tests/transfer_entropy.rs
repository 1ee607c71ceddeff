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
    assert_eq!(found["ties"], serde_json::json!([[null, 0], [0, null]]));
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
    refused(&format!("--input {input} --source x --target y --k -1"), "invalid value '-1'");
    refused(&format!("--input {input} --source x --target x"), "column `x` is named twice");
    refused(&format!("matrix --input {input} --columns x,y,x"), "column `x` is named twice");
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
    refused(&line, "line 3, column `y`: expected a finite number, got `oops`");
    std::fs::write(&text, "x,y\n\n1,2\n\n3,oops\n").unwrap();
    refused(&line, "line 5, column `y`: expected a finite number, got `oops`");
    std::fs::write(&text, "x,y\n1,2\n3,nan\n").unwrap();
    refused(&line, "line 3, column `y`: expected a finite number, got `nan`");
    std::fs::write(&text, "x,x\n1,2\n3,4\n").unwrap();
    refused(&line, "two columns are called `x`");
    std::fs::write(&text, "x;y\n1;2\n").unwrap();
    refused(&line, "expected commas between columns, got \";\"");
    std::fs::write(&text, "x,y\n1,2\n").unwrap();
    refused(&line, "expected at least 2 samples");
    std::fs::write(&text, "x,y\n").unwrap();
    refused(&line, "expected lines of values below the header");
    let pair = format!("--input {input} --source x --target y --device cpu");
    refused(&format!("{pair} --noise 1e-12"), "lost in f32");
    refused(&format!("{pair} --surrogates 4294967295"), "expected at most");
    refused(&format!("{pair} --delay 18446744073709551615"), "expected at most 1999; shorten them");
    refused(&format!("{pair} --k 0"), "`k` is 0, expected 1 to 32");
    refused(&format!("{pair} --theiler 1000"), "some point has no other outside its window");
    refused(
        &format!("scan {pair} --max-delay 18446744073709551615"),
        "leaves no point of 2000 samples",
    );
    let gone = folder.path().join("gone/plot.svg");
    let gone = gone.display();
    refused(&format!("scan {pair} --svg {gone}"), "the folder does not exist");
    refused(&format!("matrix --input {input} --svg {gone}"), "the folder does not exist");
    refused(&format!("{pair} --json {gone}"), "the folder does not exist");
    refused(&format!("{pair} --json {}", folder.path().display()), "is a folder");
    // Neither the input nor another result is replaced.
    let copy = folder.path().join("copy.csv");
    std::fs::copy(&input, &copy).unwrap();
    let (copy, before) = (copy.display(), std::fs::read(&input).unwrap());
    refused(&format!("matrix --input {copy} --device cpu --svg {copy}"), "is the input");
    refused(&format!("--input {copy} --source x --target y --json {copy}"), "is the input");
    assert_eq!(std::fs::read(copy.to_string()).unwrap(), before);
    let both = folder.path().join("both");
    let both = both.display();
    refused(&format!("scan {pair} --max-delay 2 --json {both} --svg {both}"), "the file of --json");
}

/// The columns of the file, not what the library calls the series.
#[test]
fn refusals_name_the_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (file, svg) = (folder.path().join("columns.csv"), folder.path().join("plot.svg"));
    // Far from 0 by more than f32 tells apart.
    let lines =
        (0..50_u32).map(|i| format!("{},{},{}\n", i * i % 7, i * i % 11, 1_000_000_000 + i % 3));
    std::fs::write(&file, format!("one,two,far\n{}", lines.collect::<String>())).unwrap();
    let (input, plot) = (file.display(), format!("--svg {}", svg.display()));
    for (command, plot) in [
        ("--source one --target far", ""),
        ("--source far --target two", ""),
        ("--source one --target two --conditions two,far", ""),
        ("scan --source far --target two", &plot),
        ("matrix --columns one,two,far", &plot),
    ] {
        let output = te(&format!("{command} --input {input} --device cpu {plot}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("series `far`"), "{command}: {said}");
    }
}

/// A result that nobody could get is a failure.
#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let line = format!("te --input {} --source x --target y --device cpu --json -", case());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kasmina"));
    let output = command.args(line.split_whitespace()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

/// A source whose past is constant tells nothing, and that has no sign.
#[test]
fn nothing_is_not_less_than_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("constant.csv");
    let lines = (0..80_u32).map(|i| format!("{},{}\n", 1 + i / 79, f64::from(i * i).sin()));
    std::fs::write(&file, format!("x,y\n{}", lines.collect::<String>())).unwrap();
    let pair = format!("--input {} --source x --target y --device cpu", file.display());
    assert!(json(&te(&format!("{pair} --json -")))["te_nats"].as_f64().unwrap() < 0.0);
    let output = te(&pair);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("x → y: 0.000000 nats"), "{text}");
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
    let pair = format!("--input {} --source x --target y --device cpu --json -", file.display());
    assert!(json(&te(&pair))["ties"].as_u64().unwrap() > 100);
    let parted = json(&te(&format!("{pair} --noise 1e-8 --precision f64")));
    assert_eq!(parted["ties"], 0);
    let lines = (0..200_u32).map(|i| {
        format!("{},{}\n", 1_000_000_000 + i * i % 7, 1_000_000_000 + (i * 5 + i * i) % 11)
    });
    std::fs::write(&file, format!("x,y\n{}", lines.collect::<String>())).unwrap();
    let parted = json(&te(&format!("{pair} --noise 1e-8 --precision f64")));
    assert_eq!(parted["ties"], 0, "an offset swallows the noise");
}

/// What is in use is not recommended. A step of a ramp is the distance to the points before and after, with noise as
/// without.
#[test]
fn the_warning_of_ties_names_what_is_left_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (file, svg) = (folder.path().join("ties.csv"), folder.path().join("ties.svg"));
    let lines = (0..200_u32)
        .map(|i| format!("{},{}\n", f64::from(i * i % 11) * 1e-3, f64::from(5 * i + i * i % 7)));
    std::fs::write(&file, format!("x,y\n{}", lines.collect::<String>())).unwrap();
    let common = format!("--input {} --device cpu --k 1", file.display());
    for (command, svg) in [
        ("--source x --target y".to_owned(), String::new()),
        ("matrix --columns x,y".to_owned(), format!("--svg {}", svg.display())),
    ] {
        for (options, said) in [
            ("--precision f64", "--noise 1e-8 with --precision f64 parts"),
            ("--noise 1e-3", "--precision f64 parts what f32"),
            ("--noise 1e-3 --precision f64", ""),
        ] {
            let output = te(&format!("{command} {common} {options} {svg}"));
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{text}");
            assert!(text.contains("warning: ") && text.contains(said), "{options}: {text}");
            assert!(!options.contains("--noise") || !text.contains("--noise"), "{options}: {text}");
        }
    }
}

/// What the case has of the other options.
#[test]
fn options_have_the_values_of_the_case() {
    let pair = format!("--input {} --source x --target y --device cpu --json -", case());
    for (options, expected) in [
        ("--algorithm 2", 0.133_518_703_122_243_65),
        ("--theiler 10", 0.111_847_947_360_169_01),
        ("--precision f64", 0.114_127_595_982_737_07),
        // JIDT's conditional mutual information of series that were z-scored before.
        ("--standardize --precision f64", 0.111_289_642_499_012_85),
    ] {
        let found = json(&te(&format!("{pair} {options}")));
        let got = found["te_nats"].as_f64().unwrap();
        assert!((got - expected).abs() < 1e-6, "{options}: {got}");
        assert!(found["p_value"].is_null() && found["surrogate_std"].is_null());
    }
    let found = json(&te(&format!("{pair} --surrogates 1 --surrogate-kind block")));
    assert!(found["p_value"].as_f64().is_some() && found["surrogate_std"].is_null());
    // What y is told by itself, x's past cannot tell again.
    let given = json(&te(&format!("{pair} --conditions x")));
    assert!(given["te_nats"].as_f64().unwrap() < 0.03, "{given}");
}

/// The default length of blocks is that of the points which delays leave.
#[test]
fn blocks_fit_the_points_that_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("short.csv");
    let text = std::fs::read_to_string(case()).unwrap();
    let lines: Vec<&str> = text.lines().take(301).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let (svg, input) = (folder.path().join("scan.svg"), file.display());
    let pair = format!("--input {input} --source x --target y --device cpu --json -");
    let block = "--surrogate-kind block";
    // 20 points, of which the 17 rows of √299 are more than a third.
    for surrogates in [0, 9] {
        let line = format!("{pair} --delay 280 {block} --surrogates {surrogates}");
        let found = json(&te(&line));
        assert_eq!((&found["points"], found["p_value"].is_null()), (&20.into(), surrogates == 0));
    }
    for surrogates in [0, 9] {
        let scan = format!("scan {pair} --min-delay 250 --max-delay 260 --svg {}", svg.display());
        let found = json(&te(&format!("{scan} {block} --surrogates {surrogates}")));
        assert_eq!(found["delays"].as_array().unwrap().len(), 11);
    }
    // Six points, of which two rows are a third.
    json(&te(&format!("{pair} --delay 294 {block} --surrogates 9")));
    let folder = folder.path().join("matrix.svg");
    json(&te(&format!(
        "matrix --input {input} --columns x,y --delay 280 {block} --surrogates 9 --device cpu --svg {} --json -",
        folder.display()
    )));
}

/// Standardised, differences and growth rates: what a file of them would have given. Growth is of values above 0.
#[test]
fn series_are_transformed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: &[(f64, f64)]| {
        let file = folder.path().join(name);
        let lines = rows.iter().map(|(x, y)| format!("{x:?},{y:?}\n")).collect::<String>();
        std::fs::write(&file, format!("x,y\n{lines}")).unwrap();
        file.display().to_string()
    };
    let rows: Vec<(f64, f64)> = (0..120_u32)
        .map(|i| (f64::from(i * i % 37) + 1.0, f64::from(i * i * i % 41) + 2.0))
        .collect();
    let pairs = || rows.windows(2).map(|pair| (pair[0], pair[1]));
    let of = |change: fn(f64, f64) -> f64| -> Vec<(f64, f64)> {
        pairs().map(|(a, b)| (change(a.0, b.0), change(a.1, b.1))).collect()
    };
    let levels = write("levels.csv", &rows);
    for (transform, change) in
        [("difference", (|a, b| b - a) as fn(f64, f64) -> f64), ("growth", |a, b| (b / a).ln())]
    {
        let changed = write("changed.csv", &of(change));
        let options = "--source x --target y --device cpu --precision f64 --json -";
        let expected = json(&te(&format!("--input {changed} {options}")));
        let got = json(&te(&format!("--input {levels} --transform {transform} {options}")));
        assert_eq!(got, expected, "{transform}");
        assert_eq!(got["points"], 118);
    }
    let standard = |of: fn(&(f64, f64)) -> f64| {
        let values: Vec<f64> = rows.iter().map(of).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        values.into_iter().map(move |value| (value - mean) / variance.sqrt())
    };
    let scaled = write("scaled.csv", &standard(|r| r.0).zip(standard(|r| r.1)).collect::<Vec<_>>());
    // Without ties, which rounding parts as it pleases.
    let options = "--source x --target y --device cpu --precision f64 --noise 1e-3 --json -";
    let [expected, got] = [format!("--input {scaled}"), format!("--input {levels} --standardize")]
        .map(|file| json(&te(&format!("{file} {options}")))["te_nats"].as_f64().unwrap());
    assert!((got - expected).abs() < 1e-9, "{got}, expected {expected}");
    let sunk = write("sunk.csv", &[(1.0, 1.0), (2.0, 0.0), (3.0, 2.0)]);
    let output = te(&format!("--input {sunk} --source x --target y --transform growth"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("line 3, column `y`: expected a number above 0"), "{said}");
}

/// A matrix of all columns leaves out what is no series: names, constants and counts of the lines.
#[test]
fn a_matrix_takes_the_columns_that_are_series() {
    let folder = tempfile::tempdir().unwrap();
    let (file, svg) = (folder.path().join("all.csv"), folder.path().join("all.svg"));
    let lines = (0..80_u32).map(|i| {
        format!(
            "{i},name{i},5,{},{}\n",
            f64::from(i * i % 37) / 7.0,
            f64::from(i * i * i % 41) / 7.0
        )
    });
    std::fs::write(&file, format!("t,name,same,x,y\n{}", lines.collect::<String>())).unwrap();
    let found = json(&te(&format!(
        "matrix --input {} --device cpu --svg {} --json -",
        file.display(),
        svg.display()
    )));
    assert_eq!(found["series"], serde_json::json!(["x", "y"]));
}
