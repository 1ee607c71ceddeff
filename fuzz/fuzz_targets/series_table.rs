#![no_main]
//! The bytes of `kasmina te --input`, behind a byte with the transform and the options: refused by name and line, or an
//! estimate between its first two series, or what that refuses.

use kasmina::Device;
use kasmina::information::TransferEntropy;
use kasmina::information::transfer_entropy::{
    Algorithm, Precision, SeriesTable, SeriesTableError, Transform,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, csv)) = bytes.split_first() else { return };
    let bit = |place: u8| first >> place & 1 == 1;
    let transform =
        [Transform::None, Transform::Difference, Transform::Growth][usize::from(first % 3)];
    let table = match SeriesTable::from_bytes("fuzzed", csv, transform) {
        Ok(table) => table,
        Err(why) => {
            assert!(why.to_string().contains("fuzzed"), "{why}");
            return;
        }
    };
    let lines = csv.iter().filter(|&&byte| byte == b'\n').count() + 1;
    for name in table.names() {
        match table.column(name) {
            Ok(values) => assert_eq!(values.len(), table.samples()),
            Err(SeriesTableError::Value { line, column, .. }) => {
                assert!(column == *name && (1..=lines).contains(&line), "line {line} of {lines}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    let [target, source, ..] = table.series()[..] else { return };
    let [target, source] = [target, source].map(|name| table.column(name).expect("it is a series"));
    let options = TransferEntropy::new()
        .k(1 + usize::from(first >> 5))
        .algorithm(if bit(2) { Algorithm::Two } else { Algorithm::One })
        .precision(if bit(3) { Precision::F64 } else { Precision::F32 })
        .standardize(bit(4));
    if let Ok(found) = options.estimate(&Device::Cpu, target, source) {
        assert!(found.te_nats.is_finite(), "{found:?}");
    }
});
