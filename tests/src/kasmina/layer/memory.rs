//! Memory runs out.

use kasmina::kasmina::{GradientClipping, KasminaLayer, LayerConfig, TelemetryReduction};
use kasmina::{BufferStatistics, Device, Error};

use super::steps::busy_layer;
use super::{bits, inputs, snapshot};

/// Runs until there is room, letting one more buffer be made each time; every time before, memory is
/// exhausted. Answers how often.
#[track_caller]
fn starve<S>(
    on: &mut S,
    mut run: impl FnMut(&mut S) -> Result<(), Error>,
    mut unchanged: impl FnMut(&S),
) -> usize {
    let mut limit = BufferStatistics::of_this_thread().in_use_bytes;
    for failures in 0..200 {
        BufferStatistics::limit_in_use(Some(limit));
        let done = run(on);
        BufferStatistics::limit_in_use(None);
        match done {
            Ok(()) => return failures,
            Err(Error::OutOfMemory { requested_bytes }) => limit += requested_bytes,
            Err(other) => panic!("{other}"),
        }
        unchanged(on);
    }
    panic!("it asks for more and more");
}

/// Whichever buffer cannot be had, that is an error of its own type, the layer is as it was, and goes on
/// when there is memory again.
#[track_caller]
pub fn check_exhaustion(device: &Device) {
    let make = || {
        busy_layer::<f32>(device, 8, |b| {
            b.gradient_clip(GradientClipping::GlobalNorm { limit: 0.1 })
                .telemetry_reduction_strategy(TelemetryReduction::Max)
        })
    };
    let (mut layer, mut fed) = (make(), make());
    let x = inputs::<f32>(device, 7 * 48, 1);
    let before = snapshot(&layer);
    let state_stays = |layer: &KasminaLayer<f32>| {
        assert_eq!(snapshot(layer), before);
        layer.verify_integrity().expect("nothing has changed");
    };
    let forward = starve(&mut layer, |layer| layer.forward(&x).map(drop), state_stays);
    let backward = starve(&mut layer, |layer| layer.backward(&x, &x).map(drop), state_stays);
    // At least the output; the gradients, their clipping and the gradient at the input.
    assert!(forward >= 1 && backward >= 8, "{forward} and {backward} failures");
    let expected = [
        bits(fed.forward(&x).expect("a pass")),
        bits(fed.backward(&x, &x).expect("a pass")),
        bits(&fed.gradients().expect("a backward pass").grad_weights),
    ];
    let got = [
        bits(layer.forward(&x).expect("a pass")),
        bits(layer.backward(&x, &x).expect("a pass")),
        bits(&layer.gradients().expect("a backward pass").grad_weights),
    ];
    assert!(got == expected, "what failed before left something behind");

    let (states, graft) =
        (layer.state().read().expect("a read"), layer.state().read_graft().expect("a read"));
    let loads = starve(
        &mut layer,
        |layer| layer.load_state(states.clone(), graft.clone(), None),
        state_stays,
    );
    assert!(loads >= 10, "{loads} failures");
    assert_eq!(snapshot(&layer), before);
    let new = |_: &mut ()| KasminaLayer::<f32>::new(device, LayerConfig::new(4, 16)).map(drop);
    assert!(starve(&mut (), new, |()| ()) >= 20);
}
