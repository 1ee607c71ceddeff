//! A layer under a profiler.

use kasmina::driver::Graph;
use kasmina::kasmina::{
    EpochReport, GradientClipping, KasminaLayer, LayerError, SeedEpoch, TelemetryReduction,
};
use kasmina::profile::{self, Profiler, Report};
use kasmina::{Buffer, BufferStatistics, Device, Error};

use super::inputs;
use super::steps::busy_layer;

fn counts(report: &Report, label: &str) -> Vec<(String, u64, u64)> {
    let of_label = report.scopes.iter().filter(|scope| scope.label.as_deref() == Some(label));
    of_label.map(|scope| (scope.name.clone(), scope.count, scope.bytes)).collect()
}

/// Passes, clipping, telemetry and commands are scopes with their bytes, under each layer's name.
#[track_caller]
pub fn check_scopes(device: &Device) {
    let profiler = Profiler::new(device).expect("events");
    let x = inputs::<f32>(device, 5 * 48, 1);
    let mut first = busy_layer::<f32>(device, 8, |b| {
        b.name("first")
            .profiler(profiler.clone())
            .gradient_clip(GradientClipping::GlobalNorm { limit: 0.1 })
            .telemetry_reduction_strategy(TelemetryReduction::Max)
    });
    let mut second = busy_layer::<f32>(device, 8, |b| b.name("second"));
    second.forward(&x).expect("a pass");
    second.set_profiler(profiler.clone()).expect("its device");
    profiler.reset().expect("idle");

    for _ in 0..3 {
        first.forward(&x).expect("a pass");
        first.backward(&x, &x).expect("a pass");
        second.forward(&x).expect("a pass");
        second.backward(&x, &x).expect("a pass");
    }
    first.telemetry().expect("on");
    first.set_alpha(0, 0.5).expect("a command");
    let epoch = first.end_epoch(&EpochReport::uniform(6, SeedEpoch::default())).expect("an epoch");
    assert!(epoch.transitions.is_empty(), "so it launches no update: {epoch:?}");
    first.count_clip_activations().expect("a read");

    let report = profiler.report().expect("times");
    let tensor = 4 * 5 * 48;
    let gradients = first.gradients().expect("a pass");
    let parameters =
        [&gradients.grad_weights, &gradients.grad_scales, &gradients.grad_alpha].map(Buffer::len);
    let clipped = 3 * 4 * parameters.iter().sum::<usize>() as u64;
    let expected = [
        (profile::FORWARD, 3, 3 * 2 * tensor),
        (profile::TELEMETRY_REDUCE, 3, 3 * tensor),
        (profile::BACKWARD, 3, 3 * 3 * tensor),
        (profile::CLIP, 3, 3 * clipped),
        (profile::TELEMETRY_READ, 1, 8 * 4 * 6),
        (profile::STATE_UPDATE, 1, 0),
        (profile::END_EPOCH, 1, 0),
    ];
    let mut found = counts(&report, "first");
    let mut expected = expected.map(|(name, count, bytes)| (name.to_owned(), count, bytes));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // It does not clip, and its forward pass reduces its telemetry itself.
    let names: Vec<_> = counts(&report, "second").into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [profile::FORWARD, profile::BACKWARD]);
    let forward = report.scope_of("first", profile::FORWARD).expect("three passes");
    assert!(forward.gb_per_s > Some(0.0) && forward.total_us > 0.0, "{forward:?}");
    assert_eq!(report.clock, if matches!(device, Device::Cuda(_)) { "events" } else { "wall" });
    let units = u64::from(first.clip_report().expect("on").expect("a pass").clipped_units);
    assert!(units > 0);
    assert_eq!(report.counter(profile::CLIP_ACTIVATIONS), Some(3 * units));

    // Told once, and what is turned off leaves no more.
    first.count_clip_activations().expect("a read");
    first.set_profiler(Profiler::disabled()).expect("any device");
    first.forward(&x).expect("a pass");
    let report = profiler.report().expect("times");
    assert_eq!(report.counter(profile::CLIP_ACTIVATIONS), Some(3 * units));
    assert_eq!(report.scope_of("first", profile::FORWARD).map(|scope| scope.count), Some(3));
}

/// A profiler of another device is refused: its times would be of other work.
#[track_caller]
pub fn check_other_profiler(device: &Device) {
    let other = if matches!(device, Device::Cpu) { Device::simt() } else { Device::Cpu };
    let profiler = Profiler::new(&other).expect("no events");
    let mut layer = busy_layer::<f32>(device, 8, |b| b.name("here"));
    for refused in [
        layer.set_profiler(profiler.clone()),
        KasminaLayer::<f32>::builder(2, 8)
            .name("here")
            .profiler(profiler.clone())
            .build(device)
            .map(drop),
    ] {
        let Err(Error::Layer(LayerError::OtherProfiler { layer, .. })) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(layer, "here");
    }
    layer.forward(&inputs::<f32>(device, 48, 1)).expect("as before");
    assert_eq!(profiler.report().expect("times").scopes, []);
}

/// A profiled step allocates and copies no more than another.
#[track_caller]
pub fn check_steady_steps(device: &Device) {
    let profiler = Profiler::new(device).expect("events");
    let mut layer = busy_layer::<f32>(device, 8, |b| {
        b.profiler(profiler.clone()).gradient_clip(GradientClipping::Value { limit: 0.1 })
    });
    let x = inputs::<f32>(device, 4 * 48, 1);
    let mut step = || {
        layer.forward(&x).expect("a pass");
        layer.backward(&x, &x).expect("a pass");
    };
    step();
    let counts = || {
        let gpu = match device {
            Device::Cuda(gpu) => {
                Some((gpu.pool().statistics().allocations, gpu.stream().transfers()))
            }
            _ => None,
        };
        (BufferStatistics::of_this_thread(), gpu)
    };
    let before = counts();
    (0..20).for_each(|_| step());
    assert_eq!(counts(), before);
    let report = profiler.report().expect("times");
    assert_eq!(report.scope(profile::BACKWARD).map(|scope| scope.count), Some(21));
}

/// The telemetry of replays joins the ring when the layer is told of them, and never takes the place of another pass.
#[track_caller]
pub fn check_replays(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let mut layer = KasminaLayer::<f32>::builder(2, 8)
        .telemetry_ring_capacity(2)
        .build(device)
        .expect("a layer");
    let why = layer.replayed(1).expect_err("nothing is captured");
    assert!(matches!(why, Error::Layer(LayerError::NothingCaptured { .. })), "{why}");
    let mut x = Buffer::<f32>::zeroed(device, 16).expect("memory");
    let mut y = Buffer::<f32>::zeroed(device, 16).expect("memory");
    layer.forward_into(&x, &mut y).expect("a pass");
    let graph = Graph::capture::<Error>(gpu.stream(), |_| layer.forward_into(&x, &mut y));
    let exec = graph.and_then(|graph| Ok(graph.instantiate()?)).expect("a graph");
    let mut fill = |value: f32| x.copy_from_slice(&[value; 16]).expect("a copy");
    let means = |layer: &mut KasminaLayer<f32>| -> Vec<(u64, f32)> {
        let history = layer.telemetry_history().expect("on");
        history.iter().map(|record| (record.pass, record.values.mean[0])).collect()
    };
    for value in [5.0, 6.0] {
        fill(value);
        exec.launch(gpu.stream()).expect("a replay");
    }
    assert_eq!(means(&mut layer), [(0, 0.0)]);
    layer.replayed(2).expect("a copy");
    fill(7.0);
    exec.launch(gpu.stream()).expect("a replay");
    assert_eq!(means(&mut layer), [(0, 0.0), (2, 6.0)]);
    assert_eq!(layer.telemetry().expect("on").expect("a pass").mean, [6.0, 6.0]);
    assert_eq!(layer.telemetry_overruns(), 1);
    layer.replayed(1).expect("a copy");
    assert_eq!(means(&mut layer), [(2, 6.0), (3, 7.0)]);
}
