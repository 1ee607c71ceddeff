//! Accesses outside of their view, misaligned ones, and shared memory that nobody wrote.

use kasmina_simt::rt::{self, Access};
use kasmina_simt::{Geometry, Report, Space};

use crate::support::{
    Global, Shared, block, checking, dynamic, geometry, me, report, report_of, shared,
};

#[test]
fn a_read_past_a_global_view() {
    let input = Global::new(&[0.0_f32; 60]);
    let report = report(64, || {
        input.read(me());
    });
    let text = report.to_string();
    let Report::OutOfBounds { touch, space, offset_bytes, bytes, len_bytes, misaligned, .. } =
        report
    else {
        panic!("{text}")
    };
    assert_eq!((touch.thread, touch.access), ([60, 0, 0], Access::Read));
    assert_eq!(touch.location.line(), 14);
    assert_eq!((space, offset_bytes, bytes, len_bytes), (Space::Global, 240, 4, 240));
    assert!(!misaligned);
    for part in ["out of bounds", "thread (60, 0, 0)", "memory.rs:14:", "240..244", "240 bytes"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_write_past_a_shared_array() {
    let report = report(64, || shared::<u32>(32).write(me(), 1));
    let Report::OutOfBounds { touch, space, .. } = report else { panic!("{report}") };
    assert_eq!((touch.thread, touch.access, space), ([32, 0, 0], Access::Write, Space::Shared));
}

#[test]
fn an_index_below_zero_that_wrapped() {
    let base = Box::new(0_u64);
    let address = std::ptr::from_ref(&*base).addr();
    let report = report(1, || {
        rt::access_global(address as *const u8, 8, usize::MAX - 3, 4, 4, Access::Read, true);
    });
    assert!(matches!(report, Report::OutOfBounds { misaligned: false, .. }), "{report}");
}

#[test]
fn a_vector_that_is_not_aligned() {
    let input = Global::new(&[0_u128; 4]);
    let base = std::ptr::from_ref(&input).addr();
    // The address alone is checked, nothing is read.
    let report = report(1, || {
        let aligned = (base + 15) & !15;
        rt::access_global(aligned as *const u8, 64, 4, 16, 16, Access::Read, false);
    });
    let text = report.to_string();
    assert!(matches!(report, Report::OutOfBounds { misaligned: true, align: 16, .. }), "{text}");
    assert!(text.contains("multiple of 16"), "{text}");
}

#[test]
fn bounds_are_checked_without_the_checking_mode() {
    let input = Global::new(&[0_u32; 4]);
    let run = checking().checks(false).launch("bounds", geometry(1, 32), &|| {
        input.read(me());
    });
    assert!(matches!(report_of(run), Report::OutOfBounds { .. }));
}

#[test]
fn shared_memory_outside_of_the_block_s() {
    let outside = 0_u32;
    let address = std::ptr::from_ref(&outside).addr();
    let report = report(1, || {
        rt::access_shared(address as *const u8, 4, 0, 4, 4, Access::Write);
    });
    assert!(matches!(report, Report::OutOfBounds { space: Space::Shared, .. }), "{report}");
}

#[test]
fn a_static_array_that_nobody_wrote() {
    let report = report(32, || {
        let sums = shared::<f32>(32);
        if me() < 31 {
            sums.write(me(), 1.0);
        }
        rt::barrier();
        sums.read(31 - me());
    });
    let text = report.to_string();
    let Report::UninitialisedShared { touch, offset_bytes, .. } = report else { panic!("{text}") };
    assert_eq!((touch.thread, offset_bytes), ([0, 0, 0], 124));
    assert!(text.contains("byte 124") && text.contains("memory.rs"), "{text}");
}

#[test]
fn a_half_written_word() {
    let report = report(1, || {
        let bytes: Shared<u16> = shared(2);
        bytes.write(0, 1);
        rt::access_shared(word_of(&bytes), 4, 0, 4, 4, Access::Read);
    });
    assert!(matches!(report, Report::UninitialisedShared { offset_bytes: 2, .. }), "{report}");
}

/// Where the array begins: the first array of a block without dynamic memory.
fn word_of(_: &Shared<u16>) -> *const u8 {
    rt::dynamic_shared().0
}

#[test]
fn an_atomic_on_a_counter_that_was_not_zeroed() {
    let report = report(32, || shared::<u32>(1).declare(0, Access::Atomic));
    assert!(matches!(report, Report::UninitialisedShared { .. }), "{report}");
    block(32, || shared::<u32>(1).declare(0, Access::AtomicStore)).unwrap();
}

#[test]
fn shared_memory_of_an_earlier_block() {
    let run = checking().launch("stale", geometry(2, 32), &|| {
        let array = shared::<u32>(32);
        if rt::block_idx()[0] == 0 {
            array.write(me(), 1);
        } else {
            array.read(me());
        }
    });
    let Report::UninitialisedShared { block, .. } = report_of(run) else { panic!("not reported") };
    assert_eq!(block, [1, 0, 0]);
}

#[test]
fn unwritten_shared_memory_is_poison() {
    let poison = Global::new(&[0_u32; 32]);
    for _ in 0..2 {
        let run = checking().checks(false).launch("poison", geometry(1, 32), &|| {
            let array = shared::<u32>(32);
            poison.write(me(), array.read(me()));
            array.write(me(), 3);
        });
        run.unwrap();
    }
    assert_eq!(poison.into_vec(), [u32::MAX; 32]);
}

#[test]
fn dynamic_and_static_arrays_do_not_overlap() {
    let geometry =
        Geometry { grid: [3, 1, 1], cluster: [1; 3], block: [64, 1, 1], dynamic_shared_bytes: 260 };
    let result = Global::new(&[0_u32; 3 * 64]);
    let run = checking().launch("arrays", geometry, &|| {
        assert!(rt::dynamic_shared().0.addr().is_multiple_of(1024));
        let (tail, bytes, wide) = (dynamic::<u32>(), shared::<u8>(3), shared::<u64>(64));
        tail.write(me(), me() as u32);
        wide.write(me(), 1000);
        if me() < 3 {
            bytes.write(me(), 7);
        }
        rt::barrier();
        let sum = u64::from(tail.read(63 - me())) + wide.read(63 - me()) + u64::from(bytes.read(2));
        result.write(rt::block_idx()[0] as usize * 64 + me(), sum as u32);
    });
    assert_eq!(run.unwrap().shared_bytes, 264 + 64 * 8);
    let expected: Vec<u32> = (0..3 * 64).map(|i| 63 - i % 64 + 1007).collect();
    assert_eq!(result.into_vec(), expected);
}
