#![no_main]
//! The text of `kasmina infer --model`: refused, or a few steps of its inference, or what that refuses.

use kasmina::Device;
use kasmina::information::ActiveInference;
use kasmina::information::active_inference::{InferenceOptions, ModelFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let ModelFile { model, belief, kappa, .. } = match ModelFile::from_json(text) {
        Ok(file) => file,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            return;
        }
    };
    let shape = (model.observations(), model.states());
    assert_eq!(model.jacobian().dim(), shape);
    let options = InferenceOptions { kappa, ..InferenceOptions::default() };
    let Ok(mut inference) = ActiveInference::new(&Device::Cpu, &[model], options) else { return };
    if inference.set_beliefs(&[belief]).is_err() {
        return;
    }
    let found = inference.infer(3).expect("model and belief fit").remove(0);
    assert!(found.steps == 3 || !found.distance_bound.is_finite(), "{found:?}");
    assert_eq!((found.belief.mean.len(), found.belief.variance.len()), (shape.1, shape.1));
});
