#![no_main]
//! The standard input of `kasmina stream --input -`, behind a byte with the number of columns: refused by its line, or
//! rows of finite numbers, which are the same when they are written and read again.

use kasmina::kasmina::files::{RowError, RowReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, text)) = bytes.split_first() else { return };
    let columns = usize::from(first % 8) + 1;
    let lines = text.split(|&byte| byte == b'\n').count() as u64;
    let (values, why) = read(text, columns);
    if let Some(why) = why {
        let (RowError::Columns { line, .. }
        | RowError::Number { line, .. }
        | RowError::TooLong { line, .. }) = why
        else {
            panic!("{why}")
        };
        assert!((1..=lines).contains(&line), "{why}, of {lines}");
    }
    assert!(values.iter().all(|value| value.is_finite()));
    let lines = values.chunks(columns).map(|row| {
        let cells: Vec<String> = row.iter().map(f32::to_string).collect();
        cells.join(",") + "\n"
    });
    let (again, why) = read(lines.collect::<String>().as_bytes(), columns);
    assert!(why.is_none(), "{why:?}");
    assert!(values.iter().map(|v| v.to_bits()).eq(again.iter().map(|v| v.to_bits())));
});

/// The rows before the end, or before what is none.
fn read(text: &[u8], columns: usize) -> (Vec<f32>, Option<RowError>) {
    let (mut rows, mut values) = (RowReader::new(text, columns), Vec::new());
    loop {
        let before = values.len();
        match rows.read_into(&mut values) {
            Ok(true) => assert_eq!(values.len(), before + columns),
            Ok(false) => return (values, None),
            Err(why) => {
                values.truncate(before);
                return (values, Some(why));
            }
        }
    }
}
