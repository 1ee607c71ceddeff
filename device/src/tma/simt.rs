//! Bulk copies under the executor: the box is taken apart into contiguous pieces as the hardware documents it,
//! and the executor moves them when it is time.

use kasmina_simt::rt::{self, Access, Piece, Space, within};
use kasmina_types::{In, Out, SimtTensorMap, TensorMapHandle};

use super::L2Hint;
use crate::mbarrier::Mbarrier;
use crate::shared::Place;
use crate::swizzle::Swizzle;

/// Alignment of a box in shared memory, and of a plain copy.
const BOX_ALIGN: usize = 128;
const ALIGN: usize = 16;

#[track_caller]
pub(super) unsafe fn acquire_map(map: TensorMapHandle) {
    // SAFETY: the caller's contract.
    unsafe { read(map) };
}

#[track_caller]
pub(super) unsafe fn prefetch_map(map: TensorMapHandle) {
    // SAFETY: the caller's contract.
    unsafe { read(map) };
}

/// The executor's map behind a handle.
///
/// # Safety
/// The handle leads to 128 readable bytes.
#[track_caller]
unsafe fn read(handle: TensorMapHandle) -> SimtTensorMap {
    let map = handle.as_ptr().cast::<SimtTensorMap>();
    assert!(!map.is_null() && map.is_aligned(), "a tensor map is aligned to 64 bytes, got {map:?}");
    // SAFETY: the caller's contract; aligned as seen above.
    let map = unsafe { map.read() };
    assert!(
        map.magic == SimtTensorMap::MAGIC,
        "what the handle leads to is no tensor map that was made for the executor"
    );
    map
}

#[track_caller]
pub(super) unsafe fn load_2d(
    target: Place,
    map: TensorMapHandle,
    x: i32,
    y: i32,
    barrier: Mbarrier,
    _hint: L2Hint,
) {
    // SAFETY: the caller's contract.
    unsafe { load_box(target, &read(map), [x, y], barrier, None) };
}

#[track_caller]
pub(super) unsafe fn load_3d(
    target: Place,
    map: TensorMapHandle,
    [x, y, z]: [i32; 3],
    barrier: Mbarrier,
) {
    // SAFETY: the caller's contract.
    unsafe { load_box(target, &slice(&read(map), z), [x, y], barrier, None) };
}

/// To this block, or to the `blocks` of the cluster.
///
/// # Safety
/// As [`super::load_2d`], or [`super::load_2d_multicast`].
#[track_caller]
unsafe fn load_box(
    target: Place,
    map: &SimtTensorMap,
    at: [i32; 2],
    barrier: Mbarrier,
    blocks: Option<u16>,
) {
    let base = target.checked(map.box_bytes() as usize, box_align(map), Access::CopyWrite);
    let word = barrier.place().checked(8, 8, Access::Mbarrier);
    let pieces: Vec<Piece> = pieces(map, base, at).collect();
    // SAFETY: the pieces are inside the box, which is inside its array, and inside the tensor, which is readable
    // by the caller's contract.
    unsafe {
        match blocks {
            None => rt::bulk_load(pieces, word),
            Some(blocks) => rt::bulk_load_multicast(&pieces, word, blocks),
        }
    }
}

/// The two inner dimensions at index `z` of the outermost of three; without any row where that is outside.
#[track_caller]
fn slice(map: &SimtTensorMap, z: i32) -> SimtTensorMap {
    assert!(
        map.rank == 3 && map.copied(2) == 1,
        "a three-dimensional copy takes a map of rank 3 with a box of 1 outermost, this one has {} and {}",
        map.rank,
        map.copied(2)
    );
    let mut slice = SimtTensorMap { rank: 2, ..*map };
    if (0..map.dimensions[2] as i64).contains(&i64::from(z)) {
        slice.address += z as u64 * map.strides_bytes[1];
    } else {
        slice.dimensions[1] = 0;
    }
    slice
}

#[track_caller]
pub(super) unsafe fn load_2d_multicast(
    target: Place,
    map: TensorMapHandle,
    x: i32,
    y: i32,
    barrier: Mbarrier,
    _hint: L2Hint,
    blocks: u16,
) {
    // SAFETY: the caller's contract.
    unsafe { load_box(target, &read(map), [x, y], barrier, Some(blocks)) };
}

#[track_caller]
pub(super) unsafe fn load_3d_multicast(
    target: Place,
    map: TensorMapHandle,
    [x, y, z]: [i32; 3],
    barrier: Mbarrier,
    blocks: u16,
) {
    // SAFETY: the caller's contract.
    unsafe { load_box(target, &slice(&read(map), z), [x, y], barrier, Some(blocks)) };
}

#[track_caller]
pub(super) unsafe fn store_2d(source: Place, map: TensorMapHandle, x: i32, y: i32) {
    // SAFETY: the caller's contract.
    unsafe { store_box(source, &read(map), [x, y]) };
}

#[track_caller]
pub(super) unsafe fn store_3d(source: Place, map: TensorMapHandle, [x, y, z]: [i32; 3]) {
    // SAFETY: the caller's contract.
    unsafe { store_box(source, &slice(&read(map), z), [x, y]) };
}

/// # Safety
/// As [`super::store_2d`].
#[track_caller]
unsafe fn store_box(source: Place, map: &SimtTensorMap, at: [i32; 2]) {
    let base = source.checked(map.box_bytes() as usize, box_align(map), Access::CopyRead);
    let inside = pieces(map, base, at).filter(|piece| !piece.global.is_null()).collect();
    // SAFETY: as in `load_box`; the tensor is writable by the caller's contract.
    unsafe { rt::bulk_store(inside) };
}

#[track_caller]
pub(super) unsafe fn load(
    target: Place,
    source: &In<u8>,
    index: usize,
    bytes: u32,
    barrier: Mbarrier,
) {
    let bytes = whole(bytes);
    let shared = target.checked(bytes, ALIGN, Access::CopyWrite);
    within(Space::Global, source.as_ptr(), source.len(), index, bytes, ALIGN, Access::CopyRead);
    let word = barrier.place().checked(8, 8, Access::Mbarrier);
    let global = source.as_ptr().cast_mut().wrapping_add(index);
    // SAFETY: both ranges were seen to be inside.
    unsafe { rt::bulk_load(vec![Piece { shared, global, bytes }], word) };
}

#[track_caller]
pub(super) unsafe fn store(source: Place, target: &Out<u8>, index: usize, bytes: u32) {
    let bytes = whole(bytes);
    let shared = source.checked(bytes, ALIGN, Access::CopyRead);
    within(Space::Global, target.as_ptr(), target.len(), index, bytes, ALIGN, Access::CopyWrite);
    let global = target.as_ptr().wrapping_add(index);
    // SAFETY: both ranges were seen to be inside.
    unsafe { rt::bulk_store(vec![Piece { shared, global, bytes }]) };
}

#[track_caller]
fn whole(bytes: u32) -> usize {
    assert!(bytes.is_multiple_of(16), "a bulk copy moves multiples of 16 bytes, got {bytes}");
    bytes as usize
}

pub(super) fn commit_stores() {
    rt::bulk_commit();
}

#[track_caller]
pub(super) fn wait_stores_read<const PENDING: u32>() {
    rt::bulk_wait(PENDING, true);
}

#[track_caller]
pub(super) fn wait_stores<const PENDING: u32>() {
    rt::bulk_wait(PENDING, false);
}

#[track_caller]
pub(super) fn fence_proxy_async() {
    rt::proxy_fence();
}

/// A swizzled box begins where its pattern does.
fn box_align(map: &SimtTensorMap) -> usize {
    BOX_ALIGN.max(Swizzle::of_map(map.swizzle).pattern_bytes() as usize)
}

/// The pieces of the box at `[x, y]`, in the order of shared memory. Those outside of the tensor have no global
/// address.
#[track_caller]
fn pieces(map: &SimtTensorMap, base: *mut u8, at: [i32; 2]) -> impl Iterator<Item = Piece> {
    let map = *map;
    assert!(
        map.rank == 2,
        "a two-dimensional copy takes a map of rank 2, this one has {}",
        map.rank
    );
    let (columns, rows) = (map.copied(0), map.copied(1));
    let element = usize::from(map.element_bytes);
    (0..rows).flat_map(move |row| {
        let y = i64::from(at[1]) + i64::from(row * u32::from(map.element_strides[1]));
        let inside = (0..map.dimensions[1] as i64).contains(&y);
        let row_base = base.wrapping_add((row * columns) as usize * element);
        let source = inside.then(|| map.address + y as u64 * map.strides_bytes[0]);
        row_pieces(&map, row_base, source, at[0])
    })
}

/// One row of a box: runs of elements inside and outside of the tensor, cut where the swizzle does.
fn row_pieces(map: &SimtTensorMap, base: *mut u8, source: Option<u64>, x: i32) -> Vec<Piece> {
    let element = usize::from(map.element_bytes);
    let step = i64::from(map.element_strides[0]);
    let swizzle = Swizzle::of_map(map.swizzle);
    let global = |column: u32| -> *mut u8 {
        let x = i64::from(x) + i64::from(column) * step;
        match source {
            Some(source) if (0..map.dimensions[0] as i64).contains(&x) => {
                (source + x as u64 * element as u64) as *mut u8
            }
            _ => core::ptr::null_mut(),
        }
    };
    let mut pieces: Vec<Piece> = Vec::new();
    for column in 0..map.copied(0) {
        let plain = base.wrapping_add(column as usize * element);
        let shared = plain.map_addr(|plain| {
            let low = plain & 0x3_ffff;
            plain - low + swizzle.apply(low as u32) as usize
        });
        let global = global(column);
        if let Some(last) = pieces.last_mut()
            && last.shared.wrapping_add(last.bytes) == shared
            && (if last.global.is_null() {
                global.is_null()
            } else {
                last.global.wrapping_add(last.bytes) == global
            })
        {
            last.bytes += element;
        } else {
            pieces.push(Piece { shared, global, bytes: element });
        }
    }
    pieces
}
