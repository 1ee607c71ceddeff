//! Which variant of a pass runs: what was asked for, if it can, or what is fastest.

use super::options::Variant;
use crate::device::Device;
use crate::error::Error;

/// What decides on a variant.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) op: &'static str,
    pub(crate) device: &'a Device,
    /// Whether the device has the kernels that fetch through the copy engine.
    pub(crate) supported: bool,
    pub(crate) chunk_bytes: usize,
    /// Bytes of a row.
    pub(crate) row_bytes: usize,
    /// Elements of the input.
    pub(crate) elements: usize,
    /// Elements of the input from which on [`Variant::Tma`] was measured to be faster, if ever.
    pub(crate) tma_pays_from: Option<usize>,
}

/// What [`Variant::Auto`] takes where every variant can run. Measurements decide.
fn fastest(facts: Facts<'_>) -> Variant {
    match facts.tma_pays_from {
        Some(elements) if facts.elements >= elements => Variant::Tma,
        _ => Variant::Plain,
    }
}

/// The variant that runs: never [`Variant::Auto`]; nor [`Variant::Tuned`], which is as it where nothing is timed.
///
/// # Errors
/// [`Error::Variant`] where the one that was asked for cannot run.
pub(crate) fn choose(asked: Variant, facts: Facts<'_>) -> Result<Variant, Error> {
    let lacks = lacks(facts);
    match (asked, lacks) {
        (Variant::Plain, _) | (Variant::Auto | Variant::Tuned, Some(_)) => Ok(Variant::Plain),
        (Variant::Auto | Variant::Tuned, None) => Ok(fastest(facts)),
        (_, None) => Ok(asked),
        (variant, Some((needs, got))) => Err(Error::Variant { op: facts.op, variant, needs, got }),
    }
}

/// What keeps the copy engine from this pass: what it needs, and what there is.
fn lacks(facts: Facts<'_>) -> Option<(&'static str, String)> {
    let Facts { device, supported, chunk_bytes, row_bytes, .. } = facts;
    if !supported {
        return Some(("a GPU of compute capability 9.0, or the executor", device.to_string()));
    }
    if !chunk_bytes.is_multiple_of(16) {
        return Some(("chunks of a multiple of 16 bytes", format!("{chunk_bytes} bytes")));
    }
    // A box's column is an i32 of 8-byte elements.
    let limit = 8 * i32::MAX as usize;
    (row_bytes > limit).then(|| ("rows of less than 16 GiB", format!("{row_bytes} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_run_is_refused_where_it_is_asked_for_and_avoided_elsewhere() {
        let device = Device::simt();
        let good = Facts {
            op: "op",
            device: &device,
            supported: true,
            chunk_bytes: 64,
            row_bytes: 640,
            elements: 1600,
            tma_pays_from: None,
        };
        assert_eq!(choose(Variant::Tma, good).unwrap(), Variant::Tma);
        assert_eq!(choose(Variant::TmaBulkStores, good).unwrap(), Variant::TmaBulkStores);
        assert_ne!(choose(Variant::Auto, good).unwrap(), Variant::Auto);
        for bad in [
            Facts { supported: false, ..good },
            Facts { chunk_bytes: 60, ..good },
            Facts { row_bytes: 1 << 35, ..good },
        ] {
            assert_eq!(choose(Variant::Auto, bad).unwrap(), Variant::Plain);
            assert_eq!(choose(Variant::Tuned, bad).unwrap(), Variant::Plain);
            assert_eq!(choose(Variant::Plain, bad).unwrap(), Variant::Plain);
            let refused = choose(Variant::Tma, bad);
            assert!(matches!(refused, Err(Error::Variant { op: "op", .. })), "{refused:?}");
        }
    }
    #[test]
    fn auto_takes_the_copy_engine_where_it_pays() {
        let device = Device::simt();
        let facts = |elements, tma_pays_from| Facts {
            op: "op",
            device: &device,
            supported: true,
            chunk_bytes: 64,
            row_bytes: 640,
            elements,
            tma_pays_from,
        };
        for (elements, pays_from, expected) in [
            (999, Some(1000), Variant::Plain),
            (1000, Some(1000), Variant::Tma),
            (usize::MAX, Some(1000), Variant::Tma),
            (usize::MAX, None, Variant::Plain),
        ] {
            assert_eq!(choose(Variant::Auto, facts(elements, pays_from)).unwrap(), expected);
            assert_eq!(choose(Variant::Tuned, facts(elements, pays_from)).unwrap(), expected);
            assert_eq!(choose(Variant::Plain, facts(elements, pays_from)).unwrap(), Variant::Plain);
        }
    }
}
