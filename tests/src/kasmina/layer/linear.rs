//! Seeds that hold a LINEAR blueprint, among others, against the f64 reference.

use kasmina::driver::{Graph, TransferStatistics};
use kasmina::kasmina::checkpoint::{Checkpoint, SCHEMA_VERSION, SCHEMA_WITHOUT_LINEAR};
use kasmina::kasmina::{
    Blueprint, Checkpointing, GradientClipping, KasminaLayer, LayerConfig, LayerElement,
    LayerStack, LinearBlueprint, LinearProduct, NumericalMode, StabilityMode,
};
use kasmina::linear::{Activation, LinearElement, Precision};
use kasmina::types::{BlueprintKind, BlueprintType, SeedLifecycle};
use kasmina::{Buffer, BufferStatistics, Device, Error};
use kasmina_reference::kasmina::{self as reference, DenseSeed};
use kasmina_reference::normalization::Activation as ReferenceActivation;
use ndarray::{Array2, s};

use super::{bits, blueprint, graft, inputs};
use crate::{Narrow, Numbers};

/// Seeds of [`mixed_layer`]: nine of them LINEAR, three of other types.
const SEEDS: usize = 12;

/// A LINEAR blueprint whose W·x is about as large as x.
pub fn linear_blueprint(
    chunk_size: usize,
    activation: Activation,
    numbers: &mut Numbers,
) -> LinearBlueprint {
    let size = 1.5 / (chunk_size as f32).sqrt();
    LinearBlueprint {
        weights: (0..chunk_size * chunk_size).map(|_| numbers.in_range(-size, size)).collect(),
        bias: (0..chunk_size).map(|_| numbers.in_range(-1.0, 1.0)).collect(),
        activation,
    }
}

/// Advances a DORMANT seed `steps` times with a blueprint, the first of which germinates it.
fn bring<T: LayerElement>(layer: &mut KasminaLayer<T>, seed: usize, id: u16, steps: usize) {
    if steps > 0 {
        layer.germinate(seed, id).expect("DORMANT");
    }
    for _ in 1..steps {
        layer.advance(seed).expect("a legal step");
    }
}

/// A layer with LINEAR seeds in every state from DORMANT to FOSSILIZED, and a CULLED one, of two blueprints; a third is
/// loaded, and nobody holds it. Where `linear` is not set, their seeds stay DORMANT.
fn mixed_layer<T: LayerElement>(
    device: &Device,
    chunk_size: usize,
    activations: [Activation; 2],
    mode: StabilityMode,
    linear: bool,
) -> KasminaLayer<T> {
    let mut numbers = Numbers::new(chunk_size as u64);
    let mut layer = KasminaLayer::<T>::builder(SEEDS, SEEDS * chunk_size)
        .max_blueprints(10)
        .linear_budget_bytes(3 * chunk_size * chunk_size * size_of::<T>())
        .numerical_stability_mode(mode)
        .stability_bounds(-1.5, 1.25)
        .build(device)
        .expect("a layer");
    let mut load = |layer: &mut KasminaLayer<T>, activation| {
        let block = linear_blueprint(chunk_size, activation, &mut numbers);
        layer.load_linear_blueprint(&block).expect("room").id
    };
    let ids = [load(&mut layer, activations[0]), load(&mut layer, activations[1])];
    load(&mut layer, Activation::None);
    for seed in 0..8 * usize::from(linear) {
        bring(&mut layer, seed, ids[seed / 2 % 2], seed);
        layer.set_alpha(seed, 0.15 + 0.1 * seed as f32).expect("a number");
    }
    if linear {
        bring(&mut layer, 8, ids[0], 2);
        layer.cull(8).expect("a TRAINING seed");
    }
    for (seed, kind, steps) in [
        (9, BlueprintType::Scale, 3),
        (10, BlueprintType::AttentionHead, 6),
        (11, BlueprintType::ConvFilter, 2),
    ] {
        let id = layer.load_blueprint(&blueprint(kind, chunk_size, &mut numbers)).expect("room").id;
        bring(&mut layer, seed, id, steps);
        layer.set_alpha(seed, 0.4).expect("a number");
    }
    layer
}

/// An array of a layer's input's shape in f64.
fn wide<T: Narrow>(buffer: &Buffer<T>, hidden: usize) -> Array2<f64> {
    let values: Vec<f64> = buffer.to_vec().expect("a read").into_iter().map(Narrow::wide).collect();
    Array2::from_shape_vec((values.len() / hidden, hidden), values).expect("whole rows")
}

/// ‖got − expected‖ ≤ bound · max(‖expected‖, natural).
#[track_caller]
fn near(what: &str, got: &[f64], expected: &[f64], natural: f64, bound: f64) {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied()).max(natural);
    assert!(got.len() == expected.len() && error <= bound * size, "{what}: {error:e} of {size:e}");
}

/// Passes of the layer as it is: every seed that holds a LINEAR blueprint is as the reference has it, and every other as
/// in `twin`, which has no LINEAR seeds.
#[track_caller]
fn check_passes<T: Narrow + LayerElement>(
    device: &Device,
    layer: &mut KasminaLayer<T>,
    twin: Option<&mut KasminaLayer<T>>,
    batch: usize,
    mode: NumericalMode,
) {
    let (hidden, chunk) = (layer.state().hidden(), layer.state().chunk_size());
    let seeds = hidden / chunk;
    let x = inputs::<T>(device, batch * hidden, batch as u64);
    let g = inputs::<T>(device, batch * hidden, 1 + batch as u64);
    let y_buffer = layer.forward(&x).expect("a pass");
    let (y_bits, y) = (bits(y_buffer), wide(y_buffer, hidden));
    let dx_buffer = layer.backward(&x, &g).expect("a pass");
    let (dx_bits, dx) = (bits(dx_buffer), wide(dx_buffer, hidden));
    let gradients = layer.gradients().expect("a backward pass").read().expect("a read");
    let (rows_of_x, rows_of_g) = (wide(&x, hidden), wide(&g, hidden));
    let bound = T::TOLERANCE;
    // A strict mode's values are those of all seeds that are written.
    let reference_mode = match mode {
        NumericalMode::Strict { low, high } => {
            reference::NumericalMode::Strict { low: low.into(), high: high.into() }
        }
        _ => reference::NumericalMode::Fast,
    };

    let linear_of = |layer: &KasminaLayer<T>, id: u16| layer.linear_blueprint(id).ok();
    let mut sums = std::collections::BTreeMap::new();
    for id in layer.blueprints() {
        if linear_of(layer, id).is_some() {
            let zeros = (Array2::<f64>::zeros((chunk, chunk)), vec![0.0; chunk], 0.0, 0.0);
            sums.insert(id, zeros);
        }
    }
    for seed in 0..seeds {
        let report = layer.seed(seed).expect("a seed");
        let columns = s![.., seed * chunk..(seed + 1) * chunk];
        let (x, g) = (rows_of_x.slice(columns), rows_of_g.slice(columns));
        let flat = |values: &Array2<f64>| values.slice(columns).iter().copied().collect::<Vec<_>>();
        let Some(block) = linear_of(layer, report.blueprint_id) else { continue };
        assert_eq!(report.blueprint_type, Some(BlueprintKind::Linear));
        let weights: Vec<f64> = block.weights.iter().map(|&w| w.into()).collect();
        let bias: Vec<f64> = block.bias.iter().map(|&b| b.into()).collect();
        let weights = Array2::from_shape_vec((chunk, chunk), weights).expect("a matrix");
        let dense = DenseSeed {
            number: seed,
            lifecycle: report.lifecycle as u8,
            alpha: report.alpha.into(),
            weights: weights.view(),
            bias: &bias,
            activation: ReferenceActivation::ALL[block.activation as usize],
        };
        let what = format!("seed {seed}, {}, {} rows of {chunk}", report.lifecycle, batch);
        let expected = reference::dense_blend(x, &dense, reference_mode).expect("a good seed");
        let natural = (x.len() as f64).sqrt();
        let expected: Vec<f64> = expected.iter().copied().collect();
        near(&format!("y of {what}"), &flat(&y), &expected, natural, bound);
        let found = reference::dense_blend_backward(x, g, &dense, reference_mode).expect("good");
        let expected: Vec<f64> = found.grad_input.iter().copied().collect();
        near(&format!("∂x of {what}"), &flat(&dx), &expected, natural, bound);
        if !report.lifecycle.is_active() {
            assert_eq!((flat(&y), flat(&dx)), (flat(&rows_of_x), flat(&rows_of_g)), "{what}");
        }
        let got = f64::from(gradients.grad_alpha[seed]);
        near(&format!("∂α of {what}"), &[got], &[found.grad_alpha], found.alpha_scale, bound);
        // Terms of ∂b are about as large as those of g.
        let terms = (x.len() as f64).sqrt();
        for (figure, got, expected) in [
            ("norm", &gradients.gradient_norm, found.gradient_norm),
            ("deviation", &gradients.gradient_variance, found.gradient_variance.sqrt()),
            ("max", &gradients.gradient_max, found.gradient_max),
        ] {
            let got = f64::from(got[seed]);
            let got = if figure == "deviation" { got.sqrt() } else { got };
            near(&format!("{figure} of {what}"), &[got], &[expected], terms, bound);
        }
        let (sum, bias_sum, natural, terms_sum) =
            sums.get_mut(&report.blueprint_id).expect("a LINEAR one");
        *sum += &found.grad_weights;
        bias_sum.iter_mut().zip(&found.grad_bias).for_each(|(sum, b)| *sum += b);
        if report.lifecycle.trains() {
            *natural += chunk as f64 * (batch as f64).sqrt();
            *terms_sum += terms;
        }
    }
    assert_eq!(layer.state().read().expect("a read").blueprint_type[1], 5);
    for (id, (weights, bias, natural, terms)) in &sums {
        let got: Vec<f64> =
            layer.linear_gradient(*id).expect("a pass").iter().map(|&v| v.into()).collect();
        let expected: Vec<f64> = weights.iter().copied().collect();
        near(&format!("∂W of {id}, {batch} rows of {chunk}"), &got, &expected, *natural, bound);
        // Rows of the arena are the ids here: nothing has been evicted.
        let row = &gradients.grad_weights[usize::from(*id) * chunk..][..chunk];
        let got: Vec<f64> = row.iter().map(|&v| v.into()).collect();
        near(&format!("∂b of {id}"), &got, bias, *terms, bound);
        assert_eq!(gradients.grad_scales[usize::from(*id)], 0.0, "∂s of {id}");
    }

    // Again: the same bits.
    let again =
        (bits(layer.forward(&x).expect("a pass")), bits(layer.backward(&x, &g).expect("it")));
    assert!(again == (y_bits, dx_bits), "two passes, two results");
    assert_eq!(layer.gradients().expect("a pass").read().expect("a read"), gradients);

    // The others are as if there were no LINEAR seeds.
    let Some(twin) = twin else { return };
    let other = wide(twin.forward(&x).expect("a pass"), hidden);
    let other_dx = wide(twin.backward(&x, &g).expect("a pass"), hidden);
    for seed in 9..seeds {
        let columns = s![.., seed * chunk..(seed + 1) * chunk];
        assert_eq!(y.slice(columns), other.slice(columns), "y of seed {seed}");
        assert_eq!(dx.slice(columns), other_dx.slice(columns), "∂x of seed {seed}");
    }
    let others = twin.gradients().expect("a pass").read().expect("a read");
    assert_eq!(gradients.grad_alpha[9..], others.grad_alpha[9..]);
    assert_eq!(gradients.gradient_norm[9..], others.gradient_norm[9..]);
    let from = 4 * chunk;
    assert_eq!(gradients.grad_weights[from..], others.grad_weights[from..]);
}

/// Every state, activations, ragged batches and chunks, and states that change between the passes.
#[track_caller]
pub fn check_shapes<T: Narrow + LayerElement>(device: &Device, shapes: &[(usize, usize)]) {
    for (number, &(batch, chunk_size)) in shapes.iter().enumerate() {
        let all = Activation::ALL;
        let activations = [all[number % all.len()], all[(number + 3) % all.len()]];
        let (mode, fast) = (StabilityMode::Fast, NumericalMode::Fast);
        let mut layer = mixed_layer::<T>(device, chunk_size, activations, mode, true);
        let mut twin = mixed_layer::<T>(device, chunk_size, activations, mode, false);
        check_passes(device, &mut layer, Some(&mut twin), batch, fast);
        // TRAINING grafts, GRAFTING goes back, and the CULLED one's place is free for another.
        layer.advance(2).expect("a legal step");
        layer.set_alpha(2, 0.7).expect("a number");
        layer.rollback(3).expect("a legal step");
        check_passes(device, &mut layer, Some(&mut twin), batch, fast);
        // Another batch size, then the first again.
        check_passes(device, &mut layer, Some(&mut twin), batch + 3, fast);
        layer.set_alpha(6, 1.0).expect("a number");
        check_passes(device, &mut layer, Some(&mut twin), batch, fast);
    }
}

/// Strict modes bound what LINEAR seeds write too; the adaptive one flags them by the telemetry of the pass before.
#[track_caller]
pub fn check_modes(device: &Device) {
    let activations = [Activation::None, Activation::Relu];
    let mut layer = mixed_layer::<f32>(device, 16, activations, StabilityMode::Strict, true);
    let strict = NumericalMode::Strict { low: -1.5, high: 1.25 };
    check_passes(device, &mut layer, None, 20, strict);

    let mut layer = mixed_layer::<f32>(device, 4, activations, StabilityMode::Adaptive, true);
    let hidden = SEEDS * 4;
    let mut values = inputs::<f32>(device, 3 * hidden, 5).to_vec().expect("a read");
    values[5 * 4 + 1] = f32::INFINITY;
    let x = Buffer::from_slice(device, &values).expect("memory");
    let of_seed = |y: Vec<f32>| y[5 * 4..6 * 4].to_vec();
    let first = of_seed(layer.forward(&x).expect("a pass").to_vec().expect("a read"));
    assert!(first.iter().any(|v| !v.is_finite()), "flagged by its own pass: {first:?}");
    let second = of_seed(layer.forward(&x).expect("a pass").to_vec().expect("a read"));
    assert!(second.iter().all(|v| (-1.5..=1.25).contains(v)), "{second:?}");
}

/// A step in the steady state makes no buffer and copies nothing between host and device, with LINEAR seeds too; one
/// after a command does. Within the device the adaptive mode alone copies: the flags, before each forward pass.
#[track_caller]
pub fn check_steady_steps<T: Narrow + LayerElement>(device: &Device) {
    for (mode, copies) in [(StabilityMode::Fast, 0), (StabilityMode::Adaptive, 1)] {
        check_steps_of(
            mixed_layer::<T>(device, 16, [Activation::GeluTanh, Activation::Silu], mode, true),
            device,
            copies,
        );
    }
}

/// `copies` of a flag for each seed in each forward pass.
#[track_caller]
fn check_steps_of<T: Narrow + LayerElement>(
    mut layer: KasminaLayer<T>,
    device: &Device,
    copies: u64,
) {
    let xs = [9, 4].map(|batch| inputs::<T>(device, batch * SEEDS * 16, batch as u64));
    let step = |layer: &mut KasminaLayer<T>| {
        for x in &xs {
            layer.forward(x).expect("a pass");
            layer.backward(x, x).expect("a pass");
        }
    };
    let counts = || {
        let gpu = match device {
            Device::Cuda(gpu) => {
                Some((gpu.pool().statistics().allocations, gpu.stream().transfers()))
            }
            _ => None,
        };
        (BufferStatistics::of_this_thread(), gpu)
    };
    // What so many steps leave of the counts before them.
    let after = |steps: u64, (mut buffers, mut gpu): (BufferStatistics, Option<_>)| {
        let copies = copies * steps * xs.len() as u64;
        buffers.copies_on_device += copies;
        if let Some((_, transfers)) = &mut gpu {
            let transfers: &mut TransferStatistics = transfers;
            transfers.on_device += copies;
            transfers.on_device_bytes += copies * SEEDS as u64;
        }
        (buffers, gpu)
    };
    step(&mut layer);
    let before = counts();
    for _ in 0..3 {
        step(&mut layer);
    }
    assert_eq!(counts(), after(3, before), "a steady step allocated or copied");
    layer.set_alpha(5, 0.9).expect("a number");
    let before = counts();
    step(&mut layer);
    assert_eq!(counts(), after(1, before), "α is read where it is");
    layer.advance(5).expect("a legal step");
    let before = counts();
    step(&mut layer);
    assert_ne!(counts(), after(1, before), "the lists follow the states");
}

/// A captured step of LINEAR seeds follows its input; a change of the seeds has to be met by a pass before a capture.
#[track_caller]
pub fn check_capture(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let activations = [Activation::GeluTanh, Activation::Relu];
    let mut layer = mixed_layer::<f32>(device, 16, activations, StabilityMode::Adaptive, true);
    let elements = 7 * SEEDS * 16;
    let mut x = inputs::<f32>(device, elements, 1);
    let mut outputs = [0, 1].map(|_| Buffer::<f32>::zeroed(device, elements).expect("memory"));
    let [y, dx] = &mut outputs;
    let mut step = |layer: &mut KasminaLayer<f32>, x: &Buffer<f32>| -> Result<(), Error> {
        layer.forward_into(x, y)?;
        layer.backward_into(x, x, dx)
    };
    step(&mut layer, &x).expect("a first step");
    layer.advance(4).expect("a legal step");
    let graph = Graph::capture::<Error>(gpu.stream(), |_| step(&mut layer, &x));
    graph.map(drop).expect_err("the lists are made outside");
    step(&mut layer, &x).expect("a step that makes them");
    let graph = Graph::capture::<Error>(gpu.stream(), |_| step(&mut layer, &x));
    let exec = graph.and_then(|graph| Ok(graph.instantiate()?)).expect("a graph");
    for seed in 2..4 {
        let values = inputs::<f32>(device, elements, seed).to_vec().expect("a read");
        x.copy_from_slice(&values).expect("a copy");
        exec.launch(gpu.stream()).expect("a replay");
        let got = outputs.each_ref().map(bits);
        let expected = [
            bits(layer.forward(&x).expect("a pass")),
            bits(layer.backward(&x, &x).expect("a pass")),
        ];
        assert!(got == expected, "input {seed}");
    }
}

/// The budget of matrices: what fits, who goes, what is refused, and by which name.
#[track_caller]
pub fn check_registry(device: &Device) {
    let mut numbers = Numbers::new(3);
    let mut block = |activation| linear_blueprint(4, activation, &mut numbers);
    let [one, two, three] = [Activation::None, Activation::Relu, Activation::Tanh].map(&mut block);
    let mut off = KasminaLayer::<f32>::builder(2, 8).build(device).expect("a layer");
    let why = off.load_linear_blueprint(&one).expect_err("off").to_string();
    assert!(why.contains("linear_budget_bytes"), "{why}");
    let small = KasminaLayer::<f32>::builder(2, 8).linear_budget_bytes(63).build(device);
    assert!(small.err().expect("too small").to_string().contains("64"));
    let clipped = LayerConfig {
        linear_budget_bytes: 64,
        gradient_clip: GradientClipping::Value { limit: 1.0 },
        ..LayerConfig::new(2, 8)
    };
    let why = clipped.check().expect_err("clipping does not see them").to_string();
    assert!(why.contains("gradient_clip") && why.contains("linear_gradient"), "{why}");

    let mut layer = KasminaLayer::<f32>::builder(2, 8)
        .max_blueprints(5)
        .linear_budget_bytes(2 * 64 + 10)
        .build(device)
        .expect("a layer");
    let first = layer.load_linear_blueprint(&one).expect("room").id;
    let second = layer.load_linear_blueprint(&two).expect("room").id;
    assert_eq!(layer.linear_blueprint(first).expect("loaded"), one);
    assert_eq!(layer.linear_blueprint(second).expect("loaded"), two);
    let statistics = layer.registry();
    let matrices = (statistics.linear, statistics.linear_slots, statistics.linear_bytes);
    assert_eq!((matrices, statistics.loaded), ((2, 2, 128), 2));
    let report = layer.report().expect("a report").to_string();
    assert!(report.contains("2 of 2 matrices, 128 bytes"), "{report}");
    // The first is in use, so the second goes for the third, though there are rows.
    layer.germinate(0, first).expect("DORMANT");
    let scale = Blueprint { kind: BlueprintType::Scale, weights: vec![2.0; 4], scale: 1.0 };
    let other = layer.load_blueprint(&scale).expect("room").id;
    let loaded = layer.load_linear_blueprint(&three).expect("the second goes");
    assert_eq!(loaded.evicted, Some(second));
    assert!(layer.linear_blueprint(second).is_err());
    layer.germinate(1, loaded.id).expect("DORMANT");
    let before = layer.blueprints();
    let why = layer.load_linear_blueprint(&two).expect_err("both are in use").to_string();
    assert!(why.contains("linear_budget_bytes") && why.contains("DORMANT"), "{why}");
    let why = layer.replace_linear_blueprint(other, &two).expect_err("no room").to_string();
    assert!(why.contains("linear_budget_bytes"), "{why}");
    assert_eq!(layer.blueprints(), before);
    // Of another kind, each names the other call.
    let why = layer.blueprint(first).expect_err("LINEAR").to_string();
    assert!(why.contains("LINEAR") && why.contains("linear_blueprint"), "{why}");
    let why = layer.linear_blueprint(other).expect_err("SCALE").to_string();
    assert!(why.contains("SCALE"), "{why}");
    layer.linear_gradient(first).expect_err("no backward pass yet");
    // What does not fit is refused, and changes nothing.
    for (bad, word) in [
        (LinearBlueprint { weights: vec![0.0; 15], ..one.clone() }, "weights"),
        (LinearBlueprint { bias: vec![0.0; 5], ..one.clone() }, "bias"),
        (LinearBlueprint { bias: vec![f32::NAN; 4], ..one.clone() }, "finite"),
    ] {
        let why = layer.replace_linear_blueprint(first, &bad).expect_err(word).to_string();
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(layer.linear_blueprint(first).expect("loaded"), one);
    // In place of each other: under its id, in the passes from the next on.
    for _ in 0..2 {
        layer.advance(0).expect("a legal step");
    }
    layer.set_alpha(0, 1.0).expect("a number");
    let x = Buffer::from_slice(device, &[1.0_f32; 8]).expect("memory");
    let y = |layer: &mut KasminaLayer<f32>| {
        layer.forward(&x).expect("a pass").to_vec().expect("a read")[..4].to_vec()
    };
    let with_one = y(&mut layer);
    layer.replace_linear_blueprint(first, &two).expect("a place of its own");
    assert_ne!(y(&mut layer), with_one);
    layer.replace_blueprint(first, &scale).expect("any kind");
    assert_eq!(y(&mut layer), [2.0; 4]);
    assert_eq!(layer.registry().linear, 1);
    layer.replace_linear_blueprint(first, &one).expect("room again");
    assert_eq!(y(&mut layer), with_one);
    // Gradients end with their blueprint.
    layer.backward(&x, &x).expect("a pass");
    assert!(layer.linear_gradient(first).expect("a pass").iter().any(|&v| v != 0.0));
    layer.replace_linear_blueprint(first, &one).expect("itself");
    assert!(layer.linear_gradient(first).expect("a pass").iter().all(|&v| v == 0.0));
    // One step of descent moves both.
    layer.backward(&x, &x).expect("a pass");
    let gradient = layer.linear_gradient(first).expect("a pass");
    layer.descend(0.5).expect("a step");
    let after = layer.linear_blueprint(first).expect("loaded");
    let expected: Vec<f32> = one.weights.iter().zip(&gradient).map(|(w, g)| w - 0.5 * g).collect();
    assert_eq!(after.weights, expected);
    assert_ne!(after.bias, one.bias);
    layer.unload_blueprint(first).expect_err("in use");
    layer.verify_integrity().expect("only the layer changed the state");
}

/// A checkpoint has the matrices, and a restored layer goes on bit for bit; what does not fit is refused.
#[track_caller]
pub fn check_checkpoints<T: Narrow + LayerElement>(device: &Device) {
    let activations = [Activation::Sigmoid, Activation::GeluErf];
    let mut layer = mixed_layer::<T>(device, 6, activations, StabilityMode::Fast, true);
    let x = inputs::<T>(device, 5 * SEEDS * 6, 2);
    layer.backward(&x, &x).expect("a pass");
    layer.descend(0.05).expect("a step");
    let checkpoint = layer.checkpoint(7).expect("a checkpoint");
    assert_eq!((checkpoint.linear.rows.len(), checkpoint.metadata.schema_version), (3, 2));
    let bytes = checkpoint.to_bytes().expect("a file");
    let again = Checkpoint::from_bytes("x", bytes).expect("its own");
    // NaN differs from itself, so by the CRC, which covers every array.
    assert_eq!((again.crc32(), &again.linear), (checkpoint.crc32(), &checkpoint.linear));
    assert_eq!(again.metadata.schema_version, SCHEMA_VERSION);
    let mut other = KasminaLayer::<T>::new(device, layer.config().clone()).expect("a layer");
    other.restore(&again).expect("the same configuration");
    assert_eq!(other.checksum().expect("a read"), layer.checksum().expect("a read"));
    let results = |layer: &mut KasminaLayer<T>| {
        let y = bits(layer.forward(&x).expect("a pass"));
        (y, bits(layer.backward(&x, &x).expect("a pass")), layer.linear_gradient(1).expect("it"))
    };
    assert!(results(&mut other) == results(&mut layer), "another layer than the one saved");

    // A configuration without room, and arrays without the matrices.
    let config = LayerConfig { linear_budget_bytes: 0, ..layer.config().clone() };
    let mut without = KasminaLayer::<T>::new(device, config).expect("a layer");
    let why = without.restore(&again).expect_err("no room").to_string();
    assert!(why.contains("linear_budget_bytes"), "{why}");
    let (states, graft) = (layer.state().read().expect("a read"), layer.state().read_graft());
    let why = other.load_state(states, graft.expect("a read"), None).expect_err("no matrices");
    assert!(matches!(why, Error::State(_)) && why.to_string().contains("LINEAR"), "{why}");
    let bare = Checkpoint { linear: Default::default(), ..again.clone() };
    let why = bare.to_bytes().expect_err("no matrices").to_string();
    assert!(why.contains("LINEAR"), "{why}");
    again.to_layer(device).map(drop).expect_err("no layer to compute it");
    // Without LINEAR blueprints the file is as older builds read it.
    let plain = mixed_layer::<T>(device, 6, activations, StabilityMode::Fast, false);
    let mut plain = plain.checkpoint(1).expect("a checkpoint");
    assert_eq!(plain.metadata.schema_version, SCHEMA_VERSION, "loaded, though not held");
    plain =
        KasminaLayer::<T>::builder(2, 4).build(device).expect("a layer").checkpoint(1).expect("it");
    assert_eq!(plain.metadata.schema_version, SCHEMA_WITHOUT_LINEAR);
}

/// A stack that recomputes gives the bits of one that keeps everything.
#[track_caller]
pub fn check_stack(device: &Device) {
    let run = |checkpointing| {
        let activations = [Activation::Tanh, Activation::Relu];
        let layers = (0..3)
            .map(|_| mixed_layer::<f32>(device, 8, activations, StabilityMode::Adaptive, true))
            .collect();
        let mut stack = LayerStack::with_checkpointing(layers, checkpointing).expect("a stack");
        let x = inputs::<f32>(device, 6 * SEEDS * 8, 4);
        let y = bits(stack.forward(&x).expect("a pass"));
        (y, bits(stack.backward(&x, &x).expect("a pass")))
    };
    assert!(run(Checkpointing::KeepAll) == run(Checkpointing::Every(3)), "other bits");
}

/// What tolerance brings: with the default one f32 stays f32; from that of tf32 on tensor cores multiply, where there are
/// such and products are large enough, and the results are that near. The report says which.
#[track_caller]
pub fn check_tolerance(device: &Device) {
    let (batch, chunk) = (512, 64);
    let run = |tolerance: Option<f64>, rows: usize| {
        let mut numbers = Numbers::new(5);
        let mut builder =
            KasminaLayer::<f32>::builder(1, chunk).linear_budget_bytes(4 * chunk * chunk);
        if let Some(tolerance) = tolerance {
            builder = builder.linear_tolerance(tolerance);
        }
        let mut layer = builder.build(device).expect("a layer");
        let block = linear_blueprint(chunk, Activation::None, &mut numbers);
        let id = layer.load_linear_blueprint(&block).expect("room").id;
        graft(&mut layer, 0, id, 0.5);
        assert_eq!(layer.report().expect("a report").linear_products, [], "no pass yet");
        let x = inputs::<f32>(device, rows * chunk, 6);
        let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
        let g = layer.backward(&x, &x).expect("a pass").to_vec().expect("a read");
        let w = layer.linear_gradient(id).expect("a pass");
        let report = layer.report().expect("a report");
        for product in &report.linear_products {
            let LinearProduct { product, precision, kernel, .. } = product;
            let said = format!("LINEAR {product}: {precision} by {kernel}");
            assert!(report.to_string().contains(&said), "{said:?} is not in {report}");
        }
        let products: Vec<_> =
            report.linear_products.iter().map(|p| (p.product, p.precision)).collect();
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
        (products, [wide(y), wide(g), wide(w)])
    };
    let of = |precision| -> Vec<(&str, Precision)> {
        let products = ["forward z", "backward z", "grad_weights", "grad_input"];
        let computed = !matches!(device, Device::Cpu);
        products.into_iter().filter(|_| computed).map(|product| (product, precision)).collect()
    };
    let (products, exact) = run(None, batch);
    assert_eq!(products, of(Precision::F32));
    assert_eq!(run(Some(1e-2), batch / 2).0, of(Precision::F32), "too small to pay");
    let (products, near) = run(Some(1e-2), batch);
    let tensor_cores =
        !matches!(device, Device::Cuda(gpu) if gpu.device().info().compute_capability.major < 8);
    assert_eq!(products, of(if tensor_cores { Precision::Tf32 } else { Precision::F32 }));
    for (name, (near, exact)) in ["y", "∂x", "∂W"].into_iter().zip(near.iter().zip(&exact)) {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let error = norm(&mut near.iter().zip(exact).map(|(a, b)| a - b));
        let error = error / norm(&mut exact.iter().copied());
        assert!(error < Precision::Tf32.error_bound(), "{name}: {error}");
        assert_eq!(error > 0.0, products.contains(&("forward z", Precision::Tf32)), "{name}");
    }
}

/// A loss falls as α rises on a block that learns: W and b find a rotation of the input.
#[track_caller]
pub fn check_learning(device: &Device) {
    let mut numbers = Numbers::new(9);
    let chunk = 4;
    let mut layer = KasminaLayer::<f32>::builder(2, 2 * chunk)
        .linear_budget_bytes(4 * chunk * chunk)
        .build(device)
        .expect("a layer");
    let start = linear_blueprint(chunk, Activation::None, &mut numbers);
    let id = layer.load_linear_blueprint(&start).expect("room").id;
    graft(&mut layer, 1, id, 1.0);
    let x = inputs::<f32>(device, 32 * 2 * chunk, 1);
    let values = x.to_vec().expect("a read");
    let loss = |layer: &mut KasminaLayer<f32>| {
        let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
        // The chunk's columns in another order.
        let target = |i: usize| {
            let (row, column) = (i / (2 * chunk), i % (2 * chunk));
            let turned = if column < chunk { column } else { chunk + (column + 1) % chunk };
            values[row * 2 * chunk + turned]
        };
        let g: Vec<f32> = y.iter().enumerate().map(|(i, y)| (y - target(i)) / 32.0).collect();
        let loss: f32 = g.iter().map(|g| 16.0 * g * g).sum();
        let g = Buffer::from_slice(device, &g).expect("memory");
        layer.backward(&x, &g).expect("a pass");
        layer.descend(0.5).expect("a step");
        loss
    };
    let first = loss(&mut layer);
    let last = (0..60).map(|_| loss(&mut layer)).last().expect("steps");
    assert!(last < 1e-3 * first, "{first} to {last}");
    let learned = layer.linear_blueprint(id).expect("loaded").weights;
    for (row, column) in (0..chunk).flat_map(|r| (0..chunk).map(move |c| (r, c))) {
        let expected = f32::from(u8::from(column == (row + 1) % chunk));
        assert!((learned[row * chunk + column] - expected).abs() < 0.1, "{learned:?}");
    }
    assert_eq!(layer.lifecycle(1).expect("a seed"), SeedLifecycle::Grafting);
    assert!(learned.iter().all(|w| w.to_f64().is_finite()));
}
