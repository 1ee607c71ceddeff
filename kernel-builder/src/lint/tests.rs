//! The lint on PTX that LLVM wrote, and on variations of it.

use super::*;

/// `if leader {…} barrier; if leader {…}` in a loop, compiled with MIR jump threading.
const THREADED: &str = include_str!("threaded.ptx");
/// The same source without jump threading.
const UNTHREADED: &str = include_str!("unthreaded.ptx");

fn lint(ptx: &str) -> LintReport {
    check(&Module::parse(ptx).unwrap(), &BTreeMap::new())
}

/// An entry with two arms of a branch on `%p1`, each with the text `arm`.
fn diamond(condition: &str, arm: &str) -> String {
    format!(
        ".version 8.0\n.visible .entry k(\n.param .u64 k_param_0\n)\n{{\n{condition}\n@%p1 bra $A;\n{arm}\nbra.uni \
         $B;\n$A:\n{arm}\n$B:\nret;\n}}\n"
    )
}

const BY_THREAD: &str = "mov.u32 %r1, %tid.x;\nsetp.eq.b32 %p1, %r1, 0;";
const BY_WARP: &str = "mov.u32 %r1, %tid.x;\nshr.u32 %r2, %r1, 7;\nsetp.eq.b32 %p1, %r2, 0;";
const BY_BLOCK: &str = "mov.u32 %r1, %ctaid.x;\nsetp.eq.b32 %p1, %r1, 0;";
const BY_MEMORY: &str = "ld.shared.b32 %r1, [flag];\nsetp.eq.b32 %p1, %r1, 0;";

#[test]
fn jump_threading_duplicates_the_barrier_of_a_loop() {
    let report = lint(THREADED);
    let [LintFinding::DuplicatedBarrier { function, instruction, .. }] = &report.errors[..] else {
        panic!("{report:?}");
    };
    assert_eq!((function.as_str(), instruction.as_str()), ("row_sum", "bar.sync 0"));
}

#[test]
fn without_jump_threading_the_same_loop_is_clean() {
    let report = lint(UNTHREADED);
    assert!(report.errors.is_empty() && report.warnings.is_empty(), "{report:?}");
}

#[test]
fn a_block_wide_barrier_may_not_stand_on_both_sides_of_a_thread_dependent_branch() {
    for condition in [BY_THREAD, BY_WARP] {
        assert_eq!(lint(&diamond(condition, "bar.sync 0;")).errors.len(), 1, "{condition}");
    }
    assert!(lint(&diamond(BY_BLOCK, "bar.sync 0;")).errors.is_empty());
}

#[test]
fn a_condition_from_memory_is_a_warning() {
    let report = lint(&diamond(BY_MEMORY, "bar.sync 0;"));
    assert_eq!((report.errors.len(), report.warnings.len()), (0, 1));
}

#[test]
fn warp_roles_may_each_meet_at_counted_barriers() {
    let arm = "bar.sync 1, 128;";
    assert!(lint(&diamond(BY_WARP, arm)).errors.is_empty());
    assert_eq!(lint(&diamond(BY_THREAD, arm)).errors.len(), 1);
    let compared = "mov.u32 %r1, %tid.x;\nsetp.lt.u32 %p1, %r1, 128;";
    assert!(lint(&diamond(compared, arm)).errors.is_empty());
    let ragged = "mov.u32 %r1, %tid.x;\nsetp.lt.u32 %p1, %r1, 100;";
    assert_eq!(lint(&diamond(ragged, arm)).errors.len(), 1);
}

#[test]
fn an_aligned_instruction_is_an_error_and_a_shuffle_a_warning_where_lanes_part() {
    let counts = |condition, arm| {
        let report = lint(&diamond(condition, arm));
        (report.errors.len(), report.warnings.len())
    };
    let shuffle = "shfl.sync.bfly.b32 %r8|%p8, %r9, 16, 31, -1;";
    let matrix = "wgmma.wait_group.sync.aligned 0;";
    assert_eq!((counts(BY_THREAD, shuffle), counts(BY_WARP, shuffle)), ((0, 1), (0, 0)));
    assert_eq!((counts(BY_THREAD, matrix), counts(BY_WARP, matrix)), ((1, 0), (0, 0)));
}

#[test]
fn a_branch_is_reported_once_and_by_its_worst() {
    let arm = "shfl.sync.bfly.b32 %r8, %r9, 16, 31, -1;\nbar.sync 0;\nbar.warp.sync -1;";
    let report = lint(&diamond(BY_THREAD, arm));
    assert_eq!((report.errors.len(), report.warnings.len()), (1, 0));
}

#[test]
fn a_broadcast_makes_a_condition_uniform_in_the_warp() {
    let condition = "mov.u32 %r1, %laneid;\nshfl.sync.idx.b32 %r2|%p2, %r1, 0, 31, -1;\nsetp.eq.b32 %p1, %r2, 0;";
    assert!(lint(&diamond(condition, "bar.sync 1, 64;")).errors.is_empty());
    assert_eq!(lint(&diamond(condition, "bar.sync 0;")).errors.len(), 1);
}

#[test]
fn what_a_barrier_reduces_is_the_same_for_all() {
    let condition = "mov.u32 %r1, %tid.x;\nsetp.eq.b32 %p2, %r1, 0;\nbar.red.or.pred %p1, 0, %p2;";
    assert!(lint(&diamond(condition, "bar.sync 0;")).errors.is_empty());
}

#[test]
fn a_value_that_a_divergent_branch_chooses_is_divergent() {
    let condition = "mov.u32 %r1, %tid.x;\nmov.b32 %r2, 0;\nsetp.eq.b32 %p3, %r1, 0;\n@%p3 bra $S;\nmov.b32 %r2, \
                     1;\n$S:\nsetp.eq.b32 %p1, %r2, 0;";
    assert_eq!(lint(&diamond(condition, "bar.sync 0;")).errors.len(), 1);
}

/// A jump through a table reads its register: that the jump stands where threads have parted does not make it theirs.
#[test]
fn a_jump_through_a_table_writes_nothing() {
    let table = |index: &str| {
        format!(
            ".version 8.0\n.visible .entry k(\n.param .u64 k_param_0\n)\n{{\nmov.u32 %r1, %tid.x;\n{index}\n\
             setp.eq.b32 %p3, %r1, 0;\n@%p3 bra $S;\n$L_brx_0: .branchtargets\n$A,\n$B;\nbrx.idx %r2, \
             $L_brx_0;\n$A:\nbar.sync 0;\nbra.uni $S;\n$B:\nbar.sync 0;\n$S:\nret;\n}}\n"
        )
    };
    let read = lint(&table("ld.global.b32 %r2, [%rd1];"));
    assert_eq!((read.errors.len(), read.warnings.len()), (0, 1), "{read:?}");
    assert_eq!(lint(&table("and.b32 %r2, %r1, 1;")).errors.len(), 1);
}

#[test]
fn barriers_in_sequence_or_on_one_side_are_no_duplicates() {
    let ptx = diamond(BY_THREAD, "").replace("$B:\n", "$B:\nbar.sync 0;\nbar.sync 0;\n");
    assert!(lint(&ptx).errors.is_empty());
    let other_number = diamond(BY_THREAD, "bar.sync 1;").replacen("bar.sync 1;", "bar.sync 2;", 1);
    assert!(lint(&other_number).errors.is_empty());
}

#[test]
fn local_memory_has_to_be_declared() {
    let ptx = diamond(BY_BLOCK, "").replace("{\n", "{\n.local .align 4 .b8 __local_depot0[16];\n");
    assert!(matches!(&lint(&ptx).errors[..], [LintFinding::LocalMemory { line: 6, .. }]));
    let declared =
        LaunchBounds { block: 32, min_blocks: 1, cluster: None, arch: None, may_spill: true };
    let bounds = BTreeMap::from([("k".to_owned(), declared)]);
    assert!(check(&Module::parse(&ptx).unwrap(), &bounds).errors.is_empty());
}
