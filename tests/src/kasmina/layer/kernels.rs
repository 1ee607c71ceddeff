//! Which kernels run, and how they compare.

use kasmina::Device;
use kasmina::kasmina::{
    BlendForward, ComparedKernel, KasminaLayer, KernelChoice, LayerElement, Variant, in_rollout,
};

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

/// The comparison mode sums up what every pass finds.
#[track_caller]
pub fn check_comparison_mode(device: &Device) {
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
}

/// A grid with a block for each tile gives the same bits as one that is resident; the report says which
/// block stands for the one that was preferred.
#[track_caller]
pub fn check_grids(device: &Device) {
    let x = inputs::<f32>(device, 300 * 6 * 40, 8);
    let run = |persistent| {
        let mut layer = busy_layer::<f32>(device, 40, |b| {
            b.enable_persistent_kernels(persistent).preferred_block_size(100)
        });
        let y = bits(layer.forward(&x).expect("a pass"));
        let g = bits(layer.backward(&x, &x).expect("a pass"));
        let gradients = layer.gradients().expect("a pass").read().expect("a read");
        let report = layer.report().expect("a report");
        if let Some(kernel) = report.forward_kernel {
            assert!(report.to_string().contains("nearest to 100"), "{report}");
            assert!(kernel.block_threads.is_multiple_of(32));
        }
        (y, g, format!("{gradients:?}"))
    };
    assert!(run(true) == run(false));
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
