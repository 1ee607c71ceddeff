//! What a step costs, what it leaves, and what it refuses.

use kasmina::driver::Graph;
use kasmina::kasmina::{
    BlendForward, GradientClipping, KasminaLayer, KernelChoice, LayerElement, TelemetryReduce,
    TelemetryReduction, Variant,
};
use kasmina::types::{BlueprintType, ReductionStrategy};
use kasmina::{Buffer, BufferStatistics, Device, Error};

use super::{bits, blueprint, graft, inputs};
use crate::{Narrow, Numbers};

/// A layer with a grafting seed of every blueprint type.
pub fn busy_layer<T: LayerElement>(
    device: &Device,
    chunk_size: usize,
    change: impl FnOnce(
        kasmina::kasmina::KasminaLayerBuilder<T>,
    ) -> kasmina::kasmina::KasminaLayerBuilder<T>,
) -> KasminaLayer<T> {
    let mut numbers = Numbers::new(11);
    let builder = KasminaLayer::<T>::builder(6, 6 * chunk_size).max_blueprints(8);
    let mut layer = change(builder).build(device).expect("a layer");
    for (seed, kind) in BlueprintType::ALL.into_iter().enumerate() {
        let id = layer.load_blueprint(&blueprint(kind, chunk_size, &mut numbers)).expect("room").id;
        graft(&mut layer, seed, id, 0.25 + 0.1 * seed as f32);
    }
    layer
}

/// A step in the steady state makes no buffer, and copies nothing between host and device; on a GPU the
/// pool and the stream say so too. Several batch sizes, in turn.
#[track_caller]
pub fn check_steady_steps<T: Narrow + LayerElement>(device: &Device) {
    // Chunks of 16 bytes or more, which the copy engine takes.
    let has_tma = BlendForward::<T>::has_variant(device, 6, 8, Variant::Tma);
    let rounds = [
        (TelemetryReduction::Hierarchical, KernelChoice::Plain),
        (TelemetryReduction::Max, KernelChoice::Plain),
        (TelemetryReduction::Hierarchical, KernelChoice::Tma),
    ];
    for (strategy, kernel) in rounds {
        if kernel == KernelChoice::Tma && !has_tma {
            continue;
        }
        let mut layer = busy_layer::<T>(device, 8, |builder| {
            builder
                .kernel(kernel)
                .telemetry_reduction_strategy(strategy)
                .telemetry_ring_capacity(3)
                .enable_kernel_profiling(true)
                .gradient_clip(GradientClipping::GlobalNorm { limit: 0.1 })
        });
        let xs = [16, 5].map(|batch| inputs::<T>(device, batch * 48, batch as u64));
        let step = |layer: &mut KasminaLayer<T>| {
            for x in &xs {
                layer.forward(x).expect("a pass");
                layer.backward(x, x).expect("a pass");
            }
        };
        step(&mut layer);
        let report = layer.report().expect("a report");
        for ran in [report.forward_kernel, report.backward_kernel].into_iter().flatten() {
            let expected = kernel == KernelChoice::Tma;
            assert_eq!(ran.entry.contains("_tma_"), expected, "{}", ran.entry);
        }
        let counts = |device: &Device| {
            let buffers = BufferStatistics::of_this_thread();
            let gpu = match device {
                Device::Cuda(gpu) => {
                    Some((gpu.pool().statistics().allocations, gpu.stream().transfers()))
                }
                _ => None,
            };
            (buffers, gpu)
        };
        let before = counts(device);
        // More than the ring holds.
        for _ in 0..4 {
            step(&mut layer);
        }
        assert_eq!(counts(device), before, "a steady step allocated or copied");
        // What was clipped is added up on the device, and outlives another state.
        let clipped = u64::from(layer.clip_report().expect("on").expect("a pass").clipped_units);
        let performance = layer.performance().expect("on");
        assert_eq!((clipped > 0, performance.backward_passes), (true, 10));
        assert_eq!(performance.grad_clip_activations, 10 * clipped);
        let (states, graft) = (layer.state().read(), layer.state().read_graft());
        layer.load_state(states.expect("a read"), graft.expect("a read"), None).expect("its own");
        let performance = layer.performance().expect("on");
        assert_eq!(performance.grad_clip_activations, 10 * clipped);
        // The counters do count.
        layer.telemetry_history().expect("a read");
        assert!(counts(device).0.copies_out > before.0.copies_out);
    }
}

/// The ring on the device keeps the last passes.
#[track_caller]
pub fn check_telemetry_ring(device: &Device) {
    let mut layer = KasminaLayer::<f32>::builder(2, 8)
        .telemetry_ring_capacity(3)
        .telemetry_metrics_per_seed(2)
        .build(device)
        .expect("a layer");
    assert_eq!(layer.telemetry().expect("on"), None);
    let pass = |layer: &mut KasminaLayer<f32>, value: f32| {
        let x = Buffer::from_slice(device, &[value; 16]).expect("memory");
        layer.forward(&x).expect("a pass");
    };
    for value in 0..5 {
        pass(&mut layer, value as f32);
    }
    assert_eq!(layer.telemetry_overruns(), 2);
    let latest = layer.telemetry().expect("on").expect("a pass");
    assert_eq!((latest.mean, latest.count), (vec![4.0, 4.0], vec![8, 8]));
    let history = layer.telemetry_history().expect("on");
    let seen: Vec<_> = history.iter().map(|r| (r.pass, r.values.mean[1])).collect();
    assert_eq!(seen, [(2, 2.0), (3, 3.0), (4, 4.0)]);
    for value in 5..8 {
        pass(&mut layer, value as f32);
    }
    assert_eq!(layer.telemetry_overruns(), 2);
    pass(&mut layer, 8.0);
    assert_eq!(layer.telemetry_overruns(), 3);
    let shown: Vec<_> =
        layer.seed(0).expect("a seed").telemetry.iter().map(|f| (f.name, f.value)).collect();
    assert_eq!(shown, [("chunk_variance", 0.0), ("mean", 8.0)]);
    let report = layer.report().expect("a report");
    assert!(report.to_string().contains("DORMANT"), "{report}");
    let json = serde_json::to_value(&report).expect("a JSON form");
    assert_eq!(json["seeds"][1]["lifecycle"], "DORMANT");
    assert_eq!(json["telemetry_overruns"], 3);
}

/// The strategies are those of `TelemetryReduce`, and telemetry that is off is not there.
#[track_caller]
pub fn check_telemetry_strategies(device: &Device) {
    let x = inputs::<f32>(device, 7 * 48, 3);
    for (ours, theirs) in [
        (TelemetryReduction::Mean, ReductionStrategy::Mean),
        (TelemetryReduction::Max, ReductionStrategy::Max),
    ] {
        let mut layer = busy_layer::<f32>(device, 8, |b| b.telemetry_reduction_strategy(ours));
        layer.forward(&x).expect("a pass");
        let mut expected = kasmina::kasmina::TelemetryBuffers::new(device, 6).expect("memory");
        let mut reduce = TelemetryReduce::new(device, 7, 6, 8, theirs).expect("a plan");
        reduce.run(&x, &mut expected).expect("a run");
        let got = layer.telemetry().expect("on").expect("a pass");
        assert_eq!(got, expected.read().expect("a read"));
    }
    let mut layer = busy_layer::<f32>(device, 8, |b| {
        b.enable_telemetry(false).numerical_stability_mode(kasmina::kasmina::StabilityMode::Fast)
    });
    layer.forward(&x).expect("a pass");
    for why in [layer.telemetry().map(drop), layer.telemetry_history().map(drop)] {
        let why = why.expect_err("off").to_string();
        assert!(why.contains("enable_telemetry"), "{why}");
    }
    assert!(layer.seed(0).expect("a seed").telemetry.is_empty());
}

/// Inputs that do not fit are refused, and the layer goes on.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let mut layer = busy_layer::<f32>(device, 8, |b| b.enable_kernel_profiling(true));
    let good = inputs::<f32>(device, 96, 1);
    let expected = bits(layer.forward(&good).expect("a pass"));
    let before = super::snapshot(&layer);
    for elements in [0, 47, 49] {
        let bad = inputs::<f32>(device, elements, 1);
        let refused = [layer.forward(&bad).map(drop), layer.backward(&bad, &good).map(drop)];
        for refused in refused {
            assert!(matches!(refused, Err(Error::Length { buffer: "x", .. })), "{refused:?}");
        }
    }
    let mut short = Buffer::zeroed(device, 48).expect("memory");
    assert!(matches!(layer.forward_into(&good, &mut short), Err(Error::Length { .. })));
    assert!(matches!(layer.backward(&good, &short), Err(Error::Length { .. })));
    assert_eq!(super::snapshot(&layer), before);
    assert_eq!(bits(layer.forward(&good).expect("a pass")), expected);
    let performance = layer.performance().expect("profiling is on");
    assert_eq!((performance.error_count, performance.forward_passes), (2, 2));
    assert!(performance.kernel_time_ms > 0.0 && performance.memory_bandwidth_gbps > 0.0);
    layer.measure_telemetry_overhead(&good, 2).expect("a measurement");
    assert!(layer.performance().expect("on").telemetry_overhead_percent.is_some());
}

/// Values that are not finite, by mode: strict writes none, fast passes them on, adaptive is strict from
/// the pass after it saw them.
#[track_caller]
pub fn check_numerical_modes(device: &Device) {
    use kasmina::kasmina::StabilityMode::{Adaptive, Fast, Strict};
    let mut values = inputs::<f32>(device, 96, 5).to_vec().expect("a read");
    values[3] = f32::NAN;
    values[11] = f32::INFINITY;
    // Seed 5 is DORMANT: an identity in every mode.
    values[44] = f32::NAN;
    let x = Buffer::from_slice(device, &values).expect("memory");
    let finite = |y: &Buffer<f32>| -> usize {
        let y = y.to_vec().expect("a read");
        (0..96).filter(|i| i % 48 < 40 && !y[*i].is_finite()).count()
    };
    for (mode, first, second) in
        [(Fast, false, false), (Strict, true, true), (Adaptive, false, true)]
    {
        let mut layer = busy_layer::<f32>(device, 8, |b| {
            b.numerical_stability_mode(mode).stability_bounds(-3.0, 3.0)
        });
        assert_eq!(finite(layer.forward(&x).expect("a pass")) == 0, first, "{mode:?}");
        let y = layer.forward(&x).expect("a pass");
        assert_eq!(finite(y) == 0, second, "{mode:?}");
        let y = y.to_vec().expect("a read");
        assert_eq!(y[44].to_bits(), values[44].to_bits(), "{mode:?}");
        if second {
            assert!(y[..8].iter().all(|y| y.abs() <= 3.0), "{mode:?}: {y:?}");
        }
    }
}

/// Plans are kept for a bounded number of batch sizes, and the size does not change a row's result.
#[track_caller]
pub fn check_batch_sizes(device: &Device) {
    for (frugal, most) in [(false, 8), (true, 1)] {
        let mut layer = busy_layer::<f32>(device, 4, |b| b.memory_efficient_mode(frugal));
        for batch in 1..=10 {
            let x = inputs::<f32>(device, batch * 24, 9);
            let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
            let row = inputs::<f32>(device, 24, 9);
            let alone = layer.forward(&row).expect("a pass").to_vec().expect("a read");
            assert_eq!(y[..24], alone, "batch {batch}");
        }
        let planned = layer.report().expect("a report").planned_batches;
        assert!(planned.len() <= most && planned.ends_with(&[1]), "{planned:?}");
    }
}

/// A step captured into a graph gives the bits that it gives otherwise, and follows its input.
#[track_caller]
pub fn check_capture(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let mut layer = busy_layer::<f32>(device, 8, |b| b.enable_kernel_profiling(true));
    let mut x = inputs::<f32>(device, 96, 1);
    let mut outputs = [0, 1].map(|_| Buffer::<f32>::zeroed(device, 96).expect("memory"));
    let [y, dx] = &mut outputs;
    let mut step = |layer: &mut KasminaLayer<f32>, x: &Buffer<f32>| -> Result<(), Error> {
        layer.forward_into(x, y)?;
        layer.backward_into(x, x, dx)
    };
    step(&mut layer, &x).expect("a first step");
    let graph = Graph::capture::<Error>(gpu.stream(), |_| step(&mut layer, &x));
    let exec = graph.and_then(|graph| Ok(graph.instantiate()?)).expect("a graph");
    for seed in 2..4 {
        let values = inputs::<f32>(device, 96, seed).to_vec().expect("a read");
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
