//! Products and matrices under the executor, by exchanges among the lanes of a warp. A lane reads and writes the rows
//! that it names.

use core::array;

use kasmina_simt::rt::{self, Access};
use kasmina_types::{bf16, f16};

use super::{Element, Fragment16x8};
use crate::shared::Place;
use crate::warp::FULL_MASK;
use crate::wgmma::Tf32;

const ROW_BYTES: usize = 16;
const LANES: usize = 32;

/// The product of an element's shape.
pub trait Product {
    #[doc(hidden)]
    unsafe fn product(d: &mut [f32; 4], a: [u32; 4], b: [u32; 2]);
}

macro_rules! products {
    ($($element:ty),*) => {$(
        impl Product for $element {
            #[track_caller]
            unsafe fn product(d: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
                multiply::<$element>(d, a, b);
            }
        }
    )*};
}
products!(bf16, f16, Tf32);

#[track_caller]
fn multiply<E: Element + crate::wgmma::Element>(d: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
    let all_a = [exchange([a[0], a[1]]), exchange([a[2], a[3]])];
    let all_b = exchange(b);
    let size = 4 / E::PACKED;
    let (mut of_a, mut of_b) = ([[0.0; 16]; 16], [[0.0; 8]; 16]);
    for lane in 0..LANES {
        for i in 0..4 {
            let word = all_a[i / 2][lane][i % 2].to_le_bytes();
            for (part, bytes) in word.chunks_exact(size).enumerate() {
                of_a[E::row_of_a(lane, i)][E::k_of_a(lane, i) + part] = E::decode(bytes);
            }
        }
        for i in 0..2 {
            let word = all_b[lane][i].to_le_bytes();
            for (part, bytes) in word.chunks_exact(size).enumerate() {
                of_b[E::k_of_b(lane, i) + part][E::column_of_b(lane)] = E::decode(bytes);
            }
        }
    }
    let lane = rt::linear_thread() as usize % LANES;
    for (i, sum) in d.iter_mut().enumerate() {
        let (row, column) = (Fragment16x8::row(lane, i), Fragment16x8::column(lane, i));
        for k in 0..<E as Element>::K {
            *sum += of_a[row][k] * of_b[k][column];
        }
    }
}

/// Two words of each lane.
#[track_caller]
fn exchange(words: [u32; 2]) -> [[u32; 2]; LANES] {
    let both = u64::from(words[0]) | u64::from(words[1]) << 32;
    rt::warp_exchange(FULL_MASK, both).map(|both| [both as u32, (both >> 32) as u32])
}

/// A number of matrices.
pub trait Matrices: Sized {
    #[doc(hidden)]
    unsafe fn load<const TRANSPOSED: bool>(row: Place) -> Self;
    #[doc(hidden)]
    unsafe fn store<const TRANSPOSED: bool>(row: Place, matrices: Self);
}

impl<const COUNT: usize> Matrices for [u32; COUNT] {
    #[track_caller]
    unsafe fn load<const TRANSPOSED: bool>(row: Place) -> Self {
        let lane = rt::linear_thread() as usize % LANES;
        let mut bytes = [0_u8; ROW_BYTES];
        if lane < 8 * COUNT {
            let from = row.accessed(ROW_BYTES, Access::Read);
            // SAFETY: the access was seen to be inside its array.
            bytes.copy_from_slice(unsafe { core::slice::from_raw_parts(from, ROW_BYTES) });
        }
        let mut rows = [[0_u16; 8]; LANES];
        for half in 0..2 {
            let part = u64::from_le_bytes(array::from_fn(|i| bytes[8 * half + i]));
            for (row, part) in rows.iter_mut().zip(rt::warp_exchange(FULL_MASK, part)) {
                for i in 0..4 {
                    row[4 * half + i] = (part >> (16 * i)) as u16;
                }
            }
        }
        array::from_fn(|matrix| {
            let element = |row: usize, column: usize| {
                let (row, column) = if TRANSPOSED { (column, row) } else { (row, column) };
                u32::from(rows[8 * matrix + row][column])
            };
            let (row, column) = (lane / 4, lane % 4 * 2);
            element(row, column) | element(row, column + 1) << 16
        })
    }

    #[track_caller]
    unsafe fn store<const TRANSPOSED: bool>(row: Place, matrices: Self) {
        let lane = rt::linear_thread() as usize % LANES;
        let (mine, my_row) = (lane / 8, lane % 8);
        let mut elements = [0_u16; 8];
        for (matrix, &word) in matrices.iter().enumerate() {
            let words = warp_words(word);
            if matrix == mine {
                elements = array::from_fn(|column| {
                    let (row, column) =
                        if TRANSPOSED { (column, my_row) } else { (my_row, column) };
                    (words[row * 4 + column / 2] >> (16 * (column % 2))) as u16
                });
            }
        }
        if mine < COUNT {
            let to = row.accessed(ROW_BYTES, Access::Write);
            for (i, element) in elements.iter().enumerate() {
                // SAFETY: the access was seen to be inside its array.
                unsafe { to.add(2 * i).cast::<u16>().write_unaligned(*element) };
            }
        }
    }
}

#[track_caller]
fn warp_words(word: u32) -> [u32; LANES] {
    rt::warp_exchange(FULL_MASK, u64::from(word)).map(|word| word as u32)
}
