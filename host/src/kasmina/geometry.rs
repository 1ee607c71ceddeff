//! How the forward and the backward pass are cut among blocks.

use kasmina_types::blend_forward::{BlendGeometry, TMA_BOX, TMA_ELEMENT_BYTES};

/// Threads of a block of every instance; the tile table is checked to agree.
pub(crate) const BLOCK: u32 = 256;

/// Threads of a block that has a seed to itself; the tile table is checked to agree.
pub(crate) const SEED_BLOCK: u32 = 128;

/// Groups of rows a thread up to which a block has a seed to itself: measured at 32 to 4096 rows of 1000 seeds of 64
/// columns.
const FEW_GROUPS: u32 = 4;

/// Of more rows, only where the waves of blocks are no emptier than this.
const FULL_OF_SEEDS: f64 = 0.93;

/// Most seeds of such a pass: their numbers are products of 32 bits.
const MOST_SEEDS: u32 = 1 << 16;

/// A strip narrower than this many vectors would read less than 256 bytes of a row at a time.
const NARROWEST: u32 = 16;

/// Waves of blocks no emptier than this are as good as full ones.
const GOOD_ENOUGH: f64 = 0.95;

/// One wave no emptier than this is better than several whose blocks share seeds.
const NEARLY_FULL: f64 = 0.9;

/// Groups of rows a thread up to which such a wave is taken: measured at 32 to 4096 rows of 1000 seeds of 64 columns.
const MOST_GROUPS: u32 = 32;

/// Cuts `[batch, num_seeds · chunk_vectors]` vectors for a grid of `resident` blocks that take `rows`
/// rows a thread at a time.
pub(crate) fn cut(
    batch: u32,
    num_seeds: u32,
    chunk_vectors: u32,
    rows: u32,
    resident: u32,
) -> BlendGeometry {
    cut_within(batch, num_seeds, chunk_vectors, rows, resident, LIMITS)
}

/// Bytes of a row that the copy engine is to fetch at a time, at least.
const NARROWEST_BOX: u32 = 256;

/// Whether what a pass reads is the same for all seeds, or up to each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Boxes are as wide as they can be.
    Everything,
    /// A strip reads what one of its seeds needs: it has no more seeds than make a box of [`NARROWEST_BOX`].
    BySeed,
}

/// As [`cut`], for groups of rows that one bulk tensor copy fetches, of vectors of `vector_bytes`.
pub(crate) fn cut_into_boxes(
    batch: u32,
    num_seeds: u32,
    chunk_vectors: u32,
    rows: u32,
    resident: u32,
    vector_bytes: u32,
    reads: Reads,
) -> BlendGeometry {
    let widest = BLOCK.min(TMA_BOX * TMA_ELEMENT_BYTES / vector_bytes);
    let limits = Limits {
        widest,
        several: match reads {
            Reads::Everything => widest,
            Reads::BySeed => NARROWEST_BOX / vector_bytes,
        },
        // The copy engine moves multiples of 16 bytes.
        unit: 16_u32.div_ceil(vector_bytes),
        row_lanes: TMA_BOX / rows,
    };
    cut_within(batch, num_seeds, chunk_vectors, rows, resident, limits)
}

/// Where threads load their vectors, only the block's size limits a strip.
const LIMITS: Limits = Limits { widest: BLOCK, several: BLOCK, unit: 1, row_lanes: BLOCK };

/// What a strip has to obey.
#[derive(Clone, Copy)]
struct Limits {
    /// Vectors of the widest strip, a multiple of the unit.
    widest: u32,
    /// Vectors from which on a strip of whole chunks takes no further one.
    several: u32,
    /// Its vectors are a multiple of this; so are a chunk's.
    unit: u32,
    /// Rows side by side, at most.
    row_lanes: u32,
}

fn cut_within(
    batch: u32,
    num_seeds: u32,
    chunk_vectors: u32,
    rows: u32,
    resident: u32,
    limits: Limits,
) -> BlendGeometry {
    let one_wave = seeds_of_one_wave([batch, num_seeds, chunk_vectors], rows, resident, limits);
    let limits = match one_wave {
        Some(seeds) => Limits { several: seeds * chunk_vectors, ..limits },
        None => limits,
    };
    let (strip_vectors, strip_seeds, chunk_strips) = strip(num_seeds, chunk_vectors, limits);
    let row_lanes = (BLOCK / strip_vectors).min(batch.div_ceil(rows)).clamp(1, limits.row_lanes);
    let strips = num_seeds.div_ceil(strip_seeds) * chunk_strips;
    let groups = batch.div_ceil(rows * row_lanes);
    let slabs = if one_wave.is_some() { 1 } else { slabs(strips, groups, resident) };
    BlendGeometry {
        chunk_vectors,
        strip_vectors,
        strip_seeds,
        chunk_strips,
        strips,
        slabs,
        row_lanes,
        seed_stride: 0,
    }
}

/// Which batches a pass takes a block for each seed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batches {
    /// Short ones.
    Short,
    /// Long ones too, where the seeds fill the device.
    Filling,
    /// Whatever the seeds fill.
    Any,
}

/// A block for each seed; `None` for batches that are not among those, for chunks that are no power of two of vectors or
/// wider than a warp, and for more seeds or elements than 32 bits are enough for.
pub(crate) fn cut_by_seed(
    [batch, num_seeds, chunk_vectors]: [u32; 3],
    (lanes, rows): (u32, u32),
    resident: u32,
    batches: Batches,
) -> Option<BlendGeometry> {
    let row_lanes = SEED_BLOCK.checked_div(chunk_vectors)?;
    let groups = batch.div_ceil((row_lanes * rows).max(1));
    let places = num_seeds.next_multiple_of(resident.max(1));
    let full = f64::from(num_seeds) >= FULL_OF_SEEDS * f64::from(places);
    let padded = u64::from(groups) * u64::from(row_lanes * rows);
    let fits = chunk_vectors.is_power_of_two()
        && chunk_vectors <= 32
        && num_seeds < MOST_SEEDS
        && match batches {
            Batches::Short => groups <= FEW_GROUPS,
            Batches::Filling => groups <= FEW_GROUPS || full,
            Batches::Any => true,
        }
        && padded * u64::from(num_seeds) * u64::from(chunk_vectors * lanes) <= u64::from(u32::MAX);
    fits.then(|| BlendGeometry {
        chunk_vectors,
        strip_vectors: chunk_vectors,
        strip_seeds: 1,
        chunk_strips: 1,
        strips: num_seeds,
        slabs: 1,
        row_lanes,
        seed_stride: seed_stride(num_seeds),
    })
}

/// The number nearest below 0.62 of the seeds that is coprime to them: then its multiples are all of them, and no two
/// near each other at a short regular distance.
fn seed_stride(num_seeds: u32) -> u32 {
    let coprime = |&stride: &u32| {
        let (mut a, mut b) = (stride, num_seeds);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    (1..=(num_seeds * 62 / 100).max(1)).rev().find(coprime).unwrap_or(1)
}

/// The most seeds of a strip with which the strips, not cut into slabs, fill the device once and threads with columns
/// their blocks: then no block waits for another's part. `None` where no number does, and for a batch that is long
/// enough for wide strips to be worth more.
fn seeds_of_one_wave(
    [batch, num_seeds, chunk_vectors]: [u32; 3],
    rows: u32,
    resident: u32,
    limits: Limits,
) -> Option<u32> {
    let most = limits.widest.min(limits.several) / chunk_vectors;
    let good = |&seeds: &u32| {
        let (strips, vectors) = (num_seeds.div_ceil(seeds), seeds * chunk_vectors);
        let row_lanes = BLOCK / vectors;
        let full =
            |some: u32, all: u32| some <= all && f64::from(some) >= NEARLY_FULL * f64::from(all);
        full(strips, resident)
            && full(row_lanes * vectors, BLOCK)
            && batch <= MOST_GROUPS * rows * row_lanes
    };
    let wide_enough = |seeds: &u32| seeds * chunk_vectors >= NARROWEST;
    (1..=most.min(num_seeds)).rev().take_while(wide_enough).find(good)
}

/// Vectors and seeds of a strip, and strips of a chunk: whole chunks where several fit a block, else
/// the equal parts of one that leave the fewest threads without work.
fn strip(num_seeds: u32, chunk_vectors: u32, limits: Limits) -> (u32, u32, u32) {
    let Limits { widest, several, unit, .. } = limits;
    if chunk_vectors <= widest / 2 {
        let seeds = (widest / chunk_vectors).min(several.div_ceil(chunk_vectors)).min(num_seeds);
        return (seeds * chunk_vectors, seeds, 1);
    }
    let fewest = chunk_vectors.div_ceil(widest);
    let width = |strips: u32| chunk_vectors.div_ceil(strips).next_multiple_of(unit);
    let mut best = (width(fewest), fewest, 0.0);
    for strips in fewest..fewest + 16 {
        let width = width(strips);
        if width < NARROWEST {
            break;
        }
        let busy = f64::from(chunk_vectors) / (f64::from(strips) * f64::from(width));
        let used = busy * f64::from(BLOCK / width * width) / f64::from(BLOCK);
        if used > best.2 + 0.02 {
            best = (width, strips, used);
        }
    }
    // Narrow strips may cover the chunk with fewer than were asked for.
    (best.0, 1, chunk_vectors.div_ceil(best.0))
}

/// Blocks that share a strip's rows: the fewest whose waves over the device are nearly full, for each
/// more is one more part to merge.
pub(crate) fn slabs(strips: u32, groups: u32, resident: u32) -> u32 {
    let fill = |slabs: u32| {
        let tiles = u64::from(strips) * u64::from(slabs);
        tiles as f64 / (tiles.div_ceil(u64::from(resident)) * u64::from(resident)) as f64
    };
    let most = groups.min((8 * resident).div_ceil(strips)).max(1);
    let mut best = 1;
    for slabs in 1..=most {
        if fill(slabs) >= GOOD_ENOUGH {
            return slabs;
        }
        if fill(slabs) > fill(best) {
            best = slabs;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasmina_types::tiles::TILES;

    #[test]
    fn the_block_is_the_tile_tables() {
        for tile in TILES.iter().filter(|tile| tile.family.starts_with("blend_")) {
            let threads = match tile.family.rsplit('_').next() {
                Some("seed") => SEED_BLOCK,
                // One warp more fetches.
                Some("tma") => BLOCK + 32,
                _ => BLOCK,
            };
            assert_eq!(tile.block_threads, threads, "{}", tile.entry);
        }
    }

    /// Every vector of every row belongs to exactly one thread of one tile, as the kernel reads it.
    #[test]
    fn strips_cover_every_vector_once() {
        for chunk_vectors in (1..=600).chain([1024, 1250, 5000]) {
            for num_seeds in [1, 3, 7] {
                check_cover(cut(37, num_seeds, chunk_vectors, 4, 264), num_seeds, chunk_vectors);
            }
        }
    }

    /// The same of boxes, which are multiples of 16 bytes and no larger than the copy engine takes.
    #[test]
    fn boxes_cover_every_vector_once() {
        for (vector_bytes, unit) in [(16, 1), (8, 2)] {
            for chunk_vectors in (1..=600).chain([1024, 1250, 5000]).map(|v| v * unit) {
                let shapes = [(1, 1, 4), (3, 37, 8), (7, 4096, 4)];
                let reads = [Reads::Everything, Reads::BySeed];
                for ((num_seeds, batch, rows), reads) in
                    shapes.into_iter().flat_map(|shape| reads.map(|reads| (shape, reads)))
                {
                    let v = vector_bytes;
                    let g = cut_into_boxes(batch, num_seeds, chunk_vectors, rows, 264, v, reads);
                    assert!(g.strip_vectors.is_multiple_of(unit), "{g:?}");
                    let elements = g.strip_vectors * vector_bytes / TMA_ELEMENT_BYTES;
                    assert!(elements <= TMA_BOX && rows * g.row_lanes <= TMA_BOX, "{g:?}");
                    check_cover(g, num_seeds, chunk_vectors);
                }
            }
        }
    }

    /// Seeds of 256 bytes each get a strip of their own, smaller ones share one; long ones are cut as ever.
    #[test]
    fn strips_that_read_by_seed_have_few_seeds() {
        for (chunk_vectors, vector_bytes, seeds) in
            [(16, 16, 1), (15, 16, 2), (1, 16, 16), (16, 8, 2), (32, 8, 1), (2, 8, 16)]
        {
            let v = vector_bytes;
            let cut = |reads| cut_into_boxes(4096, 1000, chunk_vectors, 4, 264, v, reads);
            assert_eq!(cut(Reads::BySeed).strip_seeds, seeds, "{chunk_vectors} of {v} bytes");
            assert!(cut(Reads::Everything).strip_seeds > seeds);
        }
        let cut = |reads| cut_into_boxes(4096, 16, 1024, 4, 264, 16, reads);
        assert_eq!(cut(Reads::BySeed), cut(Reads::Everything));
    }

    /// 1000 seeds of 64 columns in few rows: four seeds a strip make 250 blocks, and none of them waits for another.
    #[test]
    fn few_rows_are_one_wave_without_slabs() {
        for batch in [1, 32, 512] {
            let g = cut(batch, 1000, 16, 4, 264);
            assert_eq!((g.strip_seeds, g.strips, g.slabs), (4, 250, 1), "{g:?}");
            assert!(g.finishes_seeds());
        }
        // What the executor's tests of whole seeds rely on.
        for (vectors, rows) in [(16, 4), (8, 2), (32, 4)] {
            let g = cut(45, 48, vectors, rows, 12);
            assert!(g.finishes_seeds() && g.strips == 12 && g.row_lanes > 1, "{g:?}");
        }
        let long = cut(513, 1000, 16, 4, 264);
        assert!(long.strip_seeds == 16 && long.slabs > 1 && !long.finishes_seeds(), "{long:?}");
        // No number of seeds makes a wave: too few of them, or too wide.
        for (seeds, vectors) in [(100, 16), (1000, 128), (16, 1024)] {
            assert_eq!(seeds_of_one_wave([32, seeds, vectors], 4, 264, LIMITS), None);
        }
        for (batch, seeds, vectors) in [(32, 250, 64), (7, 1001, 16), (100, 5000, 3)] {
            check_cover(cut(batch, seeds, vectors, 4, 264), seeds, vectors);
        }
    }

    #[test]
    fn blocks_that_have_a_seed_each_have_all_seeds() {
        let cut = |shape, batches| cut_by_seed(shape, (4, 4), 1056, batches);
        for num_seeds in (1..200).chain([1000, 4096, 65_535]) {
            let g = cut([32, num_seeds, 16], Batches::Short).unwrap();
            let mut blocks: Vec<u32> =
                (0..num_seeds).map(|block| block * g.seed_stride % num_seeds).collect();
            blocks.sort_unstable();
            assert!(blocks.into_iter().eq(0..num_seeds), "{num_seeds}: {g:?}");
            assert!(g.finishes_seeds() && g.row_lanes * g.strip_vectors == SEED_BLOCK);
        }
        assert_eq!(cut([32, 1000, 16], Batches::Short).unwrap().seed_stride, 619);
        // A chunk of no power of two of vectors, one wider than a warp, too many seeds, too many elements.
        for shape in [[32, 10, 15], [1, 10, 64], [32, 1 << 16, 1], [70_000, 1000, 16]] {
            assert_eq!(cut(shape, Batches::Filling), None, "{shape:?}");
        }
    }

    #[test]
    fn blocks_have_a_seed_each_of_few_rows_or_where_seeds_fill_the_device() {
        let cut = |batch, num_seeds, batches| {
            cut_by_seed([batch, num_seeds, 16], (4, 4), 1056, batches).is_some()
        };
        assert!(cut(128, 10, Batches::Short) && cut(128, 10, Batches::Filling));
        assert!(!cut(129, 1000, Batches::Short) && !cut(129, 10, Batches::Filling));
        assert!(cut(129, 1000, Batches::Filling) && cut(4096, 1000, Batches::Filling));
        assert!(!cut(4096, 1200, Batches::Filling) && cut(4096, 10_000, Batches::Filling));
        assert!(cut(4096, 10, Batches::Any));
    }

    #[track_caller]
    fn check_cover(g: BlendGeometry, num_seeds: u32, chunk_vectors: u32) {
        assert!(g.strip_vectors * g.row_lanes <= BLOCK && g.strip_vectors > 0);
        let mut seen = vec![0; (num_seeds * chunk_vectors) as usize];
        for strip in 0..g.strips {
            let (group, share) = (strip / g.chunk_strips, strip % g.chunk_strips);
            let first_seed = group * g.strip_seeds;
            let seeds = g.strip_seeds.min(num_seeds - first_seed);
            let first = share * g.strip_vectors;
            let vectors = if g.chunk_strips == 1 {
                seeds * chunk_vectors
            } else {
                g.strip_vectors.min(chunk_vectors - first)
            };
            assert!(vectors > 0, "{g:?}");
            for vector in 0..vectors {
                seen[(first_seed * chunk_vectors + first + vector) as usize] += 1;
            }
        }
        assert!(seen.iter().all(|&times| times == 1), "{chunk_vectors} × {num_seeds}: {g:?}");
    }

    #[test]
    fn few_threads_are_idle_and_waves_are_full() {
        for chunk_vectors in 1..=5000 {
            let g = cut(4096, 1000, chunk_vectors, 4, 264);
            let busy = f64::from(g.strip_vectors * g.row_lanes) / f64::from(BLOCK);
            assert!(busy >= 0.66, "{chunk_vectors}: {g:?}");
        }
        for (batch, seeds, vectors) in
            [(4096, 1000, 16), (4096, 16, 1024), (8192, 64, 256), (32, 1000, 16)]
        {
            let g = cut(batch, seeds, vectors, 4, 264);
            let tiles = f64::from(g.strips * g.slabs);
            assert!(tiles / (tiles / 264.0).ceil() / 264.0 >= 0.9, "{g:?}");
        }
    }
}
