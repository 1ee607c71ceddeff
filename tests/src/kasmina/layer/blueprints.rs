//! Blueprints come, change and go while the layer runs.

use kasmina::driver::Event;
use kasmina::kasmina::checkpoint::crc32_of_state;
use kasmina::kasmina::{
    Blueprint, EpochReport, GradientClipping, KasminaLayer, LoadedBlueprint, SeedEpoch,
    TransitionRules,
};
use kasmina::types::BlueprintType;
use kasmina::{Buffer, Device};

use super::{blueprint, graft, inputs, snapshot};
use crate::{Numbers, assert_near};

fn scale_by(factor: f32) -> Blueprint {
    Blueprint { kind: BlueprintType::Scale, weights: vec![factor; 4], scale: 1.0 }
}

fn layer(device: &Device, slots: usize) -> KasminaLayer<f32> {
    KasminaLayer::builder(3, 12)
        .max_blueprints(6)
        .blueprint_budget_bytes(slots * 16 + 15)
        .build(device)
        .expect("a layer")
}

/// The least recently used of those that no seed uses goes; none goes that a seed uses.
#[track_caller]
pub fn check_eviction(device: &Device) {
    let mut layer = layer(device, 2);
    let load = |layer: &mut KasminaLayer<f32>, factor| layer.load_blueprint(&scale_by(factor));
    assert_eq!(load(&mut layer, 2.0).expect("room"), LoadedBlueprint { id: 1, evicted: None });
    assert_eq!(load(&mut layer, 3.0).expect("room"), LoadedBlueprint { id: 2, evicted: None });
    layer.touch_blueprint(1).expect("loaded");
    assert_eq!(load(&mut layer, 4.0).expect("room"), LoadedBlueprint { id: 3, evicted: Some(2) });
    graft(&mut layer, 0, 1, 1.0);
    graft(&mut layer, 2, 3, 1.0);
    let before = snapshot(&layer);
    let why = load(&mut layer, 5.0).expect_err("both are in use").to_string();
    assert!(why.contains("budget") && why.contains("2 fit"), "{why}");
    let why = layer.unload_blueprint(3).expect_err("in use").to_string();
    assert!(why.contains("seed 2") && why.contains("GRAFTING"), "{why}");
    let why = layer.germinate(1, 2).expect_err("evicted").to_string();
    assert!(why.contains("evicted"), "{why}");
    assert_eq!(snapshot(&layer), before);

    let x = Buffer::from_slice(device, &[1.0_f32; 12]).expect("memory");
    let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
    assert_eq!(y, [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0]);

    // A seed that was rolled back uses its blueprint until it is reset.
    layer.rollback(0).expect("GRAFTING");
    load(&mut layer, 5.0).expect_err("still in use");
    layer.advance(0).expect("a reset");
    assert_eq!(load(&mut layer, 5.0).expect("room"), LoadedBlueprint { id: 4, evicted: Some(1) });
    // The new one lies where the old one was.
    graft(&mut layer, 1, 4, 1.0);
    let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
    assert_eq!(y, [1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 4.0, 4.0, 4.0, 4.0]);
    let statistics = layer.registry();
    assert_eq!((statistics.loads, statistics.evictions, statistics.used_bytes), (4, 2, 32));
}

/// Used last is what a seed used last: a blueprint counts as used until its seed is reset, not only when
/// the seed germinated.
#[track_caller]
pub fn check_eviction_order(device: &Device) {
    for by_command in [true, false] {
        let rules = TransitionRules { automatic_reset: true, ..TransitionRules::default() };
        let mut layer = KasminaLayer::<f32>::builder(2, 8)
            .blueprint_budget_bytes(2 * 16)
            .rules(rules)
            .build(device)
            .expect("a layer");
        let used = layer.load_blueprint(&scale_by(2.0)).expect("room").id;
        graft(&mut layer, 0, used, 1.0);
        let idle = layer.load_blueprint(&scale_by(3.0)).expect("room").id;
        let x = inputs::<f32>(device, 16, 1);
        layer.forward(&x).expect("a pass");
        layer.backward(&x, &x).expect("a pass");
        layer.rollback(0).expect("GRAFTING");
        if by_command {
            layer.advance(0).expect("a reset");
        } else {
            let report = EpochReport::uniform(2, SeedEpoch::default());
            let outcome = layer.end_epoch(&report).expect("an epoch");
            assert_eq!(outcome.transitions.len(), 1, "{outcome:?}");
        }
        let third = layer.load_blueprint(&scale_by(4.0)).expect("room");
        assert_eq!(third.evicted, Some(idle), "by command: {by_command}");
        let fourth = layer.load_blueprint(&scale_by(5.0)).expect("room");
        assert_eq!(fourth.evicted, Some(used), "by command: {by_command}");
    }
}

/// The gradients that a blueprint got are not those of the next one in its place.
#[track_caller]
pub fn check_gradients_end_with_their_blueprint(device: &Device) {
    let mut layer = layer(device, 2);
    let load = |layer: &mut KasminaLayer<f32>, factor| layer.load_blueprint(&scale_by(factor));
    let (a, other) =
        (load(&mut layer, 2.0).expect("room").id, load(&mut layer, 3.0).expect("room").id);
    graft(&mut layer, 0, a, 1.0);
    graft(&mut layer, 2, other, 1.0);
    let x = Buffer::from_slice(device, &[1.0_f32; 12]).expect("memory");
    let g = Buffer::from_slice(device, &[0.5_f32; 12]).expect("memory");
    // ∂w is Σ g·x = 0.5, ∂s is Σ g·x·w.
    let gradients = |layer: &KasminaLayer<f32>| {
        let gradients = layer.gradients().expect("a backward pass");
        let weights = gradients.grad_weights.to_vec().expect("a read");
        (weights, gradients.grad_scales.to_vec().expect("a read"))
    };
    layer.backward(&x, &g).expect("a pass");
    let (weights, scales) = gradients(&layer);
    assert_eq!((&weights[4..12], &scales[1..3]), (&[0.5; 8][..], &[4.0, 6.0][..]));

    layer.replace_blueprint(a, &scale_by(7.0)).expect("loaded");
    let (weights, scales) = gradients(&layer);
    assert_eq!((&weights[4..8], &weights[8..12]), (&[0.0; 4][..], &[0.5; 4][..]));
    assert_eq!(scales[1..3], [0.0, 6.0]);
    layer.descend(1.0).expect("finite parameters");
    assert_eq!(layer.blueprint(a).expect("loaded"), scale_by(7.0));
    assert_eq!(layer.blueprint(other).expect("loaded").weights, [2.5; 4]);

    // Evicted, and another one in its slot.
    layer.backward(&x, &g).expect("a pass");
    layer.rollback(0).expect("GRAFTING");
    layer.advance(0).expect("a reset");
    let next = load(&mut layer, 5.0).expect("room");
    assert_eq!(next.evicted, Some(a));
    assert_eq!(gradients(&layer).1[usize::from(a)], 0.0);
    layer.descend(1.0).expect("finite parameters");
    assert_eq!(layer.blueprint(next.id).expect("loaded"), scale_by(5.0));

    // Unloaded, and another one in its slot.
    graft(&mut layer, 1, next.id, 1.0);
    layer.backward(&x, &g).expect("a pass");
    layer.rollback(1).expect("GRAFTING");
    layer.advance(1).expect("a reset");
    layer.unload_blueprint(next.id).expect("not in use");
    let last = load(&mut layer, 6.0).expect("room").id;
    layer.descend(1.0).expect("finite parameters");
    assert_eq!(layer.blueprint(last).expect("loaded"), scale_by(6.0));
}

/// Nor is its running norm, by which adaptive clipping goes: the first gradients of the next one are not
/// clipped.
#[track_caller]
pub fn check_running_norms_end_with_their_blueprint(device: &Device) {
    // One id and one slot: whatever is loaded comes back to them.
    let mut layer = KasminaLayer::<f32>::builder(1, 4)
        .max_blueprints(2)
        .gradient_clip(GradientClipping::Adaptive { factor: 1.0, decay: 0.5 })
        .build(device)
        .expect("a layer");
    let x = Buffer::from_slice(device, &[1.0_f32; 4]).expect("memory");
    let slope = |layer: &mut KasminaLayer<f32>, g: f32| {
        let g = Buffer::from_slice(device, &[g; 4]).expect("memory");
        layer.backward(&x, &g).expect("a pass");
        layer.gradients().expect("a pass").grad_weights.to_vec().expect("a read")[4]
    };
    let id = layer.load_blueprint(&scale_by(2.0)).expect("room").id;
    graft(&mut layer, 0, id, 1.0);
    assert_eq!(slope(&mut layer, 1.0), 1.0);
    let clipped = slope(&mut layer, 1000.0);
    assert!((0.99..1.01).contains(&clipped), "{clipped}");

    layer.replace_blueprint(id, &scale_by(2.0)).expect("loaded");
    assert_eq!(slope(&mut layer, 1e6), 1e6, "after a replacement");
    assert!(slope(&mut layer, 1e9) < 1.01e6);

    layer.rollback(0).expect("GRAFTING");
    layer.advance(0).expect("a reset");
    let next = layer.load_blueprint(&scale_by(2.0)).expect("room");
    assert_eq!(next, LoadedBlueprint { id, evicted: Some(id) });
    graft(&mut layer, 0, id, 1.0);
    assert_eq!(slope(&mut layer, 1e12), 1e12, "after an eviction");
}

/// A seed whose gradients jump is held to its own history; its neighbour with the same blueprint keeps its α's
/// gradient, and what they share ends as long as if the jump had been clipped before the sum.
#[track_caller]
pub fn check_adaptive_clipping_goes_by_seed(device: &Device) {
    let mut layer = KasminaLayer::<f32>::builder(3, 12)
        .gradient_clip(GradientClipping::Adaptive { factor: 2.0, decay: 0.5 })
        .build(device)
        .expect("a layer");
    let id = layer.load_blueprint(&scale_by(2.0)).expect("room").id;
    graft(&mut layer, 0, id, 0.5);
    graft(&mut layer, 1, id, 0.5);
    let x = Buffer::from_slice(device, &[1.0_f32; 12]).expect("memory");
    let step = |layer: &mut KasminaLayer<f32>, first: f32| {
        let g = [[first; 4], [1.0; 4], [1.0; 4]].concat();
        layer.backward(&x, &Buffer::from_slice(device, &g).expect("memory")).expect("a pass");
        let gradients = layer.gradients().expect("a pass").read().expect("a read");
        let (w, s) = (gradients.grad_weights[4..8].to_vec(), gradients.grad_scales[1]);
        [gradients.grad_alpha, w, vec![s]].concat().into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let first = step(&mut layer, 1.0);
    assert_near("before", &first, &[4.0, 4.0, 0.0, 1.0, 1.0, 1.0, 1.0, 8.0], 0.0, 1e-6);
    // ∂w of the two are 50 and 0.5 a column: a fiftieth of the one and the whole of the other are 1.5.
    let jump = step(&mut layer, 100.0);
    assert_near("a jump", &jump, &[8.0, 4.0, 0.0, 1.5, 1.5, 1.5, 1.5, 12.0], 0.0, 1e-6);
    let report = layer.clip_report().expect("on").expect("a pass");
    assert_eq!((report.clipped_units, report.nonfinite_units), (1, 0));
    // Another seed begins without a history, with the same blueprint too.
    graft(&mut layer, 2, id, 0.5);
    step(&mut layer, 1.0);
    assert_eq!(layer.clip_report().expect("on").expect("a pass").clipped_units, 0);
}

/// How much is queued when a blueprint is changed.
///
/// Under the executor and on the CPU a pass is done when it is queued, so there a check of what is in
/// flight sees no more than the order of the calls. On a GPU it sees a copy that does not wait for the
/// passes before it, if these still run when the copy comes: so there must be many milliseconds of them,
/// and the check makes sure that there were. Each writes to the same output, of which the last pass leaves
/// what counts. The layer keeps no CRC: to compare it, a command reads the state first, and so waits.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    /// Rows of 192 columns; 768 bytes each.
    pub rows: usize,
    /// Passes that are queued.
    pub passes: usize,
}

impl InFlight {
    /// A few rows.
    pub const SMALL: Self = Self { rows: 50, passes: 2 };
    /// Passes over 400 MB, read and written: 10 ms and more of the fastest memory.
    pub const LARGE: Self = Self { rows: 520_000, passes: 48 };

    const CHUNK: usize = 64;

    fn layer(device: &Device) -> KasminaLayer<f32> {
        KasminaLayer::builder(3, 3 * Self::CHUNK)
            .max_blueprints(6)
            .blueprint_budget_bytes(2 * 4 * Self::CHUNK)
            .enable_integrity_checks(false)
            .build(device)
            .expect("a layer")
    }

    fn scale_by(factor: f32) -> Blueprint {
        let weights = vec![factor; Self::CHUNK];
        Blueprint { kind: BlueprintType::Scale, weights, scale: 1.0 }
    }

    fn input(self, device: &Device) -> [Buffer<f32>; 3] {
        let elements = self.rows * 3 * Self::CHUNK;
        let ones = Buffer::from_slice(device, &vec![1.0; elements]).expect("memory");
        let [first, second] = [0, 1].map(|_| Buffer::zeroed(device, elements).expect("memory"));
        [ones, first, second]
    }

    /// Queues the passes, and on a GPU an event that marks their end.
    fn queue(
        self,
        device: &Device,
        layer: &mut KasminaLayer<f32>,
        x: &Buffer<f32>,
        output: &mut Buffer<f32>,
    ) -> Option<Event> {
        let last = match device {
            Device::Cuda(gpu) => Some(Event::without_timing(gpu.device()).expect("an event")),
            _ => None,
        };
        for _ in 0..self.passes {
            layer.forward_into(x, output).expect("a pass");
        }
        if let (Some(last), Device::Cuda(gpu)) = (&last, device) {
            last.record(gpu.stream()).expect("a record");
        }
        last
    }

    /// Whether seed 1 was scaled by `factor` in every row, and the others not.
    #[track_caller]
    fn expect(self, y: &Buffer<f32>, factor: f32) {
        let y = y.to_vec().expect("a read");
        let expected = [1.0, factor, 1.0];
        for (row, values) in y.chunks_exact(3 * Self::CHUNK).enumerate() {
            for (seed, chunk) in values.chunks_exact(Self::CHUNK).enumerate() {
                assert!(
                    chunk.iter().all(|&value| value == expected[seed]),
                    "row {row}, seed {seed}: {chunk:?}, expected {factor} of seed 1"
                );
            }
        }
    }
}

/// Passes that are in flight read what was there when they were queued; the next one reads the new
/// weights, under the same id.
#[track_caller]
pub fn check_replacement_in_flight(device: &Device, work: InFlight) {
    let mut layer = InFlight::layer(device);
    let id = layer.load_blueprint(&InFlight::scale_by(2.0)).expect("room").id;
    graft(&mut layer, 1, id, 1.0);
    let [x, mut first, mut second] = work.input(device);
    // The first pass makes the plan, and on a GPU the kernel is loaded, which waits.
    layer.forward_into(&x, &mut first).expect("a pass");
    device.synchronize().expect("a pass");
    let last = work.queue(device, &mut layer, &x, &mut first);
    let was_in_flight = last.map(|last| !last.is_complete().expect("no failure"));
    layer.replace_blueprint(id, &InFlight::scale_by(7.0)).expect("loaded");
    layer.forward_into(&x, &mut second).expect("a pass");
    assert!(was_in_flight != Some(false), "nothing was in flight: the check saw nothing");
    work.expect(&first, 2.0);
    work.expect(&second, 7.0);
    assert_eq!(layer.blueprint(id).expect("loaded"), InFlight::scale_by(7.0));
    assert_eq!(layer.registry().replacements, 1);
}

/// As [`check_replacement_in_flight`], for a blueprint that goes while passes with it are in flight, and
/// another that takes its slot. No command of the way there may let the new weights overtake the passes,
/// which they do not, for each reads the state in the stream's order: a read or a copy on another stream
/// would be seen.
#[track_caller]
pub fn check_eviction_in_flight(device: &Device, work: InFlight) {
    let mut layer = InFlight::layer(device);
    let load = |layer: &mut KasminaLayer<f32>, factor| {
        layer.load_blueprint(&InFlight::scale_by(factor)).expect("room")
    };
    let id = load(&mut layer, 2.0).id;
    let kept = load(&mut layer, 3.0).id;
    graft(&mut layer, 1, id, 1.0);
    let [x, mut first, mut second] = work.input(device);
    layer.forward_into(&x, &mut first).expect("a pass");
    device.synchronize().expect("a pass");
    let last = work.queue(device, &mut layer, &x, &mut first);
    let was_in_flight = last.map(|last| !last.is_complete().expect("no failure"));
    layer.rollback(1).expect("GRAFTING");
    layer.advance(1).expect("a reset");
    layer.touch_blueprint(kept).expect("loaded");
    let next = load(&mut layer, 7.0);
    assert_eq!(next.evicted, Some(id));
    graft(&mut layer, 1, next.id, 1.0);
    layer.forward_into(&x, &mut second).expect("a pass");
    assert!(was_in_flight != Some(false), "nothing was in flight: the check saw nothing");
    work.expect(&first, 2.0);
    work.expect(&second, 7.0);
}

/// Blueprints that do not fit are refused.
#[track_caller]
pub fn check_unfit(device: &Device) {
    let mut layer =
        KasminaLayer::<f32>::builder(2, 8).max_blueprint_types(4).build(device).expect("one");
    let fit = |kind, weights, scale| Blueprint { kind, weights, scale };
    let before = snapshot(&layer);
    use BlueprintType::{ConvFilter, MlpExpansion, Scale};
    for (bad, word) in [
        (fit(MlpExpansion, vec![0.0; 3], 1.0), "3 weights"),
        (fit(MlpExpansion, vec![0.0; 5], 1.0), "5 weights"),
        (fit(MlpExpansion, vec![0.0, f32::NAN, 0.0, 0.0], 1.0), "finite"),
        (fit(MlpExpansion, vec![0.0; 4], f32::INFINITY), "finite"),
        (fit(Scale, vec![0.0; 4], 1.0), "SCALE"),
    ] {
        let why = layer.load_blueprint(&bad).expect_err(word).to_string();
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(snapshot(&layer), before);
    let id = layer.load_blueprint(&fit(ConvFilter, vec![1.0, 2.0, 3.0], 1.0)).expect("taps").id;
    assert_eq!(layer.blueprint(id).expect("loaded").weights, [1.0, 2.0, 3.0, 0.0]);
}

/// A state goes from one layer to another; a damaged one, or one that does not fit, goes nowhere.
#[track_caller]
pub fn check_loading(device: &Device) {
    let mut numbers = Numbers::new(5);
    let mut source = layer(device, 4);
    for kind in [BlueprintType::Scale, BlueprintType::AttentionHead, BlueprintType::MlpExpansion] {
        source.load_blueprint(&blueprint(kind, 4, &mut numbers)).expect("room");
    }
    source.unload_blueprint(2).expect("not in use");
    graft(&mut source, 0, 1, 0.5);
    graft(&mut source, 2, 3, 0.75);
    let (states, graft_states) =
        (source.state().read().expect("a read"), source.state().read_graft().expect("a read"));
    let crc = crc32_of_state(&states, &graft_states);
    let x = inputs::<f32>(device, 60, 3);
    let expected = source.forward(&x).expect("a pass").to_vec().expect("a read");

    // Fewer slots: the two that are loaded lie elsewhere.
    let mut target = layer(device, 2);
    let before = snapshot(&target);
    let mut bad = states.clone();
    bad.alpha[0] = 0.5000001;
    let why = target.load_state(bad, graft_states.clone(), Some(crc)).expect_err("damaged");
    assert!(why.to_string().contains("CRC-32"), "{why}");
    let mut bad = states.clone();
    bad.blueprint_scales[1] = f32::NAN;
    target.load_state(bad, graft_states.clone(), None).expect_err("no number");
    let mut other = KasminaLayer::<f32>::builder(3, 24).build(device).expect("a layer");
    other.load_state(states.clone(), graft_states.clone(), Some(crc)).expect_err("another shape");
    let mut small = layer(device, 1);
    small.load_state(states.clone(), graft_states.clone(), Some(crc)).expect_err("no room");
    assert!(small.blueprints().is_empty());
    assert_eq!(snapshot(&target), before);

    target.load_state(states, graft_states, Some(crc)).expect("a good state");
    assert_eq!(target.blueprints(), [1, 3]);
    let (states, graft_states) =
        (target.state().read().expect("a read"), target.state().read_graft().expect("a read"));
    assert_eq!(crc32_of_state(&states, &graft_states), crc);
    target.verify_integrity().expect("just loaded");
    let y = target.forward(&x).expect("a pass").to_vec().expect("a read");
    assert_eq!(y, expected);
}
