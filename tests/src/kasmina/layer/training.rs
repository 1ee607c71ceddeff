//! A seed's whole life in a network of one layer: it germinates, learns, is grafted, and stays.

use kasmina::kasmina::{Blueprint, EpochReport, KasminaLayer, SeedEpoch, TransitionRules};
use kasmina::types::{BlueprintType, SeedLifecycle as L};
use kasmina::{Buffer, Device};

use crate::Numbers;

const ROWS: usize = 16;
const CHUNK: usize = 4;
const STEPS: usize = 6;

/// What the network should compute of seed 1's columns: 1.5 times, 0.5 times, ….
const WANTED: [f32; CHUNK] = [1.5, 0.5, 2.0, -0.5];

/// Trains until the seed is FOSSILIZED. It learns to scale its four columns by given factors; the other
/// seed stays DORMANT.
#[track_caller]
pub fn check_life(device: &Device) {
    let rules = TransitionRules {
        training_epochs: 3,
        grafting_epochs: 3,
        stabilization_epochs: 1,
        evaluating_epochs: 2,
        fine_tuning_epochs: 3,
        ..TransitionRules::default()
    };
    let mut layer = KasminaLayer::<f32>::builder(2, 2 * CHUNK)
        .rules(rules)
        .ramp_epochs(4)
        .enable_debug_assertions(true)
        .build(device)
        .expect("a layer");
    let start = Blueprint { kind: BlueprintType::Scale, weights: vec![1.0; CHUNK], scale: 1.0 };
    let id = layer.load_blueprint(&start).expect("room").id;
    layer.germinate(1, id).expect("DORMANT");
    layer.advance(1).expect("GERMINATED");

    let mut numbers = Numbers::new(4);
    let x: Vec<f32> = (0..ROWS * 2 * CHUNK).map(|_| numbers.in_range(-1.0, 1.0)).collect();
    let input = Buffer::from_slice(device, &x).expect("memory");
    let wanted = |i: usize| match i % (2 * CHUNK) {
        column if column < CHUNK => x[i],
        column => x[i] * WANTED[column - CHUNK],
    };
    let loss_of = |y: &[f32]| -> f32 {
        y.iter().enumerate().map(|(i, y)| (y - wanted(i)).powi(2)).sum::<f32>() / ROWS as f32
    };
    let before = loss_of(&x);
    let (mut path, mut losses) = (vec![L::Training], Vec::new());
    for _ in 0..40 {
        let (mut loss, mut reconstruction) = (before, f32::NAN);
        for _ in 0..STEPS {
            let y = layer.forward(&input).expect("a pass").to_vec().expect("a read");
            loss = loss_of(&y);
            let training = *path.last().expect("a state") == L::Training;
            // A seed in TRAINING learns on its own: its loss is that of the blueprint, not of the layer.
            let compared = if training { transformed(&layer, id, &x) } else { y };
            if training {
                reconstruction = loss_of(&compared);
            }
            let g: Vec<f32> = compared
                .iter()
                .enumerate()
                .map(|(i, y)| 2.0 * (y - wanted(i)) / ROWS as f32)
                .collect();
            let g = Buffer::from_slice(device, &g).expect("memory");
            layer.backward(&input, &g).expect("a pass");
            layer.descend(0.5).expect("finite parameters");
        }
        losses.push(loss);
        let epoch = SeedEpoch {
            loss,
            reconstruction_loss: reconstruction,
            performance_gain: (before - loss) / before,
            stability: 1.0,
            error_rate: 0.0,
            improvement: (before - loss) / before,
            ..SeedEpoch::default()
        };
        let outcome = layer.end_epoch(&EpochReport::uniform(2, epoch)).expect("an epoch");
        for transition in outcome.transitions {
            assert_eq!(transition.seed, 1, "seed 0 is DORMANT");
            path.push(transition.to);
        }
        if path.ends_with(&[L::Fossilized]) {
            break;
        }
    }
    let expected =
        [L::Training, L::Grafting, L::Stabilization, L::Evaluating, L::FineTuning, L::Fossilized];
    assert_eq!(path, expected, "losses: {losses:?}");
    let after = *losses.last().expect("epochs");
    assert!(after < 1e-3 * before, "the loss fell from {before} to {after}: {losses:?}");
    // The graft alone, before fine-tuning, has brought most of it.
    let grafted = losses[losses.len() - 4];
    assert!(grafted < 0.3 * before, "{grafted} of {before} before fine-tuning: {losses:?}");
    let Blueprint { weights, scale, .. } = layer.blueprint(id).expect("loaded");
    for (weight, wanted) in weights.iter().zip(WANTED) {
        assert!((scale * weight - wanted).abs() < 0.05, "{scale} · {weight} for {wanted}");
    }
    assert_eq!(layer.seed(0).expect("a seed").lifecycle, L::Dormant);

    // What is FOSSILIZED is frozen, and stays.
    let frozen = layer.blueprint(id).expect("loaded");
    layer.backward(&input, &input).expect("a pass");
    layer.descend(0.5).expect("finite parameters");
    assert_eq!(layer.blueprint(id).expect("loaded"), frozen);
    layer.rollback(1).expect_err("terminal");
}

/// T(x) of the seed's columns, the others as they are.
fn transformed(layer: &KasminaLayer<f32>, id: u16, x: &[f32]) -> Vec<f32> {
    let Blueprint { weights, scale, .. } = layer.blueprint(id).expect("loaded");
    x.iter()
        .enumerate()
        .map(|(i, x)| match i % (2 * CHUNK) {
            column if column < CHUNK => *x,
            column => scale * x * weights[column - CHUNK],
        })
        .collect()
}
