//! Stacks of layers: the same bits whatever is kept, and less memory where less is kept.

use kasmina::kasmina::{
    Checkpointing, KasminaLayer, LayerElement, LayerError, LayerStack, StabilityMode,
};
use kasmina::{Buffer, BufferStatistics, Device, Error};

use super::steps::busy_layer;
use super::{bits, inputs};
use crate::Narrow;

const LAYERS: usize = 7;

fn stack<T: LayerElement>(
    device: &Device,
    chunk_size: usize,
    mode: StabilityMode,
    checkpointing: Checkpointing,
) -> LayerStack<T> {
    let layer = |_| {
        busy_layer::<T>(device, chunk_size, |b| {
            b.numerical_stability_mode(mode).stability_bounds(-2.5, 2.5)
        })
    };
    LayerStack::with_checkpointing((0..LAYERS).map(layer).collect(), checkpointing)
        .expect("a stack")
}

/// Everything that two steps leave: outputs, input gradients, parameter gradients, telemetry.
fn run<T: Narrow + LayerElement>(
    stack: &mut LayerStack<T>,
    xs: &[Buffer<T>],
    g: &Buffer<T>,
) -> Vec<String> {
    let mut seen = Vec::new();
    for x in xs {
        seen.push(format!("{:?}", bits(stack.forward(x).expect("a pass"))));
        seen.push(format!("{:?}", bits(stack.backward(x, g).expect("a pass"))));
        for layer in stack.layers() {
            seen.push(format!("{:?}", layer.gradients().map(|g| g.read().expect("a read"))));
            seen.push(format!("{:?}", layer.telemetry().expect("on")));
        }
    }
    seen
}

/// Gradients are the same bits whatever is kept, in the adaptive mode too.
#[track_caller]
pub fn check_same_bits<T: Narrow + LayerElement>(device: &Device) {
    for mode in [StabilityMode::Fast, StabilityMode::Adaptive] {
        let g = inputs::<T>(device, 5 * 24, 77);
        // The second pass has outliers, so that the flags change between its layers and the third.
        let mut values = inputs::<T>(device, 5 * 24, 2).to_vec().expect("a read");
        for i in [0, 30, 61] {
            values[i] = T::narrow(3000.0);
        }
        let wild = Buffer::from_slice(device, &values).expect("memory");
        let xs = [inputs::<T>(device, 5 * 24, 1), wild, inputs::<T>(device, 5 * 24, 3)];
        let mut all = stack::<T>(device, 4, mode, Checkpointing::KeepAll);
        let expected = run(&mut all, &xs, &g);
        for every in [1, 2, 3, 4, LAYERS, LAYERS + 5] {
            let mut some = stack::<T>(device, 4, mode, Checkpointing::Every(every));
            let got = run(&mut some, &xs, &g);
            assert!(got == expected, "{mode:?}: every {every}");
        }
    }
}

/// The most memory that a step of a stack takes, in bytes: by the pool's statistics on a GPU, else by the
/// buffers' own.
fn peak_bytes(device: &Device, checkpointing: Checkpointing) -> usize {
    let in_use = || match device {
        Device::Cuda(gpu) => gpu.pool().statistics().in_use_bytes,
        _ => BufferStatistics::of_this_thread().in_use_bytes,
    };
    let rows = 512;
    let mut stack = stack::<f32>(device, 16, StabilityMode::Fast, checkpointing);
    let x = inputs::<f32>(device, rows * 96, 1);
    let before = in_use();
    BufferStatistics::reset_peak();
    stack.forward(&x).expect("a pass");
    stack.backward(&x, &x).expect("a pass");
    let peak = match device {
        Device::Cuda(gpu) => gpu.pool().statistics().peak_in_use_bytes,
        _ => BufferStatistics::of_this_thread().peak_in_use_bytes,
    };
    peak - before
}

/// A stack that recomputes takes less memory: of seven layers' inputs it holds four instead of six.
/// `fresh` gives a device whose statistics begin at nothing.
#[track_caller]
pub fn check_memory(fresh: impl Fn() -> Device) {
    let all = peak_bytes(&fresh(), Checkpointing::KeepAll);
    let some = peak_bytes(&fresh(), Checkpointing::Every(3));
    let activation = 512 * 96 * size_of::<f32>();
    // Kept 3 and 6, two between them: 4. All: 6. A pool counts whole classes, a quarter more at most.
    assert!(some + 2 * activation * 3 / 4 < all, "{some} of {all}, {activation} an input");
}

/// What does not fit together is refused, and so is a backward pass of nothing.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let layer = |hidden| KasminaLayer::<f32>::builder(2, hidden).build(device).expect("a layer");
    for (layers, mode, word) in [
        (vec![], Checkpointing::KeepAll, "no layers"),
        (vec![layer(8), layer(10)], Checkpointing::KeepAll, "10 columns"),
        (vec![layer(8)], Checkpointing::Every(0), "Every(0)"),
    ] {
        let Err(why) = LayerStack::with_checkpointing(layers, mode) else { panic!("{word}") };
        assert!(why.to_string().contains(word), "{why}");
    }
    let mut stack = LayerStack::new(vec![layer(8), layer(8)]).expect("a stack");
    let x = inputs::<f32>(device, 16, 1);
    let refused = stack.backward(&x, &x).map(drop);
    assert!(
        matches!(refused, Err(Error::Layer(LayerError::NoForward { batch: 2 }))),
        "{refused:?}"
    );
    stack.forward(&x).expect("a pass");
    stack.backward(&x, &x).expect("a pass");
    stack.forward(&inputs::<f32>(device, 17, 1)).map(drop).expect_err("a broken row");
    stack.backward(&x, &x).map(drop).expect_err("the last forward pass failed");
}
