//! Where a stream's rows come from: a tensor that is there whole, or lines that come one by one.

use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use crate::error::Error;
use crate::kasmina::LayerElement;
use crate::kasmina::files::{RowError, RowReader};

/// Rows in batches.
pub(super) trait Batches<T> {
    /// Puts the next rows into `into`, which holds a batch and is left as it is behind them; none at the end.
    ///
    /// # Errors
    /// A line that is no row.
    fn next(&mut self, into: &mut [T]) -> Result<Option<Arrived>, InputError>;
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Rows, 1 or more.
    pub(super) rows: usize,
    /// When the last of them came; none for what was there before the stream began.
    pub(super) at: Option<Instant>,
}

/// Standard input that is no stream of rows.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// A line that is no row.
    #[error("standard input, {0}")]
    Row(#[from] RowError),
    /// No thread to read it in.
    #[error(transparent)]
    Thread(#[from] Box<Error>),
}

/// The rows of a tensor.
pub(super) struct TensorRows<T> {
    values: Vec<T>,
    columns: usize,
    /// Whether the first row comes again after the last one.
    repeats: bool,
    next_row: usize,
}

impl<T: LayerElement> TensorRows<T> {
    /// At least one row of `columns`.
    pub(super) fn new(values: Vec<T>, columns: usize, repeats: bool) -> Self {
        Self { values, columns, repeats, next_row: 0 }
    }
}

impl<T: LayerElement> Batches<T> for TensorRows<T> {
    fn next(&mut self, into: &mut [T]) -> Result<Option<Arrived>, InputError> {
        let (all, wanted) = (self.values.len() / self.columns, into.len() / self.columns);
        let mut rows = 0;
        while rows < wanted {
            if self.next_row == all {
                if !self.repeats {
                    break;
                }
                self.next_row = 0;
            }
            let some = (wanted - rows).min(all - self.next_row);
            let from = &self.values[self.next_row * self.columns..][..some * self.columns];
            into[rows * self.columns..][..from.len()].copy_from_slice(from);
            self.next_row += some;
            rows += some;
        }
        Ok((rows > 0).then_some(Arrived { rows, at: None }))
    }
}

/// A batch of lines.
struct Block {
    values: Vec<f32>,
    arrived: Arrived,
}

/// Lines of comma-separated numbers, read by a thread of their own: when a row came does not depend on when the batch
/// before it was done.
pub(super) struct Lines {
    blocks: Receiver<Result<Block, InputError>>,
}

/// Of rows that were read and wait, at most: the reader stops then.
const MOST_WAITING_BYTES: usize = 64 << 20;
const MOST_WAITING_BATCHES: usize = 1024;

impl Lines {
    /// Reads standard input as rows of `columns` numbers, in batches of `batch` rows.
    pub(super) fn of_standard_input(columns: usize, batch: usize) -> Result<Self, InputError> {
        let bytes = columns * batch * size_of::<f32>();
        let waiting = (MOST_WAITING_BYTES / bytes).clamp(1, MOST_WAITING_BATCHES);
        let (send, blocks) = sync_channel(waiting);
        // Not waited for: where the stream ends first, the thread waits for lines that nobody wants.
        thread::Builder::new()
            .name("kasmina-lines".into())
            .spawn(move || read(io::stdin().lock(), columns, batch, &send))
            .map_err(|source| Box::new(Error::Thread { source }))?;
        Ok(Self { blocks })
    }
}

impl Batches<f32> for Lines {
    fn next(&mut self, into: &mut [f32]) -> Result<Option<Arrived>, InputError> {
        let Ok(block) = self.blocks.recv() else { return Ok(None) };
        let Block { values, arrived } = block?;
        into[..values.len()].copy_from_slice(&values);
        Ok(Some(arrived))
    }
}

/// Reads rows until the end, or a line that is none. Whoever wants no more of them need not say so.
fn read(
    input: impl BufRead,
    columns: usize,
    batch: usize,
    to: &SyncSender<Result<Block, InputError>>,
) {
    let mut lines = RowReader::new(input, columns);
    let room = || Vec::with_capacity(columns * batch);
    let mut values = room();
    loop {
        let is_there = match lines.read_into(&mut values) {
            Ok(is_there) => is_there,
            Err(why) => {
                let _ = to.send(Err(why.into()));
                return;
            }
        };
        let rows = values.len() / columns;
        if rows == batch || (rows > 0 && !is_there) {
            let arrived = Arrived { rows, at: Some(Instant::now()) };
            let block = Block { values: std::mem::replace(&mut values, room()), arrived };
            if to.send(Ok(block)).is_err() {
                return;
            }
        }
        if !is_there {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a text as rows of three numbers, two rows a batch.
    fn batches(text: &[u8]) -> (Vec<Vec<f32>>, Option<InputError>) {
        let (send, receive) = sync_channel(100);
        read(text, 3, 2, &send);
        drop(send);
        let mut all = Vec::new();
        for block in receive {
            match block {
                Ok(block) => {
                    assert_eq!(block.arrived.rows, block.values.len() / 3);
                    all.push(block.values);
                }
                Err(why) => return (all, Some(why)),
            }
        }
        (all, None)
    }

    #[test]
    fn lines_come_in_batches() {
        let (all, why) = batches(b"1,2,3\n\n 4, 5e0 ,-6\r\n7,8,9");
        assert!(why.is_none());
        assert_eq!(all, [vec![1.0, 2.0, 3.0, 4.0, 5.0, -6.0], vec![7.0, 8.0, 9.0]]);
        assert!(matches!(batches(b""), (all, None) if all.is_empty()));
        assert!(matches!(batches(b"\n \n"), (all, None) if all.is_empty()));
    }

    #[test]
    fn batches_before_a_line_that_is_no_row_come() {
        let (all, why) = batches(b"1,2,3\n4,5,6\n7;8;9\n");
        assert_eq!(all.len(), 1);
        let why = why.expect("a refusal").to_string();
        assert_eq!(why, "standard input, line 3: 1 numbers, expected 3, one for each column");
    }

    #[test]
    fn a_tensor_ends_or_begins_again() {
        let values: Vec<f32> = (0..6).map(|v| v as f32).collect();
        let mut rows = TensorRows::new(values.clone(), 2, false);
        let mut into = [9.0; 4];
        assert_eq!(rows.next(&mut into).unwrap(), Some(Arrived { rows: 2, at: None }));
        assert_eq!(into, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(rows.next(&mut into).unwrap(), Some(Arrived { rows: 1, at: None }));
        assert_eq!(into, [4.0, 5.0, 2.0, 3.0]);
        assert_eq!(rows.next(&mut into).unwrap(), None);
        let mut rows = TensorRows::new(values, 2, true);
        let mut into = [9.0; 8];
        for start in [0.0, 2.0, 4.0] {
            assert_eq!(rows.next(&mut into).unwrap().unwrap().rows, 4);
            assert_eq!(into[..2], [start, start + 1.0]);
        }
    }
}
