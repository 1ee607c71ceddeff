//! `kasmina layer step` as a program: rules, schedules, configurations, and a layer's own checkpoint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test takes a part of it")]
mod support;

use std::fs;

use kasmina::Device;
use kasmina::kasmina::checkpoint::Checkpoint;
use kasmina::kasmina::files::{Dtype, Tensor};
use kasmina::kasmina::{Blueprint, KasminaLayer, LayerConfig};
use kasmina::types::{BlendSchedule, BlueprintType, SeedLifecycle};
use serde_json::Value;
use support::{CHUNK, Folder, SEEDS, checkpoint, code, file, refused, stderr, stdout};

fn load(folder: &Folder, name: &str) -> Checkpoint {
    Checkpoint::load(&folder.path(name)).unwrap()
}

#[track_caller]
fn json(folder: &Folder, line: &str) -> Value {
    let output = folder.run(line);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A grafting seed at its target.
fn grafted() -> Checkpoint {
    let mut grafted = checkpoint();
    grafted.states.alpha[3] = 1.0;
    grafted.graft.epochs_in_state[3] = 48;
    grafted
}

#[test]
fn the_rules_take_a_seed_on() {
    for device in ["cpu", "simt"] {
        let folder = Folder::new(&[("c", &grafted().to_bytes().unwrap())]);
        let step = format!("layer step --state @c --output @out --device {device}");
        json(&folder, &format!("{step} --epochs 1 --json -"));
        assert_eq!(load(&folder, "out").states.lifecycle[3], 3, "49 epochs are too few");
        let result = json(&folder, &format!("{step} --epochs 2 --json -"));
        let after = load(&folder, "out");
        assert_eq!((after.states.lifecycle[3], after.graft.epochs_in_state[3]), (4, 0));
        let passed = serde_json::json!([{
            "epoch": 14, "seed": 3, "from": "GRAFTING", "to": "STABILIZATION",
            "reason": "α is at its target"
        }]);
        assert_eq!(result["transitions"], passed);
        assert_eq!((after.metadata.step, after.metadata.epoch), (700, 14));
        // In all: 20 epochs in STABILIZATION, and what the table says of the 30 in EVALUATING.
        let csv: String =
            (0..60).map(|epoch| format!("{epoch},3,0.1,0.9,{}\n", epoch % 3)).collect();
        let csv = format!("epoch,seed,performance_gain,stability,errors\n{csv}");
        fs::write(folder.path("m.csv"), csv).unwrap();
        let result = json(&folder, &format!("{step} --metrics @m.csv --json -"));
        let to: Vec<_> =
            result["transitions"].as_array().unwrap().iter().map(|t| &t["to"]).collect();
        assert_eq!(to, ["STABILIZATION", "EVALUATING", "FINE_TUNING"]);
        let after = load(&folder, "out");
        assert_eq!((after.states.lifecycle[3], after.metadata.epoch), (6, 72));
        // Errors are a reason to cull it.
        let csv = fs::read_to_string(folder.path("m.csv")).unwrap().replace(",0\n", ",6\n");
        fs::write(folder.path("m.csv"), csv).unwrap();
        json(&folder, &format!("{step} --metrics @m.csv --embargo 70 --json -"));
        let after = load(&folder, "out");
        assert_eq!(after.states.lifecycle[3], SeedLifecycle::Culled as u8);
        assert!((61..70).contains(&after.graft.embargo_epochs[3]), "{:?}", after.graft);
    }
}

#[test]
fn a_configuration_gives_rules_and_schedules() {
    let toml = format!(
        "num_seeds = {SEEDS}\nhidden_dim = {}\nkernel = \"tma\"\nschedule = \"drift_controlled\"\n\
         ramp_epochs = 4\nalpha_target = 0.5\n[rules]\ntraining_epochs = 2\nembargo_epochs = 9\n",
        SEEDS * CHUNK
    );
    let schedule = serde_json::to_value(LayerConfig {
        schedule: BlendSchedule::DriftControlled,
        ..LayerConfig::default()
    });
    let name = schedule.unwrap()["schedule"].as_str().unwrap().to_owned();
    let toml = toml.replace("drift_controlled", &name);
    let config = LayerConfig::from_toml(&toml).unwrap();
    let json_form = config.to_json();
    let csv = "epoch,reconstruction_loss,drift\n0,0.001,0.01\n1,0.001,0.01\n2,,0.01\n";
    let mut results = Vec::new();
    for (name, text) in [("a.toml", &toml), ("a.json", &json_form)] {
        let folder = Folder::new(&[
            ("c", &checkpoint().to_bytes().unwrap()),
            (name, text.as_bytes()),
            ("m.csv", csv.as_bytes()),
        ]);
        let line = format!(
            "layer step --state @c --output @out --config @{name} --metrics @m.csv --device cpu \
             --germinate 0=2 --set 0=TRAINING --set 2=CULLED --json -"
        );
        json(&folder, &line);
        let after = load(&folder, "out");
        let graft = &after.graft;
        assert_eq!((graft.schedule[0], graft.ramp_epochs[0], graft.alpha_target[0]), (2, 4, 0.5));
        // In TRAINING for two epochs, and a drift below the threshold counts twice.
        assert_eq!((after.states.lifecycle[0], after.states.alpha[0]), (3, 0.5));
        assert_eq!(graft.embargo_epochs[2], 6);
        results.push(fs::read(folder.path("out")).unwrap());
    }
    assert_eq!(results[0], results[1]);

    let folder = Folder::new(&[("c", &checkpoint().to_bytes().unwrap())]);
    for (text, said) in [
        ("num_seeds = 6\nhidden_dim = 36\n", "`chunk_size` is 5, the layer's is 6"),
        ("num_seeds = 6\nhiden_dim = 30\n", "hiden_dim"),
        ("num_seeds = 6\nhidden_dim = 30\nmax_blueprints = 4\n", "`max_blueprints` is 4"),
        ("num_seeds = 6\nhidden_dim = 30\nblueprint_budget_bytes = 40\n", "2 fit the budget"),
        ("{\"num_seeds\": 6", "not JSON"),
    ] {
        fs::write(folder.path("a.conf"), text).unwrap();
        let line = "layer step --state @c --output @out --config @a.conf --device cpu";
        let output = folder.run(line);
        assert!(refused(&output).contains(said), "{said:?} is not in {}", stderr(&output));
    }
    let output = folder.run("layer step --state @c --output @out --config @none.toml");
    assert!(refused(&output).contains("none.toml"), "{}", stderr(&output));
    assert_eq!(folder.names(), ["a.conf", "c"]);
}

#[test]
fn schedules_are_set_as_the_layers_commands_do() {
    for device in ["cpu", "simt"] {
        let folder = Folder::new(&[("c", &checkpoint().to_bytes().unwrap())]);
        let step = format!("layer step --state @c --output @out --device {device}");
        // Without a seed, those that are named otherwise; a later one overrides.
        json(
            &folder,
            &format!(
                "{step} --germinate 0=1 --set 2=GRAFTING --schedule grad-norm-gated \
                 --schedule 3=PERFORMANCE_LINKED --ramp 7 --ramp 2=8 --alpha-target 0.75 --json -"
            ),
        );
        let graft = load(&folder, "out").graft;
        assert_eq!(graft.schedule, [3, 0, 3, 1, 0, 0]);
        assert_eq!(graft.ramp_epochs, [7, 30, 8, 30, 30, 30]);
        assert_eq!(graft.alpha_target, [0.75, 1.0, 0.75, 1.0, 1.0, 1.0]);
        // They hold from the first epoch on.
        let epochs = "--set 2=GRAFTING --alpha-target 2=0.7 --ramp 2=2 --epochs 1";
        json(&folder, &format!("{step} {epochs} --json -"));
        assert_eq!(load(&folder, "out").states.alpha[2], 0.7);
    }
    let folder = Folder::new(&[("c", &checkpoint().to_bytes().unwrap())]);
    for (arguments, said) in [
        ("--schedule FIXED_RAMP", "name it, as in 3="),
        ("--ramp 0=0", "at least 1 epoch"),
        ("--ramp 0=x", "ramp \"x\""),
        ("--alpha-target 0=1.5", "expected 0 to 1"),
        ("--alpha-target 0=NaN", "expected 0 to 1"),
        ("--schedule 0=SLOW", "PERFORMANCE_LINKED"),
        ("--schedule 6=FIXED_RAMP", "no seed 6"),
        ("--alpha-target x=1", "seed \"x\""),
    ] {
        let output = folder.run(&format!("layer step --state @c --output @out {arguments}"));
        assert!(refused(&output).contains(said), "{said:?} is not in {}", stderr(&output));
        assert_eq!(folder.names(), ["c"]);
    }
}

/// A layer with ids that are not rows, one of them of zeros.
fn layer() -> KasminaLayer<f32> {
    let builder = KasminaLayer::<f32>::builder(SEEDS, SEEDS * CHUNK);
    let mut layer =
        builder.max_blueprints(4096).blueprint_budget_bytes(1 << 10).build(&Device::Cpu).unwrap();
    for factor in 0..9 {
        let weights = vec![if factor == 7 { 0.0 } else { factor as f32 }; CHUNK];
        let (kind, scale) = if factor == 7 {
            (BlueprintType::ResidualBlock, 0.0)
        } else {
            (BlueprintType::Scale, 1.0)
        };
        layer.load_blueprint(&Blueprint { kind, weights, scale }).unwrap();
    }
    for id in [1, 2, 5] {
        layer.unload_blueprint(id).unwrap();
    }
    layer.germinate(4, 6).unwrap();
    layer.advance(4).unwrap();
    layer.advance(4).unwrap();
    layer.set_alpha(4, 0.5).unwrap();
    layer
}

#[test]
fn a_layers_checkpoint_goes_through_and_comes_back() {
    let mut layer = layer();
    let bytes = layer.checkpoint(30).unwrap().to_bytes().unwrap();
    for device in ["cpu", "simt"] {
        let folder = Folder::new(&[("c", &bytes)]);
        let output = folder.run("layer inspect @c");
        let shown = stdout(&output);
        let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect();
        let rows: Vec<Vec<String>> = shown.lines().map(words).collect();
        for row in [["0", "none"], ["3", "SCALE"], ["8", "RESIDUAL_BLOCK"], ["9", "SCALE"]] {
            assert!(rows.contains(&row.map(str::to_owned).to_vec()), "{row:?} is not in {shown}");
        }
        let seeds = json(&folder, "layer inspect @c --json -");
        assert_eq!(seeds["seeds"][4]["blueprint"], 6);
        assert_eq!(seeds["seeds"][4]["unstable"], false);

        // A plain pass reads it: row numbers are as good as ids. Blueprint 6 is times 5.
        let x = [1.0_f32; SEEDS * CHUNK];
        let input = file(&[Tensor::of("input", Dtype::F32, &[1, SEEDS * CHUNK], &x)]);
        fs::write(folder.path("x"), input).unwrap();
        let forward = "layer forward --state @c --input @x --output @y";
        json(&folder, &format!("{forward} --device {device} --json -"));
        let y = fs::read(folder.path("y")).unwrap();
        let y = safetensors::SafeTensors::deserialize(&y).unwrap();
        let y: Vec<f32> = y
            .tensor("output")
            .unwrap()
            .data()
            .chunks(4)
            .map(bytemuck::pod_read_unaligned)
            .collect();
        for (i, y) in y.into_iter().enumerate() {
            assert_eq!(y, if i / CHUNK == 4 { 3.0 } else { 1.0 }, "column {i}");
        }

        let step = format!("layer step --state @c --output @out --device {device}");
        let result = json(&folder, &format!("{step} --germinate 5=8 --epochs 2 --json -"));
        assert_eq!(result["changes"][1]["blueprint"], serde_json::json!([0, 8]));
        let output = folder.run(&format!("{step} --germinate 1=5"));
        assert!(refused(&output).contains("blueprint 5 is not loaded; it was evicted"));

        // What the layer itself does is the same.
        let after = load(&folder, "out");
        layer.restore(&Checkpoint::load(&folder.path("c")).unwrap()).unwrap();
        layer.germinate(5, 8).unwrap();
        for _ in 0..2 {
            layer
                .end_epoch(&kasmina::kasmina::EpochReport::uniform(SEEDS, Default::default()))
                .unwrap();
        }
        assert_eq!(after.to_bytes().unwrap(), layer.checkpoint(30).unwrap().to_bytes().unwrap());
        assert!(after.to_bytes().unwrap().len() < 4096, "{}", after.to_bytes().unwrap().len());
    }
}

#[test]
fn a_mistyped_number_of_epochs_ends_at_once_and_many_take_no_memory() {
    let folder = Folder::new(&[("c", &checkpoint().to_bytes().unwrap())]);
    let step = "layer step --state @c --output @out --device cpu --json -";
    let output = folder.run(&format!("{step} --epochs 4000000000"));
    assert!(refused(&output).contains("not in 0..=1000000"), "{}", stderr(&output));
    let result = json(&folder, &format!("{step} --epochs 3000 --schedule 3=PERFORMANCE_LINKED"));
    assert_eq!(result["stood_still"], serde_json::json!({"epochs": 3000, "most_seeds": 1}));
    // The last epoch that can be counted is the last.
    let mut late = checkpoint();
    late.metadata.epoch = u64::MAX - 1;
    late.save(&folder.path("c")).unwrap();
    assert_eq!(json(&folder, &format!("{step} --epochs 3"))["epoch"], u64::MAX);
}

#[test]
fn a_symbolic_link_is_replaced_and_what_it_points_to_stays() {
    let folder = Folder::new(&[("c", &checkpoint().to_bytes().unwrap()), ("there", b"mine")]);
    std::os::unix::fs::symlink(folder.path("there"), folder.path("out")).unwrap();
    json(&folder, "layer step --state @c --output @out --device cpu --epochs 1 --json -");
    assert_eq!(fs::read(folder.path("there")).unwrap(), b"mine");
    assert!(folder.path("out").symlink_metadata().unwrap().is_file());
    assert_eq!(load(&folder, "out").metadata.epoch, 13);
    assert_eq!(folder.names(), ["c", "out", "there"]);
}
