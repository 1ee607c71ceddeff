//! `kasmina layer inspect` and `kasmina layer step` as programs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::process::{Command, Output};

use kasmina::kasmina::checkpoint::{Checkpoint, crc32_of_state};
use kasmina::kasmina::{GraftStates, SeedStates};
use serde_json::Value;
use support::{
    CHUNK, Folder, SEEDS, checkpoint, code, refused, state_file, states, stderr, stdout,
};

fn json(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn folder() -> Folder {
    Folder::new(&[("c", &checkpoint().to_bytes().unwrap())])
}

fn load(folder: &Folder, name: &str) -> Checkpoint {
    Checkpoint::load(&folder.path(name)).unwrap()
}

#[test]
fn inspect_shows_every_seed_and_blueprint() {
    let folder = folder();
    let output = folder.run("layer inspect @c");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(!text.contains('\x1b'), "colours: {text}");
    let Checkpoint { states, graft, .. } = checkpoint();
    let crc = format!("{:08x}", crc32_of_state(&states, &graft));
    for part in [
        "schema 1",
        "step 700, epoch 12",
        "run: seven",
        "6 seeds × 5 columns, 5 blueprints",
        &format!("CRC-32 {crc}, as recorded: ok"),
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let row = |begin: &[&str]| {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let found = text.lines().map(words).find(|words| words.starts_with(&begin.map_owned()));
        found.unwrap_or_else(|| panic!("no row {begin:?} in {text}"))
    };
    row(&["0", "DORMANT", "none", "0", "1", "FIXED_RAMP", "30", "9", "0"]);
    row(&["3", "GRAFTING", "3", "CONV_FILTER", "0.25", "1", "FIXED_RAMP", "30", "9", "0"]);
    row(&["4", "CULLED", "4", "MLP_EXPANSION", "0.5", "1", "FIXED_RAMP", "30", "9", "3"]);
    let norm = states.blueprint_weights[10..15].iter().map(|w| w * w).sum::<f32>().sqrt();
    row(&["2", "SCALE", "2", &format!("{norm:.6}"), "2"]);
    // Row 0 is no blueprint, whatever stands there.
    row(&["0", "none", "1"]);
}

trait Owned {
    fn map_owned(&self) -> Vec<String>;
}

impl Owned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|&word| word.to_owned()).collect()
    }
}

#[test]
fn inspect_has_a_result_for_programs() {
    let folder = folder();
    let result = json(&folder.run("layer inspect @c --json -"));
    assert_eq!((&result["step"], &result["epoch"]), (&700.into(), &12.into()));
    assert_eq!(result["integrity"]["status"], "ok");
    assert_eq!(result["integrity"]["crc32_recorded"], result["integrity"]["crc32_computed"]);
    assert_eq!(result["states"]["GRAFTING"], 1);
    assert_eq!(result["seeds"].as_array().unwrap().len(), SEEDS);
    assert_eq!(result["seeds"][3]["blueprint_type"], "CONV_FILTER");
    assert_eq!(result["seeds"][0]["blueprint_type"], Value::Null);
    assert_eq!(result["seeds"][0]["baseline_loss"], Value::Null);
    assert_eq!(result["blueprints"][2]["seeds"], 2);
    assert_eq!(result["blueprints"][0]["blueprint_type"], Value::Null);
    assert_eq!(result["seeds"][3]["unstable"], Value::Null);
    assert_eq!(result["extra"]["run"], "seven");
}

#[test]
fn inspect_tells_damage_from_what_it_cannot_read() {
    let whole = checkpoint().to_bytes().unwrap();
    let data = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&whole[8..data]).unwrap();
    // A weight with another last bit is still a state; an α of NaN is none.
    let find = |name: &str| {
        let header: Value = serde_json::from_str(text).unwrap();
        data + header[name]["data_offsets"][0].as_u64().unwrap() as usize
    };
    let mut damaged = whole.clone();
    damaged[find("blueprint_weights")] ^= 1;
    let folder = Folder::new(&[("c", &damaged)]);
    let output = folder.run("layer inspect @c");
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(stdout(&output).contains("DAMAGED") && stdout(&output).contains("GRAFTING"));
    let mut spoilt = whole.clone();
    let alpha = find("alpha");
    spoilt[alpha..alpha + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let newer = replaced(&whole, "\"schema_version\":\"1\"", "\"schema_version\":\"3\"");
    let version = replaced(&whole, "\"step\":\"700\"", "\"step\":\"701\"");
    for (bytes, said) in [
        (spoilt, "CRC-32 of the tensors"),
        (newer, "schema version 3, but this build reads up to 2"),
        (version, "CRC-32 of the metadata"),
        (whole[..whole.len() - 1].to_vec(), "truncated"),
        (b"nothing".to_vec(), "not a whole safetensors file"),
    ] {
        let folder = Folder::new(&[("c", &bytes)]);
        let output = folder.run("layer inspect @c");
        assert!(refused(&output).contains(said), "{said:?} is not in {}", stderr(&output));
        let output = folder.run("layer step --state @c --epochs 1 --output @out");
        assert!(refused(&output).contains(said), "{said:?} is not in {}", stderr(&output));
        assert_eq!(folder.names(), ["c"]);
    }
    let output = folder.run("layer inspect @nothing");
    assert!(refused(&output).contains("cannot read"), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("No such file").count(), 1, "{}", stderr(&output));
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn inspect_reads_plain_files_and_sums_up_long_ones() {
    let folder = Folder::new(&[("c", &state_file(&states(1)))]);
    let output = folder.run("layer inspect @c");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("plain state file"), "{}", stdout(&output));
    assert!(stdout(&output).contains("none recorded"), "{}", stdout(&output));

    let many = SeedStates {
        lifecycle: (0..1000).map(|s| (s % 4) as u8).collect(),
        blueprint_id: vec![1; 1000],
        alpha: vec![0.5; 1000],
        blueprint_type: vec![4; 60],
        blueprint_weights: vec![1.0; 60],
        blueprint_scales: vec![1.0; 60],
        chunk_size: 1,
    };
    let many = Checkpoint::new(many, GraftStates::new(1000), 0, 0);
    let folder = Folder::new(&[("c", &many.to_bytes().unwrap())]);
    let short = folder.run("layer inspect @c");
    let text = stdout(&short);
    assert!(text.lines().count() < 30, "{text}");
    for (state, count) in [("DORMANT", "250"), ("GRAFTING", "250"), ("SCALE", "59"), ("none", "1")]
    {
        let words = [state, count];
        assert!(text.lines().any(|line| line.split_whitespace().eq(words)), "{text}");
    }
    let all = folder.run("layer inspect @c --all");
    assert!(stdout(&all).lines().count() > 1060);
}

#[test]
fn a_step_takes_seeds_through_transitions_and_epochs() {
    let mut results = Vec::new();
    for device in ["cpu", "simt"] {
        let folder = folder();
        let output = folder.run(&format!(
            "layer step --state @c --output @out --epochs 3 --germinate 0=2 --set 1=training \
             --set 2=GRAFTING --device {device} --json -"
        ));
        let result = json(&output);
        let before = checkpoint();
        let after = load(&folder, "out");
        assert_eq!(after.states.lifecycle, [1, 2, 3, 3, 8, 7]);
        assert_eq!(after.states.blueprint_id, [2, 1, 2, 3, 4, 2]);
        // Fixed ramps of 30 epochs.
        for (seed, from) in [(2, 0.5), (3, 0.25)] {
            assert!((after.states.alpha[seed] - (from + 0.1)).abs() < 1e-6, "{seed}");
        }
        assert_eq!(after.graft.epochs_in_state, [3, 3, 3, 12, 12, 12]);
        assert_eq!(after.graft.embargo_epochs, [0; SEEDS]);
        assert_eq!((after.metadata.step, after.metadata.epoch), (700, 15));
        assert_eq!(after.metadata.extra, before.metadata.extra);
        // Row 0 is 'none'.
        let weights = |c: &Checkpoint| c.states.blueprint_weights[CHUNK..].to_vec();
        assert_eq!(weights(&after), weights(&before));
        assert_eq!((&result["epochs"], &result["epoch"]), (&3.into(), &15.into()));
        let changed: Vec<_> =
            result["changes"].as_array().unwrap().iter().map(|c| c["seed"].as_u64()).collect();
        assert_eq!(changed, [0, 1, 2, 3, 4].map(Some));
        assert_eq!(result["changes"][1]["state"], serde_json::json!(["GERMINATED", "TRAINING"]));
        assert!(stderr(&output).contains("GERMINATED → TRAINING"), "{}", stderr(&output));
        results.push(fs::read(folder.path("out")).unwrap());
    }
    assert_eq!(results[0], results[1], "the devices differ");
}

#[test]
fn schedules_read_losses_and_metrics() {
    let mut linked = checkpoint();
    linked.graft.schedule = vec![0, 0, 0, 1, 0, 0];
    linked.graft.ramp_epochs = vec![10; SEEDS];
    let files =
        |csv: &str| Folder::new(&[("c", &linked.to_bytes().unwrap()), ("m.csv", csv.as_bytes())]);
    let alpha = |folder: &Folder| load(folder, "out").states.alpha[3];
    for device in ["cpu", "simt"] {
        let step = format!("layer step --state @c --output @out --device {device}");
        // The first loss is the baseline; half of it counts once, none of it twice.
        let folder = files("");
        json(&folder.run(&format!("{step} --loss 2 1 0 --json -")));
        let linked = 0.25 + 0.1 * (0.5 + 1.0 + 2.0);
        assert!((alpha(&folder) - linked).abs() < 1e-6, "{}", alpha(&folder));
        assert_eq!(load(&folder, "out").graft.baseline_loss[3], 2.0);
        // The same from a table; what is of seed 3 overrides what is of all.
        let folder = files("epoch, seed, loss\n0,,2\n1,,7\n1,3,1\n2,3,0\n");
        json(&folder.run(&format!("{step} --metrics @m.csv --json -")));
        assert!((alpha(&folder) - linked).abs() < 1e-6, "{}", alpha(&folder));
        // One loss is that of every epoch.
        let folder = files("");
        json(&folder.run(&format!("{step} --loss 2 --epochs 4 --json -")));
        assert!((alpha(&folder) - (0.25 + 0.1 * 0.5 * 4.0)).abs() < 1e-6);
        // Without losses the seed stands still, and that is said.
        let folder = files("epoch,drift\n0,0.5\n1,0.5\n");
        let output = folder.run(&format!("{step} --metrics @m.csv --json -"));
        let stood_still = serde_json::json!({"epochs": 2, "most_seeds": 1});
        assert_eq!(json(&output)["stood_still"], stood_still);
        assert!(stderr(&output).contains("in 2 epochs grafting seeds stood still"));
        assert_eq!(alpha(&folder), 0.25);
    }
}

#[test]
fn a_step_may_write_its_own_checkpoint_or_read_a_plain_state() {
    let folder = folder();
    let output = folder.run("layer step --state @c --output @c --epochs 1 --device cpu");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(load(&folder, "c").metadata.epoch, 13);
    assert_eq!(folder.names(), ["c"]);
    let folder = Folder::new(&[("c", &state_file(&states(2)))]);
    let output = folder.run("layer step --state @c --output @out --set 1=CANCELLED --device cpu");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let after = load(&folder, "out");
    assert_eq!((after.metadata.schema_version, after.states.lifecycle[1]), (1, 9));
}

#[test]
fn an_embargo_ends_and_a_reset_gives_the_blueprint_back() {
    let folder = folder();
    let cull = "layer step --state @c --output @d --set 2=CULLED --embargo 2 --device cpu";
    assert_eq!(code(&folder.run(cull)), 0);
    assert_eq!(load(&folder, "d").graft.embargo_epochs[2], 2);
    for (epochs, ends) in [(1, false), (2, true)] {
        let line =
            format!("layer step --state @d --output @e{epochs} --epochs {epochs} --device cpu");
        assert_eq!(code(&folder.run(&line)), 0);
        let reset = folder.run(&format!(
            "layer step --state @e{epochs} --output @f --set 2=DORMANT --device cpu"
        ));
        if ends {
            assert_eq!(code(&reset), 0, "{}", stderr(&reset));
        } else {
            let said = refused(&reset);
            assert!(said.contains("seed 2 is CULLED and under an embargo for 1 more"), "{said}");
        }
    }
    let after = load(&folder, "f").states;
    assert_eq!((after.lifecycle[2], after.blueprint_id[2], after.alpha[2]), (0, 0, 0.0));
}

#[test]
fn what_is_illegal_is_refused_and_nothing_is_written() {
    for device in ["cpu", "simt"] {
        for (arguments, said) in [
            ("--set 0=FOSSILIZED", "seed 0 is DORMANT, from which FOSSILIZED is no legal"),
            ("--set 5=DORMANT", "seed 5 is FOSSILIZED, from which DORMANT is no legal"),
            (
                "--set 1=TRAINING --set 1=EVALUATING",
                "seed 1 is TRAINING, from which EVALUATING is no",
            ),
            (
                "--set 1=TRAINING --set 4=DORMANT",
                "seed 4 is CULLED and under an embargo for 3 more epochs",
            ),
            ("--set 6=TRAINING", "has no seed 6; its 6 seeds"),
            ("--germinate 3=1", "seed 3 is GRAFTING, from which GERMINATED is no legal"),
            ("--germinate 0=5", "blueprint 5 is not loaded"),
        ] {
            let folder = folder();
            fs::write(folder.path("out"), "what was there").unwrap();
            let step = "layer step --state @c --output @out --epochs 2";
            let output = folder.run(&format!("{step} {arguments} --device {device}"));
            assert!(refused(&output).contains(said), "{said:?} is not in {}", stderr(&output));
            assert_eq!(fs::read(folder.path("out")).unwrap(), b"what was there");
            assert_eq!(folder.names(), ["c", "out"]);
        }
    }
}

#[test]
fn wrong_arguments_and_metrics_are_refused() {
    let folder = folder();
    for (name, csv) in [
        ("empty", "epoch,loss\n"),
        ("nan", "epoch,loss\n0,1\n1,NaN\n"),
        ("inf", "epoch,seed,drift\n0,2,inf\n"),
        ("seed", "epoch,seed,loss\n0,6,1\n"),
        ("gap", "epoch,loss\n0,1\n2,1\n"),
        ("late", "epoch,loss\n0,1\n7,1\n"),
        ("text", "epoch,loss\n0,high\n"),
        ("headless", "0,1\n1,2\n"),
        ("misspelt", "epoch,performence_gain\n0,1\n"),
        ("ragged", "epoch,loss\n0\n"),
    ] {
        fs::write(folder.path(name), csv).unwrap();
    }
    let files = folder.names();
    for (arguments, said) in [
        ("--metrics @empty", "no rows"),
        ("--metrics @nan", "line 3: `loss` is \"NaN\", expected a finite number"),
        ("--metrics @inf", "line 2: `drift` is \"inf\""),
        ("--metrics @seed", "`seed` is \"6\", expected less than 6"),
        ("--metrics @gap", "no row of epoch 1"),
        ("--metrics @late --epochs 3", "`epoch` is \"7\", expected less than 3"),
        ("--metrics @text", "line 2: `loss` is \"high\""),
        ("--metrics @headless", "unknown column `0`"),
        ("--metrics @misspelt", "unknown column `performence_gain`; the columns are epoch, seed"),
        ("--metrics @ragged", "found record with 1 fields"),
        ("--metrics @none", "No such file"),
        ("--metrics @nan --loss 1", "cannot be used with"),
        ("--loss nan", "expected a finite number"),
        ("--loss 1 inf", "expected a finite number"),
        ("--loss 1 2 --epochs 3", "losses: there are 2, expected 1, or one for each of the 3"),
        ("--epochs=-1", "--epochs"),
        ("--epochs 4000000000", "4000000000 is not in 0..=1000000"),
        ("--set 3", "expected SEED=STATE"),
        ("--set x=TRAINING", "seed \"x\""),
        ("--set 3=FLYING", "ROLLED_BACK"),
        ("--set 0=GERMINATED", "--germinate SEED=BLUEPRINT"),
        ("--germinate 0=0", "blueprint 0 means none"),
        ("--germinate 0=99999", "blueprint \"99999\""),
        ("--device tpu", "possible values"),
    ] {
        let output = folder.run(&format!("layer step --state @c --output @out {arguments}"));
        assert!(refused(&output).contains(said), "{said:?} is not in {}", stderr(&output));
        assert_eq!(folder.names(), files, "{arguments}");
    }
}

#[test]
fn a_full_disk_leaves_the_old_checkpoint_and_no_litter() {
    let folder = folder();
    let before = fs::read(folder.path("c")).unwrap();
    for (place, why) in [
        ("/dev/full", "cannot write /dev/full"),
        ("@no/such/folder/out", "the folder does not exist"),
        ("@c/out", "the folder does not exist"),
        ("/proc/out", "cannot write /proc/out"),
    ] {
        let line = format!("layer step --state @c --epochs 1 --device cpu --output {place}");
        let output = folder.run(&line);
        assert!(refused(&output).contains(why), "{place}: {}", stderr(&output));
    }
    // A file may have one block of 512 bytes, which the checkpoint has more than.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_kasmina")])
        .args(["layer", "step", "--epochs", "1", "--device", "cpu", "--state"])
        .arg(folder.path("c"))
        .arg("--output")
        .arg(folder.path("c"))
        .output()
        .unwrap();
    assert!(refused(&output).contains("what was there is unchanged"), "{}", stderr(&output));
    assert_eq!(fs::read(folder.path("c")).unwrap(), before);
    assert_eq!(folder.names(), ["c"]);
}
