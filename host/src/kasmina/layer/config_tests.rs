//! Every option is read back from both forms, and every wrong one is named.

use super::*;

fn good() -> LayerConfig {
    LayerConfig::new(4, 64)
}

#[test]
fn both_forms_are_read_back() {
    let mut config = good();
    config.blueprint_budget_bytes = Some(1 << 20);
    config.stability_lower_bound = Some(-10.0);
    config.preferred_block_size = Some(256);
    config.linear_tolerance = 1e-3;
    config.schedule = BlendSchedule::DriftControlled;
    config.kernel = KernelChoice::Tuned;
    config.compare_with = ComparedKernel::Tma;
    assert!(config.to_toml().contains("kernel = \"tuned\""));
    for clip in [
        GradientClipping::None,
        GradientClipping::Value { limit: 0.5 },
        GradientClipping::Adaptive { factor: 2.0, decay: 0.9 },
    ] {
        config.gradient_clip = clip;
        assert_eq!(LayerConfig::from_json(&config.to_json()), Ok(config.clone()));
        assert_eq!(LayerConfig::from_toml(&config.to_toml()), Ok(config.clone()));
    }
}

#[test]
fn every_wrong_option_is_named() {
    type Break = fn(&mut LayerConfig);
    let breaks: [(&str, Break); 31] = [
        ("num_seeds", |c| c.num_seeds = 0),
        ("hidden_dim", |c| c.hidden_dim = 63),
        ("hidden_dim", |c| c.hidden_dim = 0),
        ("hidden_dim", |c| c.hidden_dim = 1 << 33),
        ("hidden_dim", |c| (c.num_seeds, c.hidden_dim) = (1, 1 << 63)),
        ("max_blueprints", |c| c.max_blueprints = 1),
        ("max_blueprints", |c| c.max_blueprints = 65537),
        ("max_blueprint_types", |c| c.max_blueprint_types = 0),
        ("blueprint_budget_bytes", |c| c.blueprint_budget_bytes = Some(63)),
        ("blueprint_budget_bytes", |c| c.blueprint_budget_bytes = Some(1 << 63)),
        ("telemetry_metrics_per_seed", |c| c.telemetry_metrics_per_seed = 9),
        ("telemetry_ring_capacity", |c| c.telemetry_ring_capacity = 0),
        ("telemetry_reduction_strategy", |c| {
            c.telemetry_reduction_strategy = TelemetryReduction::Atomic;
        }),
        ("telemetry_reduction_strategy", |c| {
            c.telemetry_reduction_strategy = TelemetryReduction::Max;
            c.enable_telemetry = false;
        }),
        ("numerical_stability_mode", |c| c.enable_telemetry = false),
        ("stability_epsilon", |c| c.stability_epsilon = 1e-6),
        ("stability_lower_bound", |c| c.stability_lower_bound = Some(f32::NAN)),
        ("stability_upper_bound", |c| {
            c.stability_lower_bound = Some(2.0);
            c.stability_upper_bound = Some(1.0);
        }),
        ("gradient_clip.limit", |c| c.gradient_clip = GradientClipping::Value { limit: 0.0 }),
        ("gradient_clip.decay", |c| {
            c.gradient_clip = GradientClipping::Adaptive { factor: 1.0, decay: 1.0 };
        }),
        ("kernel", |c| {
            c.kernel = KernelChoice::Tma;
            c.enable_warp_specialization = false;
        }),
        ("kernel", |c| {
            c.kernel = KernelChoice::TmaBulkStores;
            c.enable_tma = false;
        }),
        ("rollout_percent", |c| c.rollout_percent = 101),
        ("ramp_epochs", |c| c.ramp_epochs = 0),
        ("alpha_target", |c| c.alpha_target = f32::NAN),
        ("preferred_block_size", |c| c.preferred_block_size = Some(0)),
        ("preferred_block_size", |c| c.preferred_block_size = Some(64)),
        ("preferred_block_size", |c| {
            c.preferred_block_size = Some(128);
            c.hidden_dim = 12 * c.num_seeds;
        }),
        ("linear_tolerance", |c| c.linear_tolerance = 0.0),
        ("linear_tolerance", |c| c.linear_tolerance = f64::INFINITY),
        ("rules.error_rate", |c| c.rules.error_rate = f32::INFINITY),
    ];
    assert_eq!(good().check(), Ok(()));
    for (option, spoil) in breaks {
        let mut config = good();
        spoil(&mut config);
        let why = config.check().expect_err(option).to_string();
        assert!(why.contains(option), "{option}: {why}");
    }
}

#[test]
fn the_builder_has_every_option_of_the_kernels() {
    let builder = crate::kasmina::KasminaLayer::<f32>::builder(4, 64);
    let builder = builder.stability_epsilon(1e-8).kernel(KernelChoice::TmaBulkStores);
    assert_eq!(builder.config().check(), Ok(()));
    assert!(builder.config().to_toml().contains("kernel = \"tma_bulk_stores\""));
    let why = builder.stability_epsilon(1e-6).config().check().expect_err("another");
    assert!(why.to_string().contains("stability_epsilon"), "{why}");
}

/// Of the sizes up to that of the largest block of a GPU, those that the tile table has are taken, and the others
/// refused with those that there are.
#[test]
fn a_block_size_without_kernels_is_refused() {
    use kasmina_types::tiles::TILES;
    let passes =
        [["blend_forward", "blend_forward_seed"], ["blend_backward", "blend_backward_seed"]];
    for threads in 0..=1024 {
        let there = |pass: [&str; 2]| {
            TILES.iter().any(|t| pass.contains(&t.family) && t.block_threads == threads)
        };
        let config = LayerConfig { preferred_block_size: Some(threads), ..good() };
        match config.check() {
            Ok(()) => assert!(passes.into_iter().all(there), "{threads}"),
            Err(why) => {
                assert!(!passes.into_iter().any(there), "{threads}: {why}");
                assert!(why.to_string().contains("have 128 or 256 threads"), "{why}");
            }
        }
    }
}

#[test]
fn text_that_is_no_configuration_is_refused() {
    for text in ["num_seeds = \"four\"", "seeds = 4", "schedule = \"sudden\"", "= 3"] {
        let why = LayerConfig::from_toml(text).expect_err(text);
        assert!(matches!(why, ConfigError::Parse { format: "TOML", .. }), "{why}");
    }
    assert!(matches!(LayerConfig::from_json("{"), Err(ConfigError::Parse { .. })));
}

/// What the fuzz target begins with: every option, the least, and one that no count holds.
#[test]
fn the_fuzz_targets_seeds_are_read_or_refused() {
    let names = |json: &str| -> Vec<String> {
        let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
        read.as_object().expect("an object").keys().cloned().collect()
    };
    let written = include_str!("../../../../fuzz/seeds/layer_config/full.json");
    let full = LayerConfig::from_json(written).expect("every option has a value");
    assert_eq!(names(written), names(&full.to_json()), "an option is missing");
    let small = include_str!("../../../../fuzz/seeds/layer_config/small.toml");
    assert_eq!(LayerConfig::from_toml(small).map(|config| config.chunk_size()), Ok(16));
    let wide = include_str!("../../../../fuzz/seeds/layer_config/wide.json");
    let why = LayerConfig::from_json(wide).expect_err("no device has such a row");
    assert!(matches!(why, ConfigError::Value { option: "hidden_dim", .. }), "{why}");
}
