#![no_main]
//! The bytes of `--metrics`, behind a byte with seeds and epochs: refused by column or line, or a report for
//! each epoch.

use kasmina::kasmina::EpochTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, csv)) = bytes.split_first() else { return };
    let seeds = usize::from(first % 8) + 1;
    let epochs = (first >= 128).then_some(usize::from(first / 8 % 16));
    let table = match EpochTable::from_reader("fuzzed", csv, epochs, seeds) {
        Ok(table) => table,
        Err(why) => {
            assert!(why.to_string().starts_with("fuzzed: "), "{why}");
            return;
        }
    };
    assert!(epochs.is_none_or(|epochs| epochs == table.epochs()));
    for epoch in 0..=table.epochs() {
        let report = table.report(epoch);
        assert_eq!(report.seeds.len(), seeds);
        assert!(report.gradient_norm.is_none_or(|norms| norms.len() == seeds));
        assert!(report.seeds.iter().all(|seed| !seed.loss.is_infinite()));
    }
});
