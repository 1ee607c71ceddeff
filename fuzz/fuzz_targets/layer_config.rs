#![no_main]
//! A configuration's text, as JSON and as TOML: refused, or the same in both forms, and a layer can be made of it.

use kasmina::kasmina::{KasminaLayer, LayerConfig};
use kasmina::{Buffer, Device};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for config in [LayerConfig::from_json(text), LayerConfig::from_toml(text)] {
        let config = match config {
            Ok(config) => config,
            Err(why) => {
                assert!(!why.to_string().is_empty());
                continue;
            }
        };
        assert_eq!(LayerConfig::from_json(&config.to_json()).as_ref(), Ok(&config));
        assert_eq!(LayerConfig::from_toml(&config.to_toml()).as_ref(), Ok(&config));
        let small = config.hidden_dim <= 1 << 10
            && config.max_blueprints <= 1 << 8
            && config.telemetry_ring_capacity <= 1 << 6;
        if !small {
            continue;
        }
        let columns = config.hidden_dim;
        // Some options are refused for what the device has.
        let Ok(mut layer) = KasminaLayer::<f32>::new(&Device::Cpu, config) else { continue };
        let x = Buffer::from_slice(&Device::Cpu, &vec![1.0; columns]).expect("it is in memory");
        let y = layer.forward(&x).expect("the row fits").to_vec().expect("the host's memory");
        assert_eq!(y, vec![1.0; columns], "every seed is DORMANT");
    }
});
