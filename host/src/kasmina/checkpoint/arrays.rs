//! The state's arrays as tensors, and the CRC over them.

use crc32fast::Hasher;
use kasmina_types::schedule::DRIFT_WINDOW;
use safetensors::Dtype;

use crate::kasmina::files::{Extent, FileError, Shape, Tensor, TensorFile};
use crate::kasmina::{GraftStates, SeedStates};

impl SeedStates {
    /// Reads `lifecycle` U8 \[S\], `blueprint_id` U16 \[S\], `alpha` F32 \[S\], `blueprint_type` U8
    /// \[P\], `blueprint_weights` F32 \[P, C\] and `blueprint_scales` F32 \[P\]. Other tensors are left
    /// alone, and so is the file's metadata; [`Checkpoint`](super::Checkpoint) checks that.
    ///
    /// # Errors
    /// A tensor is missing or of another type or shape, or the state means nothing.
    pub fn read(file: &TensorFile) -> Result<Self, FileError> {
        let states = Self::read_with_linear(file)?;
        let path = file.path().to_owned();
        states.check().map_err(|source| FileError::State { path, source })?;
        Ok(states)
    }

    /// As [`Self::read`], where LINEAR blueprints are allowed: their matrices are another matter.
    pub(super) fn read_with_linear(file: &TensorFile) -> Result<Self, FileError> {
        let of_seeds = Shape { extents: [Extent::AtLeastOne("S")], why: "one for each seed" };
        let (lifecycle, [seeds]) = file.array("lifecycle", Dtype::U8, of_seeds)?;
        let of_seeds = per_seed(seeds);
        let (blueprint_id, _) = file.array("blueprint_id", Dtype::U16, of_seeds)?;
        let (alpha, _) = file.array("alpha", Dtype::F32, of_seeds)?;
        let of_blueprints = Shape { extents: [Extent::Any("P")], why: "one for each blueprint" };
        let (blueprint_type, [blueprints]) =
            file.array("blueprint_type", Dtype::U8, of_blueprints)?;
        let of_weights = Shape {
            extents: [Extent::Exactly(blueprints), Extent::AtLeastOne("C")],
            why: "one row for each blueprint of `blueprint_type`, one column for each of a seed",
        };
        let (blueprint_weights, [_, chunk_size]) =
            file.array("blueprint_weights", Dtype::F32, of_weights)?;
        let of_blueprints = Shape {
            extents: [Extent::Exactly(blueprints)],
            why: "one for each blueprint of `blueprint_type`",
        };
        let (blueprint_scales, _) = file.array("blueprint_scales", Dtype::F32, of_blueprints)?;
        let states = Self {
            lifecycle,
            blueprint_id,
            alpha,
            blueprint_type,
            blueprint_weights,
            blueprint_scales,
            chunk_size,
        };
        let path = file.path().to_owned();
        states.check_with_linear().map_err(|source| FileError::State { path, source })?;
        Ok(states)
    }
}

fn per_seed(seeds: usize) -> Shape<1> {
    Shape { extents: [Extent::Exactly(seeds)], why: "one for each seed of `lifecycle`" }
}

/// The schedules' state of `seeds` seeds. An array that the file lacks is missed only where it is
/// `complete`; else it is the default.
pub(super) fn read_graft(
    file: &TensorFile,
    seeds: usize,
    complete: bool,
) -> Result<GraftStates, FileError> {
    let mut states = GraftStates::new(seeds);
    macro_rules! read {
        ($($name:ident: $dtype:ident),*) => {$(
            if complete || file.raw(stringify!($name)).is_some() {
                states.$name = file.array(stringify!($name), Dtype::$dtype, per_seed(seeds))?.0;
            }
        )*};
    }
    read!(schedule: U8, alpha_target: F32, ramp_epochs: U32, epochs_in_state: U32);
    read!(baseline_loss: F32, drift_count: U32, embargo_epochs: U32);
    if complete || file.raw("drift_history").is_some() {
        let shape = Shape {
            extents: [Extent::Exactly(seeds), Extent::Exactly(DRIFT_WINDOW)],
            why: "the last drifts of each seed of `lifecycle`",
        };
        states.drift_history = file.array("drift_history", Dtype::F32, shape)?.0;
    }
    let path = file.path().to_owned();
    states.check(seeds).map_err(|source| FileError::State { path, source })?;
    Ok(states)
}

/// Every array of the state, in the order of their names.
pub(super) fn tensors<'a>(states: &'a SeedStates, graft: &'a GraftStates) -> Vec<Tensor<'a>> {
    let SeedStates { lifecycle, blueprint_id, alpha, .. } = states;
    let blueprints = [states.num_blueprints()];
    let weights = [states.num_blueprints(), states.chunk_size];
    let mut all = seed_tensors(lifecycle, blueprint_id, alpha, graft);
    all.extend([
        Tensor::of("blueprint_scales", Dtype::F32, &blueprints, &states.blueprint_scales),
        Tensor::of("blueprint_type", Dtype::U8, &blueprints, &states.blueprint_type),
        Tensor::of("blueprint_weights", Dtype::F32, &weights, &states.blueprint_weights),
    ]);
    all.sort_unstable_by_key(|tensor| tensor.name);
    all
}

/// The arrays of the state that have an element or a row for each seed.
pub(crate) fn seed_tensors<'a>(
    lifecycle: &'a [u8],
    blueprint_id: &'a [u16],
    alpha: &'a [f32],
    graft: &'a GraftStates,
) -> Vec<Tensor<'a>> {
    let seeds = [lifecycle.len()];
    let drifts = [lifecycle.len(), DRIFT_WINDOW];
    vec![
        Tensor::of("alpha", Dtype::F32, &seeds, alpha),
        Tensor::of("alpha_target", Dtype::F32, &seeds, &graft.alpha_target),
        Tensor::of("baseline_loss", Dtype::F32, &seeds, &graft.baseline_loss),
        Tensor::of("blueprint_id", Dtype::U16, &seeds, blueprint_id),
        Tensor::of("drift_count", Dtype::U32, &seeds, &graft.drift_count),
        Tensor::of("drift_history", Dtype::F32, &drifts, &graft.drift_history),
        Tensor::of("embargo_epochs", Dtype::U32, &seeds, &graft.embargo_epochs),
        Tensor::of("epochs_in_state", Dtype::U32, &seeds, &graft.epochs_in_state),
        Tensor::of("lifecycle", Dtype::U8, &seeds, lifecycle),
        Tensor::of("ramp_epochs", Dtype::U32, &seeds, &graft.ramp_epochs),
        Tensor::of("schedule", Dtype::U8, &seeds, &graft.schedule),
    ]
}

/// The CRC-32 (of zlib and PNG) of a layer's state: of each array in the order of the names, its name
/// and its type as in a safetensors header, both ended by a zero byte, the number of its extents and
/// the extents as 64-bit words, and its elements; everything little-endian. The `crc32` of a checkpoint
/// without a layer's memory is this value; with one it is [`Checkpoint::crc32`](super::Checkpoint::crc32).
///
/// ```
/// use kasmina::kasmina::checkpoint::crc32_of_state;
/// use kasmina::kasmina::{GraftStates, SeedStates};
///
/// let states = SeedStates { lifecycle: vec![0], chunk_size: 4, ..SeedStates::default() };
/// let crc = crc32_of_state(&states, &GraftStates::new(1));
/// let other = SeedStates { lifecycle: vec![1], ..states.clone() };
/// assert_eq!(crc, crc32_of_state(&states, &GraftStates::new(1)));
/// assert_ne!(crc, crc32_of_state(&other, &GraftStates::new(1)));
/// ```
pub fn crc32_of_state(states: &SeedStates, graft: &GraftStates) -> u32 {
    crc32_of_tensors(&tensors(states, graft))
}

/// [`crc32_of_state`] of other arrays, in the order that they have.
pub(crate) fn crc32_of_tensors(tensors: &[Tensor<'_>]) -> u32 {
    let mut hasher = Hasher::new();
    for tensor in tensors {
        add(&mut hasher, tensor.name, tensor.dtype, &tensor.shape, &tensor.bytes);
    }
    hasher.finalize()
}

/// [`crc32_of_state`] of every tensor of a file, those that are no part of the state too.
pub(super) fn crc32_of_file(file: &TensorFile) -> u32 {
    let mut hasher = Hasher::new();
    for name in file.names() {
        let (info, bytes) = file.raw(&name).expect("the file has a tensor of each of its names");
        add(&mut hasher, &name, info.dtype, &info.shape, bytes);
    }
    hasher.finalize()
}

fn add(hasher: &mut Hasher, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
    for text in [name, &dtype.to_string()] {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    }
    hasher.update(&(shape.len() as u64).to_le_bytes());
    for &extent in shape {
        hasher.update(&(extent as u64).to_le_bytes());
    }
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrays_are_in_the_order_of_their_names() {
        let (states, graft) = (SeedStates::default(), GraftStates::new(0));
        let names: Vec<_> = tensors(&states, &graft).iter().map(|t| t.name).collect();
        assert!(names.is_sorted() && names.len() == 14, "{names:?}");
    }

    #[test]
    fn the_crc_is_the_one_of_zlib() {
        let mut hasher = Hasher::new();
        hasher.update(b"123456789");
        assert_eq!(hasher.finalize(), 0xcbf4_3926);
    }

    fn states() -> SeedStates {
        SeedStates {
            lifecycle: vec![0, 3],
            blueprint_id: vec![0, 1],
            alpha: vec![0.0, 0.5],
            blueprint_type: vec![0, 4],
            blueprint_weights: vec![0.0, 0.0, 1.0, 2.0],
            blueprint_scales: vec![0.0, 1.5],
            chunk_size: 2,
        }
    }

    /// Every bit of every array counts.
    #[test]
    fn each_flipped_bit_changes_it() {
        let (states, graft) = (states(), GraftStates::new(2));
        let good = crc32_of_state(&states, &graft);
        for bit in 0..32 {
            let flip = |value: f32| f32::from_bits(value.to_bits() ^ 1 << bit);
            let mut bad = states.clone();
            bad.blueprint_weights[3] = flip(bad.blueprint_weights[3]);
            assert_ne!(good, crc32_of_state(&bad, &graft), "weights, bit {bit}");
            let mut bad = graft.clone();
            bad.baseline_loss[1] = flip(bad.baseline_loss[1]);
            assert_ne!(good, crc32_of_state(&states, &bad), "baseline, bit {bit}");
            let mut bad = states.clone();
            bad.alpha[0] = flip(bad.alpha[0]);
            assert_ne!(good, crc32_of_state(&bad, &graft), "alpha, bit {bit}");
        }
        for bit in 0..8 {
            let mut bad = states.clone();
            bad.lifecycle[0] ^= 1 << bit;
            assert_ne!(good, crc32_of_state(&bad, &graft), "lifecycle, bit {bit}");
        }
    }

    /// An element that moves from one array to the next is another state.
    #[test]
    fn boundaries_count() {
        let (states, graft) = (states(), GraftStates::new(2));
        let mut moved = states.clone();
        let last = moved.blueprint_weights.pop().expect("weights");
        moved.blueprint_scales.insert(0, last);
        assert_ne!(crc32_of_state(&states, &graft), crc32_of_state(&moved, &graft));
    }
}
