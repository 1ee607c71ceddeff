//! Which kernels run, and how they compare.

use kasmina::kasmina::{
    BlendForward, ComparedKernel, KasminaLayer, KernelChoice, LayerElement, Variant, in_rollout,
};
use kasmina::{Buffer, Device, Error};

use super::steps::busy_layer;
use super::{bits, inputs, snapshot};
use crate::Narrow;

/// Two kernels of one input: the same one differs nowhere, the reference no more than roundings do; and
/// the comparison leaves nothing behind.
#[track_caller]
pub fn check_comparison<T: Narrow + LayerElement>(device: &Device) {
    let mut layer = busy_layer::<T>(device, 8, |b| b);
    let x = inputs::<T>(device, 9 * 48, 4);
    layer.forward(&x).expect("a pass");
    let (before, passes) = (snapshot(&layer), layer.report().expect("one").telemetry_passes);
    let same = layer.compare_kernels(&x, ComparedKernel::Own, ComparedKernel::Own).expect("one");
    assert_eq!((same.differing, same.max_absolute, same.elements), (0, 0.0, 9 * 48));
    assert!(same.telemetry.iter().all(|figure| figure.differing == 0));
    let other =
        layer.compare_kernels(&x, ComparedKernel::Own, ComparedKernel::Reference).expect("one");
    assert_eq!(other.second, "reference");
    assert!(other.max_relative <= T::TOLERANCE, "{other:?}");
    assert_eq!(other.nonfinite_differing, 0);
    assert!(other.telemetry.iter().all(|figure| figure.max_relative < 1e-4), "{other:?}");
    let kernel = layer.report().expect("a report").forward_kernel;
    let (cpu, name) = (matches!(device, Device::Cpu), kernel.map_or("reference", |k| k.entry));
    assert_eq!(cpu, kernel.is_none());
    assert_eq!(same.first, name);
    assert_eq!(snapshot(&layer), before);
    assert_eq!(layer.report().expect("one").telemetry_passes, passes);
}

/// Two backward kernels of one input, as their forward passes: blueprints lie elsewhere in the reference's state.
#[track_caller]
pub fn check_gradient_comparison<T: Narrow + LayerElement>(device: &Device) {
    use ComparedKernel::{Own, Reference};
    let mut layer = busy_layer::<T>(device, 8, |b| b);
    let (x, g) = (inputs::<T>(device, 9 * 48, 4), inputs::<T>(device, 9 * 48, 5));
    layer.backward(&x, &g).expect("a pass");
    let kept = |layer: &KasminaLayer<T>| {
        (snapshot(layer), layer.gradients().expect("a pass").read().expect("a read"))
    };
    let before = kept(&layer);
    let same = layer.compare_backward_kernels(&x, &g, Own, Own).expect("one");
    assert!(same.arrays.iter().all(|array| array.differing == 0), "{same:?}");
    let elements: Vec<_> = same.arrays.iter().map(|array| (array.array, array.elements)).collect();
    let (held, chunk, seeds) = (5, 8, 6);
    assert_eq!(
        elements,
        [
            ("grad_input", 9 * 48),
            ("grad_weights", held * chunk),
            ("grad_scales", held),
            ("grad_alpha", seeds),
            ("gradient_norm", seeds),
            ("gradient_variance", seeds),
            ("gradient_max", seeds),
        ]
    );
    let other = layer.compare_backward_kernels(&x, &g, Own, Reference).expect("one");
    for array in &other.arrays {
        let tolerance = if array.array == "grad_input" { T::TOLERANCE } else { 1e-4 };
        assert!(array.max_relative <= tolerance, "{other:?}");
        assert_eq!(array.nonfinite_differing, 0, "{other:?}");
    }
    assert_eq!(other.second, "reference");
    assert_eq!(kept(&layer), before);
    let short = inputs::<T>(device, 48, 6);
    assert!(layer.compare_backward_kernels(&x, &short, Own, Reference).is_err());
}

/// The comparison mode sums up what every pass finds, forward and backward, and the report has it.
#[track_caller]
pub fn check_comparison_mode(device: &Device) {
    for with in [ComparedKernel::Plain, ComparedKernel::Tma, ComparedKernel::Reference] {
        let layer = || {
            KasminaLayer::<f32>::builder(6, 48)
                .compare_kernels(true)
                .compare_with(with)
                .build(device)
        };
        if with == ComparedKernel::Tma && !has_tma(device) {
            let why = layer().map(drop).expect_err("the device has none").to_string();
            assert!(why.contains("`compare_with` is refused"), "{why}");
            continue;
        }
        let mut layer =
            busy_layer::<f32>(device, 8, |b| b.compare_kernels(true).compare_with(with));
        let (x, g) = (inputs::<f32>(device, 9 * 48, 4), inputs::<f32>(device, 9 * 48, 5));
        for _ in 0..2 {
            layer.forward(&x).expect("a pass");
            layer.backward(&x, &g).expect("a pass");
        }
        let report = layer.report().expect("a report");
        let forward = report.comparison.as_ref().expect("two passes");
        assert_eq!((forward.runs, forward.elements), (2, 2 * 9 * 48));
        let cpu = matches!(device, Device::Cpu);
        assert_eq!(forward.second.contains("_tma_"), with == ComparedKernel::Tma);
        assert_eq!(forward.second == "reference", cpu || with == ComparedKernel::Reference);
        let backward = report.gradient_comparison.as_ref().expect("two passes");
        let grad_input = backward.array("grad_input").expect("there");
        assert_eq!((backward.runs, grad_input.elements), (2, 2 * 9 * 48));
        assert!(backward.arrays.iter().all(|array| array.max_relative < 1e-4), "{backward:?}");
        assert_eq!(Some(backward), layer.gradient_comparison().expect("on"));
        let shown = report.to_string();
        assert!(shown.contains(&format!("against {}, 2 passes", backward.second)), "{shown}");
    }

    let mut layer = busy_layer::<f32>(device, 8, |b| b.compare_kernels(true));
    assert!(layer.comparison().expect("on").is_none());
    let x = inputs::<f32>(device, 9 * 48, 4);
    for _ in 0..3 {
        layer.forward(&x).expect("a pass");
    }
    let found = layer.comparison().expect("on").expect("three passes");
    assert_eq!((found.runs, found.elements), (3, 3 * 9 * 48));
    assert!(found.max_relative < 1e-5, "{found:?}");
    let off = busy_layer::<f32>(device, 8, |b| b);
    assert!(off.comparison().expect_err("off").to_string().contains("compare_kernels"));
    assert!(off.gradient_comparison().expect_err("off").to_string().contains("compare_kernels"));
}

/// A grid with a block for each tile gives the same bits as one that is resident; its blocks have the size that was
/// asked for.
#[track_caller]
pub fn check_grids(device: &Device) {
    let x = inputs::<f32>(device, 300 * 6 * 40, 8);
    let run = |persistent| {
        let mut layer = busy_layer::<f32>(device, 40, |b| {
            b.enable_persistent_kernels(persistent).preferred_block_size(256)
        });
        let y = bits(layer.forward(&x).expect("a pass"));
        let g = bits(layer.backward(&x, &x).expect("a pass"));
        let gradients = layer.gradients().expect("a pass").read().expect("a read");
        let report = layer.report().expect("a report");
        if let Some(kernel) = report.forward_kernel {
            let size = if kernel.entry.contains("_tma") { 288 } else { 256 };
            assert_eq!(kernel.block_threads, size, "{report}");
        }
        (y, g, format!("{gradients:?}"))
    };
    assert!(run(true) == run(false));
    check_block_sizes(device);
}

/// Blocks of the size that was asked for, which agree, and a size that the chunk has no kernel of is refused.
#[track_caller]
fn check_block_sizes(device: &Device) {
    let x = inputs::<f32>(device, 300 * 6 * 64, 9);
    let mut layers = [128, 256].map(|threads| {
        busy_layer::<f32>(device, 64, |b| {
            b.kernel(KernelChoice::Plain).preferred_block_size(threads)
        })
    });
    let [few, many] = &mut layers;
    let pairs = [
        (values(few.forward(&x)), values(many.forward(&x))),
        (values(few.backward(&x, &x)), values(many.backward(&x, &x))),
    ];
    for (few, many) in pairs {
        let far = few.iter().zip(&many).any(|(a, b)| (a - b).abs() > 1e-5 * (1.0 + b.abs()));
        assert!(!far, "blocks of 128 and of 256 threads disagree");
    }
    for (layer, threads) in layers.iter().zip([128, 256]) {
        let report = layer.report().expect("a report");
        for kernel in [report.forward_kernel, report.backward_kernel].into_iter().flatten() {
            assert_eq!(kernel.block_threads, threads, "{}", kernel.entry);
        }
    }
    let builder = KasminaLayer::<f32>::builder(6, 6 * 40).preferred_block_size(128);
    let why = builder.build(device).err().expect("no block takes such a chunk").to_string();
    assert!(why.contains("128") && why.contains("40"), "{why}");
}

fn values(pass: Result<&Buffer<f32>, Error>) -> Vec<f32> {
    pass.expect("a pass").to_vec().expect("a read")
}

/// A kernel that cannot be had is an error that says why.
#[track_caller]
pub fn check_forced_kernel(device: &Device) {
    let layer = |choice, tma| {
        KasminaLayer::<f32>::builder(2, 8).kernel(choice).enable_tma(tma).build(device)
    };
    assert!(layer(KernelChoice::Plain, false).is_ok());
    let Err(why) = layer(KernelChoice::Tma, false) else { panic!("tma is off") };
    assert!(why.to_string().contains("enable_tma"), "{why}");
    if !has_tma(device) {
        let Err(why) = layer(KernelChoice::Tma, true) else { panic!("the device has none") };
        assert!(why.to_string().contains("`kernel` is refused"), "{why}");
    }
    // Three columns are no 16 bytes.
    let odd = KasminaLayer::<f32>::builder(2, 6).kernel(KernelChoice::Tma).build(device);
    let Err(why) = odd else { panic!("a tensor map cannot describe it") };
    assert!(why.to_string().contains("`kernel` is refused"), "{why}");
}

fn has_tma(device: &Device) -> bool {
    BlendForward::<f32>::has_variant(device, 2, 4, Variant::Tma)
}

/// A forced variant is the one that runs; a rollout takes the new kernels in its share of the layers, and
/// the comparison holds the two against each other.
#[track_caller]
pub fn check_variants(device: &Device) {
    let x = inputs::<f32>(device, 9 * 48, 4);
    let runs = |choice, percent, id| {
        let mut layer = busy_layer::<f32>(device, 8, |b| {
            b.kernel(choice).rollout_percent(percent).layer_id(id)
        });
        layer.forward(&x).expect("a pass");
        layer.backward(&x, &x).expect("a pass");
        let report = layer.report().expect("a report");
        let chosen = in_rollout(&layer.config().name, id, percent);
        let falls_back = choice == KernelChoice::Rollout && chosen && !has_tma(device);
        assert_eq!(report.rollout_fallback.is_some(), falls_back, "{report}");
        let [forward, backward] = [report.forward_kernel, report.backward_kernel]
            .map(|kernel| kernel.is_some_and(|kernel| kernel.entry.contains("_tma_")));
        assert_eq!(forward, backward, "both passes take the layer's variant");
        forward
    };
    assert!(!runs(KernelChoice::Plain, 100, 0));
    for id in 0..12 {
        let chosen = in_rollout(&busy_layer::<f32>(device, 8, |b| b).config().name, id, 40);
        assert_eq!(runs(KernelChoice::Rollout, 40, id), has_tma(device) && chosen, "{id}");
        assert!(!runs(KernelChoice::Rollout, 0, id));
    }
    if has_tma(device) {
        assert!(runs(KernelChoice::Tma, 0, 0));
        // The backward pass has no bulk stores, and takes the copy engine all the same.
        assert!(runs(KernelChoice::TmaBulkStores, 0, 0));
        let mut layer = busy_layer::<f32>(device, 8, |b| b.kernel(KernelChoice::TmaBulkStores));
        layer.forward(&x).expect("a pass");
        let kernel = layer.report().expect("a report").forward_kernel.expect("a kernel runs");
        assert!(kernel.entry.ends_with("_bulk"), "{}", kernel.entry);
        let mut layer = busy_layer::<f32>(device, 8, |b| b);
        let found = layer.compare_kernels(&x, ComparedKernel::Tma, ComparedKernel::Plain);
        let found = found.expect("both can run");
        assert!(found.first.contains("_tma_") && !found.second.contains("_tma_"), "{found:?}");
        assert!(found.max_relative <= 1e-6, "{found:?}");
        assert!(found.telemetry.iter().all(|figure| figure.max_relative < 1e-5), "{found:?}");
    } else {
        let mut layer = busy_layer::<f32>(device, 8, |b| b);
        let refused = layer.compare_kernels(&x, ComparedKernel::Tma, ComparedKernel::Plain);
        assert!(refused.is_err());
    }
}

/// A tuned layer says what was chosen, and the next of its shape has the same; what runs is within the tolerance. A
/// GPU tries all that it has, other devices have nothing to try.
#[track_caller]
pub fn check_tuner(device: &Device) {
    let x = inputs::<f32>(device, 64 * 48, 4);
    let run = |choice| {
        let mut layer = busy_layer::<f32>(device, 8, |b| b.kernel(choice));
        let y = layer.forward(&x).expect("a pass").to_vec().expect("a read");
        layer.backward(&x, &x).expect("a pass");
        (y, layer.report().expect("a report"))
    };
    let (plain, report) = run(KernelChoice::Plain);
    assert_eq!((report.tuning, report.backward_tuning), (None, None));
    let (tuned, report) = run(KernelChoice::Tuned);
    let tuning = report.tuning.clone().expect("it was asked for");
    let backward = report.backward_tuning.clone().expect("of the backward pass too");
    let tried: Vec<_> = tuning.times.iter().map(|time| time.variant).collect();
    if matches!(device, Device::Cuda(_)) && has_tma(device) {
        assert_eq!(tried, [Variant::Plain, Variant::Tma, Variant::TmaBulkStores]);
        assert!(tuning.times.iter().all(|time| time.time_us > 0.0), "{tuning:?}");
        let kernel = report.forward_kernel.expect("a GPU has one").entry;
        assert_eq!(kernel.contains("_tma_"), tuning.chosen != Variant::Plain, "{kernel}");
        let tried: Vec<_> = backward.times.iter().map(|time| time.variant).collect();
        assert_eq!(tried, [Variant::Plain, Variant::Tma]);
        let kernel = report.backward_kernel.expect("a GPU has one").entry;
        assert_eq!(kernel.contains("_tma_"), backward.chosen != Variant::Plain, "{kernel}");
    } else {
        assert_eq!((tuning.chosen, &tried[..]), (Variant::Plain, &[][..]));
        assert_eq!((backward.chosen, backward.times.len()), (Variant::Plain, 0));
    }
    for said in
        [format!("\ntuned: {:?}", tuning.chosen), format!("backward tuned: {:?}", backward.chosen)]
    {
        assert!(report.to_string().contains(&said), "{said:?}: {report}");
    }
    for (tuned, plain) in tuned.iter().zip(&plain) {
        assert!((tuned - plain).abs() <= 1e-5 * plain.abs().max(1.0), "{tuned} {plain}");
    }
    let (again, report) = run(KernelChoice::Tuned);
    assert_eq!((again, report.tuning), (tuned, Some(tuning)));
    assert_eq!(report.backward_tuning, Some(backward));
}
